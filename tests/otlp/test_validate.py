from __future__ import annotations

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arobust_otel.errors import DecodeError
from arobust_otel.otlp.messages import merge
from arobust_otel.otlp.validate import MAX_MESSAGE_CHARACTERS, Validated, validate

TRACE, SPAN = b"t" * 16, b"s" * 8


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    scope.schema_url = "https://opentelemetry.io/schemas/1.44.0"
    good = scope.metrics.add(name="good", unit="s")
    good.gauge.data_points.add(as_double=float("nan"), flags=1)
    good.gauge.data_points.add(time_unix_nano=2**64 - 1)
    return request


def logs() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=1)
    record.body.string_value = "line"
    return request


def traces() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=TRACE, span_id=SPAN, name="a", start_time_unix_nano=1, dropped_events_count=4)
    return request


def test_good_requests_pass_byte_for_byte() -> None:
    for signal, request, items in (("metrics", metrics(), 2), ("logs", logs(), 1), ("traces", traces(), 1)):
        body = request.SerializeToString()
        assert validate(signal, body) == Validated(body, items)


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_fields_of_a_later_version_pass_unchanged(signal: str) -> None:
    body = {"metrics": metrics, "logs": logs, "traces": traces}[signal]().SerializeToString()
    body += b"\xf2\x3f\x03new"  # field 1022 of the request
    assert validate(signal, body).body == body


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_empty_request_and_empty_envelopes_are_legal_and_hold_nothing_to_forward(signal: str) -> None:
    assert validate(signal, b"") == Validated(b"", 0)
    assert validate(signal, b"\x0a\x00") == Validated(b"", 0)
    assert validate(signal, b"\x0a\x02\x12\x00") == Validated(b"", 0)


@pytest.mark.parametrize(
    ("signal", "body"),
    [
        ("metrics", logs().SerializeToString()),
        ("metrics", traces().SerializeToString()),
        ("logs", metrics().SerializeToString()),
        ("logs", traces().SerializeToString()),
        ("traces", logs().SerializeToString()),
    ],
)
def test_another_signal_on_the_path_is_refused(signal: str, body: bytes) -> None:
    with pytest.raises(DecodeError):
        validate(signal, body)


def test_metrics_on_the_path_of_traces_are_rejected_whole() -> None:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    metric.gauge.data_points.add(as_int=1)
    result = validate("traces", request.SerializeToString())
    assert (result.body, result.items, result.rejected) == (b"", 0, 1)


@pytest.mark.parametrize(
    "body", [b"\x08\x01", b"\x12\x03abc", b"\x0d\x00\x00\x00\x00", b"hello world", b"{}"]
)
@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
def test_bytes_that_are_no_request_are_refused(signal: str, body: bytes) -> None:
    with pytest.raises(DecodeError):
        validate(signal, body)


def test_sums_and_histograms_without_temporality_are_cut_out_and_counted() -> None:
    request = metrics()
    bad = request.resource_metrics.add().scope_metrics.add().metrics
    bad.add(name="requests").sum.data_points.add(as_int=1)
    bad.add(name="latency").exponential_histogram.data_points.add(count=1)
    histogram = bad.add(name="sizes").histogram
    histogram.data_points.add(count=1)
    histogram.data_points.add(count=2)
    result = validate("metrics", request.SerializeToString())
    assert (result.items, result.rejected) == (2, 4)
    assert "2 rejected: sizes has no aggregation temporality" in result.message
    assert result.body == metrics().SerializeToString()


def test_bucket_counts_that_do_not_fit_their_bounds_are_cut_out() -> None:
    request = metrics()
    histogram = request.resource_metrics[0].scope_metrics[0].metrics.add(name="sizes").histogram
    histogram.aggregation_temporality = 2
    histogram.data_points.add(count=1, bucket_counts=[1, 2], explicit_bounds=[1.0])
    histogram.data_points.add(count=2, bucket_counts=[1], explicit_bounds=[])
    histogram.data_points.add(count=3)
    good = request.SerializeToString()
    assert validate("metrics", good) == Validated(good, 5)
    histogram.data_points.add(count=4, bucket_counts=[1], explicit_bounds=[1.0])
    histogram.data_points.add(count=5, explicit_bounds=[1.0])
    result = validate("metrics", request.SerializeToString())
    assert (result.body, result.items, result.rejected) == (good, 5, 2)
    assert result.message == "2 rejected: sizes has bucket counts that do not fit its bounds"


def test_metric_without_a_name_is_cut_out() -> None:
    request = metrics()
    nameless = request.resource_metrics[0].scope_metrics[0].metrics
    nameless.add().gauge.data_points.add(as_int=1)
    nameless.add()
    result = validate("metrics", request.SerializeToString())
    assert (result.items, result.rejected, result.body) == (2, 2, metrics().SerializeToString())


def test_unknown_metric_kind_summary_and_point_without_number_pass() -> None:
    request = metrics()
    added = request.resource_metrics[0].scope_metrics[0].metrics
    added.add(name="of a later version")
    added.add(name="summary").summary.data_points.add(count=1)
    added.add(name="no number").gauge.data_points.add()
    body = request.SerializeToString()
    assert validate("metrics", body) == Validated(body, 5)


@pytest.mark.parametrize(
    ("trace", "span"), [(b"", SPAN), (b"t" * 15, SPAN), (bytes(16), SPAN), (TRACE, bytes(8)), (TRACE, b"s")]
)
def test_span_with_broken_ids_is_rejected_alone(trace: bytes, span: bytes) -> None:
    request = traces()
    request.resource_spans[0].scope_spans[0].spans.add(trace_id=trace, span_id=span, name="bad")
    result = validate("traces", request.SerializeToString())
    assert (result.body, result.items, result.rejected) == (traces().SerializeToString(), 1, 1)
    assert "trace id" in result.message


def test_log_record_with_broken_ids_is_unlinked_and_passes() -> None:
    request = logs()
    request.resource_logs[0].scope_logs[0].log_records.add(
        trace_id=b"short", span_id=bytes(8), event_name="e"
    )
    body = request.SerializeToString()
    assert validate("logs", body) == Validated(body, 2)


def test_message_about_rejections_is_short() -> None:
    request = metrics()
    for number in range(500):
        request.resource_metrics[0].scope_metrics[0].metrics.add(name=f"m{number}").sum.data_points.add(
            as_int=1
        )
    result = validate("metrics", request.SerializeToString())
    assert result.rejected == 500
    assert len(result.message) == MAX_MESSAGE_CHARACTERS


def test_merged_requests_are_one_valid_request_in_order() -> None:
    first, second = metrics(), metrics()
    second.resource_metrics[0].scope_metrics[0].metrics[0].name = "second"
    body = merge("metrics", [first.SerializeToString(), b"", second.SerializeToString()])
    both = ExportMetricsServiceRequest.FromString(body)
    names = [entry.scope_metrics[0].metrics[0].name for entry in both.resource_metrics]
    assert names == ["good", "second"]
    assert validate("metrics", body).items == 4
    assert merge("logs", []) == b""
    with pytest.raises(DecodeError):
        merge("profiles", [])
