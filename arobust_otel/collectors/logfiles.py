"""Files of a log: the one that is written, and what rotation made of older ones.

Opening and finding only; which of them is read, and how far, is `logtail`'s.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As logrotate and Python's handlers call them: .1, .2.gz, -20261128, .2026-11-28_17-00, -20261128.gz
_ROTATED = re.compile(r"[.-](?:(?P<number>\d{1,5})|\d{4}-?\d\d-?\d\d(?:[-_T.]?[\d:-]+)?)(?:\.gz)?")
_LEAST_FINGERPRINT_BYTES = 16  # files that begin with as many same bytes are the same log, or copies of it
_SKIPPED_AT_ONCE_BYTES = 4 * 1024 * 1024  # of a compressed file, so that nobody waits for it


class Source:
    """A regular file that is open for reading.

    Raises:
        OSError: it cannot be opened, or is none.
    """

    is_final = False  # whether it will not grow any more

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(self._descriptor)
            raise OSError(f"{path} is no regular file")
        self.inode = found.st_ino

    def size(self) -> int:
        """Bytes that there are now."""
        return os.fstat(self._descriptor).st_size

    def written_ns(self) -> int:
        """When it was written last, since the epoch."""
        return os.fstat(self._descriptor).st_mtime_ns

    def read(self, count: int, offset: int) -> bytes | None:
        """Bytes at an offset, none at the end; None where it takes longer and another call goes on."""
        # At our own place: a forked child has the descriptor, and with it its offset, in common with us.
        return os.pread(self._descriptor, count, offset)

    def fingerprint(self, count: int) -> tuple[str, int]:
        """Of the first bytes, at most `count`; and of how many."""
        head = self.read(count, 0) or b""
        return digest(head), len(head)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class CompressedSource(Source):
    """What a file that was compressed holds, from its beginning to its end; a damaged one ends early."""

    is_final = True

    def __init__(self, path: Path) -> None:
        import gzip  # where there is one: training processes load this module

        super().__init__(path)
        self._file: Any = gzip.open(path)  # noqa: SIM115 - `close` closes it
        self._head = self._next(256)
        self._rest = self._head
        self._at = 0

    def size(self) -> int:
        """Unknown: as much as anybody asks for."""
        return 1 << 62

    def read(self, count: int, offset: int) -> bytes | None:
        """As of a plain file; offsets never go back."""
        skipped = 0
        while self._at < offset:
            part = self._take(min(offset - self._at, 65536))
            skipped += len(part)
            if not part:
                return b""
            if skipped >= _SKIPPED_AT_ONCE_BYTES:
                return None
        return self._take(count)

    def fingerprint(self, count: int) -> tuple[str, int]:
        """As of a plain file."""
        head = self._head[:count]
        return digest(head), len(head)

    def close(self) -> None:
        """Give both back."""
        self._file.close()
        super().close()

    def _take(self, count: int) -> bytes:
        part, self._rest = self._rest[:count], self._rest[count:]
        part = part or self._next(count)
        self._at += len(part)
        return part

    def _next(self, count: int) -> bytes:
        try:
            return bytes(self._file.read(count))
        except (OSError, EOFError, zlib.error):
            return b""


@dataclass(frozen=True, slots=True)
class Backup:
    """A rotated file beside a log."""

    path: Path
    inode: int
    written_ns: int
    number: int = 0  # the higher the older; 0 where it is called by a date


def open_source(path: Path) -> Source | None:
    """A file, decompressed where its name says that it is; None where it cannot be read."""
    try:
        return CompressedSource(path) if path.suffix == ".gz" else Source(path)
    except OSError:
        return None


def backups(path: Path) -> list[Backup]:
    """Rotated files of a log, the oldest first; one that is being compressed counts once."""
    found = {}
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                rest = entry.name.removeprefix(path.name)
                how = _ROTATED.fullmatch(rest) if rest != entry.name else None
                if how is not None:
                    of, number = entry.stat(), int(how["number"] or 0)
                    found[entry.name] = Backup(Path(entry.path), of.st_ino, of.st_mtime_ns, number)
    except OSError:  # the folder, or a file that has just gone: there is another look
        return []
    whole = [item for name, item in found.items() if name.removesuffix(".gz") not in found.keys() - {name}]
    # Clocks of file systems tick in milliseconds: files of one tick are told apart by their numbers.
    return sorted(whole, key=lambda item: (item.written_ns, -item.number))


def reopen(path: Path, item: Backup) -> Source | None:
    """A backup, also where another rotation renamed it meanwhile; None where it has gone."""
    names = [item.path, *(other.path for other in backups(path) if other.inode == item.inode)]
    for name in names:
        source = open_source(name)
        if source is not None and source.inode == item.inode:
            return source
        if source is not None:
            source.close()
    return None


def copy_of(path: Path, fingerprint: str, count: int, offset: int) -> Source | None:
    """The newest backup whose first bytes are these and that goes on after `offset`; None where none is."""
    if count < _LEAST_FINGERPRINT_BYTES:
        return None
    for item in reversed(backups(path)):
        source = open_source(item.path)
        if source is None:
            continue
        if source.fingerprint(count) == (fingerprint, count) and source.size() >= offset:
            return source
        source.close()
    return None


def newer(path: Path, than: Source, fingerprint: str, count: int) -> list[Backup]:
    """Backups that were written after a file of the log, and are neither it nor a copy of it."""
    known = [
        item for item in backups(path) if item.written_ns >= than.written_ns() or item.inode == than.inode
    ]
    same = [item.inode == than.inode or _begins(item, fingerprint, count) for item in known]
    if any(same):
        later = known[same.index(True) + 1 :]
    else:
        later = [item for item in known if item.written_ns > than.written_ns()]
    try:
        current = path.stat().st_ino
    except OSError:
        return []
    copies = {item for item, is_same in zip(known, same, strict=True) if is_same}
    return [item for item in later if item.inode != current and item not in copies]


def _begins(item: Backup, fingerprint: str, count: int) -> bool:
    """Whether a backup begins with these bytes, and they are enough to know it by."""
    source = open_source(item.path) if count >= _LEAST_FINGERPRINT_BYTES else None
    if source is None:
        return False
    found = source.fingerprint(count) == (fingerprint, count)
    source.close()
    return found


def digest(data: bytes) -> str:
    """Short, of bytes; an empty text of none."""
    return hashlib.blake2b(data, digest_size=8).hexdigest() if data else ""
