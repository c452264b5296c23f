"""Reads a journal from an offset, in any process, while another appends to it."""

from __future__ import annotations

import os
from bisect import bisect_right
from pathlib import Path

from arobust_otel.errors import JournalError
from arobust_otel.journal.format import HEADER_BYTES, SEAL, SEGMENT_BYTES, Record, RecordHeader
from arobust_otel.journal.segments import Segment, damaged, first_offsets, segment_path

CHUNK_BYTES = 256 * 1024
READ_BYTES = 8 * 1024 * 1024


class Reader:
    """Whole records from `start` on, in order; offsets may have gaps.

    A poll at the tail costs one read of the file: segment and byte position are remembered. `offset` is the
    next to be read: store it in a `Cursor`, start with it again.
    """

    def __init__(self, folder: str | Path, start: int = 0) -> None:
        """Nothing is opened before the first `read`. `start` 0 means the oldest record that is kept."""
        self.folder = Path(folder)
        self.offset = start
        self._segment: Segment | None = None
        self._position = 0
        self._expected = 0
        self._judged = (-1, -1, -1)

    def read(self, max_records: int = 1000) -> list[Record]:
        """Next records, empty at the tail; fewer than `max_records` where they are large (8 MiB a call).

        Raises:
            JournalError: the next record was whole once and is damaged or gone; names segment and byte.
        """
        records: list[Record] = []
        try:
            self._read_into(records, max_records)
        except JournalError:
            if not records:
                raise
            self._judged = (-1, -1, -1)  # the next call judges again, and raises
        return records

    def _read_into(self, records: list[Record], max_records: int) -> None:
        budget_bytes = READ_BYTES
        while len(records) < max_records and budget_bytes > 0:
            if self._segment is None and not self._open_first():
                break
            before = self._position
            if not self._read_chunk(records, max_records):
                break
            budget_bytes -= max(self._position - before, 0)

    def pass_damage(self) -> int | None:
        """Go on behind what `read` has just raised for: at the next whole record, or the next segment.

        Returns:
            How many offsets are passed over; None where nothing follows that could be read.
        """
        before, self._judged = self.offset, (-1, -1, -1)
        found = self._segment.next_whole(self._position) if self._segment is not None else None
        if found is not None:
            self._position, header = found
            self._expected = header.offset
            self.offset = max(self.offset, header.offset)
            return self.offset - before
        first = self._segment.header.first_offset if self._segment is not None else self._wanted()
        later = [other for other in first_offsets(self.folder) if other > first]
        if not later:
            return None
        self.close()
        self.offset = max(self.offset, later[0])
        return self.offset - before

    def _wanted(self) -> int:
        """First offset of the segment that should hold `offset`, which could not be opened."""
        offsets = first_offsets(self.folder)
        return offsets[max(bisect_right(offsets, self.offset) - 1, 0)] if offsets else 0

    def close(self) -> None:
        """Close the segment; reading again opens it again."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def __enter__(self) -> Reader:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _open_first(self) -> bool:
        """Open the segment that holds `offset`, found by name; False while there is none."""
        offsets = first_offsets(self.folder)
        if not offsets:
            return False
        index = bisect_right(offsets, self.offset) - 1
        if index < 0 and self.offset > 0:
            raise JournalError(f"records before {offsets[0]} are gone; a reader wants {self.offset}")
        return self._enter(offsets[max(index, 0)])

    def _enter(self, first_offset: int) -> bool:
        try:
            self._segment = Segment(segment_path(self.folder, first_offset))
        except FileNotFoundError:
            return False
        self._position = SEGMENT_BYTES
        self._expected = first_offset
        return True

    def _read_chunk(self, records: list[Record], max_records: int) -> bool:
        """Parse what one read gives; False at the tail."""
        segment = self._segment
        assert segment is not None
        data = os.pread(segment.handle, CHUNK_BYTES, self._position)
        salt, used = segment.header.salt, 0
        while len(records) < max_records:
            if len(data) - used < HEADER_BYTES:
                break
            header = RecordHeader.parse(data[used : used + HEADER_BYTES], salt)
            if header is None:
                return self._judge(segment)
            end = used + header.total_bytes
            if end > len(data):
                break
            if not self._take(segment, header, data[used + HEADER_BYTES : end], records):
                return self._segment is not segment
            used = end
        return True if used else self._read_large(segment, data, records)

    def _take(self, segment: Segment, header: RecordHeader, content: bytes, records: list[Record]) -> bool:
        """Count one record as read; False where it ends what can be read of this segment."""
        if not header.matches(content, segment.header.salt):
            return self._judge(segment)
        if header.kind == SEAL:
            self._follow(segment, header.offset)
            return False
        if header.offset >= self.offset:
            records.append(header.record(content))
            self.offset = header.offset + 1
        self._position += header.total_bytes
        self._expected = header.offset + 1
        return True

    def _read_large(self, segment: Segment, data: bytes, records: list[Record]) -> bool:
        """A record longer than the chunk, or the tail."""
        needed, header = self._position + HEADER_BYTES, None
        if len(data) >= HEADER_BYTES:
            header = RecordHeader.parse(data, segment.header.salt)
            needed += header.content_bytes if header else 0
        if header is None or segment.size_bytes < needed:
            return self._judge_short(segment, needed)
        content = os.pread(segment.handle, header.content_bytes, self._position + HEADER_BYTES)
        return len(content) == header.content_bytes and self._take(segment, header, content, records)

    def _follow(self, segment: Segment, next_first: int) -> None:
        """Go on with the next segment once it exists."""
        if self._enter(next_first):
            self.offset = max(self.offset, next_first)
            segment.close()
            return
        later = [first for first in first_offsets(self.folder) if first > next_first]
        missing = segment_path(self.folder, next_first)
        if later and not missing.exists():
            raise JournalError(f"{missing.name} is missing, but {later[0]} exists")

    def _judge_short(self, segment: Segment, needed: int) -> bool:
        """The file ends within a record: the tail, unless a later segment says that this one is finished."""
        if self._is_new(segment) and self._has_successor(segment) and segment.size_bytes < needed:
            raise damaged(segment.path, self._position, "the segment ends too early")
        return False

    def _judge(self, segment: Segment) -> bool:
        """A record that is all there but not whole: a torn tail to wait at, or damage to raise."""
        if not self._is_new(segment):
            return False
        proven = segment.proof_of_damage(self._position, self._expected) is not None
        if (proven or self._has_successor(segment)) and not segment.is_whole_at(self._position):
            raise damaged(segment.path, self._position, "a record is damaged")
        return False

    def _is_new(self, segment: Segment) -> bool:
        """Whether the file has changed since it was judged at this place: judging is not for every poll."""
        seen = (segment.header.first_offset, self._position, segment.size_bytes)
        changed, self._judged = seen != self._judged, seen
        return changed

    def _has_successor(self, segment: Segment) -> bool:
        return first_offsets(self.folder)[-1:] > [segment.header.first_offset]
