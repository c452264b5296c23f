"""Delivery: cursors, retries, cutting, marks. A real journal, a real destination."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.journal import Appender, Cursor, Kind
from arobust_otel.master import streams
from arobust_otel.master.outputs import Sent
from arobust_otel.master.sender import Sender
from arobust_otel.master.streams import BulkStream, IncidentStream, Stream
from arobust_otel.model import signals
from tests.forwarders.sink import TAKEN, Sink, Verdict, sinking
from tests.master.running import until


def request(*names: str, points: int = 1, forwarded: bool = False) -> bytes:
    body = ExportMetricsServiceRequest()
    for name in names:
        entry = body.resource_metrics.add()
        pair = entry.resource.attributes.add(key="service.name")
        pair.value.string_value = "a"
        if forwarded:
            entry.resource.attributes.add(key=signals.FORWARDED).value.bool_value = True
        metric = entry.scope_metrics.add().metrics.add(name=name)
        for number in range(points):
            metric.gauge.data_points.add(time_unix_nano=1, as_int=number)
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


class World:
    """A journal, a destination, and streams between them."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self.folder = folder
        self.sink = sink
        self.appender = Appender.open(folder / "journal")
        self.abort = threading.Event()
        self.batch_bytes, self.gauge_seconds = streams.BATCH_BYTES, streams.GAUGE_SECONDS

    def append(self, *bodies: bytes, signal: str = "metrics") -> None:
        for body in bodies:
            self.appender.append(Kind.REQUEST, body, received_ns=1, signal=signal, sender="a")

    def incident(self, offset: int, **changes: Any) -> None:
        sent = Sent(offset, 0, "incident", {"incident": an_incident(**changes), "stacks": []})
        self.appender.append(Kind.OUTPUT, sent.payload(), received_ns=1, sender="judge")

    def stream(self, kind: type[Stream] = BulkStream) -> tuple[Stream, threading.Event]:
        finish = threading.Event()
        forwarder = OtlpHttp(endpoint=self.sink.url, timeout_seconds=5)
        sender = Sender("sink", forwarder, self.abort)
        stream = kind(self.folder / "journal", Cursor(self.folder / "cursor"), sender, finish)
        stream.batch_bytes, stream.gauge_seconds = self.batch_bytes, self.gauge_seconds
        return stream, finish

    def deliver(self, kind: type[Stream] = BulkStream) -> Stream:
        """Everything that is in the journal."""
        stream, finish = self.stream(kind)
        finish.set()
        stream.run()
        return stream

    @contextlib.contextmanager
    def delivering(self, kind: type[Stream] = BulkStream) -> Iterator[Stream]:
        stream, finish = self.stream(kind)
        thread = threading.Thread(target=stream.run)
        thread.start()
        try:
            yield stream
        finally:
            finish.set()
            self.abort.set()
            thread.join(10)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sinking() as sink:
        made = World(tmp_path, sink)
        yield made
        made.appender.close()


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
        "culprits": [{**culprit, "rank": 2}],
        "victims": [0, 1, 3],
        "grade": "two_witnesses",
        "summary": "rank 2 hangs",
        "evidence": [],
        "unseen": [],
        "action": {"kind": "restart_worker", "target": None, "why": "it hangs"},
        "refuted_by": "a step",
        "revisions": [],
        **changes,
    }


def test_requests_of_a_signal_are_merged_and_the_cursor_moves_after_delivery(world: World) -> None:
    world.append(request("a"), request("b"), request("c"))
    world.deliver()
    assert points_of(world.sink.bodies("metrics")) == [("a", 0), ("b", 0), ("c", 0)]
    assert len(world.sink.taken) == 1
    assert Cursor(world.folder / "cursor").load() == 3
    world.append(request("d"))
    world.deliver()
    assert points_of(world.sink.bodies("metrics"))[3:] == [("d", 0)]


def test_what_was_not_delivered_is_sent_after_a_restart(world: World) -> None:
    world.sink.judge = lambda signal, body: (503, {}, b"")
    world.append(request("a"))
    with world.delivering() as stream:
        until("the first refusal", lambda: stream.sender.counts.retries)
        assert "503" in stream.sender.counts.state
    assert Cursor(world.folder / "cursor").load() == 0
    world.abort.clear()
    world.sink.judge = lambda signal, body: TAKEN
    world.deliver()
    assert points_of(world.sink.bodies("metrics")) == [("a", 0)]


