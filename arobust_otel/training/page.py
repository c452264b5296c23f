"""One page of a beacon as this process writes it: a shared map of a file, or private memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from arobust_otel.errors import BeaconError
from arobust_otel.model import beacon_layout as at
from arobust_otel.training.folder import create_file


class Page:
    """4096 bytes as `slots` (numbers), `floats` and `data` (bytes). Stores are plain and never fail.

    In a forked child the map is dropped: all views become private memory there, so whatever the
    child's hooks write never reaches the parent's beacon.
    """

    __slots__ = ("_map", "data", "floats", "is_shared", "path", "slots")

    def __init__(self, path: Path | None = None) -> None:
        """Map a new file at `path`; None is private memory.

        Raises:
            BeaconError: the file cannot be made or has no room; names the reason.
        """
        self.path = path
        self.is_shared = path is not None
        self._map = mmap.mmap(-1, at.SIZE_BYTES) if path is None else _mapped(path)
        self.data = memoryview(self._map)
        self.slots = self.data.cast("Q")
        self.floats = self.data.cast("d")

    def drop(self) -> None:
        """Write into private memory from now on, and give the map back. For forked children."""
        views, mapped = (self.slots, self.floats, self.data), self._map
        self.is_shared = False
        self._map = mmap.mmap(-1, at.SIZE_BYTES)
        self.data = memoryview(self._map)
        self.slots = self.data.cast("Q")
        self.floats = self.data.cast("d")
        for view in views:
            view.release()
        mapped.close()

    def put_text(self, field: tuple[int, int], text: str) -> None:
        """Store text into a field, cut to its size."""
        offset, size = field
        self.data[offset : offset + size] = at.pack_text(text, size)

    def begin(self, sequence: int) -> int:
        """Enter a section: readers retry until `end`. Returns what `end` wants.

        Always odd inside and even after, even where two threads overlap.
        """
        inside = (self.slots[sequence] + 1) | 1
        self.slots[sequence] = inside
        return inside

    def end(self, sequence: int, inside: int) -> None:
        """Leave a section."""
        self.slots[sequence] = inside + 1

    def set_bit(self, slot: int, index: int, on: bool = True) -> None:
        """Set or clear one bit of a mask."""
        bit = 1 << index
        mask = self.slots[slot]
        self.slots[slot] = mask | bit if on else mask & ~bit


def _mapped(path: Path) -> mmap.mmap:
    try:
        descriptor = create_file(path)
    except OSError as error:
        raise BeaconError(f"cannot make {path}: {error.strerror}") from error
    try:
        # A hole in a full tmpfs would kill the process at the first store: take the room now.
        os.posix_fallocate(descriptor, 0, at.SIZE_BYTES)
        return mmap.mmap(descriptor, at.SIZE_BYTES)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BeaconError(f"no room for {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot (field 22 of its stat), 0 where it cannot be read.

    With the process id it names one process for ever.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
