"""Incidents as OTLP: a log record with the verdict, the gauge that alerts watch, a span with the stacks.

Ids are derived from the incident's id, so that the same output always gives the same bytes and a store that
gets it twice can tell. Stacks travel whole in log records of the same trace; a span event carries a digest of
the text, which finds the log record, and the first frames.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from arobust_otel.model import signals
from arobust_otel.model.incident import OPEN, PENDING
from arobust_otel.model.notice import labels_of
from arobust_otel.model.samples import ERROR, INFO
from arobust_otel.otlp.messages import LOGS, METRICS, TRACES

SCOPE = "arobust_otel.master"
SERVICE = "arobust-master"
EXCERPT_BYTES = 1500
EXCERPT_LINES = 20

Values = dict[str, "str | int | bool"]


def incident_requests(output_body: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Requests for one output of the engine: (signal, serialized request), the log record first.

    Args:
        output_body: ``incident`` (Incident.to_json()) and ``stacks`` (list of {rank, pid, at, method, text})

    A pending incident is a log record only: nobody is to be woken by it.
    """
    incident = output_body["incident"]
    stacks = output_body.get("stacks") or []
    requests = [(LOGS, _logs(incident, stacks))]
    if incident["status"] != PENDING:
        requests.append((METRICS, incident_gauge(incident, to_ns(incident["updated_at"]))))
        requests.append((TRACES, _trace(incident, stacks)))
    return requests


def incident_gauge(incident: dict[str, Any], time_ns: int) -> bytes:
    """The gauge of an incident at a time: 1 while it is open, else 0. Its own id is never a label."""
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    fill(entry.resource, _resource(incident))
    scope = entry.scope_metrics.add()
    scope.scope.name = SCOPE
    row = signals.DICTIONARY[signals.INCIDENT_OPEN]
    metric = scope.metrics.add(name=row.name, unit=row.unit, description=row.meaning)
    point = metric.gauge.data_points.add(time_unix_nano=time_ns, as_int=int(incident["status"] == OPEN))
    fill(point, labels_of(incident))
    return request.SerializeToString()


def trace_id(incident_id: str) -> bytes:
    """Sixteen bytes that the same incident always gets."""
    return hashlib.sha256(f"trace {incident_id}".encode()).digest()[:16]


def span_id(incident_id: str) -> bytes:
    """Eight bytes that the same incident always gets."""
    return hashlib.sha256(f"span {incident_id}".encode()).digest()[:8]


def digest(text: str) -> str:
    """Sixteen hex digits of a stack's text."""
    return hashlib.sha256(_clean(text).encode()).hexdigest()[:16]


def to_ns(text: str | None) -> int:
    """Nanoseconds of an RFC 3339 time as incidents carry it, 0 where there is none."""
    if not text:
        return 0
    stamp, _, fraction = text.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{stamp}+00:00").timestamp())
    return seconds * 1_000_000_000 + int(f"{fraction:0<9}"[:9])


def _logs(incident: dict[str, Any], stacks: list[dict[str, Any]]) -> bytes:
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    fill(entry.resource, _resource(incident))
    scope = entry.scope_logs.add()
    scope.scope.name = SCOPE
    record = _record(scope.log_records.add(), incident, incident["updated_at"])
    record.event_name = signals.INCIDENT_EVENT
    _severity(record, ERROR if incident["status"] == OPEN else INFO)
    record.body.string_value = _clean(json.dumps(incident, separators=(",", ":")))
    fill(record, {signals.EVENT_NAME: record.event_name, **_verdict(incident)})
    for stack in stacks:
        record = _record(scope.log_records.add(), incident, stack.get("at") or incident["updated_at"])
        record.event_name = signals.STACK_DUMP
        _severity(record, INFO)
        record.body.string_value = _clean(str(stack.get("text", "")))
        names = {signals.EVENT_NAME: record.event_name, signals.INCIDENT_ID: incident["id"]}
        fill(record, {**names, **_stack(stack)})
    return request.SerializeToString()


def _record(record: LogRecord, incident: dict[str, Any], at: str) -> LogRecord:
    record.time_unix_nano = to_ns(at)
    record.observed_time_unix_nano = to_ns(incident["updated_at"])
    record.trace_id, record.span_id = trace_id(incident["id"]), span_id(incident["id"])
    return record


def _severity(record: LogRecord, number: int) -> None:
    record.severity_number = number  # type: ignore[assignment]
    record.severity_text = "ERROR" if number == ERROR else "INFO"


def _trace(incident: dict[str, Any], stacks: list[dict[str, Any]]) -> bytes:
    request = ExportTraceServiceRequest()
    entry = request.resource_spans.add()
    fill(entry.resource, _resource(incident))
    scope = entry.scope_spans.add()
    scope.scope.name = SCOPE
    start_ns = to_ns(incident["first_evidence_at"])
    end_ns = to_ns(incident["resolved_at"] or incident["updated_at"])
    span = scope.spans.add(
        trace_id=trace_id(incident["id"]),
        span_id=span_id(incident["id"]),
        name=f"{signals.INCIDENT_EVENT} {incident['cause']}",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=max(end_ns, start_ns),
    )
    fill(span, _verdict(incident))
    if incident["status"] == OPEN:
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = _clean(incident["summary"])
    for stack in stacks:
        at = to_ns(stack.get("at") or incident["updated_at"])
        event = span.events.add(name=signals.STACK_DUMP, time_unix_nano=at)
        excerpt = _excerpt(str(stack.get("text", "")))
        fill(event, {**_stack(stack), signals.STACK_TEXT: excerpt})
    return request.SerializeToString()


def _excerpt(text: str) -> str:
    """First frames: trace stores cut long attributes, the whole text is in the log record."""
    lines = text.splitlines()[:EXCERPT_LINES]
    return _clean("\n".join(lines)).encode()[:EXCERPT_BYTES].decode("utf-8", "ignore")


def _resource(incident: dict[str, Any]) -> Values:
    return {
        signals.SERVICE_NAME: SERVICE,
        signals.SERVICE_INSTANCE: f"{SERVICE}/{incident['job_id']}",
        signals.JOB_ID: incident["job_id"],
        signals.INCARNATION: incident["incarnation"],
        signals.FORWARDED: True,
    }


def _verdict(incident: dict[str, Any]) -> Values:
    return {
        signals.INCIDENT_ID: incident["id"],
        signals.INCIDENT_STATUS: incident["status"],
        signals.INCIDENT_GRADE: incident["grade"],
        **labels_of(incident),
    }


def _stack(stack: dict[str, Any]) -> Values:
    values: Values = {signals.STACK_DIGEST: digest(str(stack.get("text", "")))}
    for key, name in (("rank", signals.RANK), ("pid", signals.PID), ("method", signals.STACK_METHOD)):
        if stack.get(key) is not None:
            values[name] = stack[key]
    return values


def _clean(text: str) -> str:
    """Text that UTF-8 can carry: a lone surrogate would spoil the whole request."""
    return text.encode("utf-8", "replace").decode()


def fill(owner: Any, values: Mapping[str, str | int | float | bool]) -> None:
    """Add attributes to a resource, point, record, span or event."""
    for key, value in values.items():
        held = owner.attributes.add(key=key).value
        if isinstance(value, bool):
            held.bool_value = value
        elif isinstance(value, int):
            held.int_value = value
        elif isinstance(value, float):
            held.double_value = value
        else:
            held.string_value = _clean(value)
