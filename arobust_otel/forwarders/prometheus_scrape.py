"""`/metrics` for a Prometheus that scrapes: incidents, and the master itself.

Names are those that Prometheus gives pushed metrics, so that boards and rules serve both ways. An incident
is 1 while it is open, 0 for some minutes after it ended, and then gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from arobust_otel.model import signals
from arobust_otel.model.incident import OPEN
from arobust_otel.model.notice import Told, labels_of
from arobust_otel.model.prometheus_names import label_name, metric_name
from arobust_otel.model.samples import Point

Family: TypeAlias = "CounterMetricFamily | GaugeMetricFamily"
OwnPoints = Callable[[int], Iterable[Point]]


@dataclass
class PrometheusScrape:
    """Answers Prometheus's scrapes with incidents and the master's own metrics.

    Options:
        listen: where; another address than this machine's needs the master's token and TLS.
    """

    name: ClassVar[str] = "prometheus_scrape"
    repeat_seconds: ClassVar[float] = 5.0  # so that ended incidents go away in time

    listen: str = "127.0.0.1:9464"
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _shown: tuple[tuple[Told, ...], int] = field(default=((), 0), init=False, repr=False, compare=False)

    def show(self, incidents: Sequence[Told], now_ns: int) -> None:
        """Remember what the next answer says."""
        with self._lock:
            self._shown = (tuple(incidents), now_ns)

    def page(self, accept: str, own: OwnPoints) -> tuple[str, bytes]:
        """Content type and body in the form that the Accept header prefers: text, or OpenMetrics."""
        with self._lock:
            incidents, now_ns = self._shown
        points = [*(incident_point(incident, now_ns) for incident in incidents), *own(now_ns)]
        encode, content_type = choose_encoder(accept)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Points(points))
        return content_type, encode(registry)


class _Points(Collector):
    """Points as the library's metric families."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points = list(points)

    def collect(self) -> Iterable[Family]:
        """One family per name, with the labels of all its points."""
        names = dict.fromkeys(point.name for point in self._points)
        return [family(name, [point for point in self._points if point.name == name]) for name in names]


def family(name: str, points: Sequence[Point]) -> Family:
    """The family of a signal of the dictionary."""
    row = signals.DICTIONARY[name]
    keys = sorted({key for point in points for key in point.attributes})
    labels = [label_name(key) for key in keys]
    kind = CounterMetricFamily if row.kind == signals.COUNTER else GaugeMetricFamily
    found: Family = kind(metric_name(name), row.meaning, labels=labels)
    for point in points:
        found.add_metric([str(point.attributes.get(key, "")) for key in keys], float(point.value))
    return found


def incident_point(incident: Told, now_ns: int) -> Point:
    """The gauge of an incident, with its job as Prometheus would promote it."""
    attributes = {signals.JOB_ID: incident["job_id"], **labels_of(incident)}
    return Point(signals.INCIDENT_OPEN, int(incident["status"] == OPEN), now_ns, attributes)
