"""Heartbeats arrive in time, carry results until they are known, and end with a final one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from arobust_otel.agent.heartbeat import HeartbeatSender
from arobust_otel.model.heartbeat import CAPTURE_STACKS, Command, CommandResult, Heartbeat
from tests.agent.server import MasterDouble, free_port, running


def compose(sequence: int, final: bool, results: tuple[CommandResult, ...]) -> Heartbeat:
    return Heartbeat("h/j", "j", 0, sequence, "h", 1, 2.0, 4, final=final, results=results)


@pytest.fixture(autouse=True)
def _a_slow_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arobust_otel.agent.heartbeat.CALL_SECONDS", 20.0)


@pytest.fixture
def master() -> Iterator[MasterDouble]:
    with running() as double:
        yield double


def test_the_first_comes_at_once_the_last_says_so_and_the_numbers_grow(master: MasterDouble) -> None:
    master.interval_seconds = 60
    sender = HeartbeatSender(master.url, compose, lambda command: None, interval_seconds=60)
    sender.start()
    assert master.wait_for(lambda: len(master.heartbeats) == 1, 20)
    sender.beat_now()
    assert master.wait_for(lambda: len(master.heartbeats) == 2, 20)
    assert sender.finish(20)
    assert [(beat.sequence, beat.final) for beat in master.heartbeats] == [(1, False), (2, False), (3, True)]


def test_the_master_says_how_often(master: MasterDouble) -> None:
    master.interval_seconds = 0.2
    sender = HeartbeatSender(master.url, compose, lambda command: None, interval_seconds=60)
    sender.start()
    assert master.wait_for(lambda: len(master.heartbeats) >= 4, 40)
    sender.finish(20)


def test_results_are_repeated_until_the_master_has_them() -> None:
    port = free_port()
    sender = HeartbeatSender(f"http://127.0.0.1:{port}", compose, lambda command: None, interval_seconds=0.1)
    result = CommandResult("c1", "done", "rank 2")
    sender.start()
    sender.add_result(result)
    deadline = time.monotonic() + 20
    while sender.failures < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    with running(port) as master:
        assert master.wait_for(lambda: any(beat.results for beat in master.heartbeats), 20)
        assert sender.finish(20)
        assert [beat.results for beat in master.heartbeats if beat.results] == [(result,)]


def test_commands_of_a_reply_are_handed_on(master: MasterDouble) -> None:
    order = Command("c1", CAPTURE_STACKS, "h/j", "j", 0, 5.0, (1, 2))
    master.commands = [order]
    taken: list[Command] = []
    sender = HeartbeatSender(master.url, compose, taken.append)
    sender.start()
    assert master.wait_for(lambda: len(master.heartbeats) == 1, 20)
    assert sender.finish(20)
    assert taken == [order]


def test_the_end_keeps_its_deadline_without_a_master() -> None:
    sender = HeartbeatSender(f"http://127.0.0.1:{free_port()}", compose, lambda command: None)
    sender.start()
    started = time.monotonic()
    assert not sender.finish(1.0)
    assert time.monotonic() - started < 10
