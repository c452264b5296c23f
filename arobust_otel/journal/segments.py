"""Segment files of a journal: names, opening, walking records, and telling a torn tail from damage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from arobust_otel.errors import JournalError
from arobust_otel.journal.format import HEADER_BYTES, RECORD_MAGIC, SEGMENT_BYTES, RecordHeader, SegmentHeader

SUFFIX = ".segment"
_DIGITS = 20


def segment_path(folder: Path, first_offset: int) -> Path:
    """File of the segment whose first record has this offset or a later one."""
    return folder / f"{first_offset:0{_DIGITS}d}{SUFFIX}"


def first_offsets(folder: Path) -> list[int]:
    """First offsets of all segments, ascending; empty where there is no folder yet."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    stems = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
    return sorted(int(stem) for stem in stems if len(stem) == _DIGITS and stem.isdecimal())


def damaged(path: Path, position: int, what: str) -> JournalError:
    """The error that names segment and byte, and the page that says what to do."""
    return JournalError(f"{path.name} at byte {position}: {what} (docs/journal.md, Damage)")


class Segment:
    """One open segment file, read by position: nothing is remembered between calls but the header."""

    __slots__ = ("handle", "header", "path")

    def __init__(self, path: Path) -> None:
        """Open and check the header.

        Raises:
            FileNotFoundError: there is no such segment.
            JournalError: the file does not begin like a segment of this name.
        """
        self.path = path
        self.handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        header = SegmentHeader.parse(os.pread(self.handle, SEGMENT_BYTES, 0))
        if header is None or segment_path(path.parent, header.first_offset) != path:
            os.close(self.handle)
            raise damaged(path, 0, "the header of the segment is damaged")
        self.header = header

    @property
    def size_bytes(self) -> int:
        """Size of the file now."""
        return os.fstat(self.handle).st_size

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)

    def header_at(self, position: int) -> RecordHeader | None:
        """The whole, undamaged record header at `position`, None where there is none."""
        data = os.pread(self.handle, HEADER_BYTES, position)
        return RecordHeader.parse(data, self.header.salt) if len(data) == HEADER_BYTES else None

    def content_of(self, header: RecordHeader, position: int) -> bytes | None:
        """Content of the record at `position`; None where it is cut short or damaged."""
        data = os.pread(self.handle, header.content_bytes, position + HEADER_BYTES)
        if len(data) == header.content_bytes and header.matches(data, self.header.salt):
            return data
        return None

    def is_whole_at(self, position: int) -> bool:
        """Whether the record at `position` is all there and undamaged now."""
        header = self.header_at(position)
        return header is not None and self.content_of(header, position) is not None

    def proof_of_damage(self, position: int, expected_offset: int) -> int | None:
        """Byte of a later record which proves that the one at `position` was once on disk.

        A crash may leave any mixture of old and new pages behind the last `sync`; none of it was promised
        to anybody. A record says which offsets were durable when it was written: one that counts
        `expected_offset` among them cannot follow a torn tail, only damage.
        """
        later = self._whole_after(position)
        return next((found for found, header in later if header.durable > expected_offset), None)

    def next_whole(self, position: int) -> tuple[int, RecordHeader] | None:
        """The first whole record behind the one at `position`; None where there is none."""
        return next(self._whole_after(position), None)

    def _whole_after(self, position: int) -> Iterator[tuple[int, RecordHeader]]:
        """Whole records behind the one at `position`, found by their magic."""
        rest = os.pread(self.handle, self.size_bytes - position, position)
        found = rest.find(RECORD_MAGIC, 1)
        while found >= 0:
            header = self.header_at(position + found)
            if header is not None and self.content_of(header, position + found) is not None:
                yield position + found, header
            found = rest.find(RECORD_MAGIC, found + 1)

    def walk(self) -> Iterator[tuple[int, RecordHeader, bytes]]:
        """Position, header and content of every whole record from the begin, the seal included."""
        position = SEGMENT_BYTES
        while (header := self.header_at(position)) is not None:
            content = self.content_of(header, position)
            if content is None:
                return
            yield position, header, content
            position += header.total_bytes
