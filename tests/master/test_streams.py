"""Bulk data: cursors, retries, cutting, sizes, ages, marks. A real journal, a real destination."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.journal import Appender, Cursor
from arobust_otel.journal.segments import first_offsets, segment_path
from arobust_otel.master import pace
from arobust_otel.master import sender as sending
from arobust_otel.master.journal_end import JournalEnd
from arobust_otel.model import signals
from tests.forwarders.sink import TAKEN, Sink, Verdict, sinking
from tests.master.delivering import World, points_of, request
from tests.master.running import until


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
    world.sink.judge = lambda signal, body: TAKEN
    world.deliver()
    assert points_of(world.sink.bodies("metrics")) == [("a", 0)]


def test_a_stop_in_the_midst_of_a_backlog_repeats_nothing_that_was_taken(world: World) -> None:
    """Prometheus without a window for late points refuses what it has already."""
    world.append(*(request(f"m{number}", points=800) for number in range(60)))
    world.append(lines(), signal="logs")
    world.sink.judge = lambda signal, body: TAKEN if len(world.sink.taken) < 3 else (503, {}, b"")
    with world.delivering() as stream:
        until("a refusal", lambda: stream.sender.counts.retries)
    taken = len(points_of(world.sink.bodies("metrics"))) // 800
    assert 0 < taken < 60
    assert Cursor(world.folder / "cursor").load() == taken
    world.sink.judge = lambda signal, body: TAKEN
    world.deliver()
    names = [name for name, number in points_of(world.sink.bodies("metrics")) if number == 0]
    assert names == [f"m{number}" for number in range(60)]
    assert len(world.sink.bodies("logs")) == 1


def test_the_cursor_does_not_pass_what_waits_of_another_signal(world: World) -> None:
    world.append(lines(), signal="logs")
    world.append(*(request(f"m{number}", points=800) for number in range(20)))
    world.sink.judge = lambda signal, body: TAKEN if signal == "metrics" else (503, {}, b"")
    with world.delivering() as stream:
        until("the logs are refused", lambda: stream.sender.counts.retries)
    assert Cursor(world.folder / "cursor").load() == 0


def test_a_destination_that_comes_back_gets_everything_in_order(world: World) -> None:
    answers = iter([503, 429, 502])
    world.sink.judge = lambda signal, body: (next(answers, 200), {}, b"")
    world.append(*(request(f"m{number}") for number in range(50)))
    stream = world.deliver()
    assert [name for name, _ in points_of(world.sink.bodies("metrics"))] == [f"m{n}" for n in range(50)]
    assert stream.sender.counts.state == "ok"
    assert stream.sender.counts.retries == 3


def lines() -> bytes:
    body = ExportLogsServiceRequest()
    body.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1).body.string_value = "line"
    return body.SerializeToString()


def refuse(name: str, value: int, status: int) -> Any:
    def judge(signal: str, body: bytes) -> Verdict:
        return (status, {}, b"") if (name, value) in points_of([body]) else TAKEN

    return judge


def everything_but(*missing: tuple[str, int]) -> set[tuple[str, int]]:
    found = {("a", n) for n in range(2)} | {("b", n) for n in range(8)} | {("c", n) for n in range(8)}
    return (found | {("d", 0)}) - set(missing)


def test_one_bad_point_is_cut_out_and_everything_else_arrives(world: World) -> None:
    world.sink.judge = refuse("b", 3, 400)
    world.append(request("a", points=2), request("b", "c", points=8), request("d"))
    stream = world.deliver()
    assert points_of(world.sink.bodies("metrics")) == sorted(everything_but(("b", 3)))
    assert stream.sender.counts.dropped == {"refused": 1}
    assert Cursor(world.folder / "cursor").load() == 3


def until_given_up(world: World, stream: Any) -> None:
    """Requests keep coming: that they are taken is the proof."""

    def given_up() -> bool:
        world.append(request("later"))
        return "failed" in stream.sender.counts.dropped

    until("the point is given up", given_up)
    until("the cursor", lambda: stream.sender.counts.next_offset == world.appender.next_offset)


def test_a_point_that_makes_a_destination_fail_is_given_up_once_others_are_taken(world: World) -> None:
    world.sink.judge = refuse("b", 3, 500)
    world.append(request("a", points=2), request("b", "c", points=8), request("d"))
    with world.delivering() as stream:
        until("the others", lambda: len(points_of(world.sink.bodies("metrics"))) == 18)
        assert stream.sender.counts.next_offset == 0
        until_given_up(world, stream)
        assert stream.sender.counts.dropped == {"failed": 1}
    arrived = {point for point in points_of(world.sink.bodies("metrics")) if point[0] != "later"}
    assert arrived == everything_but(("b", 3))
    assert Cursor(world.folder / "cursor").load() == world.appender.next_offset


def test_a_destination_that_fails_for_a_while_is_not_given_up(world: World) -> None:
    """500 may mean that it starts: Loki says so until its ring is there."""
    world.uncertain_seconds = 60.0
    answers = iter([500, 500, 500])
    world.sink.judge = lambda signal, body: (next(answers, 200), {}, b"not ready")
    world.append(request("a", points=20))
    stream = world.deliver()
    assert len(points_of(world.sink.bodies("metrics"))) == 20
    assert stream.sender.counts.dropped == {}


def test_bytes_that_make_a_destination_fail_again_are_cut_at_once(world: World) -> None:
    """The first time costs patience; later requests with such a point do not wait again."""
    world.sink.judge = refuse("b", 3, 500)
    world.append(request("b", points=8))
    with world.delivering() as stream:
        until_given_up(world, stream)
        stream.sender.uncertain_seconds = 600.0
        world.append(request("b", points=8))
        until("the others", lambda: points_of(world.sink.bodies("metrics")).count(("b", 7)) == 2)
        assert stream.sender.counts.dropped == {"failed": 1}  # what drops is never at once


def test_a_destination_that_takes_little_gets_it_in_pieces(world: World) -> None:
    world.sink.judge = lambda signal, body: (413, {}, b"") if len(body) > 400 else TAKEN
    world.append(*(request(f"m{number}", points=5) for number in range(20)))
    stream = world.deliver()
    assert len(points_of(world.sink.bodies("metrics"))) == 100
    assert stream.sender.counts.dropped == {}


def test_a_destination_that_is_overloaded_by_large_requests_gets_smaller_ones(world: World) -> None:
    """Loki answers 429 for ever to what exceeds its burst."""
    world.sink.judge = lambda signal, body: (429, {}, b"too much") if len(body) > 1000 else TAKEN
    world.append(*(request(f"m{number}", points=5) for number in range(30)))
    stream = world.deliver()
    assert [name for name, _ in points_of(world.sink.bodies("metrics"))[::5]] == [f"m{n}" for n in range(30)]
    assert stream.sender.counts.dropped == {}


def test_an_overloaded_destination_loses_nothing_however_little_it_takes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CUTS", 2)
    monkeypatch.setattr(sending, "OVERLOADS", 1)
    world.sink.judge = lambda signal, body: (429, {}, b"") if len(points_of([body])) > 1 else TAKEN
    world.append(request("a", points=12))
    stream = world.deliver()
    assert sorted(points_of(world.sink.bodies("metrics"))) == [("a", number) for number in range(12)]
    assert stream.sender.counts.dropped == {}


def test_requests_grow_while_they_are_taken_and_shrink_with_a_refusal(world: World) -> None:
    world.append(*(request(f"m{number}", points=800) for number in range(120)))
    stream = world.deliver()
    sizes = [len(body) for body in world.sink.bodies("metrics")]
    assert sizes[0] <= pace.FIRST_BYTES
    assert max(sizes) > 4 * pace.FIRST_BYTES
    assert max(sizes) <= pace.MOST_BYTES
    before = stream.sender.pace.bytes
    stream.sender.pace.shrink()
    assert pace.FIRST_BYTES <= stream.sender.pace.bytes < before


def test_the_most_that_is_put_together_is_the_destinations_own_setting(world: World) -> None:
    world.append(*(request(f"m{number}", points=10) for number in range(20)))
    world.deliver(forwarder=OtlpHttp(endpoint=world.sink.url, max_request_bytes=1024))
    assert max(len(body) for body in world.sink.bodies("metrics")) <= 1024
    assert len(points_of(world.sink.bodies("metrics"))) == 200


def test_points_that_are_too_old_for_one_destination_are_dropped_and_counted(world: World) -> None:
    now_ns = time.time_ns()
    hour_ns = 3600 * 10**9
    for name, time_ns in (("old", now_ns - 2 * hour_ns), ("now", now_ns), ("ahead", now_ns + 2 * hour_ns)):
        world.append(request(name, points=2, time_ns=time_ns))
    limited = OtlpHttp(endpoint=world.sink.url, max_age_seconds=3600, max_ahead_seconds=600)
    stream = world.deliver(forwarder=limited)
    assert points_of(world.sink.bodies("metrics")) == [("now", 0), ("now", 1)]
    assert stream.sender.counts.dropped == {"too_old": 2, "too_new": 2}


def test_what_grew_too_old_while_the_destination_was_away_is_not_sent(world: World) -> None:
    world.sink.judge = lambda signal, body: (503, {}, b"")
    world.append(request("soon_old", "fresh"), request("fresh", time_ns=time.time_ns() + 3600 * 10**9))
    limited = OtlpHttp(endpoint=world.sink.url, max_age_seconds=0.3)
    world.append(request("soon_old", time_ns=time.time_ns()))
    with world.delivering(forwarder=limited) as stream:
        until("some tries", lambda: stream.sender.counts.dropped.get("too_old") == 3)
        world.sink.judge = lambda signal, body: TAKEN
        until("the rest", lambda: world.sink.taken)
    assert points_of(world.sink.bodies("metrics")) == [("fresh", 0)]


def test_partial_success_is_counted(world: World) -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = 5
    world.sink.judge = lambda signal, body: (200, {}, answer.SerializeToString())
    world.append(request("a"))
    assert world.deliver().sender.counts.dropped == {"rejected": 5}


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


def test_what_the_journal_no_longer_holds_is_counted_and_passed_over(world: World) -> None:
    """A sink that is away for too long must not stop the master: the oldest segments go."""
    world.append(request("first"))
    world.deliver()
    world.appender.close()
    world.appender = Appender.open(world.folder / "journal", segment_bytes=200)
    world.append(*(request(f"m{number}") for number in range(10)))
    firsts = first_offsets(world.folder / "journal")
    for first in firsts[:-1]:
        segment_path(world.folder / "journal", first).unlink()
    stream = world.deliver()
    kept = points_of(world.sink.bodies("metrics"))[1:]
    assert kept
    assert stream.sender.counts.dropped == {"expired": firsts[-1] - 1}
    assert len(kept) + firsts[-1] == 11


def test_what_expires_while_the_stream_holds_it_open_is_delivered_or_counted(world: World) -> None:
    world.appender.close()
    world.appender = Appender.open(world.folder / "journal", segment_bytes=100_000)
    world.sink.judge = lambda signal, body: (503, {}, b"")
    world.append(*(request(f"m{number}") for number in range(1200)))
    with world.delivering() as stream:
        until("a try", lambda: stream.sender.counts.retries)
        world.append(*(request(f"m{number}") for number in range(1200, 4000)))
        for first in first_offsets(world.folder / "journal")[:-1]:
            segment_path(world.folder / "journal", first).unlink()
        world.sink.judge = lambda signal, body: TAKEN
        until("the end", lambda: stream.sender.counts.next_offset == 4000)
        expired = stream.sender.counts.dropped["expired"]
    assert len(set(points_of(world.sink.bodies("metrics")))) + expired == 4000


class Broken:
    """A forwarder of somebody else's package that fails in its own way at some bytes."""

    name = "broken"

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.inner = OtlpHttp(endpoint=sink.url)

    def accepts(self, signal: str) -> bool:
        return True

    def send(self, signal: str, body: bytes) -> None:
        if ("b", 3) in points_of([body]):
            raise ValueError("this is beyond me")
        self.inner.send(signal, body)


