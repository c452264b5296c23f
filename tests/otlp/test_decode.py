from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from arobust_otel.errors import DecodeError
from arobust_otel.model import signals
from arobust_otel.model.columns import Batch, Fact, MetricColumns, ResourceKey
from arobust_otel.model.samples import Frame, format_frames
from arobust_otel.otlp.decode import decode

T = 1_700_000_000_000_000_000
HOUR = 3600 * 10**9


def pair(key: str, value: Any) -> KeyValue:
    if isinstance(value, AnyValue):
        return KeyValue(key=key, value=value)
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


def pairs(values: dict[str, Any]) -> list[KeyValue]:
    return [pair(key, value) for key, value in values.items()]


def metrics(*add: Any) -> ExportMetricsServiceRequest:
    """A request with one metric per (name, kind, points); a point is keyword arguments."""
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for name, kind, points in add:
        metric = scope.metrics.add(name=name)
        data = getattr(metric, kind)
        if kind == "sum":
            data.aggregation_temporality = 2
        for point in points:
            data.data_points.add(**point)
    return request


def columns(request: ExportMetricsServiceRequest, received_ns: int = 0) -> MetricColumns:
    (batch,) = decode("metrics", request.SerializeToString(), received_ns)
    assert batch.metrics is not None
    return batch.metrics


def point(value: float, **attributes: Any) -> dict[str, Any]:
    return {
        "time_unix_nano": T,
        "as_double": value,
        "attributes": pairs({key.replace("__", "."): item for key, item in attributes.items()}),
    }


def logs(**record: Any) -> Batch:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(**record)
    (batch,) = decode("logs", request.SerializeToString())
    return batch


def test_columns_hold_name_rank_time_value_and_group_of_every_point() -> None:
    group = {signals.GROUP_NAME: "dp", signals.GROUP_RANKS: "0-3", signals.BACKEND: "gloo"}
    request = metrics(
        (signals.STEP, "gauge", [point(5.0, arobust__rank=0), point(6.0, arobust__rank=1)]),
        (
            signals.ENQUEUED,
            "gauge",
            [{"time_unix_nano": T + 1, "as_int": 42, "attributes": pairs({signals.RANK: 3, **group})}],
        ),
    )
    found = columns(request)
    assert found.names == (signals.STEP, signals.ENQUEUED)
    assert found.signal.tolist() == [0, 0, 1]
    assert found.rank.tolist() == [0, 1, 3]
    assert found.time_ns.tolist() == [T, T, T + 1]
    assert found.value.tolist() == [5.0, 6.0, 42.0]
    assert found.group.tolist() == [-1, -1, 0]
    assert found.groups == (("dp", "0-3"),)
    assert (found.signal.dtype, found.rank.dtype, found.group.dtype) == (np.int32, np.int32, np.int32)
    assert (found.time_ns.dtype, found.value.dtype) == (np.int64, np.float64)
    assert len(found) == 3
    assert found.skipped == 0


def test_resource_says_whose_telemetry_it_is() -> None:
    request = ExportMetricsServiceRequest()
    full = {
        signals.JOB_ID: "job-7",
        signals.INCARNATION: 2,
        signals.HOST_NAME: "gpu-a",
        signals.SERVICE_INSTANCE: "gpu-a/job-7",
        signals.NODE_RANK: "1",
        signals.SERVICE_NAME: "arobust-agent",
    }
    request.resource_metrics.add().resource.attributes.extend(pairs(full))
    request.resource_metrics.add()
    first, second = decode("metrics", request.SerializeToString())
    assert first.resource == ResourceKey("job-7", 2, "gpu-a", "gpu-a/job-7", 1, "arobust-agent")
    assert second.resource == ResourceKey("", 0, "", "", None, "")


