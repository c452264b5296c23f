"""A rank as a real process: beacon, facts, forks, stacks. No framework needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from arobust_otel.model import beacon

if TYPE_CHECKING:
    from tests.training.conftest import Runner, Until

RANK = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ROLE_NAME": "default"}
WAIT = "import time\ntime.sleep(60)\n"
MODULES = "import json, sys\nprint(json.dumps(sorted(sys.modules)))\n"


def test_a_rank_says_who_it_is(run: Runner, until: Until) -> None:
    started = run(WAIT, env={**RANK, "TORCHELASTIC_RESTART_COUNT": "2", "GROUP_RANK": "0"})
    until(lambda: started.has_rank(1) and started.rank(1).tick_count > 1)
    seen = started.rank(1)
    assert (seen.rank, seen.local_rank, seen.world_size, seen.node_rank, seen.incarnation) == (1, 1, 2, 0, 2)
    assert (seen.job_id, seen.role, seen.state, seen.pid) == (
        "job",
        "trainer",
        "imported",
        started.process.pid,
    )
    assert {"exceptions", "crash_file", "watcher_stacks"} <= set(seen.capabilities)
    assert seen.main_tid == started.process.pid != seen.watcher_tid


def test_a_rank_loads_nothing_heavy(run: Runner) -> None:
    out, _ = run(MODULES, env=RANK).end()
    loaded = {name.partition(".")[0] for name in json.loads(out)}
    assert not loaded & {"grpc", "numpy", "requests", "psutil", "google", "ctypes", "torch"}
    assert not [name for name in json.loads(out) if name.startswith("opentelemetry.sdk")]
    assert "arobust_otel" in loaded


def test_plain_python_without_launcher_is_rank_0_of_1(run: Runner) -> None:
    started = run("print('done')")
    started.end()
    seen = started.rank(0)
    assert (seen.rank, seen.world_size, seen.state) == (0, 1, "done")
    assert seen.exit_begun_ns


def test_an_unnamed_process_without_framework_leaves_no_trace(run: Runner, tmp_path: Path) -> None:
    started = run("print('done')", env={"AROBUST_JOB_ID": "-", "AROBUST_MASTER": "-"})
    out, err = started.end()
    assert (out, err) == ("done\n", "")
    assert list((tmp_path / "beacons").iterdir()) == []


def test_an_exception_is_known_while_another_thread_keeps_the_process_alive(
    run: Runner, until: Until
) -> None:
    source = """
import threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
def normalise(batch):
    return json.loads("{" + batch)
import json
normalise("x")
"""
    started = run(source, env=RANK)
    until(lambda: started.has_rank(1) and started.rank(1).exception is not None)
    seen = started.rank(1).exception
    assert (seen.type, seen.function, seen.line) == ("json.decoder.JSONDecodeError", "normalise", 5)
    assert seen.file.endswith("train.py")
    assert started.process.poll() is None
    until(lambda: started.rank(1).exit_begun_ns is not None)
    assert "JSONDecodeError" in started.side_file(".exception")


def test_the_main_threads_exception_replaces_that_of_a_thread(run: Runner) -> None:
    source = """
import threading
thread = threading.Thread(target=lambda: [][1], name="prefetch")
thread.start(); thread.join()
raise KeyError("weights")
"""
    started = run(source, env=RANK)
    _, err = started.end()
    seen = started.rank(1).exception
    assert (seen.type, seen.message, seen.thread) == ("KeyError", "'weights'", "MainThread")
    assert "IndexError" in err
    assert "KeyError" in err


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "import sys; sys.exit(3)"])
def test_an_ordinary_exit_is_no_exception(run: Runner, source: str) -> None:
    started = run(source, env=RANK)
    started.end()
    assert started.process.returncode == 3
    assert started.rank(1).exception is None


def test_a_fatal_signal_leaves_its_stack(run: Runner) -> None:
    source = """
import ctypes
def read_shard():
    ctypes.string_at(0)
read_shard()
"""
    started = run(source, env=RANK)
    started.end()
    assert started.process.returncode == -signal.SIGSEGV
    text = started.side_file(".crash")
    assert "Segmentation fault" in text
    assert "read_shard" in text


def test_the_users_own_fault_handler_stays(run: Runner) -> None:
    started = run("import ctypes; ctypes.string_at(0)", "-X", "faulthandler", env=RANK)
    _, err = started.end()
    assert "Segmentation fault" in err
    assert "crash_file" in started.rank(1).gaps


def test_the_watcher_writes_stacks_when_asked(run: Runner, until: Until) -> None:
    source = """
