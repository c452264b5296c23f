"""What destinations are told of incidents: as OTLP, as notices in order, or as what stands now."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from arobust_otel.journal import Kind, Record
from arobust_otel.master.sender import Sender
from arobust_otel.master.standing import Standing
from arobust_otel.master.streams import Place, Stream
from arobust_otel.model.notice import Notice, change_of, series_of
from arobust_otel.otlp.ages import TOO_OLD
from arobust_otel.otlp.incidents import incident_gauge, incident_requests, to_ns
from arobust_otel.otlp.messages import METRICS, merge

GAUGE_SECONDS = 15.0

OwnRequest = Callable[[int], bytes]  # the master's own metrics at a time, as an OTLP request


def told_in(record: Record) -> dict[str, Any] | None:
    """The output of the engine in a record where it is an incident, else None."""
    if record.kind != Kind.OUTPUT:
        return None
    values: dict[str, Any] = json.loads(record.payload)
    return values if values["kind"] == "incident" else None


class TellingStream(Stream):
    """A stream of incidents; those that stand are kept in a file beside the cursor.

    Both are stored together: a restart tells again what was not delivered, of what stood before that.
    """

    def __init__(self, place: Place, sender: Sender) -> None:
        super().__init__(place, sender)
        self.clock: Callable[[], int] = time.time_ns
        path = place.cursor.path
        self.standing = Standing(path.with_name(path.name + ".open"))

    def deliver(self, records: list[Record]) -> bool:
        """In the order of the journal, one incident after the other."""
        sent = False
        for record in records:
            values = told_in(record)
            if values is not None:
                self.tell(record, values)
                self._delivered(record.offset + 1, sent=True)
                sent = True
        return sent

    def _store(self) -> None:
        """Only where nothing is aside: what stands is known of the last record only."""
        if not self.sender.holds():
            self.standing.store()
            super()._store()

    def tell(self, record: Record, values: dict[str, Any]) -> None:
        """Deliver one output (`cause`, `index` and `body`)."""
        raise NotImplementedError


class OtlpStream(TellingStream):
    """Log record, gauge and span of each change; gauges of open ones, and our own metrics, every 15 s."""

    def __init__(self, place: Place, sender: Sender, own: OwnRequest | None = None) -> None:
        """`own` makes the request with the master's own metrics."""
        super().__init__(place, sender)
        self.gauge_seconds = GAUGE_SECONDS
        self._own = own
        self._gauges_at = time.monotonic()
        self._said: dict[str, int] = {}  # series: time of the newest point, which Prometheus wants to grow

    def tell(self, record: Record, values: dict[str, Any]) -> None:
        """The gauge follows what stands: one incident's end is no end where another shares its series."""
        body = values["body"]
        incident = body["incident"]
        was_open = self.standing.before(incident["id"]) is not None
        for signal, request in incident_requests(body):
            if signal != METRICS and self.sender.accepts(signal):
                self.sender.send(signal, request, record.offset)
        ended = self.standing.take(incident, self.clock())
        if not self.sender.accepts(METRICS):
            return
        at_ns = to_ns(incident["updated_at"])
        for told, known in ((ended, True), (incident, was_open)):
            if told is not None and told["status"] != "pending":
                self.sender.send(METRICS, self._gauge(told, at_ns, known=known), record.offset)

    def idle(self) -> None:
        """Say again what is open: an alert that watches the gauge must not fall asleep."""
        if time.monotonic() - self._gauges_at < self.gauge_seconds or not self.sender.accepts(METRICS):
            return
        self._gauges_at = time.monotonic()
        now_ns = self.clock()
        gauges = [
            self._gauge(told, now_ns, known=True) for told in self.standing.shown(now_ns) if _is_open(told)
        ]
        for request in (merge(METRICS, gauges), self._own(now_ns) if self._own else b""):
            if request and not self.sender.try_once(METRICS, request):
                return

    def _gauge(self, incident: dict[str, Any], at_ns: int, *, known: bool) -> bytes:
        """Never before the series' newest point; where that was said by an earlier process: now."""
        series = series_of(incident)
        newest_ns = self._said.get(series, self.clock() if known else 0)
        at_ns = max(at_ns, newest_ns + 1_000_000) if newest_ns else at_ns
        self._said[series] = at_ns
        shown = (
            incident
            if _is_open(incident) or not self.standing.is_open(series)
            else {**incident, "status": "open"}
        )
        return incident_gauge(shown, at_ns)


class NoticeStream(TellingStream):
    """Each change once, in order, until the destination has taken it."""

    def tell(self, record: Record, values: dict[str, Any]) -> None:
        """What is older than the destination wants is passed over and counted."""
        incident = values["body"]["incident"]
        change = change_of(self.standing.before(incident["id"]), incident)
        notice_id = f"{incident['id']}.{values['cause']}.{values['index']}"
        notice = Notice(notice_id, change, record.received_ns, incident)
        age = getattr(self.sender.forwarder, "max_age_seconds", 0.0)
        if age and self.clock() - record.received_ns > age * 1e9:
            self.sender.dropped(TOO_OLD, 1, f"{notice_id} is older than {age:g} s")
        else:
            self.sender.call(lambda: self.sender.forwarder.notify(notice))
        self.standing.take(incident, self.clock())


class BoardStream(TellingStream):
    """What stands now, after every change and again every `repeat_seconds`.

    The cursor does not wait for the destination: the file of what stands is what must be shown.
    """

    def __init__(self, place: Place, sender: Sender) -> None:
        super().__init__(place, sender)
        self._changed_ns: int | None = None
        self._shown_at: float | None = None

    def tell(self, record: Record, values: dict[str, Any]) -> None:
        """Remember; `idle` shows."""
        self.standing.take(values["body"]["incident"], self.clock())
        self._changed_ns = self._changed_ns or record.received_ns

    def idle(self) -> None:
        """Show what changed, or what is due again."""
        if self._changed_ns is None and not self._is_due():
            return
        self.sender.counts.waiting_ns = self._changed_ns
        self.sender.call(self._show)
        self.sender.counts.waiting_ns, self._changed_ns = None, None
        self._shown_at = time.monotonic()

    def _is_due(self) -> bool:
        if self._shown_at is None:
            return True
        repeat = float(self.sender.forwarder.repeat_seconds)
        return bool(repeat) and time.monotonic() - self._shown_at >= repeat

    def _show(self) -> None:
        """Read on first: what changed while the destination was away is not shown one by one."""
        for records in iter(self._read, []):
            self.deliver(records)
            self._delivered(self._reader.offset, sent=False)
        self._delivered(self._reader.offset, sent=False)
        now_ns = self.clock()
        self.sender.forwarder.show(self.standing.shown(now_ns), now_ns)


def stream_of(place: Place, sender: Sender, own: OwnRequest | None) -> TellingStream:
    """The stream of incidents that a forwarder's form asks for."""
    if hasattr(sender.forwarder, "notify"):
        return NoticeStream(place, sender)
    if hasattr(sender.forwarder, "show"):
        return BoardStream(place, sender)
    return OtlpStream(place, sender, own if getattr(sender.forwarder, "own_metrics", False) else None)


def _is_open(incident: dict[str, Any]) -> bool:
    return bool(incident["status"] == "open")