@pytest.mark.parametrize(
    ("value", "rank"),
    [
        (0, 0),
        (5, 5),
        ("0", 0),
        ("17", 17),
        (3.0, 3),
        (-5, -1),
        (2**31, -1),
        (2**63 - 1, -1),
        (1.5, -1),
        (math.nan, -1),
        (math.inf, -1),
        (True, -1),
        ("seven", -1),
        ("", -1),
        ("9" * 30, -1),
        ("²", -1),
        (AnyValue(), -1),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1)])), -1),
    ],
)
def test_rank_may_be_a_number_or_a_numeric_text_and_nothing_else(value: Any, rank: int) -> None:
    request = metrics(("m", "gauge", [point(1.0, arobust__rank=value)]))
    assert columns(request).rank.tolist() == [rank]


def test_point_without_rank_has_none() -> None:
    assert columns(metrics(("m", "gauge", [point(1.0)]))).rank.tolist() == [-1]


def test_points_of_several_devices_of_a_rank_are_not_blended_into_one_value_of_the_rank() -> None:
    two = [point(float(number), arobust__rank=3) for number in (1, 2)]
    for number, one in enumerate(two):
        one["attributes"] += [pair("hw.id", f"GPU-{number}")]
    found = columns(metrics(("m", "gauge", [*two, point(9.0, arobust__rank=3)])))
    assert found.rank.tolist() == [-1, -1, 3]
    assert found.value.tolist() == [1.0, 2.0, 9.0]


def test_repeated_attribute_key_counts_once_and_the_last_one_wins() -> None:
    doubled = {
        "time_unix_nano": T,
        "as_int": 1,
        "attributes": [pair("arobust.rank", 1), pair("arobust.rank", 2)],
    }
    assert columns(metrics(("m", "gauge", [doubled]))).rank.tolist() == [2]


def test_no_recorded_value_is_skipped_and_counted_and_never_zero() -> None:
    request = metrics(
        ("m", "gauge", [point(0.0) | {"flags": 1}, point(3.0) | {"flags": 2}, point(4.0) | {"flags": 3}])
    )
    found = columns(request)
    assert (found.value.tolist(), found.skipped) == ([3.0], 2)


def test_point_without_a_number_is_skipped_and_a_zero_is_not() -> None:
    zero_int = {"time_unix_nano": T, "as_int": 0}
    found = columns(metrics(("m", "gauge", [{"time_unix_nano": T}, zero_int, point(0.0), point(-0.0)])))
    assert (found.value.tolist(), found.skipped) == ([0.0, 0.0, 0.0], 1)
    assert math.copysign(1, found.value[2]) == -1


def test_not_finite_values_stay_what_they_are() -> None:
    found = columns(metrics(("m", "gauge", [point(math.nan), point(math.inf), point(-math.inf)])))
    assert math.isnan(found.value[0])
    assert found.value[1:].tolist() == [math.inf, -math.inf]


def test_cumulative_sums_are_levels_and_other_kinds_are_counted() -> None:
    request = metrics(
        ("sum", "sum", [point(9.0)]),
        ("histogram", "histogram", [{"count": 3}, {"count": 4}]),
        ("exponential", "exponential_histogram", [{"count": 3}]),
        ("summary", "summary", [{"count": 3}]),
    )
    delta = request.resource_metrics[0].scope_metrics[0].metrics.add(name="delta")
    delta.sum.aggregation_temporality = 1
    delta.sum.data_points.add(as_int=4)
    request.resource_metrics[0].scope_metrics[0].metrics.add(name="of a later version")
    found = columns(request)
    assert (found.names, found.value.tolist(), found.skipped) == (("sum",), [9.0], 6)


def test_points_with_start_time_exemplars_and_foreign_attributes_are_read() -> None:
    odd = {
        "start_time_unix_nano": 5,
        "time_unix_nano": T,
        "as_int": -7,
        "exemplars": [{"as_double": 1.0}],
        "attributes": pairs({"host.id": "a", "arobust.rank": 4, "x": 1.5}),
    }
    found = columns(
        metrics(("m", "gauge", [odd, point(1.5, arobust__rank="1") | {"start_time_unix_nano": 5}]))
    )
    assert found.rank.tolist() == [4, 1]
    assert found.value.tolist() == [-7.0, 1.5]
    assert found.time_ns.tolist() == [T, T]


