"""Copy a journal without records of some kinds, offsets kept: what a replay must be able to do without."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from arobust_otel.errors import JournalError
from arobust_otel.journal.durable import make_private_folder
from arobust_otel.journal.format import HEADER_BYTES, SEGMENT_BYTES, Kind
from arobust_otel.journal.segments import Segment, first_offsets, segment_path

DROP_OUTPUTS = frozenset({Kind.OUTPUT})


def strip(source: str | Path, destination: str | Path, drop: Collection[Kind] = DROP_OUTPUTS) -> int:
    """Copy every whole record of a kind not in `drop`; the copy is not made durable.

    Returns:
        How many records were left out.

    Raises:
        JournalError: the destination holds a journal already, or a segment's header is damaged.
    """
    source, destination = Path(source), Path(destination)
    make_private_folder(destination)
    if first_offsets(destination):
        raise JournalError(f"{destination} holds a journal already")
    return sum(_strip_segment(source, destination, first, drop) for first in first_offsets(source))


def _strip_segment(source: Path, destination: Path, first: int, drop: Collection[Kind]) -> int:
    dropped = 0
    segment = Segment(segment_path(source, first))
    handle = os.open(segment_path(destination, first), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as copy:
            copy.write(os.pread(segment.handle, SEGMENT_BYTES, 0))
            for position, header, content in segment.walk():
                if header.kind in drop:
                    dropped += 1
                else:
                    copy.write(os.pread(segment.handle, HEADER_BYTES, position))
                    copy.write(content)
    finally:
        segment.close()
    return dropped
