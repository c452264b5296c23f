"""Real processes and real beacons to look at: every one is ended with its test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.collectors.procfs import PROC, read_stat
from arobust_otel.collectors.scan import NodeScan
from arobust_otel.model import beacon_codec
from arobust_otel.model.beacon import Child, LauncherBeacon, RankBeacon, launcher_file, rank_file
from arobust_otel.model.samples import Event, Point
from arobust_otel.plugins import Clock, Item, Node

PLAIN = RankBeacon(
    pid=0,
    start_ticks=0,
    rank=0,
    local_rank=0,
    world_size=4,
    local_world_size=4,
    node_rank=0,
    incarnation=0,
    job_id="job",
    host="node-1",
    role="trainer",
    script="train.py",
    born_ns=0,
    main_tid=0,
    watcher_tid=0,
    state="running",
    step=7,
    step_end_mono_ns=0,
    step_duration_ns=250_000_000,
    phase="forward",
    phase_since_mono_ns=0,
    event_mono_ns=0,
    event_count=0,
    tick_count=0,
    tick_mono_ns=0,
    groups=(),
    groups_read_mono_ns=0,
    device_counters=False,
    exception=None,
    exit_begun_ns=None,
    nonfinite_step=None,
    nonfinite_ns=None,
    loss=None,
    stack_request=0,
    stack_done=0,
    capabilities=(),
    gaps=(),
)


def clock() -> Clock:
    return Clock(time.time_ns(), time.monotonic_ns())


@dataclass
class World:
    """A beacon folder and the processes that its beacons speak of."""

    folder: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def clock(self) -> Clock:
        return clock()

    def python(self, code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Run Python code; returns once it printed its first line (``ready`` by agreement)."""
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,
        )
        self.processes.append(process)
        assert process.stdout is not None
        process.first_line = process.stdout.readline().strip()  # type: ignore[attr-defined]
        return process

    def rank(self, pid: int, rank: int = 0, **values: Any) -> Path:
        """Write the beacon of a rank that is process `pid`; `values` are fields of RankBeacon."""
        stat = read_stat(PROC, pid)
        now = clock()
        page = replace(
            PLAIN,
            pid=pid,
            rank=rank,
            local_rank=rank,
            start_ticks=stat.start_ticks if stat else 1,
            born_ns=now.wall_ns,
            event_mono_ns=now.mono_ns,
            phase_since_mono_ns=values.get("event_mono_ns", now.mono_ns),
        )
        path = self.folder / rank_file(rank, pid)
        path.write_bytes(beacon_codec.encode(replace(page, **values)))
        return path

    def launcher(self, pid: int, *children: Child, **values: Any) -> Path:
        stat = read_stat(PROC, pid)
        page = LauncherBeacon(
            pid=pid,
            start_ticks=stat.start_ticks if stat else 1,
            job_id="job",
            incarnation=0,
            host="node-1",
            born_ns=time.time_ns(),
            argv="torchrun train.py",
            exit_begun_ns=None,
            signal_received=None,
            children=children,
        )
        path = self.folder / launcher_file(pid)
        path.write_bytes(beacon_codec.encode(replace(page, **values)))
        return path

    def node(self) -> Node:
        """What the agent's scan makes of the folder now."""
        return NodeScan([self.folder]).scan(clock())

    def sample_until(
        self, collector: Any, wanted: Callable[[list[Item]], bool], seconds: float = 40.0, every: float = 0.1
    ) -> list[Item]:
        """Sample like the agent until the items so far are what is wanted; fails after `seconds`."""
        scan, items, deadline = NodeScan([self.folder]), [], time.monotonic() + seconds
        while True:
            now = clock()
            items += list(collector.collect(now, scan.scan(now)))
            if wanted(items):
                return items
            assert time.monotonic() < deadline, [item for item in items if isinstance(item, Event)] or items[
                -20:
            ]
            time.sleep(every)

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "beacons"
    folder.mkdir(mode=0o700)
    made = World(folder)
    yield made
    made.end()


@pytest.fixture
def events() -> Callable[[list[Item], str], list[Event]]:
    return lambda items, name: [item for item in items if isinstance(item, Event) and item.name == name]


@pytest.fixture
def values() -> Callable[[list[Item], str], list[float]]:
    return lambda items, name: [item.value for item in items if isinstance(item, Point) and item.name == name]


@pytest.fixture
def tree(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """A folder with files of the given content: a procfs, a cgroup mount."""

    def make(files: dict[str, str]) -> Path:
        root = tmp_path / f"tree-{len(os.listdir(tmp_path))}"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return root

    return make
