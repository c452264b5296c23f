"""Deleting old segments: whole ones, over the limit, and never what a reader still needs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from arobust_otel.journal.durable import sync_folder
from arobust_otel.journal.segments import first_offsets, segment_path


@dataclass(frozen=True, slots=True)
class Retained:
    """What became of the journal. `blocked_bytes`: over the limit, but a cursor or snapshot needs them."""

    kept_bytes: int
    deleted_bytes: int
    deleted_segments: int
    blocked_bytes: int


def limit_for(folder: str | Path, limit_bytes: int, reserve_bytes: int) -> int:
    """The limit that leaves `reserve_bytes` free on the journal's disk; `limit_bytes` where they are free."""
    folder = Path(folder)
    disk = os.statvfs(folder)
    lacking = reserve_bytes - disk.f_bavail * disk.f_frsize
    if lacking <= 0:
        return limit_bytes
    kept_bytes = sum(segment_path(folder, first).stat().st_size for first in first_offsets(folder))
    return max(0, min(limit_bytes, kept_bytes - lacking))


def retain_for_readers(
    folder: str | Path, limit_bytes: int, spare_bytes: int, readers: Iterable[int], snapshot: int
) -> Retained:
    """Delete old segments, but wait for readers that are behind while that costs at most `spare_bytes` more.

    Receiving goes before delivering: a destination that is away for ever would fill the disk. The oldest
    snapshot in use is never passed.
    """
    result = retain(folder, limit_bytes, [*readers, snapshot])
    if result.blocked_bytes <= spare_bytes:
        return result
    return retain(folder, limit_bytes + spare_bytes, [snapshot])


def retain(folder: str | Path, limit_bytes: int, in_use: Iterable[int]) -> Retained:
    """Delete the oldest segments until the journal is within `limit_bytes`.

    Args:
        folder: the journal.
        limit_bytes: size that all segments together should not pass. The newest always stays.
        in_use: offsets from which somebody may still read: every cursor, every kept snapshot. None given
            means that nobody reads.
    """
    folder = Path(folder)
    firsts = first_offsets(folder)
    sizes = {first: segment_path(folder, first).stat().st_size for first in firsts}
    kept_bytes, deleted_bytes, deleted = sum(sizes.values()), 0, 0
    needed = min(in_use, default=firsts[-1] if firsts else 0)
    for first, successor in pairwise(firsts):
        if kept_bytes <= limit_bytes or successor > needed:
            break
        segment_path(folder, first).unlink()
        kept_bytes -= sizes[first]
        deleted_bytes += sizes[first]
        deleted += 1
    if deleted:
        sync_folder(folder)
    newest_bytes = sizes[firsts[-1]] if firsts else 0
    blocked_bytes = max(0, kept_bytes - max(limit_bytes, newest_bytes))
    return Retained(kept_bytes, deleted_bytes, deleted, blocked_bytes)
