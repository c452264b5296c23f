"""Commands run once, only when they are meant for this agent, and only from a master that can be trusted."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from arobust_otel.agent.commands import CommandRunner, is_trusted
from arobust_otel.errors import CaptureError
from arobust_otel.model.heartbeat import CAPTURE_STACKS, Command, CommandResult
from arobust_otel.model.identity import JobIdentity

JOB = JobIdentity("job-1", 3, "host-a")
ORDER = Command("c1", CAPTURE_STACKS, "host-a/job-1", "job-1", 3, 5.0, (2,))


class Bench:
    """A command runner whose results are waited for."""

    def __init__(
        self, master: str = "http://127.0.0.1:1", run: Callable[[Command], str] | None = None
    ) -> None:
        self.results: queue.Queue[CommandResult] = queue.Queue()
        self.ran: list[str] = []
        self.identity = JOB
        kinds = {CAPTURE_STACKS: run or self._capture}
        self.runner = CommandRunner(master, lambda: self.identity, kinds, self.results.put)

    def _capture(self, command: Command) -> str:
        self.ran.append(command.id)
        return "rank 2: py-spy"

    def outcome(self, command: Command) -> CommandResult:
        self.runner.accept(command)
        return self.results.get(timeout=30)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.runner.close(2)


def test_a_command_is_run_and_answered(bench: Bench) -> None:
    assert bench.outcome(ORDER) == CommandResult("c1", "done", "rank 2: py-spy")


def test_a_command_is_run_once_however_often_it_comes(bench: Bench) -> None:
    bench.outcome(ORDER)
    bench.runner.accept(ORDER)
    bench.outcome(replace(ORDER, id="c2"))
    assert bench.ran == ["c1", "c2"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent": "host-b/job-1"},
        {"job_id": "job-2"},
        {"incarnation": 2},
        {"kind": "reboot"},
    ],
)
def test_what_is_meant_for_others_is_refused(bench: Bench, wrong: dict[str, object]) -> None:
    assert bench.outcome(replace(ORDER, **wrong)).outcome == "refused"  # type: ignore[arg-type]
    assert bench.ran == []


def test_an_expired_command_is_not_run(bench: Bench) -> None:
    assert bench.outcome(replace(ORDER, expires_in_seconds=0)).outcome == "expired"
    assert bench.ran == []


def test_a_command_that_expires_while_it_waits_is_not_run() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(command: Command) -> str:
        entered.set()
        leave.wait(10)
        return command.id

    bench = Bench(run=slow)
    bench.runner.accept(ORDER)
    assert entered.wait(30)
    late = replace(ORDER, id="c2", expires_in_seconds=1e-9)
    bench.runner.accept(late)
    leave.set()
    assert [bench.results.get(timeout=30).outcome for _ in range(2)] == ["done", "expired"]
    bench.runner.close(2)


def test_a_failure_is_told_in_words() -> None:
    def refuse(command: Command) -> str:
        raise CaptureError("ptrace is not allowed")

    bench = Bench(run=refuse)
    assert bench.outcome(ORDER) == CommandResult("c1", "failed", "ptrace is not allowed")
    bench.runner.close(2)


def test_commands_over_plain_http_from_elsewhere_are_refused() -> None:
    bench = Bench(master="http://10.1.2.3:4318")
    result = bench.outcome(ORDER)
    assert (result.outcome, "https" in result.detail, bench.ran) == ("refused", True, [])


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("http://127.0.0.1:4318", True),
        ("http://localhost:4318", True),
        ("http://[::1]:4318", True),
        ("https://master.example:4318", True),
        ("http://master.example:4318", False),
        ("http://127.0.0.1.example:4318", False),
    ],
)
def test_trust_is_loopback_or_tls(url: str, trusted: bool) -> None:
    assert is_trusted(url) is trusted
