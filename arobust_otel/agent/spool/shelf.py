"""An open spool: parcels in lanes within limits. Raises what the disk raises; `spool` makes a state of it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arobust_otel.agent.parcel import Lane, Parcel
from arobust_otel.agent.spool.item_codec import decode_chunks, encode_chunks
from arobust_otel.agent.spool.store import Entry, Holding, Store, is_full

OK, OFF, FULL = "ok", "off", "full"
EVICTED, EXPIRED, DAMAGED = "spool_full", "spool_expired", "spool_damaged"
_EXPIRE_SECONDS = 30.0
_NOTHING = Holding()


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """How much may wait on the disk, and for how long; bytes are those of compressed items."""

    max_bytes: int = 256 * 1024 * 1024
    max_age_seconds: float = 3 * 86400.0


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What waits; `state` is ok, off, full, or "failed: " with the reason.

    `oldest_mono` is since when the oldest waits, in seconds of the monotonic clock.
    """

    items: int = 0
    bytes: int = 0
    oldest_mono: float | None = None
    state: str = OFF


class Shelf:
    """The parcels of one database, counted.

    Attributes:
        dropped: items that went for lack of room, by age or by damage, by reason.
        spooled: items that came here from memory only, in this epoch of the ledger.
    """

    def __init__(self, store: Store, limits: SpoolLimits, dropped: dict[str, int], spooled: int = 0) -> None:
        self.store = store
        self.dropped = dropped
        self.spooled = spooled
        self._limits = limits
        self._lanes = store.holdings()
        self._ahead_ns = time.time_ns() - time.monotonic_ns()
        self._gone: set[str] = set()  # removed, but the file still has them: the disk was full
        self._expire_at = 0.0

    def total(self) -> Holding:
        """All lanes together."""
        found = self._lanes.values()
        return Holding(
            sum(h.parcels for h in found), sum(h.items for h in found), sum(h.bytes for h in found)
        )

    @property
    def is_stuck(self) -> bool:
        """Whether nothing waits, but the file cannot even be emptied: a new one is the way out."""
        return bool(self._gone) and not self.total().parcels

    def pending(self, lane: Lane) -> int:
        """How many parcels of a lane wait."""
        return self._lanes.get(lane, _NOTHING).parcels

    def put(self, parcel: Parcel, body: bytes) -> bool:
        """Append a parcel that was in memory; False where only more urgent ones could go for it."""
        entry = Entry(parcel.batch_id, parcel.lane, 0, "", parcel.items, len(body), self._now_ns())
        self.expire()
        self._forget_gone()
        if self.store.entry(parcel.batch_id) is not None:
            return True
        excess = self.total().bytes + entry.bytes - self._limits.max_bytes
        victims = self.store.victims(excess, entry.lane, self._gone)
        if sum(victim.bytes for victim in victims) < excess:
            return False
        # An item with an acknowledgement comes again from its source; all others only memory has.
        volatile = sum(len(chunk.items) for chunk in parcel.chunks if chunk.receipt.acknowledged is None)
        try:
            self.store.insert(entry, body, volatile, [victim.batch_id for victim in victims])
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            victims = self._insert_in_exchange(entry, body, volatile)
        self.spooled += volatile
        self._count(entry, 1)
        self._drop(victims, EVICTED)
        return True

    def head(self, lane: Lane) -> Parcel | None:
        """The oldest parcel of a lane; one that cannot be read is dropped and counted."""
        self.expire()
        self._forget_gone()
        while self.pending(lane):
            waiting = self.store.queue(lane, len(self._gone) + 1)
            entry = next((found for found in waiting if found.batch_id not in self._gone), None)
            if entry is None:
                break
            try:
                body = self.store.body(entry.batch_id)
                chunks = decode_chunks(lane, body, time.time_ns(), time.monotonic())
                return Parcel(entry.batch_id, lane, chunks)
            except ValueError:
                self._delete([entry])
                self._drop([entry], DAMAGED)
        return None

    def remove(self, batch_id: str) -> None:
        """Take one parcel out; an unknown one changes nothing."""
        entry = self.store.entry(batch_id)
        if entry is None or batch_id in self._gone:
            return
        self._delete([entry])
        self._count(entry, -1)
        if not self.total().parcels and not self._gone:
            with contextlib.suppress(sqlite3.Error):
                self.store.shrink()

    def replace(self, batch_id: str, parcels: Sequence[Parcel]) -> None:
        """Parts take the place of a whole, in their order."""
        whole = self.store.entry(batch_id)
        if whole is None:
            return
        parts = []
        for index, parcel in enumerate(parcels):
            body, part = encode_chunks(parcel.chunks), f"{whole.part}{index:02x}"
            entry = Entry(
                parcel.batch_id, whole.lane, whole.place, part, parcel.items, len(body), whole.created_ns
            )
            parts.append((entry, body))
        self.store.replace(batch_id, parts)
        self._count(whole, -1)
        for entry, _ in parts:
            self._count(entry, 1)

    def expire(self) -> None:
        """Drop what is too old; looks now and then only."""
        if time.monotonic() < self._expire_at:
            return
        limit_ns = self._now_ns() - int(self._limits.max_age_seconds * 1e9)
        old = [entry for entry in self.store.older_than(limit_ns) if entry.batch_id not in self._gone]
        if old:
            self._delete(old)
            self._drop(old, EXPIRED)
        else:
            self._expire_at = time.monotonic() + _EXPIRE_SECONDS

    def oldest_mono(self) -> float | None:
        """Since when the oldest parcel waits, monotonic; None where nothing waits."""
        oldest_ns = self.store.oldest_ns() if self.total().parcels else None
        if oldest_ns is None:
            return None
        return time.monotonic() - max(0, self._now_ns() - oldest_ns) / 1e9

    def recount(self) -> int:
        """Others' parcels came in: count anew, and keep the limits; returns how many items came."""
        before = self.total().items
        self._lanes = self.store.holdings()
        for entry in filter(None, map(self.store.entry, self._gone)):
            self._count(entry, -1)
        came = self.total().items - before
        victims = self.store.victims(self.total().bytes - self._limits.max_bytes, 0, self._gone)
        if victims:
            self._delete(victims)
            self._drop(victims, EVICTED)
        return came

    def room_bytes(self) -> int:
        """What fits without anything going for it."""
        return max(0, self._limits.max_bytes - self.total().bytes)

    def _now_ns(self) -> int:
        """The time of day when this was made, gone on since: a clock that is set makes nothing old."""
        return self._ahead_ns + time.monotonic_ns()

    def _insert_in_exchange(self, entry: Entry, body: bytes, volatile: int) -> list[Entry]:
        """The disk is full: what is less urgent or older gives its room, and the log is used again."""
        self.store.checkpoint()
        victims = self.store.victims(2 * entry.bytes, entry.lane)
        if not victims:
            raise sqlite3.OperationalError("the disk is full")
        self.store.insert(entry, body, volatile, [victim.batch_id for victim in victims])
        living = [victim for victim in victims if victim.batch_id not in self._gone]
        self._gone.difference_update(victim.batch_id for victim in victims)
        return living

    def _delete(self, entries: Sequence[Entry]) -> None:
        """Delete; where the disk is too full even for that, remember."""
        ids = [entry.batch_id for entry in entries]
        if not self._delete_if_possible(ids):
            self._gone.update(ids)

    def _forget_gone(self) -> None:
        if self._gone and self._delete_if_possible(sorted(self._gone)):
            self._gone.clear()

    def _delete_if_possible(self, ids: Sequence[str]) -> bool:
        for use_log_again in (False, True):
            try:
                if use_log_again:
                    self.store.checkpoint()
                self.store.delete(ids)
                return True
            except sqlite3.Error as error:
                if not is_full(error):
                    raise
        return False

    def _drop(self, entries: Iterable[Entry], reason: str) -> None:
        for entry in entries:
            self.dropped[reason] = self.dropped.get(reason, 0) + entry.items
            self._count(entry, -1)

    def _count(self, entry: Entry, sign: int) -> None:
        held = self._lanes.get(entry.lane, _NOTHING)
        self._lanes[entry.lane] = Holding(
            held.parcels + sign, held.items + sign * entry.items, held.bytes + sign * entry.bytes
        )
