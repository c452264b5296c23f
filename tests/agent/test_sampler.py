"""Collectors side by side: periods, hangs, the small form, options, and what the agent says of them."""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from arobust_otel.agent.adapted import AdaptedCollector, adapt, items_of
from arobust_otel.agent.collector_run import HUNG_SECONDS
from arobust_otel.agent.sampler import CLOSE_SECONDS, Sampler
from arobust_otel.model import signals
from arobust_otel.model.samples import Event, LogLine, Point
from arobust_otel.plugins import CORE_COLLECTORS, Clock, Item, Node, discover

AT = Clock(1_000, 2_000)


def nothing_found() -> dict[str, dict[str, object]]:
    """Options that switch everything off that is discovered."""
    return {name: {"enabled": False} for name in discover("collectors")}


@pytest.fixture
def sampler() -> Iterator[Sampler]:
    made = Sampler(nothing_found())
    yield made
    made.close()


def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@dataclass
class Counting:
    """Counts its calls and notes its thread."""

    name: str = "counting"
    period_seconds: float = 0.02
    calls: int = 0
    threads: set[str] = field(default_factory=set)
    acknowledged: list[tuple[str, int, str]] = field(default_factory=list)
    closed_by: str = ""

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        self.calls += 1
        self.threads.add(threading.current_thread().name)
        yield Point("counting.calls", self.calls, now.wall_ns)
        yield Event("counting.called", now.wall_ns, f"call {self.calls}")

    def acknowledge(self, path: str, end_offset: int) -> None:
        self.acknowledged.append((path, end_offset, threading.current_thread().name))

    def close(self) -> None:
        self.closed_by = threading.current_thread().name


class Hanging:
    """Never comes back from a call in C, after it told something."""

    name = "hanging"
    period_seconds = 0.02

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        yield Event("hanging.told", now.wall_ns, "before it hung")
        ctypes.CDLL(None).read(self.reader, ctypes.create_string_buffer(1), 1)

    def release(self) -> None:
        os.close(self.writer)

    def close(self) -> None:
        os.close(self.reader)


def test_a_collector_outside_the_core_has_its_own_thread_and_period(sampler: Sampler) -> None:
    counting = Counting()
    sampler.add(counting)
    assert counting.calls == 0  # nothing runs before the first sample
    sampler.collect(AT, Node())
    until(lambda: counting.calls >= 3)
    assert counting.threads == {"arobust-collector-counting"}


def test_the_core_is_sampled_in_the_callers_thread() -> None:
    sampler = Sampler({})
    before = {thread.name for thread in threading.enumerate()}
    assert {report.name for report in sampler.reports()} >= set(CORE_COLLECTORS) - {"stacks"}
    sampler.collect(AT, Node())
    started = {thread.name for thread in threading.enumerate()} - before
    assert not {f"arobust-collector-{name}" for name in CORE_COLLECTORS} & started
    sampler.close()


def test_points_are_handed_over_once_with_the_time_of_their_reading(sampler: Sampler) -> None:
    counting = Counting()
    sampler.add(counting)
    sampler.collect(AT, Node())
    until(lambda: counting.calls >= 5)
    points = sampler.take_points()
    until(lambda: counting.calls >= 8)
    points += sampler.take_points()
    assert [point.value for point in points] == list(range(1, len(points) + 1))
    times = [point.time_ns for point in points]
    assert times == sorted(set(times))
    assert abs(times[-1] - time.time_ns()) < 60e9


def test_facts_wake_the_agent_and_come_with_the_next_sample() -> None:
    woken = threading.Event()
    sampler = Sampler(nothing_found(), woken.set)
    sampler.add(Counting(period_seconds=60))
    assert sampler.collect(AT, Node()) == []
    assert woken.wait(10)
    (event,) = sampler.collect(AT, Node())
    assert event.body == "call 1"
    sampler.close()


