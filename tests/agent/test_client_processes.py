"""MasterClient over forks and the interpreter's end: each case is a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.agent.grpc_server import Reply, serving
from tests.agent.server import Answer, MasterDouble, free_port, running

HEAD = """
import atexit, os, sys, threading, time
ending = []  # when a process begins to end
# The first that registers is the last that runs: after clients have had their time.
atexit.register(lambda: os._exit(3) if ending and time.monotonic() - ending[0] > 10 else None)
from dataclasses import replace
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.model import signals
from arobust_otel.model.samples import Event
from tests.agent.clients import JOB, QUICK, points, line

url, folder = sys.argv[1], sys.argv[2] or None
"""


def run(script: str, url: str, folder: str = "", seconds: float = 50.0) -> tuple[int, str, float]:
    """Exit code, what it printed, and how long it took."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + script, url, folder],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


def values(master: MasterDouble) -> list[float]:
    return sorted(value for _, value, _ in master.points())


FORK = """
ours = MasterClient(url, JOB, replace(QUICK, exit_seconds=20), spool_dir=folder)
stop = threading.Event()

def keep_busy():
    first = 0
    while not stop.is_set():
        ours.report(points(first, 20))
        first += 20
        time.sleep(0.005)
    print("parent", first, flush=True)

busy = threading.Thread(target=keep_busy)
busy.start()
children = []
for number in range(8):
    time.sleep(0.03)
    child = os.fork()
    if child == 0:
        mine = ours.stats()
        assert (mine["accepted"], mine["queue_items"]) == (0, 0), mine
        ours.report(points(1_000_000 + 1000 * number, 20))
        arrived = ours.flush(10)
        mine = ours.stats()
        assert arrived and mine["delivered"] == 20, mine
        assert "spool_items" not in mine
        ending.append(time.monotonic())
        sys.exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
stop.set()
busy.join()
assert ours.flush(10)
print(codes, ours.stats(), flush=True)
ours.close()
sys.exit(any(codes))
"""

# A call that a slow machine delays is waited for, so that each fork is between two calls.
BETWEEN_CALLS = """
from arobust_otel.agent.client import process_hooks
process_hooks.HOLD_SECONDS = 20.0
"""


@pytest.mark.parametrize("with_disk", [False, True])
def test_a_fork_during_exports_sends_nothing_twice_and_the_child_sends_its_own(
    tmp_path: Path, with_disk: bool
) -> None:
    def slowly(signal: str, body: bytes) -> Answer:
        time.sleep(0.01)  # so that most forks happen during an export
        return Answer()

    with running(script=slowly) as master:
        code, text, _ = run(FORK, master.url, str(tmp_path) if with_disk else "")
        assert code == 0, text
        of_parent = int(text.split("parent ")[1].split()[0])
        children = [1_000_000 + 1000 * number + item for number in range(8) for item in range(20)]
        assert values(master) == [*range(of_parent), *children]
        assert len(set(master.batch_ids)) == len(master.batch_ids)


def test_a_fork_between_calls_of_grpc_leaves_both_able_to_call() -> None:
    def slowly(received: object) -> Reply:
        time.sleep(0.01)
        return Reply()

    with serving(script=slowly) as master:
        code, text, _ = run(BETWEEN_CALLS + FORK, master.target)
        assert code == 0, text
        of_parent = int(text.split("parent ")[1].split()[0])
        children = [1_000_000 + 1000 * number + item for number in range(8) for item in range(20)]
        assert sorted(master.values()) == [*range(of_parent), *children]


def test_a_fork_waits_no_longer_than_a_moment_for_a_call_that_hangs() -> None:
    script = """
ours = MasterClient(url, JOB, replace(QUICK, call_seconds=30))
ours.report(points(0, 3))
time.sleep(0.3)  # the call hangs until the end
started = time.monotonic()
child = os.fork()
if child == 0:
    os._exit(0)
passed = time.monotonic() - started
os.waitpid(child, 0)
assert passed < 10, passed
assert not ours.flush(0.1)
"""
    held = threading.Event()
    with running(script=lambda *_: Answer(hold=held)) as master:
        code, text, _ = run(script, master.url)
        held.set()
        assert code == 0, text


