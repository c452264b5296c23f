"""What waits to be delivered: lanes by priority, bounded by items and bytes. No thread, lock, clock.

Facts go before stacks, stacks before points, points before log lines. Within a lane the order of arrival is
kept, also when a parcel comes back undelivered: a series never runs backwards. Over a limit the oldest of the
least urgent lane goes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from arobust_otel.agent.parcel import OVERHEAD_BYTES, Chunk, Lane, Parcel, count_items, parcel_of, size_bytes

# What goes for lack of room goes by chunks: of a report that is larger than all room the rest stays.
PIECE_ITEMS = 1000


class Backlog:
    """Chunks that wait, parcels that came back, and the one on its way, which cannot go for lack of room.

    Args:
        max_items: limit of items.
        max_bytes: limit of their estimated size.
    """

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._lanes: dict[Lane, deque[Chunk]] = {lane: deque() for lane in Lane}
        self._returned: dict[Lane, deque[Parcel]] = {lane: deque() for lane in Lane}
        self.flying: Parcel | None = None
        self._waiting_items = dict.fromkeys(Lane, 0)  # in the lane, not yet in a parcel
        self.entered = dict.fromkeys(Lane, 0)  # items since the start, for those who wait in `flush`
        self.left = dict.fromkeys(Lane, 0)
        self.items = 0
        self.bytes = 0

    def put(self, chunk: Chunk) -> list[Chunk]:
        """Append a chunk; returns what had to go for it, which may be the chunk itself."""
        pieces = chunk.pieces(PIECE_ITEMS)
        self._lanes[chunk.lane].extend(pieces)
        self._waiting_items[chunk.lane] += len(chunk.items)
        self.entered[chunk.lane] += len(chunk.items)
        self.items += len(chunk.items)
        self.bytes += sum(piece.size_bytes for piece in pieces)
        return list(self._overflow())

    def take(self, lane: Lane, max_items: int, max_bytes: int) -> Parcel | None:
        """The next parcel of a lane, oldest first; None where nothing waits. It is on its way now.

        One that came back goes again as it is; a new one holds at least one item.
        """
        if self._returned[lane]:
            self.flying = self._returned[lane].popleft()
            return self.flying
        taken: list[Chunk] = []
        try:
            self._take_chunks(lane, max_items, max_bytes, taken)
        except BaseException:  # an item's owner changes it just now
            self._lanes[lane].extendleft(reversed(taken))
            self._waiting_items[lane] += count_items(taken)
            raise
        self.flying = parcel_of(lane, taken) if taken else None
        return self.flying

    def give_back(self, parcels: Sequence[Parcel]) -> list[Chunk]:
        """The parcel on its way has landed; what is undelivered of it waits again, before all others.

        Returns:
            what had to go for it.
        """
        for parcel in reversed(parcels):
            self._returned[parcel.lane].appendleft(parcel)
        self.flying = None
        return list(self._overflow())

    def done(self, chunks: Iterable[Chunk]) -> None:
        """Chunks are delivered, given up, or in the spool."""
        for chunk in chunks:
            self.left[chunk.lane] += len(chunk.items)
            self.items -= len(chunk.items)
            self.bytes -= chunk.size_bytes

    def clear(self) -> list[Chunk]:
        """Take out everything that waits; what is on its way stays."""
        chunks = []
        for lane in Lane:
            chunks += [chunk for parcel in self._returned[lane] for chunk in parcel.chunks]
            chunks += self._lanes[lane]
            self._returned[lane].clear()
            self._lanes[lane].clear()
            self._waiting_items[lane] = 0
        self.done(chunks)
        return chunks

    def oldest(self, lane: Lane) -> Chunk | None:
        """The head of a lane."""
        if self._returned[lane]:
            return self._returned[lane][0].chunks[0]
        return self._lanes[lane][0] if self._lanes[lane] else None

    def has_returned(self, lane: Lane) -> bool:
        """Whether a parcel of this lane came back: it is due."""
        return bool(self._returned[lane])

    def has(self, lane: Lane, items: int) -> bool:
        """Whether a lane holds at least so many items that are in no parcel yet."""
        return self._waiting_items[lane] >= items

    def has_urgent(self, lane: Lane) -> bool:
        """Whether the newest chunk of a lane was handed over as urgent."""
        waiting = self._lanes[lane]
        return bool(waiting) and waiting[-1].urgent

    def fullest(self, share: float) -> Lane | None:
        """The least urgent lane with something that waits, where more than a share of a limit is used."""
        if self.items <= share * self._max_items and self.bytes <= share * self._max_bytes:
            return None
        return next((lane for lane in reversed(Lane) if self.oldest(lane) is not None), None)

    def oldest_mono(self) -> float | None:
        """When the oldest undelivered chunk was handed over; None where everything is delivered."""
        heads = [head.handed_mono for lane in Lane if (head := self.oldest(lane)) is not None]
        flying = self.flying.chunks if self.flying is not None else ()
        return min([*heads, *(chunk.handed_mono for chunk in flying)], default=None)

    def _take_chunks(self, lane: Lane, room_items: int, room_bytes: int, taken: list[Chunk]) -> None:
        waiting = self._lanes[lane]
        while waiting and room_items > 0 and room_bytes > 0:
            chunk = waiting[0]
            fitting = min(_fitting(chunk, room_bytes, at_least=0 if taken else 1), room_items)
            if fitting == 0:
                break
            if fitting < len(chunk.items):
                chunk, waiting[0] = chunk.cut(fitting)
            else:
                waiting.popleft()
            taken.append(chunk)
            room_items -= len(chunk.items)
            room_bytes -= chunk.size_bytes
            self._waiting_items[lane] -= len(chunk.items)

    def _overflow(self) -> Iterator[Chunk]:
        while self.items > self._max_items or self.bytes > self._max_bytes:
            lane = next((lane for lane in reversed(Lane) if self.oldest(lane) is not None), None)
            if lane is None:
                return
            chunk = self._pop_oldest(lane)
            self.done((chunk,))
            yield chunk

    def _pop_oldest(self, lane: Lane) -> Chunk:
        """The head of a lane; a parcel that loses it keeps its id: a repeat may hold less, never more."""
        if not self._returned[lane]:
            chunk = self._lanes[lane].popleft()
            self._waiting_items[lane] -= len(chunk.items)
            return chunk
        parcel = self._returned[lane].popleft()
        if len(parcel.chunks) > 1:
            self._returned[lane].appendleft(replace(parcel, chunks=parcel.chunks[1:]))
        return parcel.chunks[0]


def _fitting(chunk: Chunk, room_bytes: int, at_least: int) -> int:
    """How many items of a chunk fit into so many bytes."""
    if chunk.size_bytes <= room_bytes:
        return len(chunk.items)
    if chunk.lane is Lane.POINTS:
        return max(at_least, room_bytes // OVERHEAD_BYTES)
    count = 0
    for item in chunk.items:
        room_bytes -= size_bytes(item)
        if room_bytes < 0:
            break
        count += 1
    return max(at_least, count)
