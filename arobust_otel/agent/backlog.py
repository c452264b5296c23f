"""What waits to be delivered: lanes by priority, bounded by items and bytes. No thread, lock, clock.

Facts go before stacks, stacks before points, points before log lines. Within a lane the order of arrival is
kept, also when a batch comes back undelivered: a series never runs backwards. Over a limit the oldest of the
least urgent lane goes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import islice
from typing import Any

from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point, StackCapture

# Held in memory per item, beside its text; a little more than it takes on the wire.
_OVERHEAD_BYTES = 400


class Lane(IntEnum):
    """The smaller the more urgent."""

    FACTS = 0
    STACKS = 1
    POINTS = 2
    LINES = 3


SIGNAL_OF_LANE = {Lane.FACTS: "logs", Lane.STACKS: "traces", Lane.POINTS: "metrics", Lane.LINES: "logs"}
# A capture of stacks goes twice: the full text as a log record, the threads as a span.
_LANES_OF_TYPE: dict[type[Any], tuple[Lane, ...]] = {
    Point: (Lane.POINTS,),
    Event: (Lane.FACTS,),
    LogLine: (Lane.LINES,),
    StackCapture: (Lane.FACTS, Lane.STACKS),
}


@dataclass(slots=True)
class Receipt:
    """What one report still waits for: acknowledged once nothing is outstanding, if nothing was lost."""

    acknowledged: Callable[[], None] | None
    given_up: Callable[[], None] | None = None
    outstanding: int = 0
    lost: bool = False

    def settle(self, count: int) -> bool:
        """Items have been taken by the master, or refused for good; True where that completes the report."""
        self.outstanding -= count
        return self.outstanding == 0 and not self.lost and self.acknowledged is not None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items of one report that share a lane."""

    lane: Lane
    items: Sequence[Any]
    identity: JobIdentity
    receipt: Receipt
    handed_wall_ns: int
    handed_mono: float
    urgent: bool = False

    @property
    def size_bytes(self) -> int:
        """Estimate of what the items hold in memory."""
        if self.lane is Lane.POINTS:
            return _OVERHEAD_BYTES * len(self.items)
        return sum(size_bytes(item) for item in self.items)

    def cut(self, count: int) -> tuple[Chunk, Chunk]:
        """The first `count` items, and the others."""
        return replace(self, items=self.items[:count]), replace(self, items=self.items[count:])


def size_bytes(item: Any) -> int:
    """Estimate of what an item holds in memory; attributes that are long texts count."""
    if isinstance(item, StackCapture):
        return _OVERHEAD_BYTES + 4 * len(item.text)
    size = _OVERHEAD_BYTES + len(getattr(item, "body", ""))
    if isinstance(item, Event):
        size += sum(len(value) for value in item.attributes.values() if isinstance(value, str))
    return size


def by_lane(items: Iterable[Any]) -> tuple[dict[Lane, list[Any]], int]:
    """Items by lane, and how many are none of ours."""
    lanes: dict[Lane, list[Any]] = {}
    strangers = 0
    for item in items:
        found = _LANES_OF_TYPE.get(type(item))
        if found is None:
            strangers += 1
            continue
        for lane in found:
            lanes.setdefault(lane, []).append(item)
    return lanes, strangers


class Backlog:
    """Chunks that wait and those on their way; both count against the limits, only the waiting can go.

    Args:
        max_items: limit of items.
        max_bytes: limit of their estimated size.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._lanes: dict[Lane, deque[Chunk]] = {lane: deque() for lane in Lane}
        self._flying: list[Chunk] = []
        self.items = 0
        self.bytes = 0

    def put(self, chunk: Chunk) -> list[Chunk]:
        """Append a chunk; returns what had to go for it, which may be the chunk itself."""
        self._lanes[chunk.lane].append(chunk)
        self.items += len(chunk.items)
        self.bytes += chunk.size_bytes
        return list(self._overflow())

    def take(self, lane: Lane, max_items: int, max_bytes: int) -> list[Chunk]:
        """The next batch of a lane, oldest first, at least one item where one waits; it is on its way now."""
        taken: list[Chunk] = []
        waiting = self._lanes[lane]
        room_items, room_bytes = max_items, max_bytes
        while waiting and room_items > 0 and room_bytes > 0:
            chunk = waiting.popleft()
            fitting = min(_fitting(chunk, room_bytes, at_least=0 if taken else 1), room_items)
            if fitting == 0:
                waiting.appendleft(chunk)
                break
            if fitting < len(chunk.items):
                chunk, rest = chunk.cut(fitting)
                waiting.appendleft(rest)
            taken.append(chunk)
            room_items -= len(chunk.items)
            room_bytes -= chunk.size_bytes
        self._flying = taken
        return list(taken)

    def give_back(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Undelivered chunks of one lane wait again, before all others; returns what had to go."""
        for chunk in reversed(chunks):
            self._lanes[chunk.lane].appendleft(chunk)
        self._flying = []
        return list(self._overflow())

    def done(self, chunks: Iterable[Chunk]) -> None:
        """Chunks are delivered, or given up."""
        for chunk in chunks:
            self.items -= len(chunk.items)
            self.bytes -= chunk.size_bytes

    def landed(self) -> None:
        """Nothing is on its way."""
        self._flying = []

    def clear(self) -> list[Chunk]:
        """Take out everything that waits."""
        chunks = [chunk for waiting in self._lanes.values() for chunk in waiting]
        for waiting in self._lanes.values():
            waiting.clear()
        self.done(chunks)
        return chunks

    def oldest(self, lane: Lane) -> Chunk | None:
        """The head of a lane."""
        waiting = self._lanes[lane]
        return waiting[0] if waiting else None

    def has(self, lane: Lane, items: int) -> bool:
        """Whether a lane holds at least so many items."""
        count = 0
        for chunk in islice(self._lanes[lane], items):
            count += len(chunk.items)
            if count >= items:
                return True
        return False

    def has_urgent(self, lane: Lane) -> bool:
        """Whether the newest chunk of a lane was handed over as urgent."""
        waiting = self._lanes[lane]
        return bool(waiting) and waiting[-1].urgent

    def oldest_mono(self) -> float | None:
        """When the oldest undelivered chunk was handed over; None where everything is delivered."""
        heads = [waiting[0].handed_mono for waiting in self._lanes.values() if waiting]
        return min([*heads, *(chunk.handed_mono for chunk in self._flying)], default=None)

    def _overflow(self) -> Iterator[Chunk]:
        while self.items > self._max_items or self.bytes > self._max_bytes:
            waiting = next((self._lanes[lane] for lane in reversed(Lane) if self._lanes[lane]), None)
            if waiting is None:
                return
            chunk = waiting.popleft()
            self.done((chunk,))
            yield chunk


def _fitting(chunk: Chunk, room_bytes: int, at_least: int) -> int:
    """How many items of a chunk fit into so many bytes."""
    if chunk.size_bytes <= room_bytes:
        return len(chunk.items)
    if chunk.lane is Lane.POINTS:
        return max(at_least, room_bytes // _OVERHEAD_BYTES)
    count = 0
    for item in chunk.items:
        room_bytes -= size_bytes(item)
        if room_bytes < 0:
            break
        count += 1
    return max(at_least, count)