def test_absent_or_absurd_times_become_the_time_of_receipt() -> None:
    times = [0, 1, T, T + 2 * HOUR, 2**64 - 1]
    request = metrics(("m", "gauge", [{"time_unix_nano": time, "as_int": 1} for time in times]))
    assert columns(request, received_ns=T + 5).time_ns.tolist() == [T + 5, T + 5, T, T + 5, T + 5]
    assert columns(request).time_ns.tolist() == [0, 1, T, T + 2 * HOUR, 2**63 - 1]


def test_empty_request_and_empty_envelopes_are_legal() -> None:
    request = ExportMetricsServiceRequest()
    assert decode("metrics", request.SerializeToString()) == ()
    request.resource_metrics.add().scope_metrics.add().metrics.add(name="m").gauge.SetInParent()
    found = columns(request)
    assert (len(found), found.names, found.groups, found.skipped) == (0, (), (), 0)
    assert decode("logs", b"") == decode("traces", b"") == ()


def test_event_of_ours_is_a_fact_with_scalar_attributes() -> None:
    nested = AnyValue(
        kvlist_value=KeyValueList(
            values=[
                pair("list", AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()]))),
                pair("bytes", AnyValue(bytes_value=b"\x00\x01")),
                pair("nan", math.nan),
            ]
        )
    )
    attributes = {signals.RANK: 3, signals.EXIT_CODE: 1, "ok": True, "ratio": 0.5, "nested": nested, "": "x"}
    batch = logs(
        time_unix_nano=T,
        event_name=signals.RANK_EXITED,
        severity_number=17,
        body=AnyValue(string_value="rank 3 ended"),
        attributes=[*pairs(attributes), pair("nothing", AnyValue())],
    )
    assert batch.log_lines == 0
    assert batch.facts == (
        Fact(
            signals.RANK_EXITED,
            T,
            3,
            "rank 3 ended",
            {
                signals.RANK: 3,
                signals.EXIT_CODE: 1,
                "ok": True,
                "ratio": 0.5,
                "nested": '{"list":[1,null],"bytes":"AAE=","nan":"nan"}',
            },
            17,
        ),
    )


def test_event_name_may_come_as_an_attribute() -> None:
    attributes = pairs({"event.name": signals.RANK_BORN, signals.RANK: "2"})
    (fact,) = logs(observed_time_unix_nano=T, attributes=attributes).facts
    assert (fact.name, fact.rank, fact.time_ns) == (signals.RANK_BORN, 2, T)
    assert fact.attributes == {signals.RANK: "2"}
    assert fact.body == ""


def test_event_without_attributes_is_a_fact() -> None:
    (fact,) = logs(event_name=signals.LAUNCHER_EXITED, body=AnyValue(int_value=3)).facts
    assert (fact.rank, fact.attributes, fact.body) == (None, {}, "3")


@pytest.mark.parametrize(
    "record",
    [
        {"body": AnyValue(string_value="step 5 loss 2.1")},
        {"event_name": "app.started"},
        {"attributes": pairs({"event.name": "app.started"})},
        {"attributes": pairs({signals.RANK: 1})},
        {"event_name": signals.STEP},
    ],
)
def test_all_other_records_are_log_lines(record: dict[str, Any]) -> None:
    batch = logs(**record)
    assert (batch.facts, batch.log_lines) == ((), 1)


def test_fact_with_an_absurd_time_gets_the_time_of_receipt() -> None:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for time_ns in (0, T, 2**64 - 1):
        records.add(event_name=signals.RANK_BORN, time_unix_nano=time_ns)
    (batch,) = decode("logs", request.SerializeToString(), received_ns=T + 1)
    assert [fact.time_ns for fact in batch.facts] == [T + 1, T, T + 1]
    (batch,) = decode("logs", request.SerializeToString())
    assert [fact.time_ns for fact in batch.facts] == [0, T, 2**63 - 1]


