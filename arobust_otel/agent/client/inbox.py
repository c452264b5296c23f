"""Reports on their way from callers to the sender. A caller appends and rings; it takes no lock.

Any lock that the sender holds could cost a caller the interpreter's switch interval, five milliseconds. So
callers share a deque with the sender, and a bell that is rung only where the sender would sleep too long.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from arobust_otel import guard
from arobust_otel.agent.parcel import OVERHEAD_BYTES, Receipt, size_bytes
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point, StackCapture

# What looking at a wrong item raises. Named one by one: the caller's path has no room for a call of `guard`.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
_AWAKE = float("-inf")
_DOZING = -1e308  # nothing is due before it, but many items are heard
_SOUND_ASLEEP = float("inf")


class Handed(NamedTuple):
    """One report as its caller handed it over."""

    items: Sequence[Any]
    receipt: Receipt
    identity: JobIdentity
    urgent: bool
    wall_ns: int
    mono: float
    size_bytes: int


class Weight(NamedTuple):
    """What a report comes to: bytes in memory, items as they travel, and whether a fact is among them."""

    size_bytes: int
    travelling: int
    pressing: bool


class Unreadable(NamedTuple):
    """Stands for an item that could not even be looked at: it is counted as none of ours."""

    kind: str


def weighed(items: tuple[Any, ...]) -> tuple[tuple[Any, ...], Weight]:
    """Items that `weigh` refuses, with `Unreadable` for each that it cannot look at."""
    readable = tuple(
        Unreadable(type(item).__name__)
        if guard.attempt("weighing an item", lambda i=item: weigh((i,)))[0] is None  # type: ignore[misc]
        else item
        for item in items
    )
    weight, _ = guard.attempt("weighing a report", lambda: weigh(readable))
    if weight is not None:
        return readable, weight
    unreadable = tuple(Unreadable(type(item).__name__) for item in items)  # one changes just now
    return unreadable, weigh(unreadable)


def weigh(items: Sequence[Any]) -> Weight:
    """Look at each item once; this runs in the caller's thread.

    Raises:
        Exception: one of `UNREADABLE`, or what an item's own methods raise: see `weighed`.
    """
    size = travelling = 0
    pressing = False
    for item in items:
        kind = type(item)
        if kind is Point:
            size += OVERHEAD_BYTES
            travelling += 1
        elif kind is LogLine:
            size += OVERHEAD_BYTES + len(item.body)
            travelling += 1
        elif kind is Event or kind is StackCapture:
            size += size_bytes(item)
            travelling += 1 if kind is Event else 2
            pressing = True
    return Weight(size, travelling, pressing)


class Inbox:
    """Reports that nobody has looked at yet.

    Its counts are approximate by what callers hand over in the same microsecond, and exact again once it is
    empty: an exact count would need a lock.

    Args:
        max_items: above so many items, or
        max_bytes: so many bytes, `put` asks its caller to sort them.
        ring_items: so many items wake the sender.
    """

    def __init__(self, max_items: int, max_bytes: int, ring_items: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._ring_items = ring_items
        self._reports: deque[Handed] = deque()
        self._items = 0
        self._bytes = 0
        self._bell = threading.Lock()
        self._bell.acquire()
        self._wakes_at = _AWAKE

    def __len__(self) -> int:
        return len(self._reports)

    def put(self, handed: Handed, due_mono: float) -> bool:
        """Append; False where the caller has to help with sorting, because the bound is passed.

        Args:
            handed: the report.
            due_mono: when it has to be on its way: the sender is woken where it would sleep longer.
        """
        self._reports.append(handed)
        self._items += len(handed.items)
        self._bytes += handed.size_bytes
        if self._wakes_at > due_mono or (self._items >= self._ring_items and self._wakes_at > _AWAKE):
            self._wakes_at = _AWAKE
            self.ring()
        return self._items <= self._max_items and self._bytes <= self._max_bytes

    def take(self, budget: int | None = None) -> list[Handed]:
        """Everything that is there now, or reports of about so many items; one taker at a time."""
        reports = self._reports
        taken = []
        left = float("inf") if budget is None else budget
        for _ in range(len(reports)):
            if left <= 0:
                break
            handed = reports.popleft()
            taken.append(handed)
            left -= len(handed.items)
            self._items -= len(handed.items)
            self._bytes -= handed.size_bytes
        if not reports:
            self._items = self._bytes = 0
        return taken

    def ring(self) -> None:
        """Wake the sender, or let its next sleep end at once."""
        try:
            self._bell.release()
        except RuntimeError:  # rung already
            return

    def sleep(self, seconds: float | None, deaf: bool = False) -> None:
        """The sender sleeps until its time is over, the bell rings, or a report is due before that.

        Args:
            seconds: at most so long; None: until the bell rings.
            deaf: reports don't wake it, until many wait; `ring` does.
        """
        if seconds is not None and seconds <= 0:
            return
        if deaf:
            self._wakes_at = _DOZING
        else:
            self._wakes_at = _SOUND_ASLEEP if seconds is None else time.monotonic() + seconds
        if deaf or not self._reports:
            self._bell.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
        self._wakes_at = _AWAKE
