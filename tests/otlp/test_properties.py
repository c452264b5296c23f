from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arobust_otel.errors import DecodeError
from arobust_otel.model import signals
from arobust_otel.otlp.decode import decode
from arobust_otel.otlp.json import from_protobuf, to_protobuf
from arobust_otel.otlp.limits import inflate
from arobust_otel.otlp.messages import merge
from arobust_otel.otlp.validate import validate

bounded = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SIGNALS = ["metrics", "logs", "traces"]
unsigned = st.integers(0, 2**64 - 1)
signed = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.one_of(text, st.sampled_from(sorted(signals.DICTIONARY)))


def fill(value: Any, given_value: Any) -> None:
    if isinstance(given_value, bool):
        value.bool_value = given_value
    elif isinstance(given_value, int):
        value.int_value = given_value
    elif isinstance(given_value, float):
        value.double_value = given_value
    elif isinstance(given_value, str):
        value.string_value = given_value
    elif isinstance(given_value, bytes):
        value.bytes_value = given_value
    elif isinstance(given_value, list):
        value.array_value.SetInParent()
        for item in given_value:
            fill(value.array_value.values.add(), item)
    elif isinstance(given_value, dict):
        value.kvlist_value.SetInParent()
        for key, item in given_value.items():
            fill(value.kvlist_value.values.add(key=key).value, item)


scalars = st.one_of(st.none(), st.booleans(), signed, st.floats(), text, st.binary(max_size=5))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text, inner, max_size=3)),
    max_leaves=6,
)
attributes = st.lists(st.tuples(keys, values), max_size=4)


def attach(owner: Any, given_attributes: list[tuple[str, Any]]) -> None:
    for key, value in given_attributes:
        fill(owner.attributes.add(key=key).value, value)


@st.composite
def metric_requests(draw: st.DrawFn) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    for _ in range(draw(st.integers(0, 2))):
        entry = request.resource_metrics.add()
        attach(entry.resource, draw(attributes))
        scope = entry.scope_metrics.add(schema_url=draw(text))
        for _ in range(draw(st.integers(0, 3))):
            metric = scope.metrics.add(name=draw(text))
            kind = draw(
                st.sampled_from(["gauge", "sum", "histogram", "summary", "exponential_histogram", None])
            )
            if kind is None:
                continue
            data = getattr(metric, kind)
            data.SetInParent()
            if kind not in ("gauge", "summary"):
                data.aggregation_temporality = draw(st.integers(0, 3))
            for _ in range(draw(st.integers(0, 3))):
                point = data.data_points.add(
                    time_unix_nano=draw(unsigned), start_time_unix_nano=draw(st.one_of(st.just(0), unsigned))
                )
                point.flags = draw(st.sampled_from([0, 0, 1, 2, 2**32 - 1]))
                attach(point, draw(attributes))
                if kind in ("gauge", "sum"):
                    number = draw(st.one_of(st.none(), signed, st.floats()))
                    if isinstance(number, int):
                        point.as_int = number
                    elif number is not None:
                        point.as_double = number
                    if draw(st.booleans()):
                        point.exemplars.add(trace_id=draw(st.binary(max_size=16)), as_int=draw(signed))
    return request


@st.composite
def log_requests(draw: st.DrawFn) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for _ in range(draw(st.integers(0, 3))):
        record = scope.log_records.add(
            time_unix_nano=draw(unsigned),
            trace_id=draw(st.binary(max_size=17)),
            span_id=draw(st.binary(max_size=9)),
            event_name=draw(keys),
            severity_number=draw(st.integers(-1, 30)),
        )
        fill(record.body, draw(values))
        attach(record, draw(attributes))
    return request


@st.composite
def trace_requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for _ in range(draw(st.integers(0, 3))):
        span = scope.spans.add(
            name=draw(st.one_of(text, st.just(signals.STACK_CAPTURE))),
            trace_id=draw(st.sampled_from([b"", b"t" * 16, bytes(16)])),
            span_id=draw(st.sampled_from([b"", b"s" * 8])),
            start_time_unix_nano=draw(unsigned),
            end_time_unix_nano=draw(unsigned),
        )
        attach(span, draw(attributes))
        span.links.add(trace_id=draw(st.binary(max_size=16)), span_id=b"12345678")
        event = span.events.add(name=draw(st.one_of(text, st.just(signals.STACK_DUMP))))
        attach(event, draw(attributes))
    return request


