"""Follows one log file through rotation, and remembers which of its records were delivered.

No thread, no glob, no rank: `logs` decides which files, the runner says what was delivered.
"""

from __future__ import annotations

import glob
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

from arobust_otel.collectors import logfiles
from arobust_otel.collectors.logfiles import Backup, Source
from arobust_otel.collectors.logtext import LineByLine, LineSplitter, Record, TracebackJoiner

_FINGERPRINT_BYTES = 256
_HOLD_NS = 1_000_000_000  # how long an unfinished traceback waits for its next line
_LINGER_NS = 2_000_000_000  # how long a renamed file is still read where its successor is empty
_CHUNK_BYTES = 64 * 1024
_FIRST_READ_BYTES = 1024 * 1024  # of a file that was there before us, at most this much of its end
_MAX_OUTSTANDING = 20_000  # records without acknowledgement; then the file itself is the queue


@dataclass(frozen=True, slots=True)
class Position:
    """What was delivered of a file: survives the agent. `fingerprint` is of its first bytes."""

    inode: int
    offset: int
    fingerprint: str = ""
    fingerprint_bytes: int = 0

    def to_json(self) -> dict[str, object]:
        """As it stands in the state file."""
        return asdict(self)

    @staticmethod
    def from_json(value: object) -> Position | None:
        """None where the value is not of that form."""
        if not isinstance(value, dict):
            return None
        inode, offset, size = (value.get(name) for name in ("inode", "offset", "fingerprint_bytes"))
        if not (isinstance(inode, int) and isinstance(offset, int) and isinstance(size, int)):
            return None
        if offset < 0 or not 0 <= size <= _FINGERPRINT_BYTES:
            return None
        return Position(inode, offset, str(value.get("fingerprint", "")), size)


@dataclass(slots=True)
class _Sent:
    end_offset: int
    file: int  # which of the successive files under this path
    settles: bool  # whether everything before its end is delivered with it
    delivered: bool = False


