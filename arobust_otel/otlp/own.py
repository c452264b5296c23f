"""The master's own points as an OTLP request; `model/signals.py` says of which kind each name is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, Point
from arobust_otel.otlp.incidents import SCOPE, SERVICE, fill


def own_request(instance: str, host: str, points: Iterable[Point]) -> bytes:
    """One request of all points, marked as made by a master.

    Args:
        instance: tells this master from others of the same host.
        host: name of the host.
        points: of names in the dictionary; sums count since their `start_time_ns`.
    """
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    resource: Attributes = {
        signals.SERVICE_NAME: SERVICE,
        signals.SERVICE_INSTANCE: instance,
        signals.HOST_NAME: host,
        signals.FORWARDED: True,
    }
    fill(entry.resource, resource)
    scope = entry.scope_metrics.add()
    scope.scope.name = SCOPE
    metrics: dict[str, Any] = {}
    for point in points:
        if point.name not in metrics:
            row = signals.DICTIONARY[point.name]
            metrics[point.name] = scope.metrics.add(name=row.name, unit=row.unit, description=row.meaning)
        _add(metrics[point.name], signals.DICTIONARY[point.name].kind, point)
    return request.SerializeToString()


def _add(metric: Any, kind: str, point: Point) -> None:
    data = metric.gauge
    if kind in (signals.COUNTER, signals.UPDOWN):
        data = metric.sum
        data.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        data.is_monotonic = kind == signals.COUNTER
    made = data.data_points.add(time_unix_nano=point.time_ns, as_double=point.value)
    if point.start_time_ns is not None:
        made.start_time_unix_nano = point.start_time_ns
    fill(made, point.attributes)
