"""What a compatibility agent inside a training process leaves to the agent of the node.

One small file per process in the job's folder, 0600, replaced as a whole: which logs, how far they were
delivered, how often things were asked for, and whether the process still delivers them itself. The node's
agent reads the files every second: it leaves what a living process delivers and follows the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from arobust_otel.collectors.logs import files_of
from arobust_otel.collectors.logtail import Position
from arobust_otel.collectors.procfs import PROC, read_stat

SENDING, HANDED = "sending", "handed"
_PREFIX, _MAX_FILES, _MAX_BYTES = "handover-", 1024, 1024 * 1024
_READ_NS = 1_000_000_000
# Collectors of the predecessor -> ours, and the attribute that says how often they look.
_PERIODS = {
    "ResourceCollector": ("host", "interval_seconds"),
    "MetricCollector": ("xpu_timer", "period_seconds"),
}


@dataclass(frozen=True, slots=True)
class Handover:
    """What one process hands over, or keeps for now. Paths may be patterns."""

    pid: int
    start_ticks: int
    state: str
    time_ns: int
    files: tuple[str, ...] = ()
    positions: Mapping[str, Position] = field(default_factory=dict)
    periods: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """As it stands in the file."""
        values = {
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "state": self.state,
            "time_ns": self.time_ns,
            "files": list(self.files),
            "positions": {path: position.to_json() for path, position in self.positions.items()},
            "periods": dict(self.periods),
        }
        return json.dumps(values)

    @staticmethod
    def from_json(text: str | bytes) -> Handover:
        """The value behind `to_json`.

        Raises:
            ValueError: it is none.
        """
        try:
            values = json.loads(text)
            positions = {str(k): Position.from_json(v) for k, v in values["positions"].items()}
            return Handover(
                pid=int(values["pid"]),
                start_ticks=int(values["start_ticks"]),
                state=str(values["state"]),
                time_ns=int(values["time_ns"]),
                files=tuple(str(path) for path in values["files"]),
                positions={path: position for path, position in positions.items() if position is not None},
                periods={str(name): float(seconds) for name, seconds in values["periods"].items()},
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no handover: {error}") from None

    def real_files(self) -> set[str]:
        """The files, by their real names."""
        return {path for name in self.files for path in resolve(name)}

    def is_kept(self, proc: Path = PROC) -> bool:
        """Whether its process lives and delivers the files itself."""
        return self.state == SENDING and is_alive(self.pid, self.start_ticks, proc)


def is_alive(pid: int, start_ticks: int, proc: Path = PROC) -> bool:
    """Whether this very process lives: pids are used again."""
    stat = read_stat(proc, pid)
    return stat is not None and stat.state not in "ZX" and stat.start_ticks == start_ticks


def store(folder: Path, handover: Handover) -> None:
    """Replace this process's file as a whole.

    Raises:
        OSError: the folder cannot be written.
    """
    target = folder / f"{_PREFIX}{handover.pid}.json"
    scratch = folder / f".{target.name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(scratch, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(handover.to_json())
    scratch.replace(target)


def load(folder: Path) -> Iterator[Handover]:
    """All of a folder; files that are none, are not ours or cannot be read are left out."""
    for path in sorted(folder.glob(f"{_PREFIX}*.json"))[:_MAX_FILES]:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                if os.fstat(descriptor).st_uid not in (0, os.geteuid(), folder.stat().st_uid):
                    continue
                yield Handover.from_json(file.read(_MAX_BYTES))
        except (OSError, ValueError):
            continue


def resolve(pattern: str) -> list[str]:
    """Files behind a path or pattern, by their real names: the same file is never followed twice."""
    return [os.path.realpath(name) for name in files_of(pattern)]


def real_names(patterns: Sequence[str]) -> tuple[str, ...]:
    """What paths and patterns stand for: their own real names, and those of the files behind them now."""
    own = {os.path.realpath(pattern) for pattern in patterns}
    return tuple(sorted(own.union(*map(resolve, patterns))))


class Logs(Protocol):
    """What `apply` needs of the collector of logs."""

    state_file: Path | None

    def follow(self, path: str, position: Position | None = None) -> None:
        """Follow one more file."""
        ...

    def leave(self, paths: Sequence[str]) -> None:
        """Follow none of these for now."""
        ...


class Collectors(Protocol):
    """What `apply` needs of the sampler."""

    def collector(self, name: str) -> Any:
        """A collector by name."""
        ...


class HandoverReader:
    """The node agent's side: applies what the folder says, about every second.

    Args:
        folder: of the job.
        positions_ns: when this agent's own positions were stored; older positions of others do not count.
    """

    def __init__(self, folder: Path, positions_ns: int | None = None) -> None:
        self._folder = folder
        state = folder / "logs.json"
        self._own_ns = positions_ns if positions_ns is not None else _modified_ns(state)
        self._followed: set[str] = set()
        self._read_ns: int | None = None

    def apply(self, collectors: Collectors, mono_ns: int) -> None:
        """Tell the collectors what changed; nothing is read where the last time was just now."""
        logs: Logs | None = collectors.collector("logs")
        if logs is None or (self._read_ns is not None and mono_ns - self._read_ns < _READ_NS):
            return
        self._read_ns = mono_ns
        kept: set[str] = set()
        handed: list[Handover] = []
        for item in load(self._folder):
            if item.is_kept():
                kept |= item.real_files()
            else:
                handed.append(item)
            _hurry(collectors, item.periods)
        logs.leave(sorted(kept))
        for path in sorted({path for item in handed for path in item.real_files()} - kept - self._followed):
            self._followed.add(path)
            logs.follow(path, self._newest(path, handed))

    def _newest(self, path: str, handed: Sequence[Handover]) -> Position | None:
        """The last position that was written down for a file; None where this agent's own is newer."""
        known = [item for item in handed if path in item.positions and item.time_ns > self._own_ns]
        return max(known, key=lambda item: item.time_ns).positions[path] if known else None


def _hurry(collectors: Collectors, periods: Mapping[str, float]) -> None:
    """Look as often as was asked for, where that is more often than now."""
    for name, seconds in periods.items():
        ours, attribute = _PERIODS.get(name, ("", ""))
        collector = collectors.collector(ours) if ours else None
        now = getattr(collector, attribute, None)
        if isinstance(now, (int, float)) and 0 < seconds < now:
            setattr(collector, attribute, seconds)


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