def test_a_destination_that_comes_back_gets_everything_in_order(world: World) -> None:
    answers = iter([503, 429, 502])
    world.sink.judge = lambda signal, body: (next(answers, 200), {}, b"")
    world.append(*(request(f"m{number}") for number in range(50)))
    stream = world.deliver()
    assert [name for name, _ in points_of(world.sink.bodies("metrics"))] == [f"m{n}" for n in range(50)]
    assert stream.sender.counts.state == "ok"
    assert stream.sender.counts.retries == 3


def refuse(name: str, value: int, status: int) -> Any:
    def judge(signal: str, body: bytes) -> Verdict:
        return (status, {}, b"") if (name, value) in points_of([body]) else TAKEN

    return judge


@pytest.mark.parametrize("status", [400, 500])
def test_one_bad_point_is_cut_out_and_everything_else_arrives(world: World, status: int) -> None:
    world.sink.judge = refuse("b", 3, status)
    world.append(request("a", points=2), request("b", "c", points=8), request("d"))
    stream = world.deliver()
    expected = {("a", n) for n in range(2)} | {("b", n) for n in range(8)} | {("c", n) for n in range(8)}
    expected |= {("d", 0)}
    assert set(points_of(world.sink.bodies("metrics"))) == expected - {("b", 3)}
    assert stream.sender.counts.dropped_requests == 1
    assert Cursor(world.folder / "cursor").load() == 3


def test_a_destination_that_takes_little_gets_it_in_pieces(world: World) -> None:
    world.sink.judge = lambda signal, body: (413, {}, b"") if len(body) > 400 else TAKEN
    world.append(*(request(f"m{number}", points=5) for number in range(20)))
    stream = world.deliver()
    assert len(points_of(world.sink.bodies("metrics"))) == 100
    assert stream.sender.counts.dropped_requests == 0


def test_what_a_master_forwarded_is_not_forwarded_again(world: World) -> None:
    world.append(request("ours"), request("theirs", forwarded=True))
    world.append(request("mixed") + request("again", forwarded=True))
    world.deliver()
    assert [name for name, _ in points_of(world.sink.bodies("metrics"))] == ["ours", "mixed"]
    (body,) = world.sink.bodies("metrics")
    for entry in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        keys = [pair.key for pair in entry.resource.attributes]
        assert keys == ["service.name", signals.FORWARDED]
    world.append(body)
    world.deliver()
    assert len(world.sink.taken) == 1


def test_large_requests_are_not_merged_into_larger_ones(world: World) -> None:
    world.batch_bytes = 500
    world.append(*(request(f"m{number}", points=10) for number in range(10)))
    world.deliver()
    assert len(world.sink.taken) > 3
    assert len(points_of(world.sink.bodies("metrics"))) == 100


# -- incidents -----------------------------------------------------------------------------------------


def gauges(sink: Sink) -> list[tuple[str, int]]:
    """(cause, value) of the incident gauges that arrived."""
    found = []
    for body in sink.bodies("metrics"):
        for entry in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            (point,) = entry.scope_metrics[0].metrics[0].gauge.data_points
            labels = {pair.key: pair.value.string_value for pair in point.attributes}
            found.append((labels[signals.CAUSE], point.as_int))
    return found


def test_an_incident_arrives_as_log_gauge_and_span_and_ends_with_zero(world: World) -> None:
    world.incident(7)
    world.deliver(IncidentStream)
    assert [signal for signal, _ in world.sink.taken] == ["logs", "metrics", "traces"]
    at = "2026-01-01T00:01:00.000000Z"
    world.incident(9, status="resolved", resolved_at=at, updated_at=at)
    world.deliver(IncidentStream)
    assert gauges(world.sink) == [("hang_user_code", 1), ("hang_user_code", 0)]


def test_the_gauge_of_an_open_incident_is_said_again_also_after_a_restart(world: World) -> None:
    world.gauge_seconds = 0.05
    world.incident(7)
    world.deliver(IncidentStream)
    with world.delivering(IncidentStream):
        until("the gauge again", lambda: len(gauges(world.sink)) >= 3)
    assert set(gauges(world.sink)) == {("hang_user_code", 1)}


def test_a_revision_ends_the_series_of_the_earlier_verdict(world: World) -> None:
    world.incident(7)
    world.incident(9, cause="hang_interpreter_lock")
    world.deliver(IncidentStream)
    assert gauges(world.sink) == [("hang_user_code", 1), ("hang_user_code", 0), ("hang_interpreter_lock", 1)]


def test_commands_stay_at_home(world: World) -> None:
    sent = Sent(3, 0, "command", {"id": "c"})
    world.appender.append(Kind.OUTPUT, sent.payload(), received_ns=1, sender="judge")
    world.deliver(IncidentStream)
    assert not world.sink.taken