def test_a_forwarder_that_raises_what_it_should_not_loses_only_that(world: World) -> None:
    world.append(request("a", points=2), request("b", "c", points=8), request("d"))
    with world.delivering(forwarder=Broken(world.sink)) as stream:
        until_given_up(world, stream)
        assert stream.sender.counts.dropped == {"failed": 1}
    arrived = {point for point in points_of(world.sink.bodies("metrics")) if point[0] != "later"}
    assert arrived == everything_but(("b", 3))


# -- how far it is ------------------------------------------------------------------------------------------


def test_lag_is_told_in_records_and_seconds(world: World) -> None:
    world.sink.judge = lambda signal, body: (503, {}, b"")
    received_ns = time.time_ns() - 60 * 10**9
    world.append(request("a"), request("b"), received_ns=received_ns)
    end = JournalEnd(world.folder / "journal")
    with world.delivering() as stream:
        until("a try", lambda: stream.sender.counts.retries)
        row = stream.sender.snapshot(time.time_ns(), end.next_offset())
        assert (row["lag_records"], row["next_offset"]) == (2, 0)
        assert 60.0 <= row["lag_seconds"] < 120.0
        world.sink.judge = lambda signal, body: TAKEN
        counts = stream.sender.counts
        until("delivered", lambda: counts.next_offset == 2 and counts.waiting_ns is None)
        row = stream.sender.snapshot(time.time_ns(), end.next_offset())
        assert (row["lag_records"], row["lag_seconds"], row["state"]) == (0, 0.0, "ok")
    end.close()


def test_the_end_of_the_journal_is_followed_over_segments(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    end = JournalEnd(folder)
    assert (end.next_offset(), end.size_bytes()) == (0, 0)
    with sinking() as sink:
        world = World(tmp_path, sink)
        world.appender.close()
        world.appender = Appender.open(folder, segment_bytes=300)
        seen = []
        for number in range(12):
            world.append(request(f"m{number}"))
            seen.append(end.next_offset())
        world.appender.close()
    assert seen == list(range(1, 13))
    assert len(first_offsets(folder)) > 3
    assert end.size_bytes() == sum(path.stat().st_size for path in folder.glob("*.segment"))
    end.close()
    assert end.next_offset() == 12
    end.close()
