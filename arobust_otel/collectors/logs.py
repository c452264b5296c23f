"""Training logs: files that are configured, and those that ranks and launchers write to.

A line is delivered once it is acknowledged; the state file keeps how far that is, so that an agent that comes
back goes on there. The file is the queue: nothing is read ahead of its delivery beyond a bound.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from arobust_otel.collectors.logtail import Position, Tail
from arobust_otel.collectors.logtext import Record, own_time_ns, severity
from arobust_otel.collectors.procfs import PROC, descriptors, open_flags
from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, LogLine
from arobust_otel.plugins import Clock, Item, Node, RankProcess

_DISCOVERY_NS = 2_000_000_000
_SAVE_NS = 100_000_000  # what a killed agent delivered since then is read again
_MAX_FILES = 256
_WRITING = os.O_WRONLY | os.O_RDWR


@dataclass(slots=True)
class LogsCollector:
    """Lines and tracebacks of training log files, each delivered once."""

    name: ClassVar[str] = "logs"
    files: tuple[str, ...] = ()  # paths and globs; a file may appear later
    state_file: Path | None = None  # None: an agent that comes back starts again
    proc: Path = PROC
    bytes_per_sample: int = 1024 * 1024
    joins_tracebacks: bool = True  # false: one record per line, empty ones included
    _tails: dict[str, Tail] = field(default_factory=dict, init=False)
    _owners: dict[str, set[RankProcess | None]] = field(default_factory=dict, init=False)
    _known: dict[str, Position] = field(default_factory=dict, init=False)
    _saved: dict[str, Position] = field(default_factory=dict, init=False)
    _discovered_ns: int | None = field(default=None, init=False)
    _saved_ns: int = field(default=0, init=False)
    _turn: int = field(default=0, init=False)
    _others: frozenset[str] = field(default=frozenset(), init=False)  # files that somebody else delivers

    def __post_init__(self) -> None:
        """Take up where an earlier agent stopped."""
        if self.state_file is not None:
            self._known = load_positions(self.state_file)
            self._saved = dict(self._known)

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        """Whole new records of all files, at most `bytes_per_sample` in all; no file starves the others."""
        if self._discovered_ns is None or now.mono_ns - self._discovered_ns >= _DISCOVERY_NS:
            self._discovered_ns = now.mono_ns
            self._discover(node)
        left = self.bytes_per_sample
        paths = list(self._tails)
        self._turn = (self._turn + 1) % max(1, len(paths))
        for path in paths[self._turn :] + paths[: self._turn]:
            if left <= 0:
                break
            records, used = self._tails[path].read(left, now.mono_ns)
            left -= used
            yield from self._lines(path, records, now)
        if now.mono_ns - self._saved_ns >= _SAVE_NS:
            self._saved_ns = now.mono_ns
            self._save()

    def acknowledge(self, path: str, end_offset: int) -> None:
        """A line was delivered, or given up for good: it is not read again. From the thread of `collect`."""
        tail = self._tails.get(path)
        if tail is not None:
            tail.acknowledge(end_offset)

    def follow(self, path: str, position: Position | None = None) -> None:
        """A file that was not known at the start; `position` is what another process delivered of it."""
        if position is not None:
            self._known[path] = position
        self._others -= {path}
        self._follow(path)

    def leave(self, paths: Iterable[str]) -> None:
        """Files that another process delivers for now: they are not followed, wherever they are found."""
        self._others = frozenset(paths)

    def positions(self) -> dict[str, Position]:
        """What was delivered of each file, where that is known."""
        found = dict(self._known)
        found |= {path: tail.position for path, tail in self._tails.items() if tail.position is not None}
        return found

    def finish(self) -> None:
        """Nobody writes any more: the next `collect` gives unfinished lines and tracebacks, too."""
        for tail in self._tails.values():
            tail.finish()

    def close(self) -> None:
        """Keep the positions and give the files back."""
        self._save()
        for tail in self._tails.values():
            tail.close()

    def _lines(self, path: str, records: Iterable[Record], now: Clock) -> Iterator[LogLine]:
        owners = self._owners.get(path, set())
        only = next(iter(owners)) if len(owners) == 1 else None
        for record in records:
            attributes: Attributes = {signals.LOG_PATH: path, signals.LOG_OFFSET: record.end_offset}
            if only is not None:
                attributes |= only.event_attributes()
            own_ns = own_time_ns(record.text, now.wall_ns)
            yield LogLine(
                record.text,
                now.wall_ns if own_ns is None else own_ns,
                path,
                record.end_offset,
                attributes,
                severity(record.text),
                time_is_observed=own_ns is None,
            )

    def _discover(self, node: Node) -> None:
        for pattern in self.files:
            for name in files_of(pattern):
                self._follow(os.path.realpath(name))  # as /proc names it: no file is followed twice
        own = {rank.path.parent for rank in node.ranks if rank.path is not None}
        for pid, rank in _writers(node):
            for path, is_output in written_files(self.proc, pid):
                if path.parent in own:
                    continue
                self._follow(str(path))
                if is_output and str(path) in self._tails:
                    self._claim(str(path), rank)

    def _claim(self, path: str, rank: RankProcess | None) -> None:
        """Note who has a file as its output; one process counts once, however its beacon moves on."""
        owners = self._owners.setdefault(path, set())
        if rank is None:
            owners.add(None)
        elif not any(owner is not None and owner.key == rank.key for owner in owners):
            owners.add(rank)

    def _follow(self, path: str) -> None:
        if path not in self._tails and path not in self._others and len(self._tails) < _MAX_FILES:
            self._tails[path] = Tail(Path(path), self._known.get(path), self.joins_tracebacks)

    def _save(self) -> None:
        if self.state_file is None:
            return
        positions = self.positions()
        if positions != self._saved:
            store_positions(self.state_file, positions)
            self._saved = positions


def files_of(pattern: str) -> list[str]:
    """Names behind a path or pattern; what exists as it is written is a name.

    Parameter sweeps make folders such as ``lr=[0.1,0.2]``: as a pattern it would find those of other runs.
    """
    folder, name = os.path.split(pattern)
    is_folder = os.path.isdir(folder)
    if os.path.exists(pattern) or not glob.has_magic(name if is_folder else pattern):
        return [pattern]
    return sorted(glob.glob(os.path.join(glob.escape(folder), name) if is_folder else pattern))


def _writers(node: Node) -> Iterator[tuple[int, RankProcess | None]]:
    for launcher in node.launchers:
        if launcher.alive:
            yield launcher.beacon.pid, None
    for rank in node.ranks:
        if rank.alive:
            yield rank.pid, rank


def written_files(proc: Path, pid: int) -> list[tuple[Path, bool]]:
    """Logs that a process writes: its output and error where they are files, and any ``*.log``.

    Returns:
        path, and whether it is the process's output or error.
    """
    found: dict[Path, bool] = {}
    for descriptor, target in sorted(descriptors(proc, pid).items()):
        path = Path(target)
        is_output = descriptor in (1, 2)
        if not (is_output or path.suffix == ".log") or not path.is_absolute() or not path.is_file():
            continue
        flags = open_flags(proc, pid, descriptor)
        if flags is not None and flags & _WRITING:
            found[path] = found.get(path, False) or is_output
    return list(found.items())


def load_positions(path: Path) -> dict[str, Position]:
    """Positions of a state file; entries and files of another form are left out."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    found = {name: Position.from_json(value) for name, value in values.items()}
    return {name: position for name, position in found.items() if position is not None}


def store_positions(path: Path, positions: dict[str, Position]) -> None:
    """Replace the state file as a whole."""
    draft = path.with_name(path.name + ".new")
    content = json.dumps({name: position.to_json() for name, position in sorted(positions.items())})
    draft.write_text(content, encoding="utf-8")
    draft.replace(path)
