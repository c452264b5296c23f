"""Stacks of real processes: from outside, without py-spy, refused, stopped, holding the interpreter lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.collectors import pyspy, waits
from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.collectors.stacks import StackTaker
from arobust_otel.errors import CapabilityError, CaptureError
from arobust_otel.model import signals

READS = """
import sys, threading, time
def idle():
    while True: time.sleep(1)
threading.Thread(target=idle, daemon=True, name="prefetch").start()
def read_shard(): print("ready", flush=True); sys.stdin.readline()
read_shard()
"""

# A rank whose watcher answers through the beacon; `main` is what its main thread does.
ANSWERS = """
import ctypes, faulthandler, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from arobust_otel.model import beacon_layout as at
path = Path(sys.argv[1])
def watch():
    while True:
        if path.exists():
            with path.open("r+b", buffering=0) as file:
                page = file.read()
                asked = int.from_bytes(page[at.STACK_REQUEST * 8:][:8], "little")
                done = int.from_bytes(page[at.STACK_DONE * 8:][:8], "little")
                if asked > done:
                    with open(path.with_suffix(f".stacks-{asked}"), "w") as out:
                        faulthandler.dump_traceback(out, all_threads=True)
                    file.seek(at.STACK_DONE * 8)
                    file.write(asked.to_bytes(8, "little"))
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
def read_shard():
    print("ready", flush=True)
    MAIN
read_shard()
"""
ROOT = str(Path(__file__).parents[2])
HOLDS_LOCK = "ctypes.PyDLL(None).usleep(60_000_000)"


def _answering(world, main: str, **options):
    path = world.folder / "pending.beacon"
    rank = world.python(ANSWERS.replace("MAIN", main), str(path), ROOT, **options)
    written = world.rank(rank.pid, rank=2)
    written.rename(path)  # the watcher got to know its path before its pid was known
    return rank, path


def _only_rank(world):
    (rank,) = world.node().ranks
    return rank


def test_stacks_from_outside_name_the_function_of_the_main_thread(world) -> None:
    process = world.python(READS)
    world.rank(process.pid, rank=2)
    capture = StackTaker(dump_seconds=30, watcher_seconds=30).capture(_only_rank(world), "command-1")
    assert capture.method == "py-spy"
    assert capture.command_id == "command-1"
    assert (capture.rank, capture.pid) == (2, process.pid)
    main = capture.main_thread()
    assert main.thread_id == process.pid
    assert [frame.function for frame in main.frames] == ["read_shard", "<module>"]
    assert {thread.name for thread in capture.threads} == {"MainThread", "prefetch"}
    assert "(main)" in capture.text
    assert "read_shard (<string>:6)" in capture.text


def test_the_watcher_thread_is_left_out(world) -> None:
    process = world.python(READS)
    tids = {int(name) for name in os.listdir(f"/proc/{process.pid}/task")} - {process.pid}
    world.rank(process.pid, watcher_tid=tids.pop())
    capture = StackTaker(dump_seconds=30, watcher_seconds=30).capture(_only_rank(world), "c")
    assert [thread.name for thread in capture.threads] == ["MainThread"]


def test_a_stopped_process_is_read_without_pausing_it_and_stays_stopped(world) -> None:
    process = world.python(READS)
    world.rank(process.pid)
    os.kill(process.pid, signal.SIGSTOP)
    _await_state(process.pid, "T")
    capture = StackTaker(dump_seconds=30, watcher_seconds=30).capture(_only_rank(world), "c")
    assert capture.method == "py-spy-nonblocking"
    assert capture.main_thread().frames[0].function == "read_shard"
    assert read_stat(PROC, process.pid).state == "T"


def test_a_call_that_holds_the_interpreter_lock_is_seen_from_outside(world) -> None:
    process = world.python(
        f"import ctypes\ndef pack_tokens():\n    print('ready', flush=True)\n    {HOLDS_LOCK}\npack_tokens()"
    )
    world.rank(process.pid)
    _await_sleep(process.pid)
    main = StackTaker(dump_seconds=30, watcher_seconds=30).capture(_only_rank(world), "c").main_thread()
    assert main.frames[0].function == "pack_tokens"
    assert main.holds_interpreter_lock is True


def test_without_py_spy_the_watcher_answers_and_the_gap_is_named_once(world) -> None:
    _, path = _answering(world, "sys.stdin.readline()")
    taker = StackTaker(py_spy="/nowhere/py-spy", dump_seconds=30, watcher_seconds=30)
    capture = taker.capture(_only_rank(world), "c")
    assert capture.method == "watcher"
    assert capture.main_thread().frames[0].function == "read_shard"
    assert "watch" not in {frame.function for thread in capture.threads for frame in thread.frames}
    assert not list(path.parent.glob("*.stacks-*"))
    taker.capture(_only_rank(world), "c")
    (gap,) = taker.gaps()
    assert gap.attributes[signals.CAPABILITY] == "py_spy"
    assert gap.attributes[signals.REMEDY] == "pip install py-spy"
    assert list(taker.gaps()) == []


def test_a_rank_that_holds_the_lock_cannot_answer_and_the_error_says_so(world) -> None:
    rank, _ = _answering(world, HOLDS_LOCK)
    _await_sleep(rank.pid)
    taker = StackTaker(py_spy="/nowhere/py-spy", watcher_seconds=0.5)
    with pytest.raises(CaptureError, match="holds the interpreter lock, cannot"):
        taker.capture(_only_rank(world), "c")


def test_a_py_spy_that_hangs_is_ended_and_the_watcher_asked(world, tmp_path) -> None:
    slow = _script(tmp_path / "py-spy", "exec sleep 60")
    _answering(world, "sys.stdin.readline()")
    began = time.monotonic()
    capture = StackTaker(py_spy=slow, dump_seconds=0.3, watcher_seconds=30).capture(_only_rank(world), "c")
    assert capture.method == "watcher"
    assert time.monotonic() - began < 40, "py-spy would take a minute"


def test_py_spy_that_fails_to_suspend_is_run_again_without_pausing(world, tmp_path) -> None:
    """What py-spy 0.4.3 prints when another tracer was faster than the look into /proc."""
    real = pyspy.find_py_spy()
    text = "Error: Failed to get stack traces\\n\\nCaused by:\\n 0: Failed to suspend process\\n"
    words = f"printf '{text}' >&2; exit 1"
    wrapper = _script(
        tmp_path / "py-spy", f'case "$*" in *nonblocking*) exec {real} "$@";; *) {words};; esac'
    )
    process = world.python(READS)
    world.rank(process.pid)
    capture = StackTaker(py_spy=wrapper, dump_seconds=30, watcher_seconds=30).capture(_only_rank(world), "c")
    assert capture.method == "py-spy-nonblocking"
    assert capture.main_thread().frames[0].function == "read_shard"


def test_a_rank_that_ended_answers_by_its_crash_file(world) -> None:
    process = world.python("print('ready', flush=True)")
    process.wait()
    path = world.rank(process.pid, start_ticks=1)
    with pytest.raises(CaptureError, match="left no stack behind"):
        StackTaker(dump_seconds=30, watcher_seconds=30).capture(_only_rank(world), "c")
    path.with_suffix(".crash").write_text(
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x0f (most recent call first):\n"
        '  File "/t/data.py", line 88 in read_shard\n'
    )
    capture = StackTaker(dump_seconds=30, watcher_seconds=30).capture(_only_rank(world), "c")
    assert capture.method == "faulthandler-file"
    assert str(capture.main_thread().frames[0]) == "read_shard (data.py:88)"


# Everything is imported before the user is changed: nobody else may read this interpreter's folder.
DROP = """
import os
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
"""
UNTRACEABLE = (
    """
