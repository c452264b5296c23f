"""Points, events, log lines and stacks as the export values of the OpenTelemetry SDK.

Encoding, compression and transport stay the exporters'. Each item is converted by itself, so that a bad one
is counted and its batch goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from arobust_otel import __version__, guard
from arobust_otel.agent.client import sanitise
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point, StackCapture, ThreadStack, format_frames

T = TypeVar("T")
SCOPE = InstrumentationScope("arobust_otel", __version__)
_SEVERITIES = {number.value: number for number in SeverityNumber}
_GAUGE = signals.Signal("", signals.GAUGE, "", "")


class Part(NamedTuple):
    """One item on its way, with the attempt of the job that it belongs to."""

    item: Any
    identity: JobIdentity
    observed_ns: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an exporter takes, how many items are in it, and why others could not be converted."""

    payload: Any
    count: int
    refused: tuple[str, ...] = ()


class JobResource(Resource):
    """A resource whose hash is computed once: the SDK's own dumps JSON for every log record of a batch."""

    def __init__(self, identity: JobIdentity) -> None:
        super().__init__(sanitise.attributes(identity.resource()))
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)


@lru_cache(maxsize=64)
def resource_of(identity: JobIdentity) -> Resource:
    """The resource of one attempt; the same object for the same attempt."""
    return JobResource(identity)


def encode(signal: str, parts: Sequence[Part]) -> Encoded:
    """Convert a batch for the exporter of ``metrics``, ``logs`` or ``traces``."""
    return _ENCODERS[signal](parts)


def metrics(parts: Iterable[Part]) -> Encoded:
    """One ResourceMetrics per attempt, one Metric per name; points of a series stay in their order."""
    jobs: dict[JobIdentity, dict[str, list[NumberDataPoint]]] = {}
    refused, count = [], 0
    for part in parts:
        point, error = guard.attempt("encoding of a point", lambda item=part.item: data_point(item))  # type: ignore[misc]
        if point is None:
            refused.append(str(error))
            continue
        jobs.setdefault(part.identity, {}).setdefault(part.item.name, []).append(point)
        count += 1
    data = MetricsData([_resource_metrics(identity, names) for identity, names in jobs.items()])
    return Encoded(data, count, tuple(refused))


def data_point(point: Point) -> NumberDataPoint:
    """One value with its own time.

    Raises:
        ValueError: the value is not a finite number.
    """
    return NumberDataPoint(
        attributes=sanitise.attributes(point.attributes),
        start_time_unix_nano=sanitise.time_ns(point.start_time_ns or 0),
        time_unix_nano=sanitise.time_ns(point.time_ns),
        value=sanitise.number(point.value),
    )


def _resource_metrics(identity: JobIdentity, names: dict[str, list[NumberDataPoint]]) -> ResourceMetrics:
    found = [_metric(name, points) for name, points in names.items()]
    return ResourceMetrics(resource_of(identity), [ScopeMetrics(SCOPE, found, "")], "")


def _metric(name: str, points: list[NumberDataPoint]) -> Metric:
    """A metric of the kind that the dictionary says; a name that it does not know is a gauge."""
    signal = signals.DICTIONARY.get(name, _GAUGE)
    data: Sum | Gauge = Gauge(points)
    if signal.kind in (signals.COUNTER, signals.UPDOWN):
        data = Sum(points, AggregationTemporality.CUMULATIVE, signal.kind == signals.COUNTER)
    return Metric(sanitise.text(name), signal.meaning, signal.unit, data)


def logs(parts: Iterable[Part]) -> Encoded:
    """Log records of events, log lines and stacks."""
    return _each(parts, log_record, "encoding of a log record")


def log_record(part: Part) -> ReadableLogRecord:
    """One log record.

    Raises:
        TypeError: the item is none of those that become one.
    """
    item = part.item
    if isinstance(item, Event):
        record = _event_record(item, part.observed_ns)
    elif isinstance(item, LogLine):
        record = _line_record(item, part.observed_ns)
    elif isinstance(item, StackCapture):
        record = _stack_record(item, part)
    else:
        raise TypeError(f"{type(item).__name__} is no log record")
    return ReadableLogRecord(record, resource_of(part.identity), SCOPE)


