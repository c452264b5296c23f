"""Follows one log file through rotation, and remembers which of its records were delivered.

No thread, no glob, no rank: `logs` decides which files, the runner says what was delivered.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

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
        self._descriptor = -1
        self._file = 0
        self._identities: dict[int, tuple[int, str, int]] = {}  # file -> inode, fingerprint, its bytes
        self._splitter = LineSplitter(0)
        self._joiner: TracebackJoiner | LineByLine = TracebackJoiner() if joins else LineByLine()
        self._sent: deque[_Sent] = deque()
        self._held_since_ns: int | None = None
        self._replaced_since_ns: int | None = None

    def read(self, budget_bytes: int, mono_ns: int) -> tuple[list[Record], int]:
        """New records, and how many bytes were read. Stops while too many wait for their acknowledgement."""
        records: list[Record] = []
        used = 0
        while used < budget_bytes and len(self._sent) < _MAX_OUTSTANDING:
            if self._descriptor < 0 and not self._open():
                break
            records += self._after_truncation()
            # At our own place: a forked child has the descriptor, and with it its offset, in common with us.
            data = os.pread(self._descriptor, min(_CHUNK_BYTES, budget_bytes - used), self._splitter.offset)
            if data:
                used += len(data)
                records += self._take(self._splitter.feed(data))
                self._identify()
            elif self._is_replaced(mono_ns):
                records += self._finish()
            else:
                break
        records += self._overdue(used > 0, mono_ns)
        return records, used

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
            inode, fingerprint, size = self._identities[done.file]
            self.position = Position(inode, done.end_offset, fingerprint, size)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        for path, offset in self._candidates():
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                continue
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode) or not self._fits(found, offset):
                self.close()
                continue
            start = offset if offset else self._first_offset(found.st_size)
            self._splitter = LineSplitter(start)
            self._identities[self._file] = (found.st_ino, "", 0)
            self._identify()
            return True
        return False

    def _candidates(self) -> Iterator[tuple[Path, int]]:
        """Where an earlier agent stopped, renamed meanwhile or not; then the path from its beginning."""
        if self.position is not None and self._file == 0:
            yield self.path, self.position.offset
            try:
                names = sorted(self.path.parent.glob(glob.escape(self.path.name) + "?*"))
            except OSError:
                names = []
            yield from ((name, self.position.offset) for name in names)
        yield self.path, 0

    def _fits(self, found: os.stat_result, offset: int) -> bool:
        if offset == 0 or self.position is None:
            return True
        known = self.position
        if found.st_ino != known.inode or found.st_size < offset:
            return False
        return _digest(os.pread(self._descriptor, known.fingerprint_bytes, 0)) == known.fingerprint

    def _first_offset(self, size: int) -> int:
        """Beginning of a file that is new or short; of a long old one, the first whole line near its end."""
        if self._file > 0 or self.position is not None or size <= _FIRST_READ_BYTES:
            return 0
        start = size - _FIRST_READ_BYTES
        line_end = os.pread(self._descriptor, _CHUNK_BYTES, start).find(b"\n")
        return start + line_end + 1

    def _identify(self) -> None:
        """Fingerprint of the first bytes, until there are enough of them."""
        inode, _, size = self._identities[self._file]
        if size < _FINGERPRINT_BYTES:
            head = os.pread(self._descriptor, _FINGERPRINT_BYTES, 0)
            self._identities[self._file] = (inode, _digest(head), len(head))

    def _after_truncation(self) -> list[Record]:
        """Start again where the file was cut and written anew under our feet."""
        inode, fingerprint, size = self._identities[self._file]
        head = os.pread(self._descriptor, size, 0)
        shrunk = os.fstat(self._descriptor).st_size < self._splitter.offset
        if not shrunk and _digest(head) == fingerprint:
            return []
        records = self._take(self._splitter.finish()) + self._note(self._joiner.flush())
        self._file += 1
        self._splitter = LineSplitter(0)
        self._identities[self._file] = (inode, "", 0)
        self._identify()
        return records

    def _is_replaced(self, mono_ns: int) -> bool:
        """Whether the path leads to another file that is being written, or has for some seconds.

        The writer may still hold the renamed file: an empty successor does not end it at once.
        """
        try:
            now = self.path.stat()
        except OSError:
            return False
        if now.st_ino == self._identities[self._file][0]:
            self._replaced_since_ns = None
            return False
        if self._replaced_since_ns is None:
            self._replaced_since_ns = mono_ns
        return now.st_size > 0 or mono_ns - self._replaced_since_ns > _LINGER_NS

    def _finish(self) -> list[Record]:
        records = self._take(self._splitter.finish()) + self._note(self._joiner.flush())
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
        self._sent.extend(_Sent(record.end_offset, self._file) for record in records)
        return records


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest() if data else ""