import ctypes, faulthandler, os, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from arobust_otel.model import beacon_layout
"""
    + DROP
    + "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n"
)
REFUSED_AGENT = (
    """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from arobust_otel.collectors.scan import NodeScan
from arobust_otel.collectors.stacks import StackTaker
from arobust_otel.plugins import Clock
"""
    + DROP
    + """
(rank,) = NodeScan([Path(sys.argv[1])]).scan(Clock(time.time_ns(), time.monotonic_ns())).ranks
taker = StackTaker(py_spy=sys.argv[2], dump_seconds=30, watcher_seconds=30)
capture = taker.capture(rank, "c")
missing = [gap.attributes["arobust.capability"] for gap in taker.gaps()]
print(capture.method, capture.main_thread().frames[0].function, *missing)
"""
)


@pytest.fixture
def open_folder():
    """A folder that every user may read, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="arobust-refused-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_where_ptrace_is_refused_the_watcher_answers(world, open_folder) -> None:
    """Both sides run as one ordinary user; the rank is not dumpable: even its own user may not trace it."""
    spy = open_folder / "py-spy"
    shutil.copy(pyspy.find_py_spy(), spy)
    beacons = open_folder / "beacons"
    beacons.mkdir()
    path = beacons / "pending.beacon"
    process = world.python(UNTRACEABLE + ANSWERS.replace("MAIN", "sys.stdin.readline()"), str(path), ROOT)
    assert process.first_line == "ready"
    written = world.rank(process.pid, rank=2)
    if os.geteuid() == 0:
        for mine in (beacons, written):
            os.chown(mine, 65534, 65534)
    shutil.move(written, path)
    done = subprocess.run(
        [sys.executable, "-c", REFUSED_AGENT, str(beacons), str(spy), ROOT],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout.split() == ["watcher", "read_shard", "ptrace"], done.stderr


def test_py_spy_is_looked_for_beside_the_interpreter_and_on_the_path(tmp_path) -> None:
    assert pyspy.find_py_spy(str(tmp_path)) is None
    assert pyspy.find_py_spy() is not None


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "Permission Denied: Try running again with elevated permissions by going 'sudo'",
            CapabilityError,
            "refuses",
        ),
        ("Error: EPERM: Operation not permitted", CapabilityError, "refuses"),
        (
            "Error: Failed to suspend process\n\nStack backtrace:\n 0: x",
            pyspy.NotSuspendedError,
            "Failed to suspend",
        ),
        ("Error: Failed to find python version from target process", CaptureError, "python version"),
    ],
)
def test_what_py_spy_prints_is_explained_without_its_own_trace(text, kind, words) -> None:
    error = pyspy.explain(text)
    assert type(error) is kind
    assert words in str(error)
    assert "backtrace" not in str(error)


@given(st.one_of(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr)))
def test_a_dump_of_another_form_is_a_capture_error(text) -> None:
    with contextlib.suppress(CaptureError):
        pyspy.parse_dump(text, 1)


@pytest.mark.parametrize("text", ["", "3", "[1]", '[{"frames": 3}]', '[{"frames": [{}]}]', "[" * 100_000])
def test_json_of_another_form_is_a_capture_error(text) -> None:
    with pytest.raises(CaptureError, match="something else than stacks"):
        pyspy.parse_dump(text, 1)


def _script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def _await_state(pid: int, letter: str) -> None:
    deadline = time.monotonic() + 30
    while read_stat(PROC, pid).state != letter:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _await_sleep(pid: int) -> None:
    """Until it is in the call that holds the lock: it says "ready" a moment before."""
    deadline = time.monotonic() + 30
    while "sleep" not in (said := waits.describe_wait(pid)):
        assert time.monotonic() < deadline, said
        time.sleep(0.01)
