"""What travels: items by lane, in chunks of one report, frozen as parcels that keep their id over every try.

A parcel's id is what lets the master recognise a repeat: the same id always means the same items, or fewer.
No queue, thread, clock or disk here.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point, StackCapture

# Held in memory per item, beside its text; a little more than it takes on the wire.
OVERHEAD_BYTES = 400


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

    acknowledged: Callable[[], None] | None = None
    given_up: Callable[[], None] | None = None
    outstanding: int = 0
    lost: bool = False

    def settle(self, count: int) -> bool:
        """Items are in safe hands, or refused for good; True where that completes the report."""
        self.outstanding -= count
        return self.outstanding == 0 and not self.lost and self.acknowledged is not None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items of one report that share a lane. `size_bytes` estimates what they hold in memory."""

    lane: Lane
    items: Sequence[Any]
    identity: JobIdentity
    receipt: Receipt
    handed_wall_ns: int
    handed_mono: float
    urgent: bool = False
    size_bytes: int = 0

    def __post_init__(self) -> None:
        """Add up the size once: it is asked for on every move."""
        if not self.size_bytes:
            object.__setattr__(self, "size_bytes", sum(map(size_bytes, self.items)))

    def pieces(self, most_items: int) -> Sequence[Chunk]:
        """The same items in their order, in chunks of at most so many."""
        if len(self.items) <= most_items:
            return (self,)
        starts = range(0, len(self.items), most_items)
        return [replace(self, items=self.items[at : at + most_items], size_bytes=0) for at in starts]

    def cut(self, count: int) -> tuple[Chunk, Chunk]:
        """The first `count` items, and the others."""
        return (
            replace(self, items=self.items[:count], size_bytes=0),
            replace(self, items=self.items[count:], size_bytes=0),
        )


@dataclass(frozen=True, slots=True)
class Parcel:
    """One batch: `chunks` of one lane in their order, under an id of 32 hex digits."""

    batch_id: str
    lane: Lane
    chunks: tuple[Chunk, ...]

    @property
    def items(self) -> int:
        """How many items it holds."""
        return count_items(self.chunks)

    @property
    def size_bytes(self) -> int:
        """Estimate of what it holds in memory."""
        return sum(chunk.size_bytes for chunk in self.chunks)

    def halves(self) -> tuple[Parcel, Parcel]:
        """Two parcels of about the same number of items, in order; their ids follow from this one's."""
        first, second = halves(self.chunks)
        return (
            Parcel(derived_id(self.batch_id, "0"), self.lane, tuple(first)),
            Parcel(derived_id(self.batch_id, "1"), self.lane, tuple(second)),
        )


def parcel_of(lane: Lane, chunks: Iterable[Chunk]) -> Parcel:
    """A parcel under an id that nobody else has."""
    return Parcel(uuid.uuid4().hex, lane, tuple(chunks))


def derived_id(batch_id: str, part: str) -> str:
    """The id of a part of a parcel: cutting the same parcel again gives the same ids.

    >>> derived_id("00" * 16, "0") == derived_id("00" * 16, "0") != derived_id("00" * 16, "1")
    True
    """
    return hashlib.blake2b((batch_id + part).encode(), digest_size=16).hexdigest()


def size_bytes(item: Any) -> int:
    """Estimate of what an item holds in memory; attributes that are long texts count."""
    if type(item) is Point:
        return OVERHEAD_BYTES
    if isinstance(item, StackCapture):
        return OVERHEAD_BYTES + 4 * len(item.text)
    size = OVERHEAD_BYTES + len(getattr(item, "body", ""))
    if isinstance(item, Event):
        size += sum(len(value) for value in item.attributes.values() if isinstance(value, str))
    return size


def by_lane(items: Sequence[Any]) -> tuple[dict[Lane, Sequence[Any]], int]:
    """Items by lane, and how many are none of ours."""
    kinds = set(map(type, items))
    if len(kinds) == 1:  # most reports: a caller may have to do this
        only = _LANES_OF_TYPE.get(kinds.pop())
        return ({}, len(items)) if only is None else (dict.fromkeys(only, items), 0)
    return _sorted(items)


def _sorted(items: Iterable[Any]) -> tuple[dict[Lane, Sequence[Any]], int]:
    lanes: dict[Lane, list[Any]] = {}
    strangers = 0
    for item in items:
        found = _LANES_OF_TYPE.get(type(item))
        if found is None:
            strangers += 1
            continue
        for lane in found:
            lanes.setdefault(lane, []).append(item)
    return dict(lanes), strangers


def count_items(chunks: Iterable[Chunk]) -> int:
    """Items of some chunks."""
    return sum(len(chunk.items) for chunk in chunks)


def halves(chunks: Sequence[Chunk]) -> tuple[list[Chunk], list[Chunk]]:
    """Two parts of about the same number of items, in order; a chunk is cut where the middle lies in it."""
    middle = count_items(chunks) // 2
    first: list[Chunk] = []
    for index, chunk in enumerate(chunks):
        size = len(chunk.items)
        if size > middle:
            head, tail = chunk.cut(middle)
            return [*first, *([head] if middle else [])], [tail, *chunks[index + 1 :]]
        first.append(chunk)
        middle -= size
    return first, []
