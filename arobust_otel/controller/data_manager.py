"""Keeps metrics of the last minutes in memory, by type, for somebody who asks for them."""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import WorkerTrainingMetric

MAX_ITEMS, MAX_BYTES = 100_000, 64 * 1024 * 1024
_OVERHEAD_BYTES = 400  # of one metric, beside its text

DataType = str | DiagnosisDataType


@dataclass(slots=True)
class _Shelf:
    """Metrics of one type in the order of their times."""

    times: list[float] = field(default_factory=list)
    metrics: list[WorkerTrainingMetric] = field(default_factory=list)
    bytes: int = 0

    def put(self, at: float, metric: WorkerTrainingMetric) -> None:
        place = bisect_right(self.times, at)
        self.times.insert(place, at)
        self.metrics.insert(place, metric)
        self.bytes += _size(metric)

    def drop(self, count: int) -> None:
        """The oldest ones."""
        self.bytes -= sum(_size(metric) for metric in self.metrics[:count])
        del self.times[:count], self.metrics[:count]


class DiagnosisDataManager:
    """Metrics by type, for so long as they are fresh. Safe for several threads.

    Args:
        data_retention_time: seconds for which a metric is kept; its own time counts, that of its arrival
            where it has none or one that has not come yet.
        max_items: at most so many of one type; the oldest go first.
        max_bytes: at most so much of one type.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        data_retention_time: float = 600,
        *,
        max_items: int = MAX_ITEMS,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.data_retention_time = data_retention_time
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._shelves: dict[str, _Shelf] = {}

    def store_data(self, metric: WorkerTrainingMetric) -> None:
        """Keep a metric; it is not changed."""
        now = self._clock()
        at = float(metric.timestamp) if 0 < metric.timestamp <= now else now
        with self._lock:
            shelf = self._shelves.setdefault(_name(metric.data_type), _Shelf())
            shelf.put(at, metric)
            self._tidy(shelf, now)

    def get_data(
        self, data_type: DataType, node_id: int | None = None, limit: int | None = 100
    ) -> list[WorkerTrainingMetric]:
        """The newest fresh metrics of a type, the oldest of them first.

        Args:
            data_type: the type or its name.
            node_id: of this node only.
            limit: at most so many; 0 gives none, None gives all.
        """
        with self._lock:
            metrics = list(self._fresh(_name(data_type)).metrics)
        found = [metric for metric in metrics if node_id is None or metric.node_id == node_id]
        return found if limit is None else found[max(0, len(found) - max(0, limit)) :]

    def get_latest_data(self, data_type: DataType, node_id: int | None = None) -> WorkerTrainingMetric | None:
        """The newest fresh metric of a type; None where there is none."""
        found = self.get_data(data_type, node_id, 1)
        return found[0] if found else None

    def clear_data(self, data_type: DataType | None = None) -> None:
        """Forget a type, or everything."""
        with self._lock:
            if data_type is None:
                self._shelves.clear()
            else:
                self._shelves.pop(_name(data_type), None)

    def get_data_count(self, data_type: DataType) -> int:
        """How many fresh metrics of a type there are."""
        with self._lock:
            return len(self._fresh(_name(data_type)).metrics)

    def _fresh(self, name: str) -> _Shelf:
        shelf = self._shelves.get(name, _Shelf())
        self._tidy(shelf, self._clock())
        return shelf

    def _tidy(self, shelf: _Shelf, now: float) -> None:
        """Drop what is too old, and the oldest where there is too much."""
        shelf.drop(bisect_right(shelf.times, now - self.data_retention_time))
        shelf.drop(max(0, len(shelf.metrics) - self._max_items))
        while shelf.metrics and shelf.bytes > self._max_bytes:
            shelf.drop(1)


def _name(data_type: DataType) -> str:
    return data_type.name if isinstance(data_type, DiagnosisDataType) else str(data_type)


def _size(metric: WorkerTrainingMetric) -> int:
    return _OVERHEAD_BYTES + len(metric.data_content)
