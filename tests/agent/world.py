"""A job on this node for tests: real processes with real beacon pages."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.model import beacon
from arobust_otel.model.beacon import LauncherBeacon, RankBeacon

JOB_ID = "story"
RANK = """
import sys, time

def read_shard():
    sys.stdout.write("x"), sys.stdout.flush(), time.sleep(600)  # one line: a stack that does not move

read_shard()
"""


class World:
    """Ranks that sleep in `read_shard`, each with a beacon page."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = beacon.job_folder(root, JOB_ID)
        self.folder.mkdir(mode=0o700, parents=True)
        self.processes: list[subprocess.Popen[bytes]] = []

    def rank(self, rank: int, world_size: int = 1, incarnation: int = 0) -> subprocess.Popen[bytes]:
        """Start a rank and write its page."""
        process = subprocess.Popen([sys.executable, "-c", RANK], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        self.processes.append(process)
        page = self.page(process.pid, rank, world_size, incarnation)
        (self.folder / beacon.rank_file(rank, process.pid)).write_bytes(beacon.encode(page))
        return process

    def page(self, pid: int, rank: int, world_size: int, incarnation: int) -> RankBeacon:
        stat = read_stat(PROC, pid)
        assert stat is not None
        mono = time.monotonic_ns()
        return RankBeacon(
            pid=pid, start_ticks=stat.start_ticks, rank=rank, local_rank=rank, world_size=world_size,
            local_world_size=world_size, node_rank=0, incarnation=incarnation, job_id=JOB_ID, host="host-a",
            role="trainer", script="train.py", born_ns=time.time_ns(), main_tid=pid, watcher_tid=0,
            state="running", step=7, step_end_mono_ns=mono, step_duration_ns=50_000_000, phase="data",
            phase_since_mono_ns=mono, event_mono_ns=mono, event_count=1, tick_count=1, tick_mono_ns=mono,
            groups=(), groups_read_mono_ns=0, device_counters=False, exception=None, exit_begun_ns=None,
            nonfinite_step=None, nonfinite_ns=None, loss=None, stack_request=0, stack_done=0,
            capabilities=(), gaps=("loss_signal",),
        )  # fmt: skip

    def launcher(self, exit_begun: bool) -> None:
        """This test's own process as the launcher."""
        stat = read_stat(PROC, os.getpid())
        assert stat is not None
        begun = time.time_ns() if exit_begun else None
        page = LauncherBeacon(
            os.getpid(), stat.start_ticks, JOB_ID, 0, "host-a", time.time_ns(), "torchrun", begun, None, ()
        )
        (self.folder / beacon.launcher_file(os.getpid())).write_bytes(beacon.encode(page))

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def close(self) -> None:
        for process in self.processes:
            self.end(process)
