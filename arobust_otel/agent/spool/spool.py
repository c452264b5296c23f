"""What does not reach the master waits on the disk, and survives the process. Never raises for the disk.

A disk that is full or broken is a state. Parcels and losses that earlier processes of this job left are taken
over on `open`, those of its others that end later, and of jobs that may never come back, by `adopt`. Several
clients of one job on one host have a slot each. A forked child has none: the files are its parent's.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from arobust_otel import guard
from arobust_otel.agent.parcel import Lane, Parcel, count_items
from arobust_otel.agent.spool.folder import (
    DATABASE,
    DATABASE_FILES,
    LEDGER,
    Slot,
    SpoolRefused,
    check_file,
    other_jobs,
    set_aside,
    slots_of,
)
from arobust_otel.agent.spool.heritage import inherit
from arobust_otel.agent.spool.item_codec import encodable, encode_chunks
from arobust_otel.agent.spool.ledger import Account, Ledger
from arobust_otel.agent.spool.shelf import DAMAGED, FULL, OFF, OK, Shelf, SpoolLimits, SpoolStats
from arobust_otel.agent.spool.store import Store, is_damage, is_full

T = TypeVar("T")
KILLED, INVALID = "killed", "invalid"
_AGAIN_SECONDS = 10.0  # a spool that failed is tried again after so long
_DISK_ERRORS = (sqlite3.Error, OSError, SpoolRefused)


class Spool:
    """Use `Spool.open`. Methods are called from one thread at a time, `stats` from any.

    Attributes:
        ledger: counts what only memory holds; in a file beside the parcels where that can be had.
    """

    def __init__(self, folder: Path, limits: SpoolLimits) -> None:
        """Opens nothing; use `open`."""
        self.folder = folder.absolute()
        self.limits = limits
        self._epoch = int.from_bytes(os.urandom(7), "little") | 1
        self.ledger = Ledger(self._epoch)
        self._left = Account()  # what an earlier process left in the ledger, until the store says more of it
        self._is_open = True
        self._slot: Slot | None = None
        self._shelf: Shelf | None = None
        self._lock = threading.Lock()
        self._dropped: dict[str, int] = {}
        self._found = 0
        self._has_looked = False  # whether the slot was ever open: what it holds then is ours, or counted
        self._stats = SpoolStats()
        self._retry_at = 0.0

    @classmethod
    def open(cls, folder: Path, limits: SpoolLimits | None = None) -> Spool:
        """Take a slot of the folder, with all that earlier processes of this job left. Never raises.

        Args:
            folder: of one job on one host, see `spool_folder`; made where it does not exist.
            limits: of what is stored.
        """
        spool = cls(folder, limits or SpoolLimits())
        with spool._lock:
            spool._take_slot()
        _open_spools.add(spool)
        return spool

    @property
    def state(self) -> str:
        """As in `SpoolStats`."""
        return self._stats.state

    def put(self, parcel: Parcel) -> bool:
        """Store a parcel that was in memory; False where it is not kept: then the caller drops and counts.

        Of a parcel that is kept, items that cannot be stored are dropped, as ``invalid`` in `take_dropped`.
        """
        kept = parcel
        body, error = guard.attempt("encoding of a parcel", lambda: encode_chunks(parcel.chunks))
        if error is not None:
            kept = replace(parcel, chunks=encodable(parcel.chunks))
            body, _ = guard.attempt("encoding of a parcel", lambda: encode_chunks(kept.chunks))
        if body is None or len(body) > self.limits.max_bytes:
            return False
        stored = body
        if not self._safely(lambda shelf: not kept.chunks or shelf.put(kept, stored), False):
            return False
        if kept is not parcel:
            self._refuse(parcel, kept)
        return True

    def head(self, lane: Lane) -> Parcel | None:
        """The oldest parcel of a lane; it stays until it is removed."""
        return self._safely(lambda shelf: shelf.head(lane), None)

    def remove(self, batch_id: str) -> None:
        """A parcel is delivered, or was dropped and counted by the caller; an unknown one changes nothing."""
        self._safely(lambda shelf: shelf.remove(batch_id), None)

    def replace(self, batch_id: str, parcels: Sequence[Parcel]) -> None:
        """Parts of a parcel that was cut take its place, in their order; the whole goes."""
        self._safely(lambda shelf: shelf.replace(batch_id, parcels), None)

    def pending(self, lane: Lane) -> int:
        """How many parcels of a lane wait."""
        return 0 if self._shelf is None else self._shelf.pending(lane)

    def stats(self) -> SpoolStats:
        """What waits now; from any thread."""
        return self._stats

    def take_dropped(self) -> dict[str, int]:
        """Items that were lost since the last call, by reason; the caller counts them.

        `killed` are those that earlier processes had in memory only: `ledger.lost_before` is among them.
        """
        with self._lock:
            dropped = dict(self._dropped)
            self._dropped.clear()
        return dropped

    def take_found(self) -> int:
        """Items of earlier processes that were found since the last call; some may be in `take_dropped`.

        Those that were ``killed`` with the memory of one are not among them.
        """
        with self._lock:
            found, self._found = self._found, 0
        return found

    def adopt(self) -> int:
        """Take over what one process that ended left, of this job first, where it fits; returns items.

        To be called now and then while the master takes data.
        """
        before = self._stats.items
        left = [*slots_of(self.folder), *other_jobs(self.folder)]
        self._safely(lambda _: self._adopt_from(left, most=1), None)
        return max(0, self._stats.items - before)

    def close(self) -> None:
        """A clean end; what waits stays for the next process, an empty slot goes."""
        with self._lock:
            is_empty = self._shelf is not None and not self._shelf.total().parcels and not self._dropped
            if self._shelf is not None:
                self._shelf.store.close()
            self._shelf = None
            self._stats = replace(self._stats, state=OFF)
            self.ledger.close()
            if self._slot is not None and is_empty:
                self._slot.dispose()
            elif self._slot is not None:
                self._slot.release()
            self._slot, self._is_open = None, False
        _open_spools.discard(self)

    def _refuse(self, parcel: Parcel, kept: Parcel) -> None:
        """Count the items that could not be stored of a parcel."""
        self.ledger.note_settled(_volatile(parcel) - _volatile(kept))
        with self._lock:
            self._dropped[INVALID] = self._dropped.get(INVALID, 0) + parcel.items - kept.items

    # --- states -------------------------------------------------------------------------------------------

    def _safely(self, change: Callable[[Shelf], T], otherwise: T) -> T:
        """Run a change; a failure of the disk becomes the state."""
        with self._lock:
            if self._shelf is None and self._is_open and time.monotonic() >= self._retry_at:
                self._take_slot()
            if self._shelf is None:
                return otherwise
            try:
                result = change(self._shelf)
            except _DISK_ERRORS as error:
                self._fail(error)
                return otherwise
            if self._shelf.is_stuck and self._slot is not None:
                self._renew(self._slot, self._slot.remove_database)
            self._note(result)
            return result

    def _note(self, result: object = None) -> None:
        """Figures for other threads, and for whoever comes after this process."""
        if self._shelf is None:
            return
        total = self._shelf.total()
        state = FULL if result is False else OK
        if self._stats.state == FULL and result is not True and total.parcels:
            state = FULL  # until something could be put again, or nothing waits
        self._stats = SpoolStats(total.items, total.bytes, self._shelf.oldest_mono(), state)
        self.ledger.note_spool(self._shelf.spooled, total.items)

    def _fail(self, error: Exception) -> None:
        if is_full(error):
            self._stats = replace(self._stats, state=FULL)
        elif is_damage(error) and self._slot is not None and self._shelf is not None:
            self._replace_damaged(self._slot)
        else:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Close, and try again after a while."""
        if self._shelf is not None:
            self._shelf.store.close()
        self._shelf = None
        self._stats = replace(self._stats, state=f"failed: {error}")
        self._retry_at = time.monotonic() + _AGAIN_SECONDS

    # --- opening ------------------------------------------------------------------------------------------

    def _take_slot(self) -> None:
        try:
            if self._slot is None:
                self._slot = Slot.take_free(self.folder)
                self._left = self.ledger.move_to(self._slot.folder / LEDGER)
            self._open_store(self._slot)
            self._adopt_from(slots_of(self.folder))
            self._note()
        except _DISK_ERRORS as error:
            self._give_up(error)

    def _open_store(self, slot: Slot) -> None:
        for name in DATABASE_FILES:
            check_file(slot.folder / name)
        try:
            self._begin(Store(slot.folder / DATABASE))
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self._replace_damaged(slot)

    def _begin(self, store: Store) -> None:
        """Use an open file."""
        self._add_lost(self._left.lost(store.spooled(self._left.epoch)))
        self._left = Account()
        spooled = self.ledger.account().spooled
        if store.spooled(self._epoch) is None:
            store.begin(self._epoch, spooled)
        self._shelf = Shelf(store, self.limits, self._dropped, spooled)
        if not self._has_looked:
            self._found += self._shelf.total().items
            self._has_looked = True
        self._note()

    def _replace_damaged(self, slot: Slot) -> None:
        """Set a damaged file aside, count what it held, and begin with an empty one."""
        held = self.ledger.account().held
        self._add_lost(0, held)
        if not self._has_looked:
            self._found += held
        self._renew(slot, lambda: set_aside(slot.folder, slot.folder, time.time_ns()))

    def _renew(self, slot: Slot, clear: Callable[[], None]) -> None:
        """Begin with a new file, once the old one is out of the way."""
        if self._shelf is not None:
            self._shelf.store.close()
        self._shelf = None
        try:
            clear()
            self._begin(Store(slot.folder / DATABASE))
        except _DISK_ERRORS as error:
            self._give_up(error)

    def _add_lost(self, killed: int, damaged: int = 0) -> None:
        self.ledger.lost_before += killed
        for reason, items in ((KILLED, killed), (DAMAGED, damaged)):
            if items:
                self._dropped[reason] = self._dropped.get(reason, 0) + items

    # --- what others left ---------------------------------------------------------------------------------

    def _adopt_from(self, slots: Sequence[Path], most: int | None = None) -> None:
        """Take over slots that no living process holds: all of them, or so many that fit."""
        taken = 0
        for folder in slots:
            if self._slot is None or self._shelf is None or folder == self._slot.folder or taken == most:
                continue
            try:
                slot = Slot.take(folder)
            except (OSError, SpoolRefused):
                continue
            if slot is None:
                continue
            try:
                room_bytes = self._shelf.room_bytes() if most else None
                losses = inherit(self._shelf, slot, self._slot.folder, room_bytes)
            except _DISK_ERRORS:  # nothing of it was moved: it is tried again later
                continue
            finally:
                slot.release()
            if losses is not None:
                taken += 1
                self._found += losses.found
                self._add_lost(losses.killed, losses.damaged)

    # --- fork ---------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """In a forked child: files and connection are the parent's."""
        if self._shelf is not None:
            self._shelf.store.abandon()
        if self._slot is not None:
            self._slot.release()
        self._shelf = self._slot = None
        self._is_open = False
        self._lock = threading.Lock()
        self._dropped = {}
        self._stats = SpoolStats(state="failed: the spool is its parent's")
        self.ledger.leave()


def _volatile(parcel: Parcel) -> int:
    """Items that only memory has: one with an acknowledgement comes again from its source."""
    return count_items(chunk for chunk in parcel.chunks if chunk.receipt.acknowledged is None)


__all__ = ["FULL", "KILLED", "OFF", "OK", "Spool", "SpoolLimits", "SpoolStats"]
_open_spools: weakref.WeakSet[Spool] = weakref.WeakSet()


os.register_at_fork(after_in_child=lambda: [*map(Spool._leave, list(_open_spools))])