any_request = st.one_of(
    st.tuples(st.just("metrics"), metric_requests()),
    st.tuples(st.just("logs"), log_requests()),
    st.tuples(st.just("traces"), trace_requests()),
)


@bounded
@given(any_request, st.sampled_from([0, 1_700_000_000_000_000_000]))
def test_every_well_formed_request_decodes_with_columns_of_one_length(
    request_of: Any, received_ns: int
) -> None:
    signal, request = request_of
    entries = request.ListFields()[0][1] if request.ListFields() else []
    batches = decode(signal, request.SerializeToString(), received_ns)
    assert len(batches) == len(entries)
    for batch in batches:
        found = batch.metrics
        if found is not None:
            lengths = {
                len(found.signal),
                len(found.rank),
                len(found.time_ns),
                len(found.value),
                len(found.group),
            }
            assert lengths == {len(found)}
            assert all(-1 <= index < len(found.groups) for index in found.group)
            assert all(0 <= index < len(found.names) for index in found.signal)


@bounded
@given(any_request)
def test_validation_keeps_what_is_good_and_is_stable(request_of: Any) -> None:
    signal, request = request_of
    body = request.SerializeToString()
    first = validate(signal, body)
    again = validate(signal, first.body)
    assert (again.body, again.items, again.rejected) == (first.body, first.items, 0)
    if not first.rejected and first.items:
        assert first.body == body
    assert bool(first.rejected) == bool(first.message)


@bounded
@given(any_request)
def test_protobuf_to_json_and_back_keeps_ids_and_64_bit_numbers(request_of: Any) -> None:
    signal, request = request_of
    body = request.SerializeToString()
    as_json = from_protobuf(signal, body)
    back = type(request).FromString(to_protobuf(signal, as_json))
    if "nan" not in str(request):  # NaN never equals itself
        assert back == request
    assert json.loads(from_protobuf(signal, back.SerializeToString())) == json.loads(as_json)


@bounded
@given(st.sampled_from(SIGNALS), st.binary(max_size=300))
@example("logs", b"\x0a\x02\x12\x00")
def test_arbitrary_bytes_raise_nothing_but_a_decode_error(signal: str, body: bytes) -> None:
    for function in (decode, validate, to_protobuf, from_protobuf):
        with contextlib.suppress(DecodeError):
            function(signal, body)
    for encoding in ("gzip", "deflate"):
        with contextlib.suppress(DecodeError):
            inflate(encoding, body, 10_000)


@bounded
@given(
    any_request,
    st.sampled_from(SIGNALS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=5),
)
def test_damaged_requests_raise_nothing_but_a_decode_error(request_of: Any, signal: str, damage: Any) -> None:
    body = bytearray(request_of[1].SerializeToString())
    for place, byte in damage:
        if body:
            body[place % len(body)] = byte
    for function in (decode, validate, from_protobuf):
        with contextlib.suppress(DecodeError):
            function(signal, bytes(body))


NAMES = """
resourceLogs scopeLogs logRecords body attributes traceId spanId key value x
stringValue intValue arrayValue values kvlistValue timeUnixNano severityNumber flags
"""
names = st.sampled_from(NAMES.split())
trees = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
    max_leaves=20,
)


@bounded
@given(st.dictionaries(names, trees, max_size=3))
def test_arbitrary_json_raises_nothing_but_a_decode_error(tree: Any) -> None:
    try:
        body = to_protobuf("logs", json.dumps(tree).encode())
    except DecodeError:
        return
    ExportLogsServiceRequest.FromString(body)


@bounded
@given(st.lists(metric_requests(), max_size=4))
def test_merging_equals_decoding_one_after_the_other(requests: list[ExportMetricsServiceRequest]) -> None:
    bodies = [request.SerializeToString() for request in requests]
    merged = decode("metrics", merge("metrics", bodies))
    single = [batch for body in bodies for batch in decode("metrics", body)]
    assert [batch.resource for batch in merged] == [batch.resource for batch in single]
    assert [len(batch.metrics or ()) for batch in merged] == [len(batch.metrics or ()) for batch in single]


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_request_cut_anywhere_raises_nothing_but_a_decode_error(signal: str) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(event_name=signals.RANK_BORN)
    attach(record, [(signals.RANK, 3), ("deep", {"a": [1, 2, {"b": b"x"}]})])
    body = request.SerializeToString()
    for size in range(len(body)):
        for function in (decode, validate):
            with contextlib.suppress(DecodeError):
                function(signal, body[:size])
