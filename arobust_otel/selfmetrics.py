"""Counters and gauges about ourselves, as ordinary points: names come from `model/signals.py`.

No meter provider stands behind them: an SDK reader would cost the agent a thread and 30 ms per export, and
these points travel the way of all others. Safe to use from several threads, signal handlers and finalizers.
"""

from __future__ import annotations

from collections import deque

from arobust_otel.model.samples import Attributes, Point
from arobust_otel.reentry import ReentryLock

_Key = tuple[str, tuple[tuple[str, str], ...]]


class SelfMetrics:
    """Cumulative sums and last values, by name and attributes.

    Args:
        start_ns: since when the sums count, nanoseconds since the epoch.
    """

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._lock = ReentryLock()
        self._added: deque[tuple[_Key, float]] = deque()
        self._sums: dict[_Key, float] = {}
        self._values: dict[_Key, float] = {}

    def add(self, name: str, amount: float, **attributes: str) -> None:
        """Add to a sum; `attributes` use ``__`` for the dot of a name (``arobust__reason``)."""
        self._added.append((_key(name, attributes), amount))
        with self._lock as is_outermost:
            self._add_up(is_outermost)

    def put(self, name: str, value: float, **attributes: str) -> None:
        """Set a value; the last one counts."""
        with self._lock:
            self._values[_key(name, attributes)] = value

    def sum(self, name: str, **attributes: str) -> float:
        """A sum over all attribute sets that hold these attributes; 0 where nothing was counted."""
        wanted = set(_key(name, attributes)[1])
        with self._lock as is_outermost:
            self._add_up(is_outermost)
            return sum(
                value for (own, have), value in self._sums.items() if own == name and wanted <= set(have)
            )

    def value(self, name: str) -> float | None:
        """The last value that was put without attributes; None where none was."""
        with self._lock:
            return self._values.get((name, ()))

    def sums_by(self, name: str, attribute: str) -> dict[str, float]:
        """The sums of one name, by the value of one attribute."""
        found: dict[str, float] = {}
        with self._lock as is_outermost:
            self._add_up(is_outermost)
            for (own, have), value in self._sums.items():
                label = dict(have).get(attribute)
                if own == name and label is not None:
                    found[label] = found.get(label, 0) + value
        return found

    def points(self, now_ns: int) -> list[Point]:
        """Everything, as points of this time."""
        with self._lock as is_outermost:
            self._add_up(is_outermost)
            sums, values = list(self._sums.items()), list(self._values.items())
        counted = [
            Point(name, value, now_ns, _attributes(have), self._start_ns) for (name, have), value in sums
        ]
        return counted + [Point(name, value, now_ns, _attributes(have)) for (name, have), value in values]

    def _add_up(self, is_outermost: bool) -> None:
        """Who interrupts another call leaves its share to that: it may be in the middle of this."""
        while is_outermost and self._added:
            key, amount = self._added.popleft()
            self._sums[key] = self._sums.get(key, 0) + amount


def _key(name: str, attributes: dict[str, str]) -> _Key:
    if not attributes:
        return name, ()
    return name, tuple(sorted((key.replace("__", "."), value) for key, value in attributes.items()))


def _attributes(have: tuple[tuple[str, str], ...]) -> Attributes:
    return dict(have)
