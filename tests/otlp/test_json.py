from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arobust_otel.errors import DecodeError
from arobust_otel.otlp.json import MAX_DEPTH, MAX_OBJECTS, from_protobuf, to_protobuf
from arobust_otel.otlp.limits import BodyTooLarge

TRACE, SPAN, PARENT = bytes(range(16)), bytes(range(8)), b"\xff" * 8


def span(**fields: Any) -> Any:
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}).encode()
    return (
        ExportTraceServiceRequest.FromString(to_protobuf("traces", body))
        .resource_spans[0]
        .scope_spans[0]
        .spans[0]
    )


def log(**fields: Any) -> Any:
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [fields]}]}]}).encode()
    request = ExportLogsServiceRequest.FromString(to_protobuf("logs", body))
    return request.resource_logs[0].scope_logs[0].log_records[0]


def gauge(**fields: Any) -> Any:
    metric = {"name": "m", "gauge": {"dataPoints": [fields]}}
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode()
    request = ExportMetricsServiceRequest.FromString(to_protobuf("metrics", body))
    return request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0]


def test_ids_are_hex_of_any_case_in_spans_links_logs_and_exemplars() -> None:
    found = span(
        traceId=TRACE.hex(),
        spanId=SPAN.hex().upper(),
        parentSpanId=PARENT.hex(),
        links=[{"traceId": TRACE.hex().upper(), "spanId": SPAN.hex()}],
    )
    assert (found.trace_id, found.span_id, found.parent_span_id) == (TRACE, SPAN, PARENT)
    assert (found.links[0].trace_id, found.links[0].span_id) == (TRACE, SPAN)
    record = log(traceId=TRACE.hex(), spanId=SPAN.hex())
    assert (record.trace_id, record.span_id) == (TRACE, SPAN)
    exemplar = gauge(exemplars=[{"traceId": TRACE.hex(), "spanId": SPAN.hex()}]).exemplars[0]
    assert (exemplar.trace_id, exemplar.span_id) == (TRACE, SPAN)


def test_empty_and_null_ids_are_no_ids() -> None:
    assert span(traceId="", spanId=None).trace_id == b""


@pytest.mark.parametrize("value", ["not hex", "AAECAwQFBgcICQoLDA0ODw==", 7, ["00"], "é"])
def test_ids_that_are_not_hex_are_refused(value: Any) -> None:
    with pytest.raises(DecodeError, match="hexadecimal"):
        span(traceId=value)


def test_whole_numbers_of_64_bit_come_as_text_or_number() -> None:
    assert gauge(timeUnixNano="18446744073709551615").time_unix_nano == 2**64 - 1
    assert gauge(timeUnixNano=1700000000000000001).time_unix_nano == 1700000000000000001
    assert gauge(asInt="-9223372036854775808").as_int == -(2**63)


@pytest.mark.parametrize("value", ["18446744073709551616", -1, "1.5", 2**70, {}, True])
def test_numbers_that_do_not_fit_are_refused(value: Any) -> None:
    with pytest.raises(DecodeError):
        gauge(timeUnixNano=value)


def test_not_finite_doubles_come_as_text_and_bare_nan_is_refused() -> None:
    assert str(gauge(asDouble="NaN").as_double) == "nan"
    assert gauge(asDouble="-Infinity").as_double == float("-inf")
    for token in (b"NaN", b"Infinity", b"-Infinity"):
        with pytest.raises(DecodeError, match="is no JSON"):
            to_protobuf("metrics", b'{"x": ' + token + b"}")


def test_enums_are_numbers_in_and_out_unknown_ones_included() -> None:
    assert log(severityNumber=17).severity_number == 17
    assert log(severityNumber=99).severity_number == 99
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(severity_number=17)
    assert b'"severityNumber":17' in from_protobuf("logs", request.SerializeToString())


def test_unknown_fields_are_ignored_everywhere() -> None:
    found = span(traceId=TRACE.hex(), name="s", newField={"deep": [1, {"a": None}]})
    assert (found.name, found.trace_id) == ("s", TRACE)


def test_snake_case_names_are_taken_too() -> None:
    assert span(trace_id=TRACE.hex(), start_time_unix_nano="5").trace_id == TRACE


def test_bytes_values_stay_base64() -> None:
    assert log(body={"bytesValue": "AAEC"}).body.bytes_value == b"\x00\x01\x02"


def test_empty_object_is_an_empty_request() -> None:
    for signal in ("metrics", "logs", "traces"):
        assert to_protobuf(signal, b"{}") == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"7",
        b"{",
        b'{"resourceLogs": [}',
        b'{"resourceLogs": 5}',
        b'{"resourceLogs": [5]}',
        b'{"resourceLogs": [null]}',
        b'{"resourceLogs": "x"}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b'{"x": "\xff"}',
        b'{"resourceLogs": [{"schemaUrl": "\\ud800"}]}',
        b'{"resourceLogs": [{"schemaUrl": 5}]}',
        b'{"x": ' + b"9" * 5000 + b"}",
        b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"severityNumber": 99999999999}]}]}]}',
    ],
)
def test_what_is_no_request_is_a_decode_error(body: bytes) -> None:
    with pytest.raises(DecodeError):
        to_protobuf("logs", body)


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 3000, 500_000])
def test_endless_nesting_is_refused(depth: int) -> None:
    with pytest.raises(DecodeError):
        to_protobuf("logs", b'{"x": ' + b"[" * depth + b"]" * depth + b"}")


def test_values_as_deep_as_protobuf_allows_pass() -> None:
    value: Any = {"intValue": "7"}
    for _ in range(20):
        value = {"arrayValue": {"values": [value]}}
    found = log(body=value).body
    for _ in range(20):
        found = found.array_value.values[0]
    assert found.int_value == 7


def test_unknown_signal_is_refused() -> None:
    with pytest.raises(DecodeError):
        to_protobuf("profiles", b"{}")
    with pytest.raises(DecodeError):
        from_protobuf("profiles", b"")


def test_a_body_of_countless_objects_is_too_large_before_it_is_read() -> None:
    body = b'{"resourceLogs":[' + b",".join([b"{}"] * MAX_OBJECTS) + b"]}"
    with pytest.raises(BodyTooLarge, match=r"500001 JSON objects .* protobuf"):
        to_protobuf("logs", body)