def test_a_call_that_never_comes_back_delays_nobody_and_is_named(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arobust_otel.agent.collector_run.HUNG_SECONDS", 1.0)
    hanging, counting = Hanging(), Counting()
    sampler.add(hanging)
    sampler.add(counting)
    found = list(sampler.collect(AT, Node()))
    until(lambda: not {report.name: report.ok for report in sampler.reports()}["hanging"])
    calls = counting.calls
    until(lambda: counting.calls >= calls + 3)
    began = time.monotonic()
    found += sampler.collect(AT, Node())
    assert time.monotonic() - began < 10
    assert "before it hung" in [item.body for item in found if isinstance(item, Event)]
    until(lambda: sampler.self_points(0)[2].value > 1)
    reason = {report.name: report.reason for report in sampler.reports()}["hanging"]
    assert re.fullmatch(r"its last call has not come back for \d+ s", reason)
    (gap,) = sampler.gaps()
    assert gap.startswith("hanging: its last call has not come back for ")
    own = {(point.name, point.attributes[signals.COLLECTOR]): point.value for point in sampler.self_points(0)}
    assert own[signals.COLLECTOR_UP, "hanging"] == 0
    assert own[signals.COLLECTOR_UP, "counting"] == 1
    assert own[signals.COLLECTOR_AGE, "hanging"] > own[signals.COLLECTOR_AGE, "counting"]
    began = time.monotonic()
    sampler.close()
    assert time.monotonic() - began < CLOSE_SECONDS + 10
    hanging.release()


def test_a_call_that_comes_back_late_is_well_again(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arobust_otel.agent.collector_run.HUNG_SECONDS", 0.1)
    hanging = Hanging()
    sampler.add(hanging)
    sampler.collect(AT, Node())
    until(lambda: sampler.gaps())
    hanging.release()
    until(lambda: not sampler.gaps())
    assert HUNG_SECONDS == 5.0


def test_acknowledgements_reach_the_collectors_thread_also_after_its_last_call() -> None:
    sampler = Sampler(nothing_found())
    counting = Counting(period_seconds=60)
    sampler.add(counting)
    sampler.collect(AT, Node())
    until(lambda: counting.calls == 1)
    sampler.acknowledge("kmsg:x", 7)
    sampler.close()
    until(lambda: counting.closed_by)
    thread = "arobust-collector-counting"
    assert counting.acknowledged == [("kmsg:x", 7, thread)]
    assert counting.closed_by == thread


def test_a_collector_that_is_switched_off_does_not_exist() -> None:
    sampler = Sampler({**nothing_found(), "host": {"enabled": True}})
    assert [report.name for report in sampler.reports()] == ["host"]
    sampler.close()


def test_options_and_period_of_the_configuration_reach_a_collector() -> None:
    sampler = Sampler({**nothing_found(), "xpu_timer": {"port": 7, "period_seconds": 33.0, "unknown": 1}})
    collector = sampler.collector("xpu_timer")
    assert (collector.port, collector.period_seconds) == (7, 33.0)
    sampler.close()


# --- the small form ---------------------------------------------------------------------------------------


class Small:
    """As users of the predecessor wrote them."""

    def __init__(self, value: object = None, enabled: bool = True) -> None:
        self.value, self.enabled = value, enabled

    def collect_data(self) -> object:
        return self.value

    def is_enabled(self) -> bool:
        return self.enabled


def texts(value: object) -> list[str]:
    return [item.body for item in items_of("queue", value, 5) if isinstance(item, LogLine)]


def points(value: object) -> list[tuple[str, float, dict[str, object]]]:
    return [
        (item.name, item.value, item.attributes)
        for item in items_of("queue", value, 5)
        if isinstance(item, Point)
    ]


def test_numbers_of_a_mapping_become_gauges_and_its_texts_their_attributes() -> None:
    value = {"depth": 3, "disk": {"free": 0.5}, "full": True, "site": "b", "none": None, "our.own": 7}
    site = {"site": "b"}
    assert points(value) == [
        ("queue.depth", 3, site),
        ("queue.disk.free", 0.5, site),
        ("queue.full", 1, site),
        ("our.own", 7, site),
    ]
    assert texts(value) == []


def test_texts_become_log_records_and_nothing_is_nothing() -> None:
    (line,) = items_of("queue", "drained\nafter 3 s", 5)
    assert line == LogLine("drained\nafter 3 s", 5, "", 0, {signals.COLLECTOR: "queue"})
    assert texts({"state": "idle"}) == ['{"state": "idle"}']
    assert [list(items_of("queue", value, 5)) for value in (None, "", "  ", {}, [])] == [[], [], [], [], []]


def test_items_stay_themselves_also_in_lists_and_generators() -> None:
    point, event = Point("a.b", 1, 2), Event("c.d", 3, "told")
    assert list(items_of("queue", [point, (event, "text")], 5))[:2] == [point, event]
    assert list(items_of("queue", (item for item in (point, None)), 5)) == [point]


def test_a_value_of_another_kind_is_refused_in_words() -> None:
    with pytest.raises(TypeError, match="bytes is none of Point"):
        list(items_of("queue", b"x", 5))
    with pytest.raises(TypeError, match="neither collect"):
        adapt("queue", object())


def test_the_small_form_runs_in_a_thread_of_its_own(sampler: Sampler) -> None:
    small = adapt("queue", Small({"depth": 3}))
    assert isinstance(small, AdaptedCollector)
    sampler.add(small, period_seconds=0.02)
    sampler.collect(AT, Node())
    found: list[Point] = []
    until(lambda: found.extend(sampler.take_points()) or len(found) >= 2)
    assert {(point.name, point.value) for point in found} == {("queue.depth", 3)}


def test_one_that_is_not_enabled_is_not_called_says_so_and_is_no_gap(sampler: Sampler) -> None:
    sampler.add(adapt("queue", Small({"depth": 3}, enabled=False)), period_seconds=0.02)
    sampler.collect(AT, Node())
    until(lambda: sampler.reports()[0].reason)
    assert (sampler.reports()[0].ok, sampler.reports()[0].reason) == (True, "off: its is_enabled() says no")
    assert (sampler.gaps(), sampler.take_points()) == ((), [])


def test_one_that_fails_says_why_and_is_called_again(sampler: Sampler) -> None:
    small = Small(b"x")
    sampler.add(adapt("queue", small), period_seconds=0.02)
    sampler.collect(AT, Node())
    until(lambda: sampler.gaps())
    assert sampler.gaps()[0].startswith("queue: TypeError: bytes is none of")
    small.value = {"depth": 4}
    until(lambda: not sampler.gaps())
