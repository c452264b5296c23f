"""Large bodies are checked in few threads: also where clients give up, and then the next ones come."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from arobust_otel.journal import Appender
from arobust_otel.otlp.status import Encoding
from arobust_otel.receiver import intake as module
from arobust_otel.receiver.commit import GroupCommit
from arobust_otel.receiver.intake import CHECKS_AT_ONE_TIME, Intake, Upload
from arobust_otel.receiver.limits import ReceiverLimits
from tests.receiver.serving import exporting, metadata_of, receiving
from tests.receiver.test_http import metrics

LARGE = metrics(points=40_000)
LIMITS = ReceiverLimits()
ID = "0123456789abcdef" * 2


class SlowChecks:
    """Checks last until `let_go`; how many run, and how many ran at one time at most."""

    def __init__(self, check: Callable[..., Any]) -> None:
        self.first = threading.Event()
        self.let_go = threading.Event()
        self.running = self.most = self.begun = 0
        self._check = check
        self._lock = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        with self._lock:
            self.begun += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self.first.set()
        try:
            assert self.let_go.wait(30)
            return self._check(*arguments)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowChecks]:
    slow = SlowChecks(module._inflated_and_validated)
    monkeypatch.setattr(module, "_inflated_and_validated", slow)
    yield slow
    slow.let_go.set()


def until(what: str, condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_calls_whose_deadline_passed_hold_their_share_until_their_thread_ends(
    tmp_path: Path, checks: SlowChecks
) -> None:
    calls = 3 * CHECKS_AT_ONE_TIME
    assert len(LARGE) > LIMITS.inline_bytes
    with receiving(tmp_path) as receiver, receiver.channel() as channel:
        export, budget = exporting(channel, "metrics"), receiver.app.budget
        for _ in range(calls):
            with pytest.raises(grpc.RpcError) as error:
                export(LARGE, timeout=0.3)
            assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Those that wait for a thread end at once; those in a thread are counted until it has ended.
        held = CHECKS_AT_ONE_TIME * len(LARGE)
        until("the others ended", lambda: budget.held_bytes == held)
        assert (checks.running, checks.begun, receiver.grpc_app._in_flight) == (2, 2, 2)
        checks.let_go.set()
        until("they ended", lambda: not receiver.grpc_app._in_flight)
        assert (budget.held_bytes, checks.most) == (0, CHECKS_AT_ONE_TIME)
        assert receiver.records() == []
        assert export(LARGE, timeout=20) == b""
        assert [record.payload for record in receiver.records()] == [LARGE]


def test_a_batch_whose_caller_gave_up_is_taken_when_it_comes_again(
    tmp_path: Path, checks: SlowChecks
) -> None:
    named = metadata_of({"arobust_batch_id": ID})
    with receiving(tmp_path) as receiver, receiver.channel() as channel:
        export = exporting(channel, "metrics")
        with pytest.raises(grpc.RpcError):
            export(LARGE, timeout=0.3, metadata=named)
        again = export.future(LARGE, timeout=20, metadata=named)
        checks.let_go.set()
        assert again.result() == b""
        assert [record.payload for record in receiver.records()] == [LARGE]


@pytest.mark.parametrize("body", [gzip.compress(LARGE), gzip.compress(bytes(LIMITS.inline_bytes + 1))])
@pytest.mark.parametrize("times", [1, 3])
def test_a_cancelled_caller_leaves_with_its_thread(
    tmp_path: Path, checks: SlowChecks, body: bytes, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(intake: Intake) -> None:
        upload = Upload("metrics", body, Encoding.PROTOBUF, "gzip", "here")
        task = asyncio.create_task(intake.telemetry(upload))
        assert await asyncio.to_thread(checks.first.wait, 10)
        for _ in range(times):
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=0.1)
            assert not done
        checks.let_go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not checks.running
        assert intake.appender.next_offset == 0

    with Appender.open(tmp_path) as appender:
        commit = GroupCommit(appender)
        intake = Intake(appender, commit, LIMITS)
        with contextlib.closing(intake), contextlib.closing(commit):
            asyncio.run(story(intake))
    assert caplog.text == ""
