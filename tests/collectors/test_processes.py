"""Real processes are stopped, stalled, killed and crashed; the collector says what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from arobust_otel.collectors import processes
from arobust_otel.collectors.processes import ProcessesCollector, decide_exit
from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.collectors.scan import NodeScan
from arobust_otel.model import signals
from arobust_otel.model.beacon import PROCESS_STATES, Child
from arobust_otel.plugins import Clock, close

WAITS = "import sys; print('ready', flush=True); sys.stdin.readline()"
BURNS = "print('ready', flush=True)\nwhile True: pass"
STOPPED = PROCESS_STATES.index("stopped")


@pytest.fixture
def collector():
    made = ProcessesCollector(stopped_seconds=0.5, stalled_seconds=1.0)
    yield made
    close(made)


def test_a_waiting_rank_is_idle_and_a_computing_rank_is_not(world, collector, values) -> None:
    idle, busy = world.python(WAITS), world.python(BURNS)
    world.rank(idle.pid, rank=0)
    world.rank(busy.pid, rank=1)

    items = world.sample_until(
        collector, lambda items: max(values(items, signals.CPU_AGE), default=0) > 1.5, every=0.5
    )

    last = {p.attributes[signals.RANK]: p.value for p in items if getattr(p, "name", "") == signals.CPU_AGE}
    assert last[0] > 1.5
    assert last[1] == 0.0
    share = {
        p.attributes[signals.RANK]: p.value
        for p in items
        if getattr(p, "name", "") == signals.CPU_UTILIZATION
    }
    assert share[0] < 0.04 <= share[1]


def test_a_rank_that_writes_a_file_is_not_without_io(world, collector, values) -> None:
    writer = world.python(
        "import time,sys\nprint('ready', flush=True)\nf = open(sys.argv[1], 'wb', 0)\n"
        "while True: f.write(b'x' * 20000); time.sleep(0.05)",
        "/dev/null",
    )
    world.rank(writer.pid)
    items = world.sample_until(collector, lambda items: len(values(items, signals.IO_AGE)) >= 4, every=0.3)
    assert values(items, signals.IO_AGE)[-1] == 0.0


def test_a_stop_is_told_once_with_its_beginning_and_so_is_its_end(world, collector, events, values) -> None:
    rank = world.python(WAITS)
    world.rank(rank.pid, rank=2)
    world.sample_until(collector, lambda items: bool(values(items, signals.PROCESS_STATE)))
    before = time.time_ns()
    os.kill(rank.pid, signal.SIGSTOP)

    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_STOPPED)))
    (stopped,) = events(items, signals.RANK_STOPPED)
    assert stopped.attributes[signals.RANK] == 2
    assert stopped.attributes[signals.PID] == rank.pid
    assert before <= stopped.time_ns <= time.time_ns() - 450_000_000
    assert values(items, signals.PROCESS_STATE)[-1] == STOPPED
    assert values(items, signals.STOPPED_FOR)[-1] >= 0.5

    os.kill(rank.pid, signal.SIGCONT)
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_CONTINUED)))
    assert not events(items, signals.RANK_STOPPED)
    assert values(items, signals.STOPPED_FOR)[-1] == 0.0


def test_a_stall_says_what_the_main_thread_waits_for(world, collector, events) -> None:
    rank = world.python(
        "import socket,sys\ns = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(s.getsockname()); print('ready', flush=True); c.recv(1)"
    )
    path = world.rank(rank.pid, rank=1)
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_STALLED)))
    (stalled,) = events(items, signals.RANK_STALLED)
    assert "in recvfrom() of socket 127.0.0.1:" in stalled.body

    path.write_bytes(path.read_bytes())
    # A step; its event time lies ahead, so that a slow machine does not see the rank stall again.
    world.rank(rank.pid, rank=1, step=8, event_mono_ns=world.clock().mono_ns + 10**10)
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_RESUMED)))
    assert not events(items, signals.RANK_STALLED)


def test_a_computing_rank_never_stalls(world, collector, events, values) -> None:
    """By a clock that moves on when the rank has had half of that time: a busy machine gives it late."""
    rank = world.python(BURNS)
    world.rank(rank.pid, event_mono_ns=1)
    now, scan, items = world.clock(), NodeScan([world.folder]), []
    deadline = time.monotonic() + 40
    for _ in range(10):
        items += collector.collect(now, scan.scan(now))
        used = ticks_of(rank.pid)
        while ticks_of(rank.pid) < used + 0.15 * os.sysconf("SC_CLK_TCK"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        now = Clock(now.wall_ns + 300_000_000, now.mono_ns + 300_000_000)
    assert len(values(items, signals.CPU_AGE)) == 10
    assert not events(items, signals.RANK_STALLED)


def ticks_of(pid: int) -> int:
    stat = read_stat(PROC, pid)
    assert stat is not None
    return stat.user_ticks + stat.system_ticks


def _child(pid: int, rank: int, status: int | None, ended_ns: int | None) -> Child:
    stat = read_stat(PROC, pid)
    return Child(pid, stat.start_ticks if stat else 1, rank, rank, time.time_ns(), ended_ns, status)


def test_the_launcher_is_the_first_witness(world, collector, events) -> None:
    rank = world.python(WAITS)
    world.rank(rank.pid, rank=1)
    child = _child(rank.pid, 1, None, None)
    world.launcher(os.getpid(), child)
    world.sample_until(collector, lambda items: bool(items))
    rank.kill()
    killed_ns = time.time_ns()
    rank.wait()
    world.launcher(os.getpid(), replace(child, ended_ns=killed_ns, wait_status=-9))

    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_EXITED)))
    (exited,) = events(items, signals.RANK_EXITED)
    assert exited.attributes[signals.EXIT_WITNESS] == "launcher"
    assert exited.attributes[signals.EXIT_SIGNAL] == 9
    assert signals.EXIT_CODE not in exited.attributes
    assert abs(exited.time_ns - killed_ns) < 10_000_000_000
    assert exited.body == f"rank 1 (process {rank.pid}) was ended by signal 9 (SIGKILL)"


def test_an_exit_with_code_0_is_an_exit(world, collector, events) -> None:
    rank = world.python(WAITS)
    world.rank(rank.pid)
    world.sample_until(collector, lambda items: bool(items))
    rank.stdin.write("\n")
    rank.stdin.flush()
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_EXITED)))
    (exited,) = events(items, signals.RANK_EXITED)
    assert exited.attributes[signals.EXIT_CODE] == 0
    assert exited.attributes[signals.EXIT_WITNESS] in ("zombie", "pidfd")
    assert collector.states()[rank.pid, exited_start(collector, rank.pid)] == "X"


def exited_start(collector: ProcessesCollector, pid: int) -> int:
    return next(start for found, start in collector.states() if found == pid)


def test_without_a_launcher_the_zombie_is_the_witness(world, collector, events) -> None:
    rank = world.python(WAITS)  # this test is its parent and does not wait for it
    world.rank(rank.pid)
    world.sample_until(collector, lambda items: bool(items))
    os.kill(rank.pid, signal.SIGSEGV)
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_EXITED)))
    (exited,) = events(items, signals.RANK_EXITED)
    assert exited.attributes[signals.EXIT_WITNESS] == "zombie"
    assert exited.attributes[signals.EXIT_SIGNAL] == 11


def test_a_launcher_that_says_nothing_is_waited_for_no_longer_than_half_a_second(
    world, collector, events
) -> None:
    rank = world.python(WAITS)
    world.rank(rank.pid)
    world.launcher(os.getpid(), _child(rank.pid, 0, None, None))
    world.sample_until(collector, lambda items: bool(items))
    began = time.monotonic()
    rank.kill()
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_EXITED)))
    assert 0.4 < time.monotonic() - began < 10
    assert events(items, signals.RANK_EXITED)[0].attributes[signals.EXIT_SIGNAL] == 9


def test_an_end_that_nobody_saw_has_no_code(world, collector, events) -> None:
    """A rank that was gone before the agent came, without any launcher."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    world.rank(gone.pid, rank=3, start_ticks=12345)
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_EXITED)))
    (exited,) = events(items, signals.RANK_EXITED)
    assert exited.attributes[signals.EXIT_WITNESS] == "none"
    assert signals.EXIT_CODE not in exited.attributes
    assert signals.EXIT_SIGNAL not in exited.attributes
    assert "nobody saw its exit code" in exited.body


