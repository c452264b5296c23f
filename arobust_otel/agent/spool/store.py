"""One SQLite file of parcels: SQL only. Limits, failures and locks are `spool`'s.

WAL with an exclusive lock: no shared memory file, so it works on network homes, too. A put is on the disk
when it returns (also after a power cut); a removal may come back, which the master knows by the batch's id.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from arobust_otel.agent.parcel import Lane
from arobust_otel.agent.spool.item_codec import VERSION

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parcels (
    batch_id TEXT PRIMARY KEY, lane INTEGER NOT NULL, place INTEGER NOT NULL, part TEXT NOT NULL,
    items INTEGER NOT NULL, bytes INTEGER NOT NULL, created_ns INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS queue ON parcels (lane, place, part, items, bytes);
CREATE INDEX IF NOT EXISTS age ON parcels (created_ns);
CREATE TABLE IF NOT EXISTS account (epoch INTEGER NOT NULL, spooled INTEGER NOT NULL);
"""
_ENTRIES = "SELECT batch_id, lane, place, part, items, bytes, created_ns FROM parcels"
_LAST_PLACE = "SELECT COALESCE(MAX(place), 0) FROM main.parcels"
_COPY = (
    "INSERT OR IGNORE INTO main.parcels"
    " SELECT batch_id, lane, place + ?, part, items, bytes, created_ns, body FROM other.parcels"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A parcel in the file. The queue of a lane is ordered by `place`, parts of a cut parcel by `part`."""

    batch_id: str
    lane: int
    place: int
    part: str
    items: int
    bytes: int
    created_ns: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What a lane holds."""

    parcels: int = 0
    items: int = 0
    bytes: int = 0


class Store:
    """All methods raise `sqlite3.Error`; a change is done as a whole or not at all."""

    def __init__(self, path: Path) -> None:
        """Open, or make with mode 0600.

        Raises:
            sqlite3.Error: it cannot be opened, is damaged, or was written by a later version.
            OSError: it cannot be made.
        """
        self.path = path
        with contextlib.suppress(FileExistsError):  # SQLite gives its other files the same mode
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self.connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self) -> None:
        run = self.connection.execute
        run("PRAGMA auto_vacuum=INCREMENTAL")
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=FULL")
        run("PRAGMA wal_autocheckpoint=256")  # pages: the log may take a MiB of a disk that is nearly full
        version = run("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise sqlite3.NotSupportedError(f"{self.path} was written by another version ({version})")
        with self._change():
            for statement in filter(str.strip, _SCHEMA.split(";")):
                run(statement)
            run(f"PRAGMA user_version={VERSION}")
        self._place = run(_LAST_PLACE).fetchone()[0]

    def insert(self, entry: Entry, body: bytes, spooled: int, victims: Sequence[str] = ()) -> None:
        """Append to the end of its lane, in exchange for others.

        Args:
            entry: its `place` is given here.
            body: the items.
            spooled: how many of them were in memory only, for the account.
            victims: ids of parcels that go for it.
        """
        with self._change():
            self._delete(victims)
            self._insert(entry, self._place + 1, body)
            self.connection.execute("UPDATE account SET spooled = spooled + ?", (spooled,))
        self._place += 1

    def replace(self, batch_id: str, parts: Iterable[tuple[Entry, bytes]]) -> None:
        """Parts take the place of a whole."""
        with self._change():
            self._delete((batch_id,))
            for entry, body in parts:
                self._insert(entry, entry.place, body)

    def delete(self, batch_ids: Sequence[str]) -> None:
        """Take parcels out; this change may be undone by a power cut."""
        self.connection.execute("PRAGMA synchronous=NORMAL")
        try:
            with self._change():
                self._delete(batch_ids)
        finally:
            self.connection.execute("PRAGMA synchronous=FULL")

    def queue(self, lane: int, count: int) -> list[Entry]:
        """The next parcels of a lane, oldest first."""
        query = _ENTRIES + " WHERE lane = ? ORDER BY place, part LIMIT ?"
        return [Entry(*row) for row in self.connection.execute(query, (lane, count)).fetchall()]

    def body(self, batch_id: str) -> bytes:
        """The items of a parcel."""
        row = self.connection.execute("SELECT body FROM parcels WHERE batch_id = ?", (batch_id,)).fetchone()
        return bytes(row[0]) if row else b""

    def entry(self, batch_id: str) -> Entry | None:
        """A parcel by its id."""
        row = self.connection.execute(_ENTRIES + " WHERE batch_id = ?", (batch_id,)).fetchone()
        return Entry(*row) if row else None

    def oldest_ns(self) -> int | None:
        """When the oldest parcel was put; None where there is none."""
        found: int | None = self.connection.execute("SELECT MIN(created_ns) FROM parcels").fetchone()[0]
        return found

    def older_than(self, wall_ns: int) -> list[Entry]:
        """Parcels that were put before a time."""
        query = _ENTRIES + " WHERE created_ns < ? ORDER BY created_ns LIMIT 1000"
        return [Entry(*row) for row in self.connection.execute(query, (wall_ns,)).fetchall()]

    def victims(self, need_bytes: int, most_urgent: int, without: Container[str] = ()) -> list[Entry]:
        """Who goes first to make room: the least urgent lane, and of it the oldest; nobody more urgent.

        Args:
            need_bytes: so many bytes have to go, or as many as there are.
            most_urgent: the first lane that may be touched.
            without: ids of parcels that do not count, because they are gone already.
        """
        chosen: list[Entry] = []
        for lane in range(max(Lane), most_urgent - 1, -1):
            if need_bytes <= 0:
                break
            rows = self.connection.execute(_ENTRIES + " WHERE lane = ? ORDER BY place, part", (lane,))
            with contextlib.closing(rows):
                for row in rows:
                    if row[0] in without:
                        continue
                    chosen.append(Entry(*row))
                    need_bytes -= chosen[-1].bytes
                    if need_bytes <= 0:
                        break
        return chosen

    def holdings(self) -> dict[int, Holding]:
        """What each lane holds, counted anew."""
        rows = self.connection.execute(
            "SELECT lane, COUNT(*), SUM(items), SUM(bytes) FROM parcels GROUP BY lane"
        ).fetchall()
        return {lane: Holding(parcels, items, size) for lane, parcels, items, size in rows}

    def spooled(self, epoch: int) -> int | None:
        """What went into the spool in an epoch of the ledger; None where that is not this file's epoch."""
        row = self.connection.execute("SELECT spooled FROM account WHERE epoch = ?", (epoch,)).fetchone()
        return int(row[0]) if row else None

    def begin(self, epoch: int, spooled: int = 0) -> None:
        """A new epoch of the account."""
        with self._change():
            self.connection.execute("DELETE FROM account")
            self.connection.execute("INSERT INTO account VALUES (?, ?)", (epoch, spooled))

    def absorb(self, path: Path, room_bytes: int | None) -> dict[int, int] | None:
        """Copy the parcels of another file behind our own; what we have already is not taken twice.

        Returns:
            its account, spooled by epoch; None where its parcels do not fit into `room_bytes`.
        """
        run = self.connection.execute
        run("ATTACH DATABASE ? AS other", (str(path),))
        try:
            version = run("PRAGMA other.user_version").fetchone()[0]
            if version == 0:  # its process was killed while it made the file
                return {}
            if version != VERSION:
                raise sqlite3.NotSupportedError(f"{path} was written by another version ({version})")
            size = run("SELECT COALESCE(SUM(bytes), 0) FROM other.parcels").fetchone()[0]
            if room_bytes is not None and size > room_bytes:
                return None
            with self._change():
                run(_COPY, (self._place,))
            self._place = run(_LAST_PLACE).fetchone()[0]
            return dict(run("SELECT epoch, spooled FROM other.account").fetchall())
        finally:
            run("DETACH DATABASE other")

    def shrink(self) -> None:
        """Give free pages back to the file system."""
        self.connection.executescript("PRAGMA incremental_vacuum")  # `execute` stops after one page
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def checkpoint(self) -> None:
        """Let the log be written from its beginning again, so that a change needs no room on the disk."""
        self.connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def close(self) -> None:
        """Close the file; nothing is lost where that fails."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()

    def abandon(self) -> None:
        """In a forked child: closing would write into the parent's files, so the connection stays."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connection))

    def _insert(self, entry: Entry, place: int, body: bytes) -> None:
        values = (
            entry.batch_id,
            entry.lane,
            place,
            entry.part,
            entry.items,
            len(body),
            entry.created_ns,
            body,
        )
        self.connection.execute("INSERT OR IGNORE INTO parcels VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

    def _delete(self, batch_ids: Iterable[str]) -> None:
        self.connection.executemany(
            "DELETE FROM parcels WHERE batch_id = ?", [(batch_id,) for batch_id in batch_ids]
        )

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
            raise


def is_full(error: Exception) -> bool:
    """Whether an error means that there is no room."""
    return isinstance(error, sqlite3.Error) and "is full" in str(error)


def is_damage(error: Exception) -> bool:
    """Whether an error means that the file is no whole database."""
    text = str(error)
    return isinstance(error, sqlite3.DatabaseError) and (
        "malformed" in text or "not a database" in text or "no such column" in text or "no such table" in text
    )
