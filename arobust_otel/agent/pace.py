"""When to sample and what of a sample to send. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from arobust_otel.model import signals
from arobust_otel.model.samples import Event, LogLine, Point
from arobust_otel.plugins import Item


@dataclass(slots=True)
class Ticks:
    """A schedule without drift and without pile-up: what was missed is left out.

    >>> ticks = Ticks(0.5)
    >>> [ticks.seconds_until_next(now) for now in (10.0, 10.25, 10.5, 12.25)]
    [0.5, 0.25, 0.5, 0.25]
    """

    period_seconds: float
    _origin: float | None = field(default=None, init=False)

    def seconds_until_next(self, mono: float) -> float:
        """Seconds from now to the next multiple of the period after the first call."""
        if self._origin is None:
            self._origin = mono
        return self.period_seconds - (mono - self._origin) % self.period_seconds


@dataclass(slots=True)
class GaugePace:
    """Gauges every few seconds, faster while some rank of the node makes no progress or is stopped.

    Args:
        gauge_seconds: the ordinary period.
        fast_gauge_seconds: the period while something stands still.
        fast_after_seconds: age of the last progress from which a rank counts as standing still.
    """

    gauge_seconds: float
    fast_gauge_seconds: float
    fast_after_seconds: float
    _sent: float | None = field(default=None, init=False)

    def is_due(self, items: Iterable[Item], mono: float) -> bool:
        """Whether this sample's points are to be sent; the answer yes is remembered as sent."""
        period = self.fast_gauge_seconds if self._stands_still(items) else self.gauge_seconds
        # A sample comes a little early or late: half a sampling period is close enough.
        due = self._sent is None or mono - self._sent >= period - 0.1 * self.fast_gauge_seconds
        if due:
            self._sent = mono
        return due

    def _stands_still(self, items: Iterable[Item]) -> bool:
        for item in items:
            if isinstance(item, Point) and (
                (item.name == signals.EVENT_AGE and item.value >= self.fast_after_seconds)
                or (item.name == signals.STOPPED_FOR and item.value > 0)
            ):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Sorted:
    """The items of one sample by how they travel."""

    facts: tuple[Item, ...]
    points: tuple[Point, ...]
    lines: tuple[LogLine, ...]


def sort(items: Iterable[Item]) -> Sorted:
    """Facts and stacks, points, log lines; each in its order."""
    facts: list[Item] = []
    points: list[Point] = []
    lines: list[LogLine] = []
    for item in items:
        if isinstance(item, Point):
            points.append(item)
        elif isinstance(item, LogLine):
            lines.append(item)
        else:
            facts.append(item)
    return Sorted(tuple(facts), tuple(points), tuple(lines))


def wakes_master(facts: Iterable[Item]) -> bool:
    """Whether facts are worth a heartbeat of their own: anything but a missing capability."""
    return any(not isinstance(fact, Event) or fact.name != signals.CAPABILITY_MISSING for fact in facts)
