"""The one writer of a journal: recovers the tail, appends, rotates segments, makes records durable."""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from arobust_otel.errors import JournalError, JournalLocked
from arobust_otel.journal.durable import (
    NO_HANDLE,
    NO_ROOM,
    make_private_folder,
    sync_folder,
    write_atomically,
)
from arobust_otel.journal.format import (
    SEAL,
    SEGMENT_BYTES,
    VERSION,
    Kind,
    SegmentHeader,
    Source,
    Stamp,
    pack_record,
)
from arobust_otel.journal.segments import Segment, damaged, first_offsets, segment_path

DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024
NO_SOURCE = Source()


@dataclass(frozen=True, slots=True)
class _Tail:
    """Where a segment ends: what the next record continues."""

    position: int
    next_offset: int
    received_ns: int
    sealed: bool
    torn_bytes: int
    is_current: bool  # of the format that is written now


class Appender:
    """Appends records. Safe to use from several threads of one process; a second process is locked out.

    `recovered_bytes`: how much of a torn tail was cut off on open. `next_offset`: what the next record gets.
    `full` says why the last record found no room, empty again as soon as one does: a full disk is a state.
    `broken` says why it takes nothing any more, for ever.
    """

    def __init__(self, folder: Path, lock: int, segment_bytes: int) -> None:
        """Use `Appender.open`."""
        self.folder = folder
        self.segment_bytes = segment_bytes
        self.recovered_bytes = 0
        self.next_offset = 0
        self.full = ""
        self.broken = ""
        self._lock_handle = lock
        self._mutex = threading.Lock()
        self._handle = -1
        self._syncing: list[int] = []  # handles that a `sync` uses now
        self._salt = 0
        self._position = 0
        self._received_ns = 0
        self._durable = 0
        self._pending = 0  # first offset of the segment that is to be begun, where none is open
        self._is_current = True

    @classmethod
    def open(
        cls, folder: str | Path, segment_bytes: int = DEFAULT_SEGMENT_BYTES, at_least: int = 0
    ) -> Appender:
        """Lock the journal, cut a torn tail off, and be ready to append.

        Args:
            folder: made with mode 0700 where it does not exist.
            segment_bytes: a segment that has reached this size is finished and a new one begun.
            at_least: the first offset to be given out is not below this. Pass the highest cursor and snapshot
                offset: after a power cut they may point behind records that never reached the disk, and a
                number that a reader has seen must not come back with another content.

        Raises:
            JournalLocked: another process appends to it.
            JournalError: the folder cannot be used, or what was durable is damaged; names segment and byte.
        """
        folder = Path(folder)
        try:
            lock = _lock(folder)
        except OSError as error:
            raise JournalError(f"the journal {folder} cannot be opened: {error}") from error
        appender = cls(folder, lock, segment_bytes)
        try:
            appender._recover()
        except BaseException:
            appender._release()
            raise
        appender.next_offset = max(appender.next_offset, at_least)
        return appender

    def append(self, kind: Kind, payload: bytes, *, received_ns: int, source: Source = NO_SOURCE) -> int:
        """Hand a record to the system; readers see it at once, a power cut may lose it until `sync`.

        Returns:
            The record's offset. `received_ns` is raised to the one before where the clock went back.

        Raises:
            JournalError: nothing was appended (full disk, too long, closed or broken before).
        """
        with self._mutex:
            if self._handle < 0 or not self._is_current or self._is_finished:
                self._rotate()
            received_ns = max(received_ns, self._received_ns)
            stamp = Stamp(self.next_offset, self._durable, received_ns, int(kind))
            self._write(stamp, source, payload)
            self.full = ""
            self._received_ns = received_ns
            self.next_offset = stamp.offset + 1
            return stamp.offset

    def sync(self) -> int:
        """Make every record appended so far durable; other threads may append meanwhile.

        Returns:
            The offset below which all records are durable.

        Raises:
            JournalError: the disk failed. What is durable is not known any more, so it takes no more.
        """
        with self._mutex:
            self._check()
            if self._handle < 0:  # sealed and on disk; the next segment finds no room
                return self._durable
            reached, handle = self.next_offset, self._handle
            self._syncing.append(handle)  # of the journal's own: a new one may not be had when it is needed
        try:
            self._synchronise(handle)
        finally:
            with self._mutex:
                self._syncing.remove(handle)
                if handle != self._handle:
                    self._close_handle(handle)
        with self._mutex:
            self._durable = max(self._durable, reached)
            return self._durable

    def close(self) -> None:
        """Make everything durable and release the lock; closing twice is legal."""
        if self._lock_handle < 0:
            return
        try:
            if self._handle >= 0 and not self.broken:
                self._synchronise(self._handle)
        finally:
            self._release()

    def __enter__(self) -> Appender:
        """For `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _release(self) -> None:
        with self._mutex:
            self._leave_segment()
            if self._lock_handle >= 0:
                os.close(self._lock_handle)
            self._lock_handle = -1
            self.broken = self.broken or "it is closed"

    def _leave_segment(self) -> None:
        handle, self._handle = self._handle, -1
        self._close_handle(handle)

    def _close_handle(self, handle: int) -> None:
        """Close it, or leave that to the last `sync` that uses it."""
        if handle >= 0 and handle not in self._syncing:
            os.close(handle)

    def _check(self) -> None:
        if self.broken:
            raise JournalError(f"the journal takes no more records: {self.broken}")

    def _synchronise(self, handle: int) -> None:
        try:
            os.fdatasync(handle)
        except OSError as error:
            self.broken = f"fdatasync failed: {error}"
            raise JournalError(self.broken) from error

    def _write(self, stamp: Stamp, source: Source, payload: bytes) -> None:
        self._check()
        head, body = pack_record(stamp, source, payload, self._salt)
        total = len(head) + len(body)
        try:
            written = os.pwritev(self._handle, [head, body], self._position)
            while written < total:  # a signal or a nearly full disk: the kernel took a part
                rest = memoryview(head + body)[written:]
                written += os.pwrite(self._handle, rest, self._position + written)
        except OSError as error:
            self._take_back(error)
        self._position += total

    def _take_back(self, error: OSError) -> None:
        """Leave no half record behind."""
        try:
            os.ftruncate(self._handle, self._position)
        except OSError as worse:
            self.broken = f"a half record could not be removed: {worse}"
        self._note_full(error)
        raise JournalError(f"nothing appended: {error}") from error

    def _note_full(self, error: OSError) -> bool:
        if error.errno not in NO_ROOM:
            return False
        self.full = str(error)
        return True

    @property
    def _is_finished(self) -> bool:
        """Whether the segment has its size; an empty one never has, whatever size was asked for."""
        return self._position >= max(self.segment_bytes, SEGMENT_BYTES + 1)

    def _rotate(self) -> None:
        """Seal, make durable, and only then begin the next segment: what has a successor is complete."""
        self._check()
        if self._handle >= 0:
            self._finish_segment()
        self._begin_segment()

    def _finish_segment(self) -> None:
        if self._position == SEGMENT_BYTES:  # an empty one of an older format: the next needs another name
            self.next_offset += 1
        self._write(Stamp(self.next_offset, self._durable, self._received_ns, SEAL), NO_SOURCE, b"")
        self._synchronise(self._handle)
        self._durable = self._pending = self.next_offset
        self._leave_segment()

    def _begin_segment(self) -> None:
        """Begin the pending segment; where there is no room or handle for it, a later append tries again."""
        salt = int.from_bytes(os.urandom(4), "little")
        path = segment_path(self.folder, self._pending)
        header = SegmentHeader(self._pending, self._received_ns, salt)
        try:
            write_atomically(path, header.pack())
            self._handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError as error:
            passes = self._note_full(error) or error.errno in NO_HANDLE
            if passes and not path.exists():
                raise JournalError(f"nothing appended: no new segment: {error}") from error
            self.broken = f"no new segment: {error}"
            raise JournalError(self.broken) from error
        self._salt = salt
        self._position = SEGMENT_BYTES
        self._is_current = True

    def _recover(self) -> None:
        for leftover in self.folder.glob("*.tmp"):
            leftover.unlink()
        offsets = first_offsets(self.folder)
        if offsets:
            self._recover_segment(segment_path(self.folder, offsets[-1]))
        if self._handle < 0:
            try:
                self._begin_segment()
            except JournalError:
                if self.broken:
                    raise

    def _recover_segment(self, path: Path) -> None:
        """Go on behind the last whole record; one of an older format is finished before the next record."""
        segment = Segment(path)
        try:
            tail = find_tail(segment)
            self._salt = segment.header.salt
        finally:
            segment.close()
        self.next_offset, self._received_ns = tail.next_offset, tail.received_ns
        self._handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        self._position, self._is_current = tail.position, tail.is_current
        if tail.torn_bytes:
            os.ftruncate(self._handle, tail.position)
            self.recovered_bytes = tail.torn_bytes
        self._synchronise(self._handle)
        sync_folder(self.folder)
        self._durable = self.next_offset
        if tail.sealed:
            self._leave_segment()
            self._pending = self.next_offset


def _lock(folder: Path) -> int:
    """Handle of the folder's lock file, held."""
    make_private_folder(folder)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise JournalLocked(f"another process appends to {folder}") from None
    return lock


def find_tail(segment: Segment) -> _Tail:
    """End of the last segment of a journal.

    Raises:
        JournalError: the first record that is not whole was durable once, so this is damage and no torn tail.
    """
    position, sealed = SEGMENT_BYTES, False
    offset, received_ns = segment.header.first_offset, segment.header.floor_ns
    for start, header, _ in segment.walk():
        position = start + header.total_bytes
        sealed = header.kind == SEAL
        offset = header.offset if sealed else header.offset + 1
        received_ns = header.received_ns
        if sealed:
            break
    torn_bytes = segment.size_bytes - position
    if torn_bytes and (sealed or segment.proof_of_damage(position, offset) is not None):
        raise damaged(segment.path, position, "a record is damaged, and whole records follow")
    return _Tail(position, offset, received_ns, sealed, torn_bytes, segment.header.version == VERSION)