def test_a_child_that_never_reports_has_no_thread_and_ends_at_once() -> None:
    script = """
ours = MasterClient(url, JOB, replace(QUICK, exit_seconds=20))
ours.report(points(0, 3))
assert ours.flush(20)
started = time.monotonic()
child = os.fork()
if child == 0:
    assert len(threading.enumerate()) == 1, threading.enumerate()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert time.monotonic() - started < 10
ours.report(points(3, 3))
assert ours.flush(20)
ours.close()
"""
    with running() as master:
        code, text, _ = run(script, master.url)
        assert code == 0, text
        assert values(master) == [0, 1, 2, 3, 4, 5]


def test_a_client_that_nobody_closed_delivers_at_the_interpreters_end() -> None:
    script = "MasterClient(url, JOB, replace(QUICK, bulk_seconds=60, exit_seconds=20)).report(points(0, 7))"
    with running() as master:
        code, text, _ = run(script, master.url)
        assert (code, text) == (0, "")
        assert values(master) == list(range(7))


def test_the_interpreters_end_is_short_without_a_master_also_for_several_clients() -> None:
    script = """
settings = replace(QUICK, bulk_seconds=60, exit_seconds=4.0)
clients = [MasterClient(url, JOB, settings, say=lambda text: None) for _ in range(8)]
for ours in clients:
    ours.report(points(0, 7))
import atexit
atexit.register(lambda: None)
print(time.monotonic(), flush=True)
sys.stdout.close()
"""
    code, text, _ = run(script, f"http://127.0.0.1:{free_port()}")
    ended = time.monotonic()
    assert code == 0, text
    assert ended - float(text.split()[0]) < 20, "four seconds for all eight, and what a busy machine adds"


def test_a_signal_handler_that_reports_may_interrupt_every_call(tmp_path: Path) -> None:
    """Also one that holds a lock: a report must never hang, and is counted."""
    script = """
import signal
settings = replace(QUICK, queue_items=500)
ours = MasterClient(url, JOB, settings, spool_dir=folder, say=lambda text: None)
calls = {"handled": 0, "own": 0}

def report(who):
    calls[who] += 1
    ours.report(points(0, 1))
    ours.stats()

signal.signal(signal.SIGALRM, lambda *_: report("handled"))
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
while calls["handled"] < 3000:
    report("own")
signal.setitimer(signal.ITIMER_REAL, 0)
assert ours.stats()["accepted"] == sum(calls.values()), (ours.stats(), calls)
ours.close(1.0)
"""
    code, text, _ = run(script, f"http://127.0.0.1:{free_port()}", str(tmp_path), seconds=100.0)
    assert code == 0, text


@pytest.mark.parametrize("after_seconds", [0.1, 0.2, 0.3, 0.4])
def test_a_signal_handler_that_closes_is_back_at_its_deadline(after_seconds: float) -> None:
    """Last words of a process that is told to end in the middle of a report."""
    script = f"""
import signal
ours = MasterClient(url, JOB, replace(QUICK, queue_items=500), say=lambda text: None)

def end(*_):
    started = time.monotonic()
    ours.report(points(1, 1))
    ours.close(1.0)
    print(time.monotonic() - started, flush=True)
    os._exit(0)

signal.signal(signal.SIGALRM, end)
signal.setitimer(signal.ITIMER_REAL, {after_seconds})
while True:
    ours.report(points(0, 1))
    ours.stats()
"""
    code, text, _ = run(script, f"http://127.0.0.1:{free_port()}")
    assert code == 0, text
    assert float(text) < 20


def test_what_a_client_that_nobody_closed_cannot_deliver_waits_on_the_disk(tmp_path: Path) -> None:
    script = """
settings = replace(QUICK, bulk_seconds=60, exit_seconds=20)
ours = MasterClient(url, JOB, settings, spool_dir=folder, say=lambda text: None)
ours.report(points(0, 7))
"""
    port = free_port()
    code, text, _ = run(script, f"http://127.0.0.1:{port}", str(tmp_path))
    assert (code, text) == (0, "")
    with running(port) as master:
        code, text, _ = run(
            "ours = MasterClient(url, JOB, QUICK, spool_dir=folder); assert ours.flush(10)",
            master.url,
            str(tmp_path),
        )
        assert (code, text) == (0, "")
        assert values(master) == list(range(7))
