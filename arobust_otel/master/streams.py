"""What flows to one destination: reading the journal from a cursor, and bulk data as it came.

Incidents are another stream with another connection (`incident_streams`), so they never wait behind bulk
data. A cursor moves only after delivery: a record may arrive twice, and never not at all.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from arobust_otel.errors import DecodeError, JournalError
from arobust_otel.journal import Cursor, Kind, Reader, Record
from arobust_otel.journal.durable import if_there_is_room
from arobust_otel.journal.segments import first_offsets
from arobust_otel.master.attempts import DAMAGED, EXPIRED, UNREADABLE, Stopped
from arobust_otel.master.sender import Sender
from arobust_otel.otlp.envelope import outgoing
from arobust_otel.otlp.messages import merge

BATCH_RECORDS = 1000
POLL_SECONDS = 0.1
NEAR_SECONDS = 5.0
CURSOR_SECONDS = 5.0  # how often the cursor moves over records that nobody wants


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stream reads, and what it shares with the others. `finish`: end at the end of the journal."""

    journal: Path
    cursor: Cursor
    finish: threading.Event


class Stream(ABC):
    """Reads the journal from a cursor and delivers; `run` is a thread's body."""

    store_seconds: ClassVar[float] = 0.0  # how long the cursor may wait for company after a delivery

    def __init__(self, place: Place, sender: Sender) -> None:
        """Nothing is read before `run`."""
        self.sender = sender
        self._journal = place.journal
        self._cursor = place.cursor
        self._finish = place.finish
        self._stored = place.cursor.load()
        if not place.cursor.path.exists():
            with if_there_is_room():
                place.cursor.store(self._stored)  # from now on, what it has not read is kept for it
        self._stored_at = time.monotonic()
        self._sent = False
        self._reader = Reader(place.journal, self._stored)
        self.sender.counts.next_offset = self._stored

    def run(self) -> None:
        """Deliver until told to finish."""
        try:
            while True:
                finishing = self._finish.is_set()
                records = self._read()
                self._step(records)
                self.sender.again()
                if not records or _is_near(records[-1]):
                    self.idle()
                if not records:
                    if finishing:
                        return
                    self._finish.wait(POLL_SECONDS)
        except Stopped:
            return
        finally:
            self._store()
            self._reader.close()

    def idle(self) -> None:
        """Do what is due at the end of the journal, or near it: nothing, for most."""
        return

    @abstractmethod
    def deliver(self, records: list[Record]) -> bool:
        """Deliver what is wanted of these records; whether there was anything.

        Raises:
            Stopped: before everything was delivered.
        """

    def _read(self) -> list[Record]:
        """Next records; what was deleted before this destination took it, or is damaged, is counted.

        Raises:
            JournalError: damage that nothing whole follows.
        """
        while True:
            try:
                return self._reader.read(BATCH_RECORDS)
            except JournalError as error:
                self._pass_over(error)

    def _pass_over(self, error: JournalError) -> None:
        offset, oldest = self._reader.offset, next(iter(first_offsets(self._journal)), 0)
        if oldest > offset:
            self.sender.dropped(EXPIRED, oldest - offset, "the journal is kept no longer")
            self._reader.close()
            self._reader = Reader(self._journal, oldest)
            return
        passed = self._reader.pass_damage()
        if passed is None:
            raise error
        self.sender.dropped(DAMAGED, passed, str(error))

    def _step(self, records: list[Record]) -> None:
        counts = self.sender.counts
        if records:
            counts.waiting_ns = records[0].received_ns
        sent = self.deliver(records) if records else False
        counts.waiting_ns = self.sender.waiting_ns()
        self._delivered(self._reader.offset, sent=sent)

    def _delivered(self, offset: int, *, sent: bool) -> None:
        """Everything before `offset` is delivered, not wanted, or aside at the sender."""
        self.sender.counts.next_offset = self.sender.reached(offset)
        self._sent = self._sent or sent
        seconds = self.store_seconds if self._sent else CURSOR_SECONDS
        if time.monotonic() - self._stored_at >= seconds:
            self._store()

    def _store(self) -> None:
        offset = self.sender.counts.next_offset
        self._stored_at, self._sent = time.monotonic(), False
        with if_there_is_room():  # else it is stored later; a restart meanwhile delivers some twice
            if offset > self._stored:
                self._cursor.store(offset)
            self._stored = offset


def _is_near(record: Record) -> bool:
    """Whether a record is so new that a busy journal's end is as good as reached."""
    return time.time_ns() - record.received_ns < NEAR_SECONDS * 1e9


@dataclass(slots=True)
class _Waiting:
    """Requests of one signal that are put together; `offset` is that of the first."""

    offset: int
    bodies: list[bytes]
    size_bytes: int = 0


class BulkStream(Stream):
    """Requests as they came, those of one signal merged; never what a master has forwarded before."""

    store_seconds: ClassVar[float] = 1.0  # what a kill may make arrive twice

    def deliver(self, records: list[Record]) -> bool:
        """In the order of the journal within each signal."""
        waiting: dict[str, _Waiting] = {}
        sent = False
        for record in records:
            if record.kind != Kind.REQUEST or not self.sender.accepts(record.signal):
                continue
            body = self._outgoing(record)
            if not body:
                continue
            sent = True
            held = waiting.get(record.signal)
            if held is not None and held.size_bytes + len(body) > self.sender.pace.bytes:
                self._flush(waiting, record.signal, record.offset)
            held = waiting.setdefault(record.signal, _Waiting(record.offset, []))
            held.bodies.append(body)
            held.size_bytes += len(body)
        for signal in list(waiting):
            self._flush(waiting, signal, self._reader.offset)
        return sent

    def _outgoing(self, record: Record) -> bytes:
        """Empty where nothing is to be sent. What cannot be read must not end the delivery of all else."""
        try:
            return outgoing(record.signal, record.payload)
        except DecodeError as error:
            self.sender.dropped(UNREADABLE, 1, f"record {record.offset}: {error}")
            return b""

    def _flush(self, waiting: dict[str, _Waiting], signal: str, end_offset: int) -> None:
        """Send what waits of a signal; the cursor may move up to what waits of the others."""
        self.sender.send(signal, merge(signal, waiting[signal].bodies), waiting[signal].offset)
        del waiting[signal]
        self._delivered(min((held.offset for held in waiting.values()), default=end_offset), sent=True)