def test_deaths_are_told_in_their_order(world, collector, events) -> None:
    ranks = [world.python(WAITS) for _ in range(3)]
    for number, rank in enumerate(ranks):
        world.rank(rank.pid, rank=number)
    world.sample_until(collector, lambda items: bool(items))
    order = (1, 2, 0)
    for number in order:
        ranks[number].kill()
        ranks[number].wait()
    items = world.sample_until(collector, lambda items: len(events(items, signals.RANK_EXITED)) == 3)
    ends = sorted(events(items, signals.RANK_EXITED), key=lambda event: event.time_ns)
    assert tuple(event.attributes[signals.RANK] for event in ends) == order


def test_an_exit_is_told_at_once_through_the_callback(world, events) -> None:
    import threading

    woken = threading.Event()
    collector = ProcessesCollector(on_exit=woken.set)
    rank = world.python(WAITS)
    world.rank(rank.pid)
    list(collector.collect(world.clock(), world.node()))
    rank.kill()
    assert woken.wait(30)
    close(collector)


CRASH = """
import ctypes, faulthandler, resource, sys, threading, time
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
file = open(sys.argv[1], "w")
faulthandler.enable(file, all_threads=True)
print("ready", flush=True)
sys.stdin.readline()
def read_shard():
    ctypes.string_at(0)
read_shard()
"""


