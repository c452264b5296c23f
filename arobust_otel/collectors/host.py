"""The node itself: processors, memory, file systems, network, pressure, kills for memory.

A file system behind a network is left out: asking one that does not answer would stop the agent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import psutil

from arobust_otel.collectors.oom import parse_kills
from arobust_otel.collectors.procfs import PROC, read_text
from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, Point
from arobust_otel.plugins import Clock, Item, Node

# Kinds of file systems that answer from this machine alone.
_LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "tmpfs", "vfat"})
_RESOURCES = ("cpu", "memory", "io")


@dataclass(slots=True)
class HostCollector:
    """Processors, memory, file systems of the ranks, network, pressure and memory kills of the node."""

    name: ClassVar[str] = "host"
    proc: Path = PROC
    interval_seconds: float = 5.0  # between readings; in between the last points are given again
    _points: tuple[Point, ...] = field(default=(), init=False)
    _read_ns: int | None = field(default=None, init=False)
    _cpu: tuple[float, float] | None = field(default=None, init=False)  # busy and all seconds

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        """Gauges without a rank."""
        if self._read_ns is None or now.mono_ns - self._read_ns >= self.interval_seconds * 1e9:
            self._read_ns = now.mono_ns
            self._points = tuple(self._read(now.wall_ns, node))
        yield from self._points

    def _read(self, at_ns: int, node: Node) -> Iterator[Point]:
        yield from self._processors(at_ns)
        memory = psutil.virtual_memory()
        yield Point(signals.HOST_MEMORY_USAGE, memory.total - memory.available, at_ns)
        yield Point(signals.HOST_MEMORY_LIMIT, memory.total, at_ns)
        yield from file_systems(folders(self.proc, node), at_ns)
        network = psutil.net_io_counters()
        if network is not None:
            for direction, value in (("receive", network.bytes_recv), ("transmit", network.bytes_sent)):
                yield Point(signals.HOST_NET_IO, value, at_ns, {signals.NET_DIRECTION: direction})
        yield from pressures(self.proc, at_ns)
        kills = parse_kills(read_text(self.proc / "vmstat") or "")
        if kills is not None:
            yield Point(signals.OOM_KILLS, kills, at_ns)

    def _processors(self, at_ns: int) -> Iterator[Point]:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        busy_and_all = (
            sum(times) - idle - getattr(times, "guest", 0.0),
            sum(times) - getattr(times, "guest", 0.0),
        )
        before, self._cpu = self._cpu, busy_and_all
        if before is not None and busy_and_all[1] > before[1]:
            share = (busy_and_all[0] - before[0]) / (busy_and_all[1] - before[1])
            yield Point(signals.HOST_CPU, min(1.0, max(0.0, share)), at_ns)


def folders(proc: Path, node: Node) -> set[Path]:
    """Where the ranks work and where their beacons are."""
    found = {rank.path.parent for rank in node.ranks if rank.path is not None}
    for rank in node.ranks:
        try:
            found.add((proc / str(rank.pid) / "cwd").readlink())
        except OSError:
            continue
    return found


def file_systems(paths: set[Path], at_ns: int) -> Iterator[Point]:
    """Used share of each local file system that holds one of the folders."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    holding = {mount for path in paths if (mount := mount_of(path, mounts)) is not None}
    for mount in sorted(holding):
        if mounts[mount] not in _LOCAL:
            continue
        try:
            share = psutil.disk_usage(str(mount)).percent / 100
        except OSError:
            continue
        yield Point(signals.HOST_FS_UTILIZATION, share, at_ns, {signals.MOUNTPOINT: str(mount)})


def mount_of(path: Path, mounts: dict[Path, str]) -> Path | None:
    """The innermost mount point that holds a path; None where none does."""
    return next((place for place in (path, *path.parents) if place in mounts), None)


def pressures(proc: Path, at_ns: int) -> Iterator[Point]:
    """Pressure of each resource that the kernel keeps an account of."""
    for resource in _RESOURCES:
        share = parse_pressure(read_text(proc / "pressure" / resource) or "")
        if share is not None:
            attributes: Attributes = {signals.RESOURCE: resource}
            yield Point(signals.HOST_PRESSURE, share, at_ns, attributes)


def parse_pressure(text: str) -> float | None:
    """``some avg10=1.53 ...`` -> 0.0153; None where the line is missing."""
    for line in text.splitlines():
        if line.startswith("some "):
            values = dict(word.partition("=")[::2] for word in line.split()[1:])
            try:
                return float(values["avg10"]) / 100
            except (KeyError, ValueError):
                return None
    return None