class Tail:
    """One followed path. `position` moves only over records that were acknowledged, without a gap.

    Args:
        path: may not exist yet, may be renamed away and made again, may be truncated.
        position: what an earlier agent had delivered.
        joins: one record per traceback; else one per line, empty ones included.
    """

    def __init__(self, path: Path, position: Position | None = None, joins: bool = True) -> None:
        """Nothing is opened before the first read."""
        self.path = path
        self.position = position
        self._source: Source | None = None
        self._missed: deque[Backup] = deque()  # files that were rotated away before anybody saw them
        self._is_missed = False  # whether the source is one of these
        self._file = 0
        self._identities: dict[int, tuple[int, str, int]] = {}  # file -> inode, fingerprint, its bytes
        self._splitter = LineSplitter(0)
        self._joiner: TracebackJoiner | LineByLine = TracebackJoiner() if joins else LineByLine()
        self._sent: deque[_Sent] = deque()
        self._held_since_ns: int | None = None
        self._replaced_since_ns: int | None = None
        self._is_ending = False

    def read(self, budget_bytes: int, mono_ns: int) -> tuple[list[Record], int]:
        """New records, and how many bytes were read. Stops while too many wait for their acknowledgement."""
        records: list[Record] = []
        used = 0
        while used < budget_bytes and len(self._sent) < _MAX_OUTSTANDING:
            source = self._source or self._open()
            if source is None:
                break
            records += self._after_truncation(source)
            source = self._source or source
            data = source.read(min(_CHUNK_BYTES, budget_bytes - used), self._splitter.offset)
            if data:
                used += len(data)
                records += self._take(self._splitter.feed(data))
                self._identify(source)
            elif data is not None and self._is_replaced(source, mono_ns):
                records += self._finish(source)
            else:
                break
        if self._is_ending and used < budget_bytes:
            return records + self._take(self._splitter.finish()) + self._note(self._joiner.flush()), used
        return records + self._overdue(used > 0, mono_ns), used

    def finish(self) -> None:
        """Nobody writes any more: what is at the end of the file is given, unfinished as it is."""
        self._is_ending = True

    def acknowledge(self, end_offset: int) -> None:
        """A record of `read` was delivered, or given up for good; an unknown one changes nothing."""
        entry = next(
            (sent for sent in self._sent if sent.end_offset == end_offset and not sent.delivered), None
        )
        if entry is None:
            return
        entry.delivered = True
        while self._sent and self._sent[0].delivered:
            done = self._sent.popleft()
            if not done.settles:
                continue
            inode, fingerprint, size = self._identities[done.file]
            self.position = Position(inode, done.end_offset, fingerprint, size)

    def close(self) -> None:
        """Give the file back."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def _open(self) -> Source | None:
        """Where to read on: what was missed, then where an earlier agent stopped, then the path itself."""
        while self._missed:
            source = logfiles.reopen(self.path, self._missed.popleft())
            if source is not None:
                return self._begin(source, 0, is_missed=True)
        if self.position is not None and self._file == 0:
            found = self._resumed(self.position)
            if found is not None:
                return self._begin(found, self.position.offset)
        source = _plain(self.path)
        return None if source is None else self._begin(source, self._first_offset(source))

    def _begin(self, source: Source, offset: int, is_missed: bool = False) -> Source:
        self._source, self._is_missed = source, is_missed
        self._splitter = LineSplitter(offset)
        self._identities[self._file] = (source.inode, "", 0)
        self._identify(source)
        return source

    def _resumed(self, known: Position) -> Source | None:
        """The file that an earlier agent read, renamed or not; else a copy of it, compressed or not."""
        try:
            names = sorted(self.path.parent.glob(glob.escape(self.path.name) + "?*"))
        except OSError:
            names = []
        for path in (self.path, *names):
            source = _plain(path)
            if source is None:
                continue
            same = source.fingerprint(known.fingerprint_bytes) == (known.fingerprint, known.fingerprint_bytes)
            if source.inode == known.inode and source.size() >= known.offset and same:
                return source
            source.close()
        return logfiles.copy_of(self.path, known.fingerprint, known.fingerprint_bytes, known.offset)

    def _first_offset(self, source: Source) -> int:
        """Beginning of a file that is new or short; of a long old one, the first whole line near its end."""
        size = source.size()
        if self._file > 0 or self.position is not None or size <= _FIRST_READ_BYTES:
            return 0
        start = size - _FIRST_READ_BYTES
        return start + (source.read(_CHUNK_BYTES, start) or b"").find(b"\n") + 1

    def _identify(self, source: Source) -> None:
        """Fingerprint of the first bytes, until there are enough of them."""
        inode, _, size = self._identities[self._file]
        if size < _FINGERPRINT_BYTES:
            self._identities[self._file] = (inode, *source.fingerprint(_FINGERPRINT_BYTES))

    def _after_truncation(self, source: Source) -> list[Record]:
        """Where the file was cut and written anew under our feet: first what a copy has of it, then anew."""
        _, fingerprint, size = self._identities[self._file]
        same = source.fingerprint(size) == (fingerprint, size)
        if source.is_final or (same and source.size() >= self._splitter.offset):
            return []
        copy = logfiles.copy_of(self.path, fingerprint, size, self._splitter.offset)
        if copy is not None:
            source.close()
            self._source = copy
            self._identities[self._file] = (copy.inode, fingerprint, size)
            return []
        records = self._take(self._splitter.finish()) + self._note(self._joiner.flush())
        self._file += 1
        self._begin(source, 0)
        return records

    def _is_replaced(self, source: Source, mono_ns: int) -> bool:
        """Whether the path leads to another file that is being written, or has for some seconds.

        The writer may still hold the renamed file: an empty successor does not end it at once.
        """
        if source.is_final or self._is_missed:
            return True
        try:
            now = self.path.stat()
        except OSError:
            return False
        if now.st_ino == source.inode:
            self._replaced_since_ns = None
            return False
        if self._replaced_since_ns is None:
            self._replaced_since_ns = mono_ns
        return now.st_size > 0 or mono_ns - self._replaced_since_ns > _LINGER_NS

    def _finish(self, source: Source) -> list[Record]:
        records = self._take(self._splitter.finish()) + self._note(self._joiner.flush())
        if not self._is_missed:
            _, fingerprint, size = self._identities[self._file]
            self._missed.extend(logfiles.newer(self.path, source, fingerprint, size))
        self.close()
        self._file += 1
        self._replaced_since_ns = None
        return records

    def _overdue(self, moved: bool, mono_ns: int) -> list[Record]:
        """A traceback whose next line does not come."""
        if not self._joiner.is_holding:
            self._held_since_ns = None
            return []
        if moved or self._held_since_ns is None:
            self._held_since_ns = mono_ns
            return []
        return self._note(self._joiner.flush()) if mono_ns - self._held_since_ns >= _HOLD_NS else []

    def _take(self, lines: list[Record]) -> list[Record]:
        return self._note([record for line in lines for record in self._joiner.feed(line)])

    def _note(self, records: list[Record]) -> list[Record]:
        self._sent.extend(_Sent(record.end_offset, self._file, record.settles) for record in records)
        return records


def _plain(path: Path) -> Source | None:
    """A file as it is, whatever its name says; None where it cannot be read."""
    try:
        return Source(path)
    except OSError:
        return None
