"""Where the journal ends, read from record headers alone: for telling how far a destination is behind."""

from __future__ import annotations

from pathlib import Path

from arobust_otel.journal.format import SEAL, SEGMENT_BYTES
from arobust_otel.journal.segments import Segment, first_offsets, segment_path


class JournalEnd:
    """Follows the newest segment. A record that is only half written may be counted a moment early."""

    def __init__(self, folder: Path) -> None:
        """Nothing is opened before the first question."""
        self._folder = folder
        self._segment: Segment | None = None
        self._position = SEGMENT_BYTES
        self._offset = 0

    def next_offset(self) -> int:
        """Offset of the record that will be written next; 0 while there is no journal."""
        if self._segment is None and not self._open_newest():
            return self._offset
        while self._segment is not None:
            header = self._segment.header_at(self._position)
            if header is None:
                break
            if header.kind == SEAL:
                if header.offset > first_offsets(self._folder)[-1] or not self._open_newest():
                    break  # the next segment is about to be made
                continue
            self._position += header.total_bytes
            self._offset = header.offset + 1
        return self._offset

    def size_bytes(self) -> int:
        """Size of all segments."""
        total = 0
        for first in first_offsets(self._folder):
            try:
                total += segment_path(self._folder, first).stat().st_size
            except FileNotFoundError:  # deleted between the two looks
                continue
        return total

    def close(self) -> None:
        """Close the segment."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _open_newest(self) -> bool:
        self.close()
        offsets = first_offsets(self._folder)
        if not offsets:
            return False
        try:
            self._segment = Segment(segment_path(self._folder, offsets[-1]))
        except FileNotFoundError:
            return False
        self._position, self._offset = SEGMENT_BYTES, max(self._offset, offsets[-1])
        return True