def _event_record(event: Event, observed_ns: int) -> LogRecord:
    return LogRecord(
        timestamp=sanitise.time_ns(event.time_ns),
        observed_timestamp=sanitise.time_ns(observed_ns),
        severity_number=_SEVERITIES.get(event.severity),
        body=sanitise.text(event.body, sanitise.MAX_BODY_CHARS),
        attributes=sanitise.attributes({signals.EVENT_NAME: event.name, **event.attributes}),
        event_name=sanitise.text(event.name),
    )


def _line_record(line: LogLine, observed_ns: int) -> LogRecord:
    place = {signals.LOG_PATH: line.path, signals.LOG_OFFSET: line.end_offset} if line.path else {}
    attributes = {**place, **line.attributes}
    seen_ns = line.time_ns if line.time_is_observed else observed_ns
    return LogRecord(
        timestamp=None if line.time_is_observed else sanitise.time_ns(line.time_ns),
        observed_timestamp=sanitise.time_ns(seen_ns),
        severity_number=_SEVERITIES.get(line.severity),
        body=sanitise.text(line.body, sanitise.MAX_BODY_CHARS),
        attributes=sanitise.attributes(attributes),
    )


def _stack_record(capture: StackCapture, part: Part) -> LogRecord:
    """The primary copy of the stacks: trace stores cut long attributes."""
    return LogRecord(
        timestamp=sanitise.time_ns(capture.time_ns),
        observed_timestamp=sanitise.time_ns(part.observed_ns),
        context=_context(span_context(capture, part.identity)),
        severity_number=SeverityNumber.INFO,
        body=sanitise.text(capture.text, sanitise.MAX_BODY_CHARS),
        attributes={signals.EVENT_NAME: signals.STACK_DUMP, **_capture_attributes(capture)},
        event_name=signals.STACK_DUMP,
    )


def _context(span: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(span), Context())


def spans(parts: Iterable[Part]) -> Encoded:
    """One span per capture of stacks."""
    return _each(parts, span, "encoding of a span")


def span(part: Part) -> ReadableSpan:
    """The span of a capture, with one event per thread."""
    capture: StackCapture = part.item
    at = sanitise.time_ns(capture.time_ns)
    return ReadableSpan(
        name=signals.STACK_CAPTURE,
        context=span_context(capture, part.identity),
        resource=resource_of(part.identity),
        attributes=_capture_attributes(capture),
        events=[
            SpanEvent(signals.STACK_DUMP, _thread_attributes(thread), timestamp=at)
            for thread in capture.threads
        ],
        start_time=at,
        end_time=sanitise.time_ns(capture.time_ns + max(0, capture.duration_ns)),
        instrumentation_scope=SCOPE,
    )


def span_context(capture: StackCapture, identity: JobIdentity) -> SpanContext:
    """Ids made from what identifies the capture: span and log record agree, and so does a repeated send."""
    key = (identity.instance_id, identity.incarnation, capture.pid, capture.time_ns, capture.command_id)
    digest = hashlib.blake2b(repr(key).encode("utf-8", "backslashreplace"), digest_size=24).digest()
    trace_id, span_id = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:], "big")
    return SpanContext(
        trace_id or 1, span_id or 1, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def _capture_attributes(capture: StackCapture) -> dict[str, Any]:
    own: dict[str, Any] = {
        signals.RANK: capture.rank,
        signals.PID: capture.pid,
        signals.STACK_METHOD: capture.method,
        signals.COMMAND_ID: capture.command_id or None,
    }
    return sanitise.attributes({**capture.attributes, **own})


def _thread_attributes(thread: ThreadStack) -> dict[str, Any]:
    """What is known of a thread; unknown is left out."""
    return sanitise.attributes(
        {
            signals.THREAD_NAME: thread.name,
            signals.THREAD_ID: thread.thread_id,
            signals.STACK_MAIN: thread.is_main,
            signals.STACK_ACTIVE: thread.is_active,
            signals.STACK_LOCK: thread.holds_interpreter_lock,
            signals.STACK_TEXT: format_frames(thread.frames),
        }
    )


def _each(parts: Iterable[Part], convert: Callable[[Part], T], where: str) -> Encoded:
    payload, refused = [], []
    for part in parts:
        value, error = guard.attempt(where, lambda part=part: convert(part))  # type: ignore[misc]
        if value is None:
            refused.append(str(error))
        else:
            payload.append(value)
    return Encoded(payload, len(payload), tuple(refused))


_ENCODERS: dict[str, Callable[[Iterable[Part]], Encoded]] = {
    "metrics": metrics,
    "logs": logs,
    "traces": spans,
}
