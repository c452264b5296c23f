"""A store that says that something is too old is not asked for each older item; all else is sent as ever."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from tests.forwarders.sink import TAKEN, Verdict
from tests.master.delivering import World, points_of, request
from tests.master.running import until

MINUTE_NS = 60 * 10**9


def age_of(name: str) -> int:
    """Minutes in the names of the tests' metrics."""
    (found,) = re.findall(r"\d+", name)
    return int(found)


def takes_up_to(minutes: int, words: bytes) -> Callable[[str, bytes], Verdict]:
    """A store that rolls a whole request back for one point that is older, as Prometheus does."""

    def judge(_signal: str, body: bytes) -> Verdict:
        names = [name for name, _ in points_of([body])]
        return (400, {}, words) if any(age_of(name) > minutes for name in names) else TAKEN

    return judge


def aged(world: World, *minutes: int, points: int = 50) -> None:
    now_ns = time.time_ns()
    for number in minutes:
        world.append(request(f"m{number}", points=points, time_ns=now_ns - number * MINUTE_NS))


@pytest.mark.parametrize(
    "words",
    [b"out of boundsout of bounds", b"too old sample", b"entry for stream has timestamp too old: 1970"],
)
def test_what_is_older_than_a_refused_point_costs_no_requests(world: World, words: bytes) -> None:
    world.sink.judge = takes_up_to(60, words)
    aged(world, *range(120, 0, -1))
    stream = world.deliver()
    taken = points_of(world.sink.bodies("metrics"))
    assert sorted(set(taken)) == sorted(
        (f"m{number}", point) for number in range(1, 61) for point in range(50)
    )
    assert stream.sender.counts.dropped == {"too_old": 60 * 50}
    assert world.sink.asked < 60 * 50 / 4


@pytest.mark.parametrize(
    "words", [b"out of order sample", b"out of bounds: timestamp is too far in the future"]
)
def test_a_refusal_for_another_reason_says_nothing_of_older_points(world: World, words: bytes) -> None:
    world.sink.judge = lambda signal, body: (400, {}, words) if b"m30" in body else TAKEN
    aged(world, 30, 90, 20, points=2)
    stream = world.deliver()
    assert sorted(set(points_of(world.sink.bodies("metrics")))) == [
        (name, point) for name in ("m20", "m90") for point in range(2)
    ]
    assert stream.sender.counts.dropped == {"refused": 2}


def test_a_store_with_a_wrong_idea_of_the_time_is_asked_for_each_new_point(world: World) -> None:
    world.sink.judge = lambda signal, body: (400, {}, b"out of bounds") if b"m0" in body else TAKEN
    aged(world, 0, 5, points=3)
    stream = world.deliver()
    assert set(points_of(world.sink.bodies("metrics"))) == {("m5", point) for point in range(3)}
    assert stream.sender.counts.dropped == {"too_old": 3}


def test_a_store_that_was_away_is_asked_again(world: World) -> None:
    """It may be another one, or have nothing in it any more."""
    world.sink.judge = takes_up_to(60, b"out of bounds")
    with world.delivering() as stream:
        aged(world, 70, points=1)
        until("it is refused", lambda: stream.sender.counts.dropped == {"too_old": 1})
        asked = world.sink.asked
        aged(world, 90, points=1)
        until("the older one is not even sent", lambda: stream.sender.counts.dropped == {"too_old": 2})
        assert world.sink.asked == asked
        world.sink.judge = lambda signal, body: (503, {}, b"")
        aged(world, 50, points=1)
        until("it is away", lambda: stream.sender.counts.retries)
        world.sink.judge = lambda signal, body: TAKEN
        aged(world, 90, points=1)
        until("both", lambda: len(points_of(world.sink.bodies("metrics"))) == 2)
    assert stream.sender.counts.dropped == {"too_old": 2}
