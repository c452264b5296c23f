"""What ranks of a node claim and hand over: files, positions and locks."""

from __future__ import annotations

import contextlib
import os
import signal as unix_signals
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel.agent import handover
from arobust_otel.agent.handover import HANDED, SENDING, Handover, is_alive
from arobust_otel.agent.lock import AgentLock, is_held
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.neighbour import Neighbour
from arobust_otel.collectors.logtail import Position
from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.controller.diagnosis import DiagnosisAgent
from tests.predecessor.support import until


class Followed:
    """What the node agent's collectors are told."""

    def __init__(self) -> None:
        self.state_file: Path | None = None
        self.followed: list[tuple[str, Position | None]] = []
        self.left: list[str] = []
        self.interval_seconds = 5.0

    def follow(self, path: str, position: Position | None = None) -> None:
        self.followed.append((path, position))

    def leave(self, paths: list[str]) -> None:
        self.left = list(paths)

    def collector(self, name: str) -> Followed:
        return self


def own(state: str, path: Path, pid: int | None = None, time_ns: int = 10) -> Handover:
    stat = read_stat(PROC, os.getpid())
    assert stat is not None
    position = {str(path): Position(1, 7)}
    periods = {"ResourceCollector": 1.0}
    return Handover(pid or os.getpid(), stat.start_ticks, state, time_ns, (str(path),), position, periods)


def test_what_a_living_process_sends_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    handover.store(tmp_path, own(SENDING, path))
    told = Followed()
    handover.HandoverReader(tmp_path).apply(told, 0)
    assert (told.left, told.followed) == ([str(path)], [])
    assert told.interval_seconds == 1.0


@pytest.mark.parametrize("value", ["handed", "its process has ended"])
def test_the_rest_is_followed_from_where_it_was_left(tmp_path: Path, value: str) -> None:
    path = tmp_path / "train.log"
    given = own(HANDED, path) if value == "handed" else own(SENDING, path, pid=2**22 - 3)
    handover.store(tmp_path, given)
    told, reader = Followed(), handover.HandoverReader(tmp_path)
    reader.apply(told, 0)
    reader.apply(told, 100)  # too soon
    reader.apply(told, 2_000_000_000)  # and nothing new
    assert told.followed == [(str(path), Position(1, 7))]
    assert told.left == []


def test_a_position_that_is_older_than_the_agents_own_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    handover.store(tmp_path, own(HANDED, path, time_ns=10))
    told = Followed()
    handover.HandoverReader(tmp_path, positions_ns=20).apply(told, 0)
    assert told.followed == [(str(path), None)]


def test_files_that_are_no_handover_are_left_out(tmp_path: Path) -> None:
    for number, text in enumerate(("", "[]", "{}", '{"pid": "x"}', "\xff")):
        (tmp_path / f"handover-{number}.json").write_text(text)
    (tmp_path / "handover-9.json").symlink_to(tmp_path / "handover-0.json")
    assert list(handover.load(tmp_path)) == []
    value = own(HANDED, tmp_path / "损失.log")
    assert Handover.from_json(value.to_json()) == value


def test_claims_are_all_or_none_and_end_with_their_process(folder: Path) -> None:
    first, second = Neighbour(os.environ), Neighbour(os.environ)
    assert first.claim(["a.log"])
    assert first.claim(["a.log", "b.log"])
    assert not second.claim(["c.log", "b.log"])
    assert first.claim(["c.log"])  # the second one kept no half
    assert not second.holds(["c.log"])
    first.release()
    assert second.claim(["c.log", "b.log"])
    second.release()


def test_a_log_is_claimed_whatever_it_is_called(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.touch()
    (tmp_path / "current").symlink_to(path)
    (tmp_path / "logs").symlink_to(tmp_path)
    first, second = Neighbour(os.environ), Neighbour(os.environ)
    assert first.claim(handover.real_names([str(path)]))
    for name in ("current", "logs/train.log", "*.log", "logs/*.log"):
        assert not second.claim(handover.real_names([str(tmp_path / name)])), name
    odd = tmp_path / "lr=[0.1]" / "train.log"
    odd.parent.mkdir()
    odd.touch()
    assert handover.resolve(str(odd)) == [str(odd)]
    first.release()
    pattern = [str(tmp_path / "logs" / "*.log")]
    assert second.claim(handover.real_names(pattern))
    (tmp_path / "later.log").touch()
    assert second.holds(handover.real_names(pattern))
    assert second.claim(handover.real_names(pattern))
    assert not first.claim(handover.real_names([str(tmp_path / "later.log")]))
    second.release()


def test_a_forked_child_keeps_no_claim(folder: Path) -> None:
    """Neither when its parent lets go, nor when its parent is gone."""
    first, second = Neighbour(os.environ), Neighbour(os.environ)
    assert first.claim(["a.log"])
    with sleeping_child():
        assert not second.claim(["a.log"])
        first.release()
        assert second.claim(["a.log"])
    code = (
        "import os, signal, sys, time\n"
        "from arobust_otel.agent.neighbour import Neighbour\n"
        "neighbour = Neighbour(os.environ)\n"
        "assert neighbour.claim(['b.log'])\n"
        "child = os.fork() or time.sleep(60)\n"
        "print(child, flush=True)\n"
        "sys.stdin.readline()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        assert not second.claim(["b.log"])
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(30)
        assert is_alive(child, read_stat(PROC, child).start_ticks)
        assert second.claim(["b.log"])
    finally:
        os.kill(child, unix_signals.SIGKILL)
        process.stdin.close()
        process.stdout.close()
    second.release()


@contextlib.contextmanager
def sleeping_child() -> Iterator[int]:
    child = os.fork()
    if not child:
        unix_signals.pause()
        os._exit(0)
    try:
        yield child
    finally:
        os.kill(child, unix_signals.SIGKILL)
        os.waitpid(child, 0)


def test_files_beside_those_of_another_rank_are_named_when_nobody_has_them(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.log", "b.log"):
        (tmp_path / name).touch()
    other = Neighbour(os.environ)
    assert other.claim(handover.real_names([str(tmp_path / "b.log")]))
    client = MasterClient("127.0.0.1:9", say=lambda text: None)
    agent = DiagnosisAgent(training_log_file=str(tmp_path / "*.log"))
    agent.set_client(client)
    agent.start()
    until("the words", lambda: "nobody delivers" in caplog.text)
    assert f"nobody delivers {tmp_path / 'a.log'}:" in caplog.text
    agent.stop()
    client.close(0.1)
    other.release()


def test_looking_at_the_lock_does_not_keep_an_agent_out(tmp_path: Path) -> None:
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            is_held(tmp_path)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            lock = AgentLock(tmp_path)
            assert lock.take()
            assert is_held(tmp_path)
            lock.release()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not is_held(tmp_path)
