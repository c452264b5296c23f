"""The spool as the sender sees it, also where there is none: what to keep, and what to say about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from arobust_otel import guard
from arobust_otel.agent.client.metrics import ClientMetrics
from arobust_otel.agent.parcel import Lane, Parcel
from arobust_otel.agent.spool.spool import KILLED, OFF, OK, Spool, SpoolStats

AGAIN_SECONDS = 5.0  # a disk that is full or broken is tried again after so long


class Safekeeping:
    """Parcels on the disk. Used from the sender's thread, `stats` and `waiting` from any.

    Args:
        disk: the spool; None: nothing is ever kept.
        metrics: counts what was lost there, and what was found there.
        say: hears once when the state changes.

    Attributes:
        waiting: parcels on the disk, as of the last change.
    """

    def __init__(self, disk: Spool | None, metrics: ClientMetrics, say: Callable[[str], None]) -> None:
        self._disk = disk
        self._metrics = metrics
        self._say = say
        self._state = OK
        self._at_end: SpoolStats | None = None
        self._again_at = 0.0
        self.waiting = 0
        self._note()

    @property
    def is_on(self) -> bool:
        """Whether it is worth trying to keep something: it works, or may work again."""
        if self._disk is None or self._at_end is not None:
            return False
        return self._disk.stats().state == OK or time.monotonic() >= self._again_at

    def stats(self) -> SpoolStats:
        """Figures and state; those of the end once it is closed."""
        return self._at_end or (SpoolStats(state=OFF) if self._disk is None else self._disk.stats())

    def lanes(self) -> list[Lane]:
        """Lanes with parcels on the disk, the most urgent first."""
        disk = self._disk
        return [] if disk is None else [lane for lane in Lane if disk.pending(lane)]

    def head(self, lane: Lane) -> Parcel | None:
        """The oldest parcel of a lane."""
        if self._disk is None:
            return None
        found = self._disk.head(lane)
        self._note()
        return found

    def keep(self, parcel: Parcel) -> bool:
        """Store a parcel; False where it has to stay in memory."""
        disk = self._disk
        kept = False
        if disk is not None:
            kept = bool(guard.attempt("spool", lambda: disk.put(parcel))[0])
        if not kept:
            self._again_at = time.monotonic() + AGAIN_SECONDS
        self._note()
        return kept

    def settle(self, parcel: Parcel, undelivered: Sequence[Parcel]) -> None:
        """A stored parcel was tried: nothing of it, parts of it, or all of it has to be tried again."""
        if self._disk is None or [part.batch_id for part in undelivered] == [parcel.batch_id]:
            return
        if undelivered:
            self._disk.replace(parcel.batch_id, undelivered)
        else:
            self._disk.remove(parcel.batch_id)
        self._note()

    def adopt(self) -> None:
        """Take over what a job that ended left on this node's disk."""
        if self._disk is not None:
            self._disk.adopt()
            self._note()

    def close(self) -> None:
        """What waits stays for the next process."""
        if self._disk is not None:
            self._note()
            self._at_end = self._disk.stats()
            self._disk.close()

    def _note(self) -> None:
        """Count what was found on the disk and what it lost, and say what became of it."""
        if self._disk is None:
            return
        self._metrics.recovered(self._disk.take_found())
        for reason, count in self._disk.take_dropped().items():
            if reason == KILLED:  # by an earlier process
                self._metrics.recovered(count)
            self._metrics.dropped(reason, count)
        self.waiting = sum(self._disk.pending(lane) for lane in Lane)
        state = self._disk.stats().state
        if state != self._state:
            self._state = state
            works = "works again" if state == OK else f"{state}: what does not fit in memory is dropped"
            self._say(f"the spool on the disk {works}")
