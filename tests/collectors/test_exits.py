"""How a process ended that is not our child: each witness with the others off."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time

import pytest

from arobust_otel.collectors import exits
from arobust_otel.collectors.exits import ExitWatch, pidfd_exit_code, zombie_exit_code
from arobust_otel.collectors.procfs import PROC, read_stat

WAITS = "import sys; print('ready', flush=True); sys.exit(int(sys.stdin.readline()))"
# A parent that reaps its child only when it is told to.
PARENT = """
import subprocess, sys
code = "import sys; sys.exit(int(sys.stdin.readline()))"
child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.stdin.write(sys.stdin.readline().encode()); child.stdin.flush()
sys.stdin.readline(); child.wait(); print("reaped", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def watch():
    made = ExitWatch()
    yield made
    made.close()
    made.close()


def _deaths(watch: ExitWatch, count: int = 1):
    found, deadline = [], time.monotonic() + 10
    while len(found) < count:
        found += watch.deaths()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def _say(process, word: str) -> None:
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def _start(pid: int) -> int:
    stat = read_stat(PROC, pid)
    assert stat is not None
    return stat.start_ticks


@pytest.mark.parametrize("code", [0, 3])
def test_a_zombie_tells_its_code_and_is_noticed_at_once(world, watch, code: int) -> None:
    process = world.python(WAITS)
    watch.watch(process.pid, _start(process.pid))
    before = time.time_ns()
    _say(process, str(code))
    (death,) = _deaths(watch)
    assert (death.pid, death.code, death.seen_end) == (process.pid, code, True)
    assert before < death.wall_ns < time.time_ns()


def test_a_signal_is_a_negative_code(world, watch) -> None:
    process = world.python(WAITS)
    watch.watch(process.pid, _start(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    assert _deaths(watch)[0].code == -9


def test_the_kernels_record_tells_the_code_of_a_process_that_somebody_else_reaped(
    world, watch, monkeypatch
) -> None:
    monkeypatch.setattr(exits, "zombie_exit_code", lambda proc, pid: None)
    parent = world.python(PARENT)
    pid = int(parent.first_line)
    start = _start(pid)
    watch.watch(pid, start)
    _say(parent, "7")
    (death,) = _deaths(watch)
    assert death.code is None
    assert watch.exit_code(pid, start) is None
    _say(parent, "reap")
    assert parent.stdout.readline() == "reaped\n"
    if watch.exit_code(pid, start) is None and not _kernel_keeps_exit_codes():
        pytest.skip("this kernel keeps no exit codes (before about 6.15)")
    assert watch.exit_code(pid, start) == 7
    watch.forget(pid, start)
    assert watch.exit_code(pid, start) is None


def _kernel_keeps_exit_codes() -> bool:
    release = os.uname().release.split(".")
    return (int(release[0]), int(release[1])) >= (6, 15)


def test_a_kernel_that_does_not_know_the_call_is_no_witness() -> None:
    with open(os.devnull) as file:
        assert pidfd_exit_code(file.fileno()) is None


def test_a_process_that_is_gone_is_a_death_without_a_time_of_its_own(world, watch) -> None:
    process = world.python("print('ready')")
    process.wait()
    watch.watch(process.pid, 1)
    (death,) = watch.deaths()
    assert (death.code, death.seen_end) == (None, False)


def test_a_pid_that_is_used_again_is_not_taken_for_the_rank(watch) -> None:
    watch.watch(os.getpid(), 1)
    assert [death.seen_end for death in watch.deaths()] == [False]


def test_without_pidfd_nothing_is_noted_and_nothing_is_claimed(world, watch, monkeypatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    watch.watch(os.getpid(), _start(os.getpid()))
    assert watch.deaths() == []


def test_order_of_deaths_that_lie_close_together(world, watch) -> None:
    processes = [world.python(WAITS) for _ in range(4)]
    for process in processes:
        watch.watch(process.pid, _start(process.pid))
    order = [processes[index] for index in (2, 0, 3, 1)]
    for process in order:
        process.kill()
        process.wait()
    assert [death.pid for death in _deaths(watch, 4)] == [process.pid for process in order]


def test_the_runner_is_woken_by_an_end(world) -> None:
    woken = threading.Event()
    watch = ExitWatch(woken.set)
    process = world.python(WAITS)
    watch.watch(process.pid, _start(process.pid))
    process.kill()
    assert woken.wait(30)
    watch.close()


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [("Z", "256", 1), ("Z", "9", -9), ("Z", "139", -11), ("Z", "0", 0), ("S", "256", None)],
)
def test_zombies_are_read_from_field_52(tree, state: str, status: str, expected: int | None) -> None:
    """139 is SIGSEGV with the core-dump bit."""
    line = f"77 (a) b) {state} 1 {' '.join(['0'] * 47)} {status}"
    assert zombie_exit_code(tree({"77/stat": line}), 77) == expected


def test_a_zero_that_may_be_hidden_is_no_code(tree, monkeypatch) -> None:
    proc = tree({"77/stat": f"77 (a) Z 1 {' '.join(['0'] * 48)}"})
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert zombie_exit_code(proc, 77) is None
