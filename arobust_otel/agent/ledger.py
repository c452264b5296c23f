"""What became of items that nobody can repeat, in a small mapped file that survives the process.

An item whose source cannot bring it again (a sample, a fact) is lost with the memory of a process that is
killed. The ledger makes that loss a number: what was accepted, less what was settled and what went to the
spool. Two 8-byte stores a report; no system call.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIZE_BYTES = 4096
_MAGIC = int.from_bytes(b"ARLEDG01", "little")
_MAGIC_AT, _EPOCH, _IS_OPEN, _ACCEPTED, _SETTLED, _SPOOLED, _HELD = range(7)


@dataclass(frozen=True, slots=True)
class Account:
    """What a ledger's file says.

    `spooled` counts what ever went to the spool in this epoch, `held` what the spool held: the last known,
    for the case that the spool itself can no longer tell.
    """

    epoch: int = 0
    is_open: bool = False
    accepted: int = 0
    settled: int = 0
    spooled: int = 0
    held: int = 0

    def lost(self, spooled: int | None = None) -> int:
        """Items that went with the memory of their process; 0 after a clean end.

        Args:
            spooled: what the spool itself says, None where it cannot.
        """
        if not self.is_open:
            return 0
        return max(0, self.accepted - self.settled - (self.spooled if spooled is None else spooled))


class Ledger:
    """Counts for one process at a time; the spool's lock sees to that. Safe for several threads.

    Attributes:
        lost_before: items that earlier processes took with them when they were killed; the spool's
            `take_dropped` hands them over as ``killed``, so nobody else has to count them.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        """Use `open` or `in_memory`."""
        self._memory = memory
        self._words = memoryview(memory).cast("Q")
        self._lock = threading.Lock()
        self.lost_before = 0

    @classmethod
    def in_memory(cls) -> Ledger:
        """A ledger that ends with the process, for where no file can be had."""
        return cls(mmap.mmap(-1, SIZE_BYTES))

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """Map the file, made where it does not exist. What it says stays until `begin`.

        Raises:
            OSError: it cannot be made, or there is no room: a hole in the file would kill the process later.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
            return cls(mmap.mmap(descriptor, SIZE_BYTES))
        finally:
            os.close(descriptor)

    @classmethod
    def open_or_in_memory(cls, path: Path) -> Ledger:
        """As `open`; where there is no room or no right, what memory holds is counted in memory only."""
        try:
            return cls.open(path)
        except OSError:
            return cls.in_memory()

    def account(self) -> Account:
        """What the file says now; an empty account where it is none of ours."""
        return _account(self._words.tolist())

    def begin(self, epoch: int) -> None:
        """Count anew, for this process."""
        with self._lock:
            for place in (_IS_OPEN, _ACCEPTED, _SETTLED, _SPOOLED):
                self._words[place] = 0
            self._words[_EPOCH] = epoch
            self._words[_MAGIC_AT] = _MAGIC
            self._words[_IS_OPEN] = 1

    def note_accepted(self, count: int) -> None:
        """Items were handed over whose source cannot repeat them; counted per lane, as they travel."""
        with self._lock:
            self._words[_ACCEPTED] += count

    def note_settled(self, count: int) -> None:
        """Such items are delivered from memory, or dropped from it and counted; never those in the spool."""
        with self._lock:
            self._words[_SETTLED] += count

    def note_spool(self, spooled: int, held: int) -> None:
        """The spool says what it took from memory in this epoch, and what it holds."""
        with self._lock:
            self._words[_SPOOLED] = spooled
            self._words[_HELD] = held

    def close(self) -> None:
        """A clean end: nothing is in memory any more that was not settled or counted."""
        with self._lock:
            self._words[_IS_OPEN] = 0
            self._words.release()
            self._memory.close()
            self._words = memoryview(bytearray(SIZE_BYTES)).cast("Q")

    def leave(self) -> None:
        """In a forked child: the file is the parent's; what the child counts goes nowhere."""
        self._words = memoryview(bytearray(SIZE_BYTES)).cast("Q")
        self._lock = threading.Lock()


def read_account(path: Path) -> Account:
    """What a ledger's file says, without mapping it; an empty account where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return Account()
    try:
        return _account(struct.unpack("7Q", os.read(descriptor, 56).ljust(56, b"\0")))
    finally:
        os.close(descriptor)


def _account(words: Sequence[int]) -> Account:
    if words[_MAGIC_AT] != _MAGIC:
        return Account()
    epoch, is_open, *counts = words[_EPOCH : _HELD + 1]
    return Account(epoch, is_open == 1, *counts)
