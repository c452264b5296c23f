"""Runs the collectors: each is timed, contained and judged by itself, so that none hides another."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from arobust_otel import guard, plugins
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.heartbeat import CollectorReport
from arobust_otel.model.samples import INFO, Event, Point
from arobust_otel.plugins import Clock, Collector, Item, Node

HUNG_SECONDS = 5.0  # a collector that takes longer is named in the heartbeat while it does


@dataclass(slots=True)
class _Run:
    """One collector and what its last run said."""

    name: str
    collector: Collector | None
    error: str = ""
    seconds: float = 0.0
    missing: CapabilityError | None = None
    told: set[str] = field(default_factory=set)


class Sampler:
    """All collectors that were found.

    Args:
        options: what the agent knows for built-in collectors, by their name; unknown keys are left out.
    """

    def __init__(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        self._lock = threading.Lock()
        self._running: tuple[str, float] | None = None
        self._runs = [
            _build(part, options.get(name, {})) for name, part in plugins.discover("collectors").items()
        ]

    def add(self, collector: Collector) -> None:
        """Run one more collector; the seam for those that are made elsewhere."""
        self._runs.append(_Run(collector.name, collector))

    def collector(self, name: str) -> Any:
        """A collector by name; None where it is not to be had."""
        return next((run.collector for run in self._runs if run.name == name), None)

    def collect(self, now: Clock, node: Node) -> list[Item]:
        """One sample of everything."""
        items: list[Item] = []
        for run in self._runs:
            if run.collector is not None:
                items.extend(self._one(run, run.collector, now, node))
        return items

    def self_points(self, now_ns: int) -> list[Point]:
        """Whether each collector's last run worked, and how long it took."""
        points = []
        for run in self._runs:
            attributes = {signals.COLLECTOR: run.name}
            points.append(Point(signals.COLLECTOR_UP, 0 if run.error else 1, now_ns, dict(attributes)))
            if run.collector is not None:
                points.append(Point(signals.COLLECTOR_DURATION, run.seconds, now_ns, dict(attributes)))
        return points

    def reports(self) -> tuple[CollectorReport, ...]:
        """For the heartbeat; may be asked from another thread while a collector hangs."""
        with self._lock:
            running = self._running
        hung = ""
        if running is not None and time.monotonic() - running[1] > HUNG_SECONDS:
            hung = running[0]
        found = []
        for run in self._runs:
            reason = "its last call has not come back" if run.name == hung else run.error
            found.append(CollectorReport(run.name, not reason, reason))
        return tuple(found)

    def gaps(self) -> tuple[str, ...]:
        """What is missing because of a collector, in sentences."""
        return tuple(f"{report.name}: {report.reason}" for report in self.reports() if not report.ok)

    def close(self) -> None:
        """Let collectors give back what they hold."""
        for run in self._runs:
            if run.collector is not None:
                guard.contained(f"collector {run.name}")(plugins.close)(run.collector)

    def _one(self, run: _Run, collector: Collector, now: Clock, node: Node) -> list[Item]:
        started = time.monotonic()
        with self._lock:
            self._running = (run.name, started)
        items: list[Item] = []  # filled one by one: what came before a failure is kept

        def collect() -> None:
            for item in collector.collect(now, node):
                items.append(item)  # noqa: PERF402

        _, error = guard.attempt(f"collector {run.name}", collect)
        with self._lock:
            self._running = None
        run.seconds = round(time.monotonic() - started, 6)
        if error is None:
            run.error = ""
            return items
        run.error = str(error) if isinstance(error, CapabilityError) else f"{type(error).__name__}: {error}"
        return items + self._missing(run, error, now)

    def _missing(self, run: _Run, error: Exception, now: Clock) -> list[Item]:
        """The event that names a missing source, once for each."""
        if not isinstance(error, CapabilityError) or error.capability in run.told:
            return []
        run.told.add(error.capability)
        attributes = {signals.CAPABILITY: error.capability, signals.REMEDY: error.remedy}
        return [Event(signals.CAPABILITY_MISSING, now.wall_ns, str(error), dict(attributes), INFO)]


def _build(part: plugins.Part, options: Mapping[str, Any]) -> _Run:
    known = {key: value for key, value in options.items() if key in part.options()}
    collector, error = guard.attempt(f"collector {part.name}", lambda: plugins.build(part, known))
    return _Run(part.name, collector, "" if error is None else str(error))