FRAMES = (Frame("read_shard", "/app/data.py", 88), Frame("main", "/app/train.py", 10))


def capture_request() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    span = spans.add(name=signals.STACK_CAPTURE, start_time_unix_nano=T, end_time_unix_nano=T + 500)
    title = {signals.RANK: 2, signals.PID: 99, signals.STACK_METHOD: "py-spy", signals.COMMAND_ID: "c1"}
    span.attributes.extend(pairs({**title, "extra": 1}))
    main = {
        signals.THREAD_NAME: "MainThread",
        signals.THREAD_ID: 140_000_000_000_000,
        signals.STACK_MAIN: True,
        signals.STACK_ACTIVE: False,
        signals.STACK_LOCK: True,
        signals.STACK_TEXT: format_frames(FRAMES),
    }
    span.events.add(name=signals.STACK_DUMP, attributes=pairs(main))
    span.events.add(name=signals.STACK_DUMP, attributes=pairs({signals.THREAD_NAME: "worker"}))
    span.events.add(name="exception")
    spans.add(name="GET /")
    return request


def test_span_of_a_stack_capture_becomes_threads_with_frames() -> None:
    (batch,) = decode("traces", capture_request().SerializeToString())
    assert batch.other == 1
    (capture,) = batch.stacks
    assert (capture.time_ns, capture.duration_ns, capture.rank, capture.pid) == (T, 500, 2, 99)
    assert (capture.method, capture.command_id, capture.attributes) == ("py-spy", "c1", {"extra": 1})
    main, worker = capture.threads
    assert (main.name, main.frames, main.thread_id) == ("MainThread", FRAMES, 140_000_000_000_000)
    assert (main.is_main, main.is_active, main.holds_interpreter_lock) == (True, False, True)
    assert (worker.is_main, worker.is_active, worker.holds_interpreter_lock) == (False, None, None)
    assert (worker.thread_id, worker.frames) == (None, ())
    assert capture.text == f"MainThread\n{format_frames(FRAMES)}\n\nworker\n"
    assert capture.main_thread() is main


def test_span_that_ends_before_it_starts_lasts_nothing_and_lacks_are_lacks() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(name=signals.STACK_CAPTURE, start_time_unix_nano=T, end_time_unix_nano=1)
    (batch,) = decode("traces", request.SerializeToString())
    (capture,) = batch.stacks
    assert (capture.duration_ns, capture.rank, capture.pid, capture.threads) == (0, None, 0, ())


@pytest.mark.parametrize("signal", ["metrics", "logs", "traces"])
@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05abc", b"\x0a\x04\x0a\x02\xff"])
def test_bytes_that_are_cut_short_are_a_decode_error(signal: str, body: bytes) -> None:
    with pytest.raises(DecodeError, match=signal):
        decode(signal, body)


def test_unknown_signal_is_a_decode_error_that_lists_the_right_ones() -> None:
    with pytest.raises(DecodeError, match="metrics, logs, traces"):
        decode("profiles", b"")


def test_values_nested_deeper_than_protobuf_allows_are_a_decode_error() -> None:
    body = b"\x18\x07"  # AnyValue.int_value
    for tag in [b"\x0a", b"\x2a"] * 52 + [
        b"\x2a",
        b"\x12",
        b"\x12",
        b"\x0a",
    ]:  # array and values; up to the request
        size = len(body)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        body = tag + length + body
    with pytest.raises(DecodeError, match="not an OTLP request of logs"):
        decode("logs", body)


def test_invalid_utf8_is_a_decode_error() -> None:
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(event_name="abc")
    with pytest.raises(DecodeError):
        decode("logs", request.SerializeToString().replace(b"abc", b"a\xffc"))
