"""A journal, a destination that does as it is told, and streams between them, for tests of delivery."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.journal import Appender, Cursor, Kind, Source
from arobust_otel.master.outputs import Sent
from arobust_otel.master.sender import Sender
from arobust_otel.master.streams import BulkStream, Place, Stream
from arobust_otel.model import signals
from tests.forwarders.sink import Sink


def request(*names: str, points: int = 1, forwarded: bool = False, time_ns: int = 1) -> bytes:
    body = ExportMetricsServiceRequest()
    for name in names:
        entry = body.resource_metrics.add()
        pair = entry.resource.attributes.add(key="service.name")
        pair.value.string_value = "a"
        if forwarded:
            entry.resource.attributes.add(key=signals.FORWARDED).value.bool_value = True
        metric = entry.scope_metrics.add().metrics.add(name=name)
        for number in range(points):
            metric.gauge.data_points.add(time_unix_nano=time_ns, as_int=number)
    return body.SerializeToString()


def points_of(bodies: list[bytes]) -> list[tuple[str, int]]:
    return [
        (metric.name, point.as_int)
        for body in bodies
        for entry in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in entry.scope_metrics
        for metric in scope.metrics
        for point in metric.gauge.data_points
    ]


def an_incident(**changes: Any) -> dict[str, Any]:
    at = "2026-01-01T00:00:00.000000Z"
    culprit = dict.fromkeys(("rank", "local_rank", "role", "pid", "node", "accelerator", "zone"))
    return {
        "id": "i1",
        "job_id": "job-1",
        "incarnation": 0,
        "rule": "hang",
        "cause": "hang_user_code",
        "status": "open",
        "first_evidence_at": at,
        "opened_at": at,
        "updated_at": at,
        "resolved_at": None,
        "culprits": [{**culprit, "rank": 2, "node": "gpu-a"}],
        "victims": [0, 1, 3],
        "grade": "two_witnesses",
        "summary": "rank 2 hangs",
        "evidence": [
            {"at": at, "kind": "stack", "says": "the same stack twice", "supports": True, "source": "gpu-a"},
            {"at": at, "kind": "metric", "says": "it used the network", "supports": False, "source": "gpu-a"},
        ],
        "unseen": [],
        "action": {"kind": "restart_worker", "target": "rank 2", "why": "it hangs"},
        "refuted_by": "a step",
        "revisions": [],
        **changes,
    }


def ended(**changes: Any) -> dict[str, Any]:
    at = "2026-01-01T00:01:00.000000Z"
    return an_incident(**{"status": "resolved", "resolved_at": at, "updated_at": at, **changes})


class World:
    """A journal and one destination. `uncertain_seconds` is the patience of its senders."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.folder = folder
        self.sink = sink
        self.appender = Appender.open(folder / "journal")
        self.abort = threading.Event()
        self.uncertain_seconds = 0.2
        self.outputs = 0

    def append(self, *bodies: bytes, signal: str = "metrics", received_ns: int = 1) -> None:
        for body in bodies:
            self.appender.append(Kind.REQUEST, body, received_ns=received_ns, source=Source(signal, "a"))

    def incident(self, values: dict[str, Any], received_ns: int = 1) -> None:
        self.outputs += 1
        sent = Sent(self.outputs, 0, "incident", {"incident": values, "stacks": []})
        self.appender.append(
            Kind.OUTPUT, sent.payload(), received_ns=received_ns, source=Source(sender="judge")
        )

    def stream(self, kind: type[Stream] = BulkStream, forwarder: Any = None) -> tuple[Any, threading.Event]:
        finish = threading.Event()
        forwarder = forwarder or OtlpHttp(endpoint=self.sink.url, timeout_seconds=5)
        sender = Sender("sink", forwarder, self.abort)
        sender.uncertain_seconds = self.uncertain_seconds
        place = Place(self.folder / "journal", Cursor(self.folder / "cursor"), finish)
        return kind(place, sender), finish

    def deliver(self, kind: type[Stream] = BulkStream, forwarder: Any = None) -> Any:
        """Everything that is in the journal."""
        stream, finish = self.stream(kind, forwarder)
        finish.set()
        stream.run()
        return stream

    @contextlib.contextmanager
    def delivering(self, kind: type[Stream] = BulkStream, forwarder: Any = None) -> Iterator[Any]:
        stream, finish = self.stream(kind, forwarder)
        with self.running(stream, finish):
            yield stream

    @contextlib.contextmanager
    def running(self, stream: Stream, finish: threading.Event) -> Iterator[None]:
        thread = threading.Thread(target=stream.run)
        thread.start()
        try:
            yield
        finally:
            finish.set()
            self.abort.set()
            thread.join(60)
            assert not thread.is_alive()
            self.abort.clear()
