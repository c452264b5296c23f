"""The inbox and the backlog behind one face: callers hand over, the sender takes, both may sort and drop.

The lock guards the backlog only. The sender holds it for microseconds and never while it speaks to anybody;
a caller takes it only where the inbox is over its bound. Callbacks run outside of it. A signal handler or a
finalizer may report, too: what interrupts a change of the backlog leaves its report in the inbox. That is why
no other lock is ever waited for with this one held.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from arobust_otel import guard
from arobust_otel.agent.client.backlog import Backlog
from arobust_otel.agent.client.inbox import UNREADABLE, Handed, Inbox, weigh, weighed
from arobust_otel.agent.client.metrics import ClientMetrics
from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.parcel import OVERHEAD_BYTES, Chunk, Lane, Parcel, Receipt, by_lane, size_bytes
from arobust_otel.model.identity import JobIdentity
from arobust_otel.reentry import ReentryLock

INBOX_SHARE = 8  # of the queue's limits: what callers may leave unsorted
HELP_ITEMS = 8  # a caller that finds more sorts as much as it brings, and so many


class Accounts(Protocol):
    """A ledger of items whose source cannot repeat them."""

    def note_accepted(self, count: int) -> None:
        """Items were handed over."""
        ...

    def note_settled(self, count: int) -> None:
        """Items are delivered or dropped, and counted."""
        ...


class ClientQueue:
    """Everything that waits in memory.

    Args:
        settings: limits.
        metrics: counts what is accepted and dropped.
        accounts: what survives the process, None where nothing does.
    """

    def __init__(
        self, settings: ClientSettings, metrics: ClientMetrics, accounts: Accounts | None = None
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._accounts = accounts
        self._lock = ReentryLock()
        self._backlog = Backlog(settings.queue_items, settings.queue_bytes)
        self.inbox = Inbox(
            max(1, settings.queue_items // INBOX_SHARE),
            max(1, settings.queue_bytes // INBOX_SHARE),
            max(1, min(settings.batch_items, settings.queue_items // INBOX_SHARE // 2)),
        )
        self._closed = False

    # --- any thread ---------------------------------------------------------------------------------------

    def hand(self, items: Iterable[Any], receipt: Receipt, identity: JobIdentity, urgent: bool) -> None:
        """Take a report; sorted later, by the sender."""
        kept: tuple[Any, ...] = items if type(items) is tuple else tuple(items)
        try:
            weight = weigh(kept)
        except UNREADABLE:
            kept, weight = weighed(kept)
        if self._accounts is not None and receipt.acknowledged is None:
            self._accounts.note_accepted(weight.travelling)
        mono = time.monotonic()
        at_once = weight.pressing or urgent or not kept
        age = self._settings.urgent_seconds if at_once else self._settings.bulk_seconds
        handed = Handed(kept, receipt, identity, urgent, time.time_ns(), mono, weight.size_bytes)
        fits = self.inbox.put(handed, mono + age)
        if self._closed:
            self.sort()
        elif not fits:
            self.sort(len(kept) + HELP_ITEMS)

    def sort(self, budget: int | None = None) -> None:
        """Move what was handed over to its lane; over a limit the oldest of the least urgent lane goes.

        Args:
            budget: stop after about so many items; None: all of it.
        """
        lost: list[Chunk] = []
        empty: list[Receipt] = []
        accepted = strangers = 0
        with self._lock as is_outermost:
            for handed in self.inbox.take(budget) if is_outermost else ():
                chunks, unknown = self._chunks(handed)
                if not chunks:
                    empty.append(handed.receipt)
                accepted += handed.receipt.outstanding
                strangers += unknown
                for chunk in chunks:
                    lost += [chunk] if self._closed else self._backlog.put(chunk)
        if accepted or strangers:  # with no lock held: whoever has that of the metrics may be interrupted
            self._metrics.accepted(accepted + strangers)
        self._metrics.dropped("invalid", strangers)
        self.lose(lost, "closed" if self._closed else "queue_full")
        for receipt in empty:
            call(receipt.acknowledged, "acknowledgement")

    def lose(self, chunks: Iterable[Chunk], reason: str) -> None:
        """Count chunks that are out of the queue as dropped, and tell their source."""
        count = 0
        for chunk in chunks:
            first, chunk.receipt.lost = not chunk.receipt.lost, True
            if first:
                call(chunk.receipt.given_up, "given up")
            self._note_settled(chunk)
            count += len(chunk.items)
        self._metrics.dropped(reason, count)

    def close(self) -> None:
        """Drop and count all that waits and all that comes."""
        self._closed = True
        self.sort()
        with self._lock:
            rest = self._backlog.clear()
        self.lose(rest, "closed")

    def figures(self) -> tuple[int, int, float | None]:
        """Items, bytes, and since when the oldest waits."""
        self.sort()
        with self._lock:
            return self._backlog.items, self._backlog.bytes, self._backlog.oldest_mono()

    def marks(self) -> dict[Lane, int]:
        """How many items each lane was ever given; see `has_passed`."""
        self.sort()
        with self._lock:
            return dict(self._backlog.entered)

    def has_passed(self, marks: dict[Lane, int]) -> bool:
        """Whether everything that was there at these marks is delivered, given up or in the spool."""
        with self._lock:
            return all(self._backlog.left[lane] >= mark for lane, mark in marks.items())

    # --- the sender's thread ------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        with self._lock:
            return self._backlog.items == 0 and not len(self.inbox)

    def has(self, lane: Lane) -> bool:
        """Whether something of a lane waits."""
        with self._lock:
            return self._backlog.oldest(lane) is not None

    def next_due(self, lanes: Sequence[Lane], eager: bool) -> tuple[list[Lane], float | None]:
        """Those of the lanes that have a batch that is due, or seconds until one has; None: nothing waits."""
        now, due, soonest = time.monotonic(), [], None
        with self._lock:
            for lane in lanes:
                left = self._due_in(lane, now)
                if left is None:
                    continue
                if left <= 0 or eager:
                    due.append(lane)
                soonest = left if soonest is None else min(soonest, left)
        return due, 0.0 if due else soonest

    def late(self, lanes: Sequence[Lane], seconds: float) -> Lane | None:
        """The first of these lanes with something that has waited longer."""
        limit = time.monotonic() - seconds
        with self._lock:
            for lane in lanes:
                head = self._backlog.oldest(lane)
                if head is not None and head.handed_mono < limit:
                    return lane
        return None

    def take(self, lane: Lane) -> Parcel | None:
        """The next parcel of a lane; it is on its way now."""
        with self._lock:
            return self._backlog.take(lane, self._settings.batch_items, self._settings.batch_bytes)

    def flying(self) -> Parcel | None:
        """The parcel that is on its way."""
        with self._lock:
            return self._backlog.flying

    def fullest(self, share: float) -> Lane | None:
        """The least urgent lane that waits, where more than a share of a limit is used."""
        with self._lock:
            return self._backlog.fullest(share)

    def give_back(self, parcels: Sequence[Parcel]) -> None:
        """Undelivered parcels wait again, before all others of their lane."""
        with self._lock:
            lost = self._backlog.give_back(parcels)
        self.lose(lost, "queue_full")

    def settle(self, chunks: Sequence[Chunk], in_spool: bool = False) -> None:
        """Chunks of the parcel on its way are in safe hands, or refused for good: tell their source."""
        for chunk in chunks:
            if not in_spool:
                self._note_settled(chunk)
            if chunk.receipt.settle(len(chunk.items)):
                call(chunk.receipt.acknowledged, "acknowledgement")
        with self._lock:  # only now have they left, for those who wait in `flush`
            self._backlog.done(chunks)

    def _due_in(self, lane: Lane, now: float) -> float | None:
        """Seconds until a batch of a lane is due; None where nothing waits."""
        head = self._backlog.oldest(lane)
        if head is None:
            return None
        if self._backlog.has_returned(lane) or self._backlog.has(lane, self._settings.batch_items):
            return 0.0
        urgent = lane <= Lane.STACKS or head.urgent or self._backlog.has_urgent(lane)
        age = self._settings.urgent_seconds if urgent else self._settings.bulk_seconds
        return head.handed_mono + age - now

    def _chunks(self, handed: Handed) -> tuple[list[Chunk], int]:
        """A report by lane, and how many of its items are none of ours."""
        lanes, strangers = by_lane(handed.items)
        total = sum(map(len, lanes.values()))
        handed.receipt.outstanding = total
        rest = (handed.identity, handed.receipt, handed.wall_ns, handed.mono, handed.urgent)
        known = handed.size_bytes if len(lanes) == 1 and not strangers else 0
        chunks = [Chunk(lane, found, *rest, known or _size_bytes(found)) for lane, found in lanes.items()]
        return chunks, strangers

    def _note_settled(self, chunk: Chunk) -> None:
        if self._accounts is not None and chunk.receipt.acknowledged is None:
            self._accounts.note_settled(len(chunk.items))


def _size_bytes(items: Sequence[Any]) -> int:
    """What items hold in memory; about that where their owner changes one just now."""
    size, _ = guard.attempt("weighing a lane", lambda: sum(map(size_bytes, items)))
    return size or OVERHEAD_BYTES * len(items)


def call(callback: Callable[[], None] | None, where: str) -> None:
    """Call somebody else's function; what it raises stays here."""
    if callback is not None:
        guard.contained(where)(callback)()
