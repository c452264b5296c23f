"""Runs the collectors: each is timed, contained and judged by itself, so that none hides or delays another.

The core ones are called one after the other in the agent's thread, since what they say of a rank belongs
together; every other one, built in or from another package, has a thread and a period of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from arobust_otel import guard, plugins
from arobust_otel.agent.adapted import adapt
from arobust_otel.agent.collector_run import CollectorRun
from arobust_otel.agent.collector_thread import CollectorThread
from arobust_otel.model import signals
from arobust_otel.model.heartbeat import CollectorReport
from arobust_otel.model.samples import Point
from arobust_otel.plugins import CORE_COLLECTORS, DEFAULT_PERIOD_SECONDS, Clock, Item, Node

CLOSE_SECONDS = 0.5  # for all threads together: a call that hangs must not keep the agent
_COMMON = ("enabled", "period_seconds")


class Sampler:
    """All collectors that were found.

    Args:
        options: what the agent and its configuration say, by the collector's name: options of its own,
            `period_seconds`, and `enabled`; unknown keys are left out.
        wake: called from a collector's thread when it has something that should not wait.
    """

    def __init__(
        self, options: Mapping[str, Mapping[str, Any]], wake: Callable[[], None] = lambda: None
    ) -> None:
        self._wake = wake
        self._core: list[CollectorRun] = []
        self._threads: list[CollectorThread] = []
        self._closed = False
        for name, part in plugins.discover("collectors").items():
            chosen = options.get(name, {})
            if chosen.get("enabled", True):
                self._place(_build(part, chosen), chosen.get("period_seconds"))

    def add(self, collector: Any, period_seconds: float | None = None) -> None:
        """Run one more collector; the seam for those that are made elsewhere."""
        name = str(getattr(collector, "name", type(collector).__name__))
        self._place(CollectorRun(name, adapt(name, collector)), period_seconds)

    def collector(self, name: str) -> Any:
        """A collector by name; None where it is not to be had."""
        return next((run.collector for run in self._runs() if run.name == name), None)

    def collect(self, now: Clock, node: Node) -> list[Item]:
        """One sample of the core collectors, and what is not a point of the others since the last time."""
        items: list[Item] = []
        for thread in self._threads:
            items.extend(thread.take_facts())
            if not self._closed:
                thread.offer(node)
        for run in self._core:
            if run.collector is not None:
                run.call(now, node, items.append)
        return items

    def take_points(self) -> list[Point]:
        """Points of the collectors with threads, each once; to be asked when points are due."""
        taken = (item for thread in self._threads for item in thread.take_points())
        return [item for item in taken if isinstance(item, Point)]

    def acknowledge(self, path: str, end_offset: int) -> None:
        """Tell every collector that wants to know; to be called from the thread of `collect`."""
        for run in self._core:
            if callable(getattr(run.collector, "acknowledge", None)):
                run.collector.acknowledge(path, end_offset)
        for thread in self._threads:
            thread.acknowledge(path, end_offset)

    def self_points(self, now_ns: int) -> list[Point]:
        """Whether each collector works, how long its last call took and how long ago that was."""
        points = []
        for run in self._runs():
            attributes = {signals.COLLECTOR: run.name}
            points.append(Point(signals.COLLECTOR_UP, int(run.report().ok), now_ns, dict(attributes)))
            if run.collector is not None:
                points.append(Point(signals.COLLECTOR_DURATION, run.seconds, now_ns, dict(attributes)))
                points.append(Point(signals.COLLECTOR_AGE, round(run.age(), 3), now_ns, dict(attributes)))
        for thread in self._threads:
            if thread.lost:
                reason = {signals.COLLECTOR: thread.run.name, signals.REASON: "collector_overflow"}
                points.append(Point(signals.CLIENT_DROPPED, thread.lost, now_ns, dict(reason)))
        return points

    def reports(self) -> tuple[CollectorReport, ...]:
        """For the heartbeat; may be asked from another thread while a collector hangs."""
        return tuple(run.report() for run in self._runs())

    def gaps(self) -> tuple[str, ...]:
        """What is missing because of a collector, in sentences."""
        return tuple(f"{report.name}: {report.reason}" for report in self.reports() if not report.ok)

    def finish(self) -> None:
        """All ranks have ended: the next `collect` is the last, and whoever holds something back gives it."""
        for run in self._core:
            if callable(getattr(run.collector, "finish", None)):
                guard.contained(f"collector {run.name}, end")(run.collector.finish)()

    def close(self) -> None:
        """Let collectors give back what they hold; one that hangs is left behind after `CLOSE_SECONDS`."""
        self._closed = True
        for thread in self._threads:
            thread.stop()
        for run in self._core:
            if run.collector is not None:
                guard.contained(f"collector {run.name}, close")(plugins.close)(run.collector)
        deadline = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(deadline - time.monotonic())

    def _runs(self) -> Iterator[CollectorRun]:
        yield from self._core
        for thread in self._threads:
            yield thread.run

    def _place(self, run: CollectorRun, period_seconds: float | None) -> None:
        if run.collector is None or run.name in CORE_COLLECTORS:
            self._core.append(run)
            return
        own = getattr(run.collector, "period_seconds", None)
        period = period_seconds or (
            own if isinstance(own, (int, float)) and own > 0 else DEFAULT_PERIOD_SECONDS
        )
        self._threads.append(CollectorThread(run, float(period), self._wake))


def _build(part: plugins.Part, chosen: Mapping[str, Any]) -> CollectorRun:
    known = {key: value for key, value in chosen.items() if key in part.options()}
    collector, error = guard.attempt(
        f"collector {part.name}", lambda: adapt(part.name, plugins.build(part, known))
    )
    return CollectorRun(part.name, collector, "" if error is None else str(error))
