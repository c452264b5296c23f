"""Texts of the kernel, as real machines print them, and as nobody should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.collectors import activity, oom, procfs, waits
from arobust_otel.collectors.activity import Activity, Reading, process_state
from arobust_otel.collectors.host import parse_pressure
from arobust_otel.collectors.oom import OomWitness
from arobust_otel.collectors.procfs import Stat, Task, Transfer

STAT = (
    "4711 (python (train)) S 4700 4711 4700 34816 4711 4194304 90022 10 3 0 812 93 0 0 20 0 14 0 204777 "
    "2311884800 81920 18446744073709551615 1 1 0 0 0 0 0 16781312 2 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 11"
)


def test_stat_with_brackets_in_the_name() -> None:
    stat = procfs.parse_stat(STAT)
    assert stat == Stat(4711, "python (train)", "S", 4700, 812, 93, 204777, 81920, 11)


def test_stat_of_this_process() -> None:
    stat = procfs.read_stat(procfs.PROC, os.getpid())
    assert stat is not None
    assert (stat.pid, stat.parent) == (os.getpid(), os.getppid())


@given(st.text())
def test_no_text_makes_a_parser_raise(text: str) -> None:
    procfs.parse_stat(text)
    procfs.parse_stat("1 (a) " + text)
    procfs.parse_schedstat(text)
    procfs.parse_state(text)
    procfs.parse_io(text)
    procfs.parse_pairs(text)
    waits.parse_syscall(text)
    waits.parse_connections("head\n" + text)
    oom.parse_cgroup_paths(text)
    oom.parse_kills(text)
    parse_pressure(text)
    parse_pressure("some " + text)


def test_what_is_not_there_is_none(tmp_path) -> None:
    assert procfs.read_stat(tmp_path, 1) is None
    assert procfs.read_io(tmp_path, 1) is None
    assert procfs.read_tasks(tmp_path, 1) == ()
    assert procfs.descriptors(tmp_path, 1) == {}
    assert procfs.open_flags(tmp_path, 1, 2) is None


@pytest.mark.parametrize(
    ("leader", "tasks", "expected"),
    [
        ("S", "SSS", "sleeping"),
        ("S", "SRS", "running"),
        ("S", "SDS", "disk"),
        ("T", "TTT", "stopped"),
        ("T", "TTS", "sleeping"),
        ("t", "tTS", "traced"),
        ("Z", "ZTT", "stopped"),
        ("Z", "ZS", "sleeping"),
        ("Z", "Z", "zombie"),
        ("Z", "", "zombie"),
        ("I", "I", "sleeping"),
        ("?", "", "unknown"),
    ],
)
def test_the_state_of_a_process_is_that_of_all_its_tasks(leader: str, tasks: str, expected: str) -> None:
    assert process_state(leader, tuple(Task(n, letter, 0) for n, letter in enumerate(tasks))) == expected


SECOND = 1_000_000_000


def reading(
    at_s: float, cpu_ms: float = 0, watcher_ms: float = 0, chars: int = 0, disk: int = 0, own: int = 0
):
    stat = Stat(1, "python", "S", 0, 0, 0, 5, 10, 0)
    tasks = (Task(1, "S", int(cpu_ms * 1e6)), Task(9, "S", int(watcher_ms * 1e6)))
    return Reading(
        int(at_s * SECOND), stat, tasks, Transfer(chars, 0, disk, 0), Transfer(own, 0, 0, 0), False
    )


def after(*readings: Reading) -> Activity:
    seen = Activity(watcher_tid=9, tick_ns=10_000_000)
    for one in readings:
        seen.update(one)
    return seen


def test_a_waiting_rank_is_idle_and_its_watcher_does_not_count() -> None:
    """The worst half second of a rank that waits in a gloo collective."""
    seen = after(reading(1), reading(1.5, cpu_ms=9.6, watcher_ms=400))
    assert seen.cpu_mono_ns == SECOND
    assert seen.cpu_share == pytest.approx(0.0192)


def test_a_computing_rank_works_even_on_a_sixth_of_a_core() -> None:
    assert after(reading(1), reading(1.5, cpu_ms=80)).cpu_mono_ns == 1.5 * SECOND


@pytest.mark.parametrize(
    ("moved", "works"),
    [
        ({"chars": 4096}, True),
        ({"disk": 8192}, True),
        ({"chars": 300}, False),
        ({"chars": 9000, "own": 8800}, False),
    ],
)
def test_bytes_count_as_work_without_the_watchers_own(moved, works: bool) -> None:
    seen = after(reading(1), reading(1.5, **moved))
    assert (seen.io_mono_ns == 1.5 * SECOND) is works


def test_without_schedstat_ticks_of_the_process_are_used() -> None:
    def ticking(at_s: float, ticks: int) -> Reading:
        stat = Stat(1, "python", "S", 0, ticks, 0, 5, 10, 0)
        return Reading(int(at_s * SECOND), stat, (Task(1, "S", None),), None, None, False)

    seen = after(ticking(1, 0), ticking(1.5, 40))
    assert seen.cpu_share == pytest.approx(0.8)
    assert seen.io_mono_ns is None


def test_one_real_process_can_be_read() -> None:
    found = activity.read(procfs.PROC, os.getpid(), 0, 5)
    assert found is not None
    assert found.io is not None
    assert any(task.cpu_ns for task in found.tasks)
    assert activity.read(procfs.PROC, 2**22 + 1, 0, 5) is None


NO_LOG = Path("/nonexistent/kmsg")
CGROUP_V1 = "12:memory:/slurm/job_7\n3:cpu,cpuacct:/\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "counter", "text"),
    [
        ("0::/job.slice/rank", "job.slice/rank/memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill {}\n"),
        ("0::/\n", "memory.events", "oom 1\noom_kill {}\noom_group_kill 0\n"),
        (
            CGROUP_V1,
            "memory/slurm/job_7/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
        (CGROUP_V1, "memory/memory.oom_control", "oom_kill_disable 0\noom_kill {}\n"),
    ],
    ids=["v2", "v2 in a container", "v1", "v1 in a container"],
)
def test_a_kill_for_memory_is_charged_to_one_death_only(tree, cgroup: str, counter: str, text: str) -> None:
    proc = tree({"7/cgroup": cgroup, "8/cgroup": cgroup, "vmstat": "nr_free 1\noom_kill 4\n"})
    groups = tree({counter: text.format(2)})
    witness = OomWitness(proc, groups, kernel_log=NO_LOG)
    for pid in (7, 8):
        witness.first_seen(pid, 1)
    (groups / counter).write_text(text.format(3))
    (proc / "vmstat").write_text("oom_kill 5\n")
    assert witness.claim(7, 1) == "cgroup"
    assert witness.claim(8, 1) is None


def test_a_kill_for_memory_of_somebody_else_long_before_is_no_explanation(tree) -> None:
    proc = tree({"7/cgroup": "", "vmstat": "oom_kill 4\n"})
    witness = OomWitness(proc, tree({}), kernel_log=NO_LOG)
    witness.first_seen(7, 1)
    (proc / "vmstat").write_text("oom_kill 5\n")
    for _ in range(oom.RECENT_SAMPLES):
        witness.sample()
    assert witness.claim(7, 1) is None


def test_a_kernel_log_that_names_another_process_decides(tree) -> None:
    proc = tree({"7/cgroup": "", "8/cgroup": "", "vmstat": "oom_kill 4\n"})
    log = tree({"kmsg": "3,1,1,-;Memory cgroup out of memory: Killed process 8 (python) total-vm:9kB\n"})
    witness = OomWitness(proc, tree({}), kernel_log=log / "kmsg")
    for pid in (7, 8):
        witness.first_seen(pid, 1)
    (proc / "vmstat").write_text("oom_kill 5\n")
    assert witness.claim(7, 1) is None
    assert witness.claim(8, 1) == "kernel log"
    assert not oom.names_victim("Killed process 81 (python)", 8)


def test_a_kill_outside_any_group_is_seen_on_the_host(tree) -> None:
    proc = tree({"7/cgroup": "", "vmstat": "oom_kill 4\n"})
    witness = OomWitness(proc, tree({}), kernel_log=NO_LOG)
    witness.first_seen(7, 1)
    assert witness.claim(7, 1) is None
    witness.first_seen(7, 2)
    (proc / "vmstat").write_text("oom_kill 5\n")
    assert witness.claim(7, 2) == "host"


TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 0100007F:7355 0200000A:A03E 01 00000000:00000000 00:00000000 00000000     0        0 "
    "4242 1 0 20 4 30 10 -1\n"
)
TCP6 = (
    "head\n 0: 0000000000000000FFFF00000100007F:0050 00000000000000000000000001000000:1F90 "
    "01 00000000:00000000 00:00000000 00000000 0 0 77 1\n"
)


def test_ends_of_a_connection() -> None:
    assert waits.parse_connections(TCP) == {4242: "127.0.0.1:29525 -> 10.0.0.2:41022"}
    assert waits.parse_connections(TCP6) == {77: "127.0.0.1:80 -> [::1]:8080"}


def test_what_a_process_waits_for(tree, monkeypatch) -> None:
    numbers = {name: number for number, name in waits.syscall_names(os.uname().machine).items()}

    def describe(text: str, **files: str) -> str:
        return waits.describe_wait(7, tree({"7/syscall": text, **files}))

    if not numbers:
        pytest.skip("no table of system calls for this architecture")
    assert describe(f"{numbers['futex']} 0x7f 0x80") == "waiting for a lock or for another thread (futex)"
    assert describe(f"{numbers['read']} 0x3 0x0") == "in read() of descriptor 3"
    assert describe("9999 0x3") == "in system call 9999"
    assert describe("running") == ""
    assert describe("", **{"7/wchan": "futex_do_wait"}) == "asleep in the kernel at futex_do_wait"
    proc = tree({"7/syscall": f"{numbers['recvfrom']} 0x4 0x0", "7/net/tcp": TCP, "7/fd/keep": ""})
    (proc / "7/fd/4").symlink_to("socket:[4242]")
    assert waits.describe_wait(7, proc) == "in recvfrom() of socket 127.0.0.1:29525 -> 10.0.0.2:41022"


def test_a_real_process_that_reads_a_file(world, tmp_path) -> None:
    os.mkfifo(tmp_path / "shard-42")
    process = world.python(
        "import os,sys\nf = os.open(sys.argv[1], os.O_RDWR); print('ready', flush=True); os.read(f, 1)",
        str(tmp_path / "shard-42"),
    )
    import time

    deadline = time.monotonic() + 30
    while "shard-42" not in (said := waits.describe_wait(process.pid)):
        assert time.monotonic() < deadline, said
        time.sleep(0.01)
    assert said == f"in read() of {tmp_path}/shard-42"


def test_a_glance_counts_the_whole_process_and_no_task() -> None:
    found = activity.glance(procfs.PROC, os.getpid(), 5)
    assert found is not None
    assert not found.is_deep
    assert found.io is not None


def test_processor_time_of_children_is_work_of_the_rank() -> None:
    """A rank that waits for its data loader workers, which work, is not idle."""

    def waiting(at_s: float, children: int | None) -> Reading:
        stat = Stat(1, "python", "S", 0, 0, 0, 5, 10, 0)
        return Reading(int(at_s * SECOND), stat, (Task(1, "S", 0),), None, None, False, children)

    assert after(waiting(1, 100), waiting(1.5, 140)).cpu_mono_ns == 1.5 * SECOND
    assert after(waiting(1, 100), waiting(1.5, 101)).cpu_mono_ns == SECOND
    assert after(waiting(1, None), waiting(1.5, 140)).cpu_mono_ns == SECOND


def test_living_descendants_are_found() -> None:
    code = (
        "import time; t = time.process_time()\nwhile time.process_time() - t < 0.2: pass\nprint('x'); input()"
    )
    shell = ["sh", "-c", f'"{sys.executable}" -c "{code}"; exit 0']
    child = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    assert (procfs.read_children_ticks(procfs.PROC, os.getpid()) or 0) >= 15
    child.communicate("\n", timeout=10)
    assert procfs.read_children_ticks(procfs.PROC, 2**22 + 1) is None
