"""Items become export values with real types, and no item spoils its batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from arobust_otel.agent.client import sanitise
from arobust_otel.agent.client.encode import Part, logs, metrics, spans
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import ERROR, Event, Frame, LogLine, Point, StackCapture, ThreadStack

JOB = JobIdentity("job-1", 2, "host-a", node_rank=0)
CAPTURE = StackCapture(
    time_ns=1_000,
    duration_ns=50,
    rank=2,
    pid=4711,
    method="py-spy",
    command_id="c1",
    threads=(
        ThreadStack(
            "MainThread", 1, (Frame("read_shard", "/job/data.py", 88),), is_main=True, is_active=False
        ),
        ThreadStack("pin", None, (Frame("run", "/lib/threading.py", 1),)),
    ),
    text="Thread MainThread\nread_shard (/job/data.py:88)",
)


def parts(*items: object) -> list[Part]:
    return [Part(item, JOB, 5_000) for item in items]


def plain(attributes: object) -> dict[str, object]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in attributes}


def test_metrics_carry_kind_unit_and_their_own_times() -> None:
    encoded = metrics(
        parts(
            Point(signals.STEP, 4, 10, {signals.RANK: 1}),
            Point(signals.DISK_IO, 100, 11, {signals.DISK_DIRECTION: "read"}, start_time_ns=3),
            Point(signals.MEMORY_USAGE, 2**40, 12),
            Point(signals.STEP, 5, 20, {signals.RANK: 1}),
        )
    )
    (resource,) = encode_metrics(encoded.payload).resource_metrics
    step, disk, memory = resource.scope_metrics[0].metrics
    assert plain(resource.resource.attributes) == JOB.resource()
    assert [(point.as_int, point.time_unix_nano) for point in step.gauge.data_points] == [(4, 10), (5, 20)]
    assert (step.unit, step.gauge.data_points[0].attributes[0].value.int_value) == ("{step}", 1)
    assert disk.sum.is_monotonic
    assert disk.sum.data_points[0].start_time_unix_nano == 3
    assert not memory.sum.is_monotonic
    assert memory.sum.aggregation_temporality == 2


def test_an_event_is_a_log_record_with_a_name() -> None:
    event = Event(signals.RANK_EXITED, 7, "rank 1 ended", {signals.RANK: 1, signals.EXIT_SIGNAL: 9}, ERROR)
    (resource,) = encode_logs(logs(parts(event)).payload).resource_logs
    (record,) = resource.scope_logs[0].log_records
    assert record.event_name == signals.RANK_EXITED
    assert (record.time_unix_nano, record.observed_time_unix_nano, record.severity_number) == (
        7,
        5_000,
        ERROR,
    )
    assert plain(record.attributes) == {
        signals.EVENT_NAME: signals.RANK_EXITED,
        signals.RANK: 1,
        signals.EXIT_SIGNAL: 9,
    }


def test_a_log_line_has_no_event_name_and_says_where_it_stands() -> None:
    line = LogLine("step 3", 8, "/job/train.log", 120)
    (resource,) = encode_logs(logs(parts(line)).payload).resource_logs
    (record,) = resource.scope_logs[0].log_records
    assert (record.event_name, record.time_unix_nano, record.observed_time_unix_nano) == ("", 0, 8)
    assert plain(record.attributes) == {signals.LOG_PATH: "/job/train.log", signals.LOG_OFFSET: 120}


def test_a_capture_is_a_span_and_a_log_record_with_the_same_ids() -> None:
    span = encode_spans(spans(parts(CAPTURE)).payload).resource_spans[0].scope_spans[0].spans[0]
    record = encode_logs(logs(parts(CAPTURE)).payload).resource_logs[0].scope_logs[0].log_records[0]
    assert span.name == signals.STACK_CAPTURE
    assert (span.trace_id, span.span_id) == (record.trace_id, record.span_id)
    assert (record.event_name, record.body.string_value) == (signals.STACK_DUMP, CAPTURE.text)
    main, other = span.events
    assert plain(main.attributes)[signals.STACK_TEXT] == "read_shard (/job/data.py:88)"
    assert plain(main.attributes)[signals.STACK_MAIN] is True
    assert signals.STACK_ACTIVE not in plain(other.attributes), "unknown is absent, never false"
    assert plain(span.attributes)[signals.COMMAND_ID] == "c1"


def test_bad_items_are_refused_one_by_one() -> None:
    encoded = metrics(parts(Point("a", float("inf"), 1), Point("a", 1, 1), Point("a", "x", 1)))  # type: ignore[arg-type]
    assert encoded.count == 1
    assert len(encoded.refused) == 2


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(), max_size=8), values, max_size=5), st.text(st.characters()))
def test_whatever_a_collector_hands_over_arrives_as_a_valid_request(attributes: dict, body: str) -> None:
    encoded = logs(parts(Event("e", 1, body, attributes), Event("good", 1, "good")))
    assert encoded.count == 2
    request = ExportLogsServiceRequest.FromString(encode_logs(encoded.payload).SerializeToString())
    assert request.resource_logs[0].scope_logs[0].log_records[1].body.string_value == "good"


def test_deep_nesting_becomes_text() -> None:
    value: object = "x"
    for _ in range(100):
        value = [value]
    encoded = logs(parts(Event("e", 1, "", {"deep": value})))  # type: ignore[dict-item]
    assert ExportLogsServiceRequest.FromString(encode_logs(encoded.payload).SerializeToString())


def test_long_texts_are_cut_and_say_so() -> None:
    assert sanitise.text("x" * 100, 10) == "x" * 10 + "... (90 more characters cut)"
