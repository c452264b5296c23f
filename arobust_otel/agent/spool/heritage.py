"""What a process that is no more left in its slot: moved into another one, and its losses counted."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from arobust_otel.agent.spool.folder import DATABASE, DATABASE_FILES, LEDGER, Slot, check_file, set_aside
from arobust_otel.agent.spool.ledger import read_account
from arobust_otel.agent.spool.shelf import Shelf
from arobust_otel.agent.spool.store import is_damage


@dataclass(frozen=True, slots=True)
class Heritage:
    """Items that were found, a damaged file's among them, and those lost with the memory of the process."""

    found: int = 0
    killed: int = 0
    damaged: int = 0


def inherit(shelf: Shelf, slot: Slot, own_folder: Path, room_bytes: int | None) -> Heritage | None:
    """Move everything out of a locked slot and delete it.

    Args:
        shelf: takes the parcels.
        slot: of a process that has ended.
        own_folder: keeps the file where it turns out to be damaged.
        room_bytes: how much may come; None: all of it, whatever has to go for it.

    Returns:
        None where the parcels do not fit.

    Raises:
        sqlite3.Error, OSError, SpoolRefused: it cannot be read or copied; nothing has changed.
    """
    account = read_account(slot.folder / LEDGER)
    spooled: dict[int, int] | None = {}
    damaged = 0
    for name in DATABASE_FILES:
        check_file(slot.folder / name)
    try:
        if (slot.folder / DATABASE).is_file():
            spooled = shelf.store.absorb(slot.folder / DATABASE, room_bytes)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        set_aside(slot.folder, own_folder, time.time_ns())
        damaged = account.held
    if spooled is None:
        return None
    found = shelf.recount() + damaged
    slot.dispose()
    return Heritage(found, account.lost(spooled.get(account.epoch)), damaged)
