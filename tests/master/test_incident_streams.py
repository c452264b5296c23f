"""What destinations are told of incidents. A real journal, real destinations."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.errors import RetryableDelivery
from arobust_otel.forwarders.alertmanager import Alertmanager
from arobust_otel.forwarders.webhook import Webhook
from arobust_otel.journal import Cursor, Kind, Record, Source
from arobust_otel.master import streams
from arobust_otel.master.incident_streams import BoardStream, NoticeStream, OtlpStream
from arobust_otel.master.outputs import Sent
from arobust_otel.model import signals
from arobust_otel.model.samples import Point
from arobust_otel.otlp.incidents import to_ns
from arobust_otel.otlp.own import own_request
from tests.forwarders.sink import TAKEN, Sink
from tests.master.delivering import World, an_incident, ended, request
from tests.master.running import until

OPEN_NS = to_ns("2026-01-01T00:00:00.000000Z")


def gauges(sink: Sink, label: str = signals.CAUSE) -> list[tuple[str, int]]:
    """(label, value) of the incident gauges that arrived."""
    return [(text, value) for text, value, _ in timed_gauges(sink, label)]


def timed_gauges(sink: Sink, label: str = signals.CAUSE) -> list[tuple[str, int, int]]:
    found = []
    for body in sink.bodies("metrics"):
        for entry in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            metric = entry.scope_metrics[0].metrics[0]
            if metric.name != signals.INCIDENT_OPEN:
                continue
            (point,) = metric.gauge.data_points
            labels = {pair.key: pair.value.string_value or pair.value.int_value for pair in point.attributes}
            found.append((str(labels.get(label)), point.as_int, point.time_unix_nano))
    return found


# -- as OTLP ------------------------------------------------------------------------------------------------


def test_an_incident_arrives_as_log_span_and_gauge_and_ends_with_zero(world: World) -> None:
    world.incident(an_incident())
    world.deliver(OtlpStream)
    assert [signal for signal, _ in world.sink.taken] == ["logs", "traces", "metrics"]
    world.incident(ended())
    world.deliver(OtlpStream)
    assert gauges(world.sink) == [("hang_user_code", 1), ("hang_user_code", 0)]
    assert gauges(world.sink, signals.HOST_NAME)[0][0] == "gpu-a"
    assert gauges(world.sink, signals.SEVERITY)[0][0] == "critical"


def test_the_gauge_of_an_open_incident_is_said_again_also_after_a_restart(world: World) -> None:
    world.incident(an_incident())
    world.deliver(OtlpStream)
    stream, finish = world.stream(OtlpStream)
    stream.gauge_seconds = 0.05
    with world.running(stream, finish):
        until("the gauge again", lambda: len(gauges(world.sink)) >= 3)
    assert set(gauges(world.sink)) == {("hang_user_code", 1)}


def test_a_revision_ends_the_series_of_the_earlier_verdict(world: World) -> None:
    world.incident(an_incident())
    world.incident(an_incident(cause="hang_interpreter_lock"))
    world.deliver(OtlpStream)
    assert gauges(world.sink) == [("hang_user_code", 1), ("hang_user_code", 0), ("hang_interpreter_lock", 1)]


@pytest.mark.parametrize("status", [503, 500])
def test_a_series_ends_also_where_the_master_was_restarted_before_that_was_taken(
    world: World, status: int
) -> None:
    world.uncertain_seconds = 0.05
    world.incident(an_incident())
    world.deliver(OtlpStream)
    world.sink.judge = lambda signal, body: (status, {}, b"") if signal == "metrics" else TAKEN
    world.incident(an_incident(cause="hang_interpreter_lock"))
    with world.delivering(OtlpStream) as stream:
        until("some tries", lambda: stream.sender.counts.retries > 3)
        time.sleep(0.3)
    world.sink.judge = lambda signal, body: TAKEN
    world.deliver(OtlpStream)
    assert gauges(world.sink) == [("hang_user_code", 1), ("hang_user_code", 0), ("hang_interpreter_lock", 1)]


def test_a_series_that_two_incidents_share_ends_with_the_second(world: World) -> None:
    for which in ("i1", "i2"):
        world.incident(an_incident(id=which, culprits=[]))
    world.incident(ended(id="i1", culprits=[]))
    world.deliver(OtlpStream)
    assert [value for _, value in gauges(world.sink)] == [1, 1, 1]
    world.incident(ended(id="i2", culprits=[]))
    world.deliver(OtlpStream)
    assert gauges(world.sink)[-1] == ("hang_user_code", 0)


def test_times_of_a_series_grow_also_where_it_was_said_again_before_its_end(world: World) -> None:
    """Prometheus refuses a point that is older than the newest of its series."""
    world.incident(an_incident())
    stream, finish = world.stream(OtlpStream)
    stream.gauge_seconds = 0.05
    with world.running(stream, finish):
        until("said again", lambda: len(gauges(world.sink)) >= 2)
        world.incident(ended())
        until("the end", lambda: gauges(world.sink)[-1][1] == 0)
    times = [at for _, _, at in timed_gauges(world.sink)]
    assert times[0] == OPEN_NS
    assert times == sorted(set(times))


def test_after_a_restart_the_end_is_said_of_now_since_what_was_said_before_is_not_known(world: World) -> None:
    world.incident(an_incident())
    world.deliver(OtlpStream)
    world.incident(ended())
    before_ns = time.time_ns()
    world.deliver(OtlpStream)
    assert timed_gauges(world.sink)[-1][2] >= before_ns


def test_our_own_metrics_travel_beside_the_gauges(world: World) -> None:
    stream, finish = world.stream(OtlpStream)
    point = Point(signals.JOURNAL_RECORDS, 7, 2, start_time_ns=1)
    stream._own = lambda now_ns: own_request("here/4318", "here", [point])
    stream.gauge_seconds = 0.01
    with world.running(stream, finish):
        until("our own", lambda: world.sink.bodies("metrics"))
    (entry,) = ExportMetricsServiceRequest.FromString(world.sink.bodies("metrics")[0]).resource_metrics
    attributes = {pair.key: pair.value.string_value for pair in entry.resource.attributes}
    assert attributes[signals.SERVICE_INSTANCE] == "here/4318"
    (made,) = entry.scope_metrics[0].metrics
    assert (made.name, made.sum.is_monotonic) == (signals.JOURNAL_RECORDS, True)
    assert (made.sum.data_points[0].as_double, made.sum.data_points[0].start_time_unix_nano) == (7.0, 1)


def test_commands_stay_at_home(world: World) -> None:
    sent = Sent(3, 0, "command", {"id": "c"})
    world.appender.append(Kind.OUTPUT, sent.payload(), received_ns=1, source=Source(sender="judge"))
    world.deliver(OtlpStream)
    assert not world.sink.taken


# -- as notices ---------------------------------------------------------------------------------------------


def hook(sink: Sink, **options: Any) -> Webhook:
    return Webhook(url=f"{sink.url}/hook", max_age_seconds=0, **options)


def told(sink: Sink) -> list[tuple[str, str]]:
    """(change, id) of the notices that arrived."""
    rows = [json.loads(body) for body in sink.bodies("hook")]
    return [(row["type"], row["data"]["id"]) for row in rows]


def test_changes_are_told_in_order_and_once(world: World) -> None:
    world.incident(an_incident(status="pending"))
    world.incident(an_incident())
    world.incident(an_incident(summary="rank 2 hangs still"))
    world.incident(an_incident(cause="hang_device"))
    world.incident(ended(cause="hang_device"))
    stream = world.deliver(NoticeStream, hook(world.sink))
    world.deliver(NoticeStream, hook(world.sink))
    assert told(world.sink) == [
        ("incident.opened", "i1.2.0"),
        ("incident.updated", "i1.3.0"),
        ("incident.revised", "i1.4.0"),
        ("incident.resolved", "i1.5.0"),
    ]
    assert stream.sender.counts.sent_requests == 5  # a suspicion that nobody asked for is delivered at once


def test_a_receiver_that_was_away_gets_all_with_the_same_ids_and_in_order(world: World) -> None:
    answers = iter([503, 404, 200, 500])
    world.sink.judge = lambda signal, body: (next(answers, 200), {}, b"")
    world.incident(an_incident())
    world.incident(ended())
    stream = world.deliver(NoticeStream, hook(world.sink))
    assert told(world.sink) == [("incident.opened", "i1.1.0"), ("incident.resolved", "i1.2.0")]
    assert stream.sender.counts.retries == 3


def test_a_notice_that_is_refused_for_ever_does_not_hold_up_the_next(world: World) -> None:
    world.sink.judge = lambda signal, body: (400, {}, b"no") if b"incident.opened" in body else TAKEN
    world.incident(an_incident())
    world.incident(ended())
    stream = world.deliver(NoticeStream, hook(world.sink))
    assert told(world.sink) == [("incident.resolved", "i1.2.0")]
    assert stream.sender.counts.dropped == {"refused": 1}


def test_old_changes_are_not_told_to_a_receiver_that_is_new(world: World) -> None:
    world.incident(an_incident(), received_ns=time.time_ns() - 7200 * 10**9)
    world.incident(ended(), received_ns=time.time_ns())
    forwarder = Webhook(url=f"{world.sink.url}/hook", max_age_seconds=3600)
    stream = world.deliver(NoticeStream, forwarder)
    assert told(world.sink) == [("incident.resolved", "i1.2.0")]
    assert stream.sender.counts.dropped == {"too_old": 1}


# -- as what stands -----------------------------------------------------------------------------------------


def alerts(sink: Sink) -> list[list[tuple[str, bool]]]:
    """Of each request: alertname, and whether it ends in the past."""
    found = []
    for body in sink.bodies("alerts"):
        rows = json.loads(body)
        found.append([(row["labels"]["alertname"], to_ns(row["endsAt"]) < time.time_ns()) for row in rows])
    return found


def pager(sink: Sink, **options: Any) -> Alertmanager:
    return Alertmanager(urls=(sink.url,), **options)


def test_what_stands_is_shown_after_each_change_and_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arobust_otel.forwarders.alertmanager.REPEATS_TO_LIVE", 10_000)
    world.incident(an_incident())
    with world.delivering(BoardStream, pager(world.sink, repeat_seconds=0.1)):
        until("said again", lambda: len(alerts(world.sink)) >= 3)
        assert set(map(str, alerts(world.sink))) == {"[('hang_user_code', False)]"}
        world.incident(ended())
        until("its end", lambda: alerts(world.sink)[-1] == [("hang_user_code", True)])


def test_a_revised_verdict_ends_the_alert_of_the_earlier_one(world: World) -> None:
    world.incident(an_incident())
    world.deliver(BoardStream, pager(world.sink))
    world.incident(an_incident(cause="hang_device"))
    world.deliver(BoardStream, pager(world.sink))
    assert alerts(world.sink)[-1] == [("hang_device", False), ("hang_user_code", True)]


def test_what_came_and_went_while_it_was_away_wakes_nobody(world: World) -> None:
    world.sink.judge = lambda signal, body: (503, {}, b"")
    world.incident(an_incident())
    with world.delivering(BoardStream, pager(world.sink)) as stream:
        until("a try", lambda: stream.sender.counts.retries)
        world.incident(ended())
        world.incident(an_incident(id="i2", cause="deadlock"))
        until("read on", lambda: stream.sender.counts.next_offset == 3)
        world.sink.judge = lambda signal, body: TAKEN
        until("back", lambda: world.sink.taken)
    assert alerts(world.sink)[0] == [("deadlock", False), ("hang_user_code", True)]


def test_a_board_that_is_away_does_not_hold_the_journal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CURSOR_SECONDS", 0.0)
    world.sink.judge = lambda signal, body: (503, {}, b"")
    with world.delivering(BoardStream, pager(world.sink)) as stream:
        until("a try", lambda: stream.sender.counts.retries)
        world.incident(an_incident())
        world.append(*(request(f"m{number}") for number in range(100)))
        until("the cursor", lambda: Cursor(world.folder / "cursor").load() == 101)
        world.sink.judge = lambda signal, body: TAKEN
        until("back", lambda: world.sink.taken)
    assert alerts(world.sink)[0] == [("hang_user_code", False)]


def test_after_a_restart_it_goes_on_with_what_stands(world: World) -> None:
    world.incident(an_incident())
    world.sink.judge = lambda signal, body: (503, {}, b"")
    with world.delivering(BoardStream, pager(world.sink)) as stream:
        until("a try", lambda: stream.sender.counts.retries)
    world.sink.judge = lambda signal, body: TAKEN
    world.deliver(BoardStream, pager(world.sink))
    assert alerts(world.sink) == [[("hang_user_code", False)]]
    assert Cursor(world.folder / "cursor").load() == 1


def test_a_board_that_is_refused_says_so_until_it_is_taken(world: World) -> None:
    world.sink.judge = lambda signal, body: (400, {}, b"bad label")
    with world.delivering(BoardStream, pager(world.sink, repeat_seconds=0.2)) as stream:
        until("told", lambda: "bad label" in stream.sender.counts.state)
        world.sink.judge = lambda signal, body: TAKEN
        until("well again", lambda: stream.sender.counts.state == "ok")
    assert stream.sender.counts.dropped["refused"] >= 1


def test_a_journal_that_is_never_at_rest_does_not_keep_the_gauge_from_being_said_again(world: World) -> None:
    """It grows by a record before each read: the end is never seen."""

    class Restless(OtlpStream):
        def _read(self) -> list[Record]:
            if not self._finish.is_set():
                world.append(b"", received_ns=time.time_ns())
            return super()._read()

    world.incident(an_incident(), received_ns=time.time_ns())
    stream, finish = world.stream(Restless)
    stream.gauge_seconds = 0.0
    with world.running(stream, finish):
        until("said again", lambda: len(gauges(world.sink)) >= 3)


class Wall:
    """A board of somebody else's package."""

    name = "wall"
    repeat_seconds = 0.0

    def __init__(self) -> None:
        self.seen: list[list[str]] = []
        self.away = 2

    def show(self, incidents: Any, now_ns: int) -> None:
        self.away -= 1
        if self.away >= 0:
            raise RetryableDelivery("away")
        self.seen.append([incident["id"] for incident in incidents])


def test_ended_incidents_are_forgotten_after_some_minutes(world: World) -> None:
    wall = Wall()
    world.incident(an_incident())
    world.incident(ended())
    world.deliver(BoardStream, wall)
    later, finish = world.stream(BoardStream, wall)
    later.clock = lambda: time.time_ns() + 301 * 10**9
    finish.set()
    later.run()
    assert wall.seen == [["i1"], []]
