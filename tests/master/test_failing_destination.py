"""A destination that fails (500): what it would still take is never lost, what it never takes is found."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

from arobust_otel.errors import DeliveryError, OverloadedDelivery, PermanentDelivery, UncertainDelivery
from arobust_otel.journal import Cursor
from arobust_otel.master import attempts
from arobust_otel.master import sender as sending
from arobust_otel.master.attempts import Stopped
from arobust_otel.master.incident_streams import NoticeStream, OtlpStream
from arobust_otel.master.sender import Sender
from arobust_otel.otlp.ages import count_items
from arobust_otel.otlp.incidents import incident_requests
from tests.forwarders.sink import TAKEN
from tests.master.delivering import World, an_incident, points_of, request
from tests.master.running import until

Judge = Callable[["Sink", bytes], "DeliveryError | None"]


class Sink:
    """A forwarder that does as `judge` says."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.taken: list[tuple[str, bytes]] = []
        self.asked = 0

    def accepts(self, signal: str) -> bool:
        return True

    def send(self, signal: str, body: bytes) -> None:
        self.asked += 1
        error = self.judge(self, body)
        if error is not None:
            raise error
        self.taken.append((signal, body))

    def items(self) -> int:
        return sum(count_items(signal, body) for signal, body in self.taken)

    def points(self) -> list[tuple[str, int]]:
        return points_of([body for signal, body in self.taken if signal == "metrics"])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything a hundredth of its time."""
    monkeypatch.setattr(attempts, "_backoff", tenacity.wait_random_exponential(multiplier=0.002, max=0.15))
    monkeypatch.setattr(sending, "MAX_RETRY_SECONDS", 0.15)


def sender_to(judge: Judge, patience: float = 0.3) -> tuple[Sender, Sink]:
    sink = Sink(judge)
    sender = Sender("sink", sink, threading.Event())
    sender.uncertain_seconds = patience
    return sender, sink


def fails_for(seconds: float, otherwise: Judge = lambda sink, body: None) -> Judge:
    began: list[float] = []

    def judge(sink: Sink, body: bytes) -> DeliveryError | None:
        began.append(time.monotonic())
        fails = began[-1] - began[0] < seconds
        return UncertainDelivery("500 no space left on device") if fails else otherwise(sink, body)

    return judge


def until_quiet(sender: Sender) -> None:
    """As the stream does where nothing new comes."""

    def is_quiet() -> bool:
        sender.again()
        return sender.waiting_ns() is None and sender.reached(10**9) == 10**9

    until("nothing is aside", is_quiet)


def verdict_log() -> bytes:
    stacks = [{"rank": 1, "text": "a"}, {"rank": 2, "text": "b"}]
    return dict(incident_requests({"incident": an_incident(), "stacks": stacks}))["logs"]


@pytest.mark.parametrize(
    ("signal", "body", "items"),
    [("logs", verdict_log(), 3), ("metrics", request("a"), 1), ("metrics", request("a", points=2000), 2000)],
)
def test_an_outage_of_many_patiences_loses_nothing(signal: str, body: bytes, items: int) -> None:
    sender, sink = sender_to(fails_for(1.0), patience=0.03)
    sender.send(signal, body)
    until_quiet(sender)
    assert (sink.items(), sender.counts.dropped) == (items, {})


def test_a_success_before_the_outage_proves_nothing() -> None:
    """Too much at once, so it is cut; the first half is taken, then the destination fails for a while."""
    failing = fails_for(0.5)

    def judge(sink: Sink, body: bytes) -> DeliveryError | None:
        if len(points_of([body])) > 600:
            return OverloadedDelivery("429")
        return failing(sink, body) if sink.taken else None

    sender, sink = sender_to(judge, patience=0.05)
    sender.send("metrics", request("a", points=1000))
    until_quiet(sender)
    assert (sink.items(), sender.counts.dropped) == (1000, {})


def test_a_destination_that_fails_takes_something_and_fails_again_loses_nothing() -> None:
    answers = iter([True] * 30 + [False] * 2 + [True] * 60 + [False] + [True] * 30)
    sender, sink = sender_to(lambda sink, body: UncertainDelivery("500") if next(answers, False) else None)
    sender._failed_at = time.monotonic()
    sender.send("metrics", request("a", points=50))
    until_quiet(sender)
    assert (sink.items(), sender.counts.dropped) == (50, {})


def test_a_recent_find_shortens_the_wait_before_cutting_and_never_before_dropping() -> None:
    sender, sink = sender_to(fails_for(0.5), patience=0.2)
    sender._failed_at = time.monotonic()
    sender.send("metrics", request("a", points=20_000))
    until_quiet(sender)
    assert (sink.items(), sender.counts.dropped) == (20_000, {})
    assert len(sink.taken) <= sending.CUTS + 1  # an outage does not shred what waits


def test_a_long_outage_loses_nothing() -> None:
    """Little is held in memory: the stream waits."""
    sender, sink = sender_to(fails_for(2.0), patience=0.02)
    bodies = [request("a", points=20), *(request(f"m{number}", points=4000) for number in range(40))]
    for body in bodies:
        sender.send("metrics", body)
        assert sum(len(piece.body) for piece in sender._waiting) < sending.ASIDE_BYTES + len(body)
    until_quiet(sender)
    assert sender.counts.dropped == {}
    assert sorted(sink.points()) == sorted(points_of(bodies))


def test_what_an_outage_put_aside_goes_in_the_order_of_the_journal() -> None:
    """A store without a window for late points refuses what comes after newer ones."""
    sender, sink = sender_to(lambda sink, body: UncertainDelivery("500"), patience=0.02)
    bodies = [request(f"m{number}", points=300) for number in range(4)]
    for body in bodies:
        sender.send("metrics", body)
    sink.judge = lambda sink, body: None
    sender.send("metrics", request("new"))
    assert sink.points() == points_of([*bodies, request("new")])


def test_a_lone_item_that_always_fails_is_found_by_what_comes_after_it() -> None:
    def judge(sink: Sink, body: bytes) -> DeliveryError | None:
        return UncertainDelivery("500") if ("bad", 0) in points_of([body]) else None

    sender, sink = sender_to(judge, patience=0.05)
    sender.send("metrics", request("bad"), 7)
    assert sender.reached(8) == 7
    for number in range(20):
        time.sleep(0.01)
        sender.send("metrics", request(f"m{number}"), 8 + number)
    assert (sink.items(), sender.counts.dropped) == (20, {"failed": 1})
    assert sender.reached(28) == 28


def test_what_is_taken_of_another_signal_proves_nothing() -> None:
    """They may go to another place: logs to Loki, traces to Jaeger."""
    lone = request("lone")
    sender, sink = sender_to(
        lambda sink, body: UncertainDelivery("500") if body == lone else None, patience=0.02
    )
    sender.send("metrics", lone)
    for _ in range(20):
        sender.send("logs", verdict_log())
        time.sleep(0.01)
    assert (len(sink.taken), sender.counts.dropped) == (20, {})


@pytest.mark.parametrize("bad", [range(0, 400, 8), range(100), range(399, 400), range(400)])
def test_bad_points_are_found_wherever_they_are(bad: range) -> None:
    def judge(sink: Sink, body: bytes) -> DeliveryError | None:
        values = {value for name, value in points_of([body]) if name == "a"}
        return UncertainDelivery("500") if values & set(bad) else None

    sender, sink = sender_to(judge, patience=0.02)
    sender.send("metrics", request("a", points=400), 0)

    def found() -> bool:
        sender.send("metrics", request("later"), 1)
        return sender.reached(2) == 2

    until("all is found", found)
    assert sender.counts.dropped == {"failed": len(bad)}
    arrived = {value for name, value in sink.points() if name == "a"}
    assert arrived == set(range(400)) - set(bad)


def test_good_points_are_never_dropped_with_refused_ones() -> None:
    def judge(sink: Sink, body: bytes) -> DeliveryError | None:
        return PermanentDelivery("400") if any(v % 8 == 0 for _, v in points_of([body])) else None

    sender, sink = sender_to(judge)
    sender.send("metrics", request("a", points=4000))
    assert sender.counts.dropped == {"refused": 500}
    assert sink.items() == 3500


def test_the_end_does_not_wait_for_a_destination_that_fails() -> None:
    sender, _ = sender_to(lambda sink, body: UncertainDelivery("500"), patience=60.0)
    sender._abort.set()
    with pytest.raises(Stopped):
        sender.send("metrics", request("a"))


def test_what_is_aside_is_sent_again_after_a_restart(world: World) -> None:
    world.sink.judge = lambda signal, body: (500, {}, b"") if ("bad", 0) in points_of([body]) else TAKEN
    world.append(request("bad"))
    with world.delivering() as stream:
        until("a failure", lambda: stream.sender.counts.retries)
        time.sleep(2 * world.uncertain_seconds)
        world.append(request("good"))
        until("the next", lambda: world.sink.taken)
    assert Cursor(world.folder / "cursor").load() == 0
    world.sink.judge = lambda signal, body: TAKEN
    world.deliver()
    assert ("bad", 0) in points_of(world.sink.bodies("metrics"))


def test_a_log_of_an_incident_survives_an_outage_and_does_not_hold_up_the_rest(world: World) -> None:
    world.uncertain_seconds = 0.05
    world.sink.judge = lambda signal, body: (500, {}, b"") if signal == "logs" else TAKEN
    world.incident(an_incident())
    with world.delivering(OtlpStream) as stream:
        until("the gauge", lambda: world.sink.bodies("metrics"))
        time.sleep(0.5)
        assert stream.sender.counts.dropped == {}
        assert stream.sender.counts.next_offset == 0
        world.sink.judge = lambda signal, body: TAKEN
        until("the log", lambda: stream.sender.counts.next_offset == 1)
    assert len(world.sink.bodies("logs")) == 1


class Moody:
    """A forwarder of notices that raises what it should not for a while."""

    def __init__(self) -> None:
        self.until = time.monotonic() + 0.5
        self.told: list[Any] = []

    def notify(self, notice: Any) -> None:
        if time.monotonic() < self.until:
            raise ValueError("the library of my destination says it in its own way")
        self.told.append(notice)


def test_notices_wait_in_order_for_a_forwarder_that_raises(world: World) -> None:
    world.uncertain_seconds = 0.05
    world.incident(an_incident())
    world.incident(an_incident(summary="still"))
    moody = Moody()
    stream = world.deliver(NoticeStream, moody)
    assert [notice.incident["summary"] for notice in moody.told] == ["rank 2 hangs", "still"]
    assert stream.sender.counts.dropped == {}
