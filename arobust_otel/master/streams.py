"""What flows to one destination: bulk data as it came, and incidents, each with a cursor of its own.

Incidents never wait behind bulk data: they are another stream with another connection. A cursor moves only
after delivery, so a record may arrive twice, and never not at all.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arobust_otel.journal import Cursor, Kind, Reader, Record
from arobust_otel.master.layout import read_json, write_json
from arobust_otel.master.sender import Sender, Stopped
from arobust_otel.model.incident import OPEN, RESOLVED
from arobust_otel.otlp.envelope import outgoing
from arobust_otel.otlp.incidents import incident_gauge, incident_requests
from arobust_otel.otlp.messages import merge

BATCH_RECORDS = 200
BATCH_BYTES = 2 * 1024 * 1024  # merged requests stay below the 4 MiB that many destinations take
POLL_SECONDS = 0.1
CURSOR_SECONDS = 5.0  # how often the cursor moves over records that nobody wants
GAUGE_SECONDS = 15.0


class Stream(ABC):
    """Reads the journal from a cursor and delivers; `run` is a thread's body."""

    def __init__(self, journal: Path, cursor: Cursor, sender: Sender, finish: threading.Event) -> None:
        """Where `finish` is set, the stream ends at the end of the journal."""
        self.sender = sender
        self.batch_bytes = BATCH_BYTES
        self.gauge_seconds = GAUGE_SECONDS
        self._cursor = cursor
        self._finish = finish
        self._stored = cursor.load()
        self._stored_at = time.monotonic()
        self._reader = Reader(journal, self._stored)
        self.sender.counts.next_offset = self._stored

    def run(self) -> None:
        """Deliver until told to finish."""
        with self._reader:
            try:
                while True:
                    finishing = self._finish.is_set()
                    records = self._reader.read(BATCH_RECORDS)
                    self._step(records)
                    if not records:
                        self.idle()
                        if finishing:
                            return
                        self._finish.wait(POLL_SECONDS)
            except Stopped:
                return

    @abstractmethod
    def idle(self) -> None:
        """Do what is due at the end of the journal."""

    @abstractmethod
    def deliver(self, records: list[Record]) -> bool:
        """Deliver what is wanted of these records; whether there was anything.

        Raises:
            Stopped: before everything was delivered.
        """

    def _step(self, records: list[Record]) -> None:
        sent = self.deliver(records) if records else False
        offset, now = self._reader.offset, time.monotonic()
        self.sender.counts.next_offset = offset
        idle = not records and offset > self._stored
        if sent or now - self._stored_at >= CURSOR_SECONDS or (idle and self._finish.is_set()):
            if offset > self._stored:
                self._cursor.store(offset)
            self._stored, self._stored_at = offset, now


class BulkStream(Stream):
    """Requests as they came, those of one signal merged; never what a master has forwarded before."""

    def idle(self) -> None:
        """Nothing is due."""

    def deliver(self, records: list[Record]) -> bool:
        """In the order of the journal within each signal."""
        waiting: dict[str, list[bytes]] = {}
        sent = False
        for record in records:
            if record.kind != Kind.REQUEST or not self.sender.accepts(record.signal):
                continue
            body = outgoing(record.signal, record.payload)
            if not body:
                continue
            bodies = waiting.setdefault(record.signal, [])
            if bodies and sum(map(len, bodies)) + len(body) > self.batch_bytes:
                self.sender.send(record.signal, merge(record.signal, bodies))
                bodies.clear()
            bodies.append(body)
            sent = True
        for signal, bodies in waiting.items():
            self.sender.send(signal, merge(signal, bodies))
        return sent


class IncidentStream(Stream):
    """Incidents as log record, gauge and span; the gauge of an open one again every 15 s.

    The open ones are kept in a file beside the cursor: after a restart the gauges go on.
    """

    def __init__(self, journal: Path, cursor: Cursor, sender: Sender, finish: threading.Event) -> None:
        super().__init__(journal, cursor, sender, finish)
        self.clock: Callable[[], int] = time.time_ns
        self._open_path = cursor.path.with_name(cursor.path.name + ".open")
        self._open: dict[str, dict[str, Any]] = read_json(self._open_path)
        self._gauges_at = time.monotonic()

    def deliver(self, records: list[Record]) -> bool:
        """In the order of the journal, one incident after the other."""
        sent = False
        for record in records:
            if record.kind != Kind.OUTPUT:
                continue
            values = json.loads(record.payload)
            if values["kind"] == "incident":
                self._deliver_incident(values["body"])
                sent = True
        return sent

    def idle(self) -> None:
        """Say again what is open: an alert that watches the gauge must not fall asleep."""
        if time.monotonic() - self._gauges_at < self.gauge_seconds or not self.sender.accepts("metrics"):
            return
        self._gauges_at = time.monotonic()
        for incident in self._open.values():
            self.sender.try_once("metrics", incident_gauge(incident, self.clock()))

    def _deliver_incident(self, body: dict[str, Any]) -> None:
        incident = body["incident"]
        before = self._open.get(incident["id"])
        if before is not None and _labels(before) != _labels(incident) and self.sender.accepts("metrics"):
            # A revision changes the gauge's labels: the old series must end, or it would alert for ever.
            self.sender.send("metrics", incident_gauge({**before, "status": RESOLVED}, self.clock()))
        for signal, request in incident_requests(body):
            if self.sender.accepts(signal):
                self.sender.send(signal, request)
        self._remember(incident)

    def _remember(self, incident: dict[str, Any]) -> None:
        self._open.pop(incident["id"], None)
        if incident["status"] == OPEN:
            self._open[incident["id"]] = incident
        self._open_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self._open_path, self._open)


def _labels(incident: dict[str, Any]) -> tuple[Any, ...]:
    return incident["rule"], incident["cause"], [culprit["rank"] for culprit in incident["culprits"]]