import time
def wait_for_peer():
    print("waiting", flush=True)
    time.sleep(600)
wait_for_peer()
"""
    started = run(source, env=RANK)
    assert started.process.stdout.readline() == "waiting\n"
    until(lambda: started.has_rank(1) and started.rank(1).tick_count > 0)
    beacon.request_stacks(next(started.folder().glob("rank-1-*.beacon")), 7)
    until(lambda: started.rank(1).stack_done == 7)
    assert "wait_for_peer" in started.side_file(".stacks-7")


def test_a_forked_child_writes_nothing_of_its_parents(run: Runner) -> None:
    source = """
import os, sys
pid = os.fork()
if pid == 0:
    raise ValueError("only the child")
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status))
"""
    started = run(source, env=RANK)
    out, err = started.end()
    assert out.strip() == "1"
    assert "only the child" in err
    assert started.rank(1).exception is None
    assert started.rank(1).state == "done"


def test_children_of_a_rank_do_nothing(run: Runner) -> None:
    source = """
import multiprocessing, subprocess, sys
def work(): pass
if __name__ == "__main__":
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    process = multiprocessing.get_context("spawn").Process(target=work)
    process.start(); process.join(); print(process.exitcode)
"""
    started = run(source, env=RANK)
    out, err = started.end()
    assert out.strip() == "0", err
    assert len(list(started.folder().glob("*.beacon"))) == 1


def test_a_folder_that_cannot_be_written_costs_one_line(run: Runner, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    started = run("print('trained')", env={**RANK, "AROBUST_BEACON_DIR": str(blocked / "x")})
    out, err = started.end()
    assert out == "trained\n"
    assert len(err.splitlines()) == 1
    assert "AROBUST_BEACON_DIR" in err


def test_a_folder_of_somebody_else_is_not_used(run: Runner, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    _, err = run("print('trained')", env={**RANK, "AROBUST_BEACON_DIR": str(shared)}).end()
    assert "can be written by others" in err
    assert list(shared.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system can only be mounted by root")
def test_a_full_tmpfs_costs_one_line_and_no_life(run: Runner, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(full)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        filler = full / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"\1" * (1 << 17))
        out, err = run("print('trained')", env={**RANK, "AROBUST_BEACON_DIR": str(full)}).end()
        assert out == "trained\n"
        assert "no room" in err
        assert len(err.splitlines()) == 1
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_the_launcher_sees_every_end(run: Runner) -> None:
    source = """
import os, signal, subprocess, sys, time
codes = ["pass", "import sys; sys.exit(3)", "import os; os.kill(os.getpid(), 9)"]
codes.append("import time; print('up', flush=True); time.sleep(60)")
workers = [
    subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
    )
    for rank, code in enumerate(codes)
]
for worker in workers[:3]:
    worker.wait()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    workers[3].terminate(); workers[3].wait()
"""
    started = run(source, name="torchrun")
    # A rank that is ended before its first line may have no beacon yet.
    assert {started.process.stdout.readline() for _ in range(2)} == {"ready\n", "up\n"}
    started.process.send_signal(signal.SIGINT)
    started.end()
    seen = started.launcher()
    assert [(child.rank, child.wait_status) for child in seen.children] == [(0, 0), (1, 3), (2, -9), (3, -15)]
    assert all(child.start_ticks and child.ended_ns >= child.born_ns for child in seen.children)
    assert seen.signal_received == signal.SIGINT
    assert seen.exit_begun_ns
    assert [started.rank(number).rank for number in (0, 1, 3)] == [0, 1, 3]


def test_a_launcher_that_is_told_to_end_by_default_still_ends(run: Runner) -> None:
    started = run("import time\nprint('up', flush=True)\ntime.sleep(60)", name="torchrun")
    assert started.process.stdout.readline() == "up\n"
    started.process.send_signal(signal.SIGTERM)
    started.end()
    assert started.process.returncode == -signal.SIGTERM
    assert started.launcher().signal_received == signal.SIGTERM


def test_an_interpreter_of_ours_never_raises_into_training(run: Runner, tmp_path: Path) -> None:
    """A broken part of ours is said once; the script runs."""
    torch = tmp_path / "torch" / "optim"
    torch.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("import torch.optim.optimizer\n")
    (torch / "__init__.py").write_text("")
    (torch / "optimizer.py").write_text("class Optimizer: pass\n")
    started = run("import torch\nprint('trained')", env={**RANK, "AROBUST_RAISE": "-"})
    out, err = started.end()
    assert out == "trained\n"
    assert "no step signal" in err
    assert len(err.splitlines()) == 1
    assert "step_signal" in started.rank(1).gaps
