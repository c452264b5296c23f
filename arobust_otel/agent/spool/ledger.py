"""What became of items that nobody can repeat, in a small mapped file that survives the process.

An item whose source cannot bring it again (a sample, a fact) is lost with the memory of a process that is
killed. The ledger makes that loss a number: what was accepted, less what was settled and what went to the
spool. Two 8-byte stores a report; no system call.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from arobust_otel.reentry import ReentryLock

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
    """Counts for one process. Safe for several threads, signal handlers and finalizers.

    Begins in memory, and ends with the process unless it is moved to a file, which the spool does once it has
    a folder that nobody else uses.

    Args:
        epoch: names this process's counts.

    Attributes:
        lost_before: items that earlier processes took with them when they were killed; the spool's
            `take_dropped` hands them over as ``killed``, so nobody else has to count them.
    """

    def __init__(self, epoch: int) -> None:
        self._memory = mmap.mmap(-1, SIZE_BYTES)
        self._words = memoryview(self._memory).cast("Q")
        self._words[_MAGIC_AT], self._words[_EPOCH], self._words[_IS_OPEN] = _MAGIC, epoch, 1
        self._make_locks()
        self.lost_before = 0

    def move_to(self, path: Path) -> Account:
        """Go on counting in a file; where there is no room or no right, in memory as before.

        Returns:
            what an earlier process left there; an empty account where the file is none of ours.
        """
        try:
            memory = _mapped(path)
        except OSError:
            return Account()
        words = memoryview(memory).cast("Q")
        previous = _account(words.tolist())
        with self._callers, self._sender:
            words[: _HELD + 1] = self._words[: _HELD + 1]
            words[_HELD] = previous.held
            self._words.release()
            self._memory.close()
            self._memory, self._words = memory, words
        return previous

    def account(self) -> Account:
        """What it says now."""
        return _account(self._words.tolist())

    def note_accepted(self, count: int) -> None:
        """Items were handed over whose source cannot repeat them; counted per lane, as they travel."""
        with self._callers as is_outermost:
            self._accepted.append(count)
            while is_outermost and self._accepted:
                self._words[_ACCEPTED] += self._accepted.popleft()

    def note_settled(self, count: int) -> None:
        """Such items are delivered from memory, or dropped from it and counted; never those in the spool."""
        with self._sender as is_outermost:
            self._settled.append(count)
            while is_outermost and self._settled:
                self._words[_SETTLED] += self._settled.popleft()

    def note_spool(self, spooled: int, held: int) -> None:
        """The spool says what it took from memory in this epoch, and what it holds."""
        with self._sender:
            self._words[_SPOOLED] = spooled
            self._words[_HELD] = held

    def close(self) -> None:
        """A clean end: nothing is in memory any more that was not settled or counted."""
        with self._callers, self._sender:
            self._words[_IS_OPEN] = 0
            self._words.release()
            self._memory.close()
            self._words = memoryview(bytearray(SIZE_BYTES)).cast("Q")

    def leave(self) -> None:
        """In a forked child: the file is the parent's; what the child counts goes nowhere."""
        self._words = memoryview(bytearray(SIZE_BYTES)).cast("Q")
        self._make_locks()

    def _make_locks(self) -> None:
        """Callers never wait for the sender: it may lose the interpreter's lock while it holds its own."""
        self._callers, self._sender = ReentryLock(), ReentryLock()
        self._accepted: deque[int] = deque()  # a call that interrupts another one leaves its count to that
        self._settled: deque[int] = deque()


def _mapped(path: Path) -> mmap.mmap:
    """The file in memory, made where it does not exist.

    Raises:
        OSError: it cannot be made, or there is no room: a hole in the file would kill the process later.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, SIZE_BYTES)
        return mmap.mmap(descriptor, SIZE_BYTES)
    finally:
        os.close(descriptor)


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