def test_a_segfault_names_function_and_signal_from_the_crash_file(world, collector, events, tmp_path) -> None:
    side = tmp_path / "side.crash"
    rank = world.python(CRASH, str(side))
    beacon = world.rank(rank.pid, rank=1)
    beacon.with_suffix(".crash").symlink_to(side)
    world.sample_until(collector, lambda items: bool(items))
    rank.stdin.write("\n")
    rank.stdin.flush()
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_EXITED)))
    (exited,) = events(items, signals.RANK_EXITED)
    assert exited.attributes[signals.EXIT_SIGNAL] == 11
    assert exited.attributes[signals.CODE_FUNCTION] == "read_shard"
    assert exited.attributes[signals.CODE_LINE] == 9
    assert exited.attributes[signals.EXCEPTION_STACK].startswith("string_at (")


def test_a_crash_report_of_a_living_process_is_told_before_its_end(world, collector, events) -> None:
    rank = world.python(WAITS)
    beacon = world.rank(rank.pid)
    text = "Fatal Python error: Bus error\n\nCurrent thread 0x00 (most recent call first):\n"
    text += '  File "/t/a.py", line 3 in f\n'
    beacon.with_suffix(".crash").write_text(text)
    items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_CRASHING)))
    items += list(collector.collect(world.clock(), world.node()))
    (crashing,) = events(items, signals.RANK_CRASHING)
    assert crashing.attributes[signals.EXIT_SIGNAL] == 7
    assert crashing.attributes[signals.CODE_FUNCTION] == "f"
    assert not events(items, signals.RANK_EXITED)


def test_a_rank_that_writes_a_core_crashes(world, events, tree) -> None:
    """A fixture tree: CoreDumping is in the status of a process that is still there."""
    rank = world.python(WAITS)
    world.rank(rank.pid, start_ticks=4711)
    tail = " ".join(["0"] * 18)
    proc = tree(
        {
            f"{rank.pid}/stat": f"{rank.pid} (python) D 1 {tail[:34]} 4711 0 900 {' '.join(['0'] * 28)}",
            f"{rank.pid}/status": "Name:\tpython\nCoreDumping:\t1\n",
        }
    )
    collector = ProcessesCollector(proc=proc)
    node = world.node()
    node = replace(node, ranks=tuple(replace(one, alive=True) for one in node.ranks))
    stat = read_stat(proc, rank.pid)
    assert stat is not None
    assert stat.start_ticks == 4711
    items = list(collector.collect(world.clock(), node))
    close(collector)
    assert [event.attributes[signals.RANK] for event in events(items, signals.RANK_CRASHING)] == [0]


@pytest.mark.skipif(os.geteuid() != 0, reason="control groups are made by root")
def test_a_kill_for_memory_is_seen_in_the_control_group(world, events) -> None:
    group = Path(f"/sys/fs/cgroup/memory/arobust-test-{os.getpid()}")
    if not Path("/sys/fs/cgroup/memory/memory.oom_control").exists():
        pytest.skip("this machine has no v1 memory controller; v2 is tested by fixture")
    group.mkdir()
    collector = ProcessesCollector()
    try:
        (group / "memory.limit_in_bytes").write_text(str(48 * 1024 * 1024))
        rank = world.python(
            "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\nx = []\n"
            "while True: x.append(bytearray(b'x') * 1000000)"
        )
        (group / "cgroup.procs").write_text(str(rank.pid))
        world.rank(rank.pid)
        world.sample_until(collector, lambda items: bool(items))
        rank.stdin.write("\n")
        rank.stdin.flush()
        items = world.sample_until(collector, lambda items: bool(events(items, signals.RANK_EXITED)))
        (exited,) = events(items, signals.RANK_EXITED)
        assert exited.attributes[signals.EXIT_SIGNAL] == 9
        assert exited.attributes[signals.EXIT_OOM] in ("kernel log", "cgroup")
        rank.wait()
    finally:
        close(collector)
        group.rmdir()


EVIDENCE = {"launcher": None, "pidfd": None, "zombie": None, "may_wait": False, "launcher_lives": False}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"launcher": 1, "pidfd": 0, "zombie": 0}, (1, "launcher")),
        ({"pidfd": -9, "zombie": 0}, (-9, "pidfd")),
        ({"zombie": -11}, (-11, "zombie")),
        ({}, (None, "none")),
        ({"may_wait": True}, None),
        ({"zombie": -9, "may_wait": True}, (-9, "zombie")),
        ({"zombie": -9, "may_wait": True, "launcher_lives": True}, None),
        ({"zombie": -9, "launcher_lives": True}, (-9, "zombie")),
    ],
)
def test_the_best_witness_counts_and_each_stands_in_for_the_better_ones(given, expected) -> None:
    assert decide_exit(**(EVIDENCE | given)) == expected


def test_a_rank_that_only_the_launcher_knows_gets_process_signals(world, collector, values) -> None:
    rank = world.python(WAITS)
    child = replace(_child(rank.pid, 5, None, None), born_ns=time.time_ns() - 10_000_000_000)
    world.launcher(os.getpid(), child)
    items = world.sample_until(collector, lambda items: bool(values(items, signals.PROCESS_STATE)))
    assert {p.attributes[signals.RANK] for p in items if getattr(p, "name", "") == signals.PROCESS_STATE} == {
        5
    }


def test_unknown_signals_have_a_name_too() -> None:
    assert processes._signal_name(250) == "unknown"
