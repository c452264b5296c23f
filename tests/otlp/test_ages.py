"""Taking out what a destination would refuse for its time."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arobust_otel.otlp.ages import Span, count_items, within

LIMITS = Span(oldest_ns=100, newest_ns=200)


def metrics(*resources: dict[str, list[int]]) -> bytes:
    """One resource per dict, of metric name to times."""
    request = ExportMetricsServiceRequest()
    for resource in resources:
        scope = request.resource_metrics.add().scope_metrics.add()
        for name, times in resource.items():
            kind = {"s": "sum", "g": "gauge", "h": "histogram"}[name[0]]
            points = getattr(scope.metrics.add(name=name), kind).data_points
            for time_ns in times:
                points.add(time_unix_nano=time_ns)
    return request.SerializeToString()


def times_of(body: bytes) -> list[dict[str, list[int]]]:
    request = ExportMetricsServiceRequest.FromString(body)
    return [
        {
            metric.name: [p.time_unix_nano for p in getattr(metric, metric.WhichOneof("data")).data_points]
            for scope in entry.scope_metrics
            for metric in scope.metrics
        }
        for entry in request.resource_metrics
    ]


def test_points_outside_go_and_what_is_empty_goes_with_them() -> None:
    body = metrics({"g1": [99, 100, 200, 201], "s1": [1]}, {"h1": [50]}, {"g2": [150]})
    left, taken = within("metrics", body, LIMITS)
    assert times_of(left) == [{"g1": [100, 200]}, {"g2": [150]}]
    assert taken == {"too_old": 3, "too_new": 1}


def test_a_request_that_is_all_too_old_is_nothing() -> None:
    assert within("metrics", metrics({"g": [1, 2]}), LIMITS) == (b"", {"too_old": 2})


@pytest.mark.parametrize("limits", [LIMITS, Span()])
def test_bytes_stay_as_they_are_where_nothing_goes(limits: Span) -> None:
    body = metrics({"g": [100, 150]}) + b"\x7a\x01x"  # with a field of a later version
    assert within("metrics", body, limits) == (body, {})


def test_a_point_without_a_time_is_left_to_the_destination() -> None:
    body = metrics({"g": [0]})
    assert within("metrics", body, LIMITS) == (body, {})


def test_a_log_record_counts_from_its_time_else_from_when_it_was_seen() -> None:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for time_ns, observed_ns in ((99, 150), (0, 99), (0, 150), (150, 1)):
        records.add(time_unix_nano=time_ns, observed_time_unix_nano=observed_ns)
    left, taken = within("logs", request.SerializeToString(), LIMITS)
    kept = ExportLogsServiceRequest.FromString(left).resource_logs[0].scope_logs[0].log_records
    assert [(r.time_unix_nano, r.observed_time_unix_nano) for r in kept] == [(0, 150), (150, 1)]
    assert taken == {"too_old": 2}


def test_a_span_counts_from_its_end() -> None:
    request = ExportTraceServiceRequest()
    spans: Any = request.resource_spans.add().scope_spans.add().spans
    spans.add(name="long", start_time_unix_nano=1, end_time_unix_nano=150)
    spans.add(name="old", start_time_unix_nano=1, end_time_unix_nano=2)
    left, _ = within("traces", request.SerializeToString(), LIMITS)
    assert [
        s.name for s in ExportTraceServiceRequest.FromString(left).resource_spans[0].scope_spans[0].spans
    ] == ["long"]


def test_items_are_counted() -> None:
    assert count_items("metrics", metrics({"g": [1, 2]}, {"s": [3]})) == 3
    assert count_items("logs", b"") == 0
