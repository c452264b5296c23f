"""Export requests as columns, facts and stacks (model/columns.py).

Any sender is welcome: a data point is read by its metric's name and its rank attribute, a number or a
numeric text. What has no place in columns is counted, never guessed: histograms and summaries, delta sums
(a rule would take them for levels), points without a value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from arobust_otel.model import signals
from arobust_otel.model.columns import Array, Batch, Fact, MetricColumns, ResourceKey
from arobust_otel.model.samples import Attributes, StackCapture, ThreadStack, parse_frames
from arobust_otel.otlp.attributes import to_attributes, to_text, to_whole
from arobust_otel.otlp.messages import LOGS, METRICS, parse
from arobust_otel.otlp.points import Groups, Row, take_points

CUMULATIVE = 2
REMEMBERED_RESOURCES = 2**14
MAX_TIME_NS = 2**63 - 1
FUTURE_NS = 3600 * 10**9
PAST_NS = 30 * 86400 * 10**9

_EVENTS = frozenset(row.name for row in signals.DICTIONARY.values() if row.kind == signals.EVENT)
_TITLE = frozenset({signals.RANK, signals.PID, signals.STACK_METHOD, signals.COMMAND_ID})


def decode(signal: str, body: bytes, received_ns: int = 0) -> tuple[Batch, ...]:
    """One batch per resource entry of a protobuf request, in the order of the request.

    Args:
        signal: metrics, logs or traces.
        body: a serialized export request.
        received_ns: when it arrived, 0 for unknown. A time that is 0, more than an hour later or more than
            30 days earlier is replaced by it.

    Raises:
        DecodeError: the bytes are not that message.
    """
    request = parse(signal, body)
    if signal == METRICS:
        return tuple(_metrics(entry, received_ns) for entry in request.resource_metrics)
    if signal == LOGS:
        return tuple(_logs(entry, received_ns) for entry in request.resource_logs)
    return tuple(_traces(entry, received_ns) for entry in request.resource_spans)


def _resource(resource: Resource) -> ResourceKey:
    return _resource_key(resource.SerializeToString())


@lru_cache(maxsize=REMEMBERED_RESOURCES)
def _resource_key(serialized: bytes) -> ResourceKey:
    """Senders repeat their resource in every request."""
    found = to_attributes(Resource.FromString(serialized).attributes)
    return ResourceKey(
        job_id=str(found.get(signals.JOB_ID, "")),
        incarnation=to_whole(found.get(signals.INCARNATION)) or 0,
        host=str(found.get(signals.HOST_NAME, "")),
        agent=str(found.get(signals.SERVICE_INSTANCE, "")),
        node_rank=to_whole(found.get(signals.NODE_RANK)),
        service_name=str(found.get(signals.SERVICE_NAME, "")),
    )


def _plausible(time_ns: int, received_ns: int) -> int:
    if received_ns and (time_ns == 0 or not -PAST_NS <= time_ns - received_ns <= FUTURE_NS):
        return received_ns
    return min(time_ns, MAX_TIME_NS)


def _metrics(entry: Any, received_ns: int) -> Batch:
    names: dict[str, int] = {}
    groups: Groups = {}
    rows: list[Row] = []
    skipped = 0
    for scope in entry.scope_metrics:
        for metric in scope.metrics:
            known, before = names.get(metric.name, len(names)), len(rows)
            skipped += _take_metric(metric, known, rows, groups)
            if len(rows) > before:
                names[metric.name] = known
    signal, rank, times, value, group = zip(*rows, strict=True) if rows else ((),) * 5
    return Batch(
        _resource(entry.resource),
        MetricColumns(
            names=tuple(names),
            signal=np.array(signal, np.int32),
            rank=np.array(rank, np.int32),
            time_ns=_times(times, received_ns),
            value=np.array(value, np.float64),
            group=np.array(group, np.int32),
            groups=tuple(groups),
            skipped=skipped,
        ),
    )


def _take_metric(metric: Any, index: int, rows: list[Row], groups: Groups) -> int:
    """Rows for what columns can hold; returns how many points they cannot."""
    kind = metric.WhichOneof("data")
    if kind is None:
        return 1
    data = getattr(metric, kind)
    if kind == "gauge" or (kind == "sum" and data.aggregation_temporality == CUMULATIVE):
        return take_points(data.SerializeToString(), index, rows, groups)
    return len(data.data_points)


def _times(times: tuple[int, ...], received_ns: int) -> Array:
    """Times as int64: nanoseconds of OTLP are unsigned and may be anything."""
    array = np.minimum(np.array(times, np.uint64), np.uint64(MAX_TIME_NS)).astype(np.int64)
    if received_ns:
        wrong = (array == 0) | (array > received_ns + FUTURE_NS) | (array < received_ns - PAST_NS)
        array[wrong] = received_ns
    return array


def _logs(entry: Any, received_ns: int) -> Batch:
    facts: list[Fact] = []
    lines = 0
    for scope in entry.scope_logs:
        for record in scope.log_records:
            fact = _fact(record, received_ns)
            if fact is None:
                lines += 1
            else:
                facts.append(fact)
    return Batch(_resource(entry.resource), facts=tuple(facts), log_lines=lines)


def _fact(record: Any, received_ns: int) -> Fact | None:
    """A fact where the record is an event of ours, None for a log line."""
    name = record.event_name
    if name and name not in _EVENTS:
        return None
    attributes: Attributes = {}
    if not name:
        if not any(pair.key == signals.EVENT_NAME for pair in record.attributes):
            return None
        attributes = to_attributes(record.attributes)
        name = str(attributes.get(signals.EVENT_NAME, ""))
        if name not in _EVENTS:
            return None
    attributes = attributes or to_attributes(record.attributes)
    attributes.pop(signals.EVENT_NAME, None)
    time_ns = record.time_unix_nano or record.observed_time_unix_nano
    return Fact(
        name=name,
        time_ns=_plausible(time_ns, received_ns),
        rank=to_whole(attributes.get(signals.RANK)),
        body=to_text(record.body),
        attributes=attributes,
        severity=record.severity_number,
    )


def _traces(entry: Any, received_ns: int) -> Batch:
    stacks: list[StackCapture] = []
    other = 0
    for scope in entry.scope_spans:
        for span in scope.spans:
            if span.name == signals.STACK_CAPTURE:
                stacks.append(_capture(span, received_ns))
            else:
                other += 1
    return Batch(_resource(entry.resource), stacks=tuple(stacks), other=other)


def _capture(span: Any, received_ns: int) -> StackCapture:
    attributes = to_attributes(span.attributes)
    texts: list[str] = []
    threads: list[ThreadStack] = []
    for event in span.events:
        if event.name == signals.STACK_DUMP:
            found = to_attributes(event.attributes)
            threads.append(_thread(found))
            texts.append(f"{threads[-1].name}\n{found.get(signals.STACK_TEXT, '')}")
    return StackCapture(
        time_ns=_plausible(span.start_time_unix_nano, received_ns),
        duration_ns=min(max(span.end_time_unix_nano - span.start_time_unix_nano, 0), MAX_TIME_NS),
        rank=to_whole(attributes.get(signals.RANK)),
        pid=to_whole(attributes.get(signals.PID)) or 0,
        method=str(attributes.get(signals.STACK_METHOD, "")),
        command_id=str(attributes.get(signals.COMMAND_ID, "")),
        threads=tuple(threads),
        text="\n\n".join(texts),
        attributes={key: value for key, value in attributes.items() if key not in _TITLE},
    )


def _thread(found: Attributes) -> ThreadStack:
    return ThreadStack(
        name=str(found.get(signals.THREAD_NAME, "")),
        thread_id=to_whole(found.get(signals.THREAD_ID), highest=MAX_TIME_NS),
        frames=parse_frames(str(found.get(signals.STACK_TEXT, ""))),
        is_main=found.get(signals.STACK_MAIN) is True,
        is_active=_flag(found.get(signals.STACK_ACTIVE)),
        holds_interpreter_lock=_flag(found.get(signals.STACK_LOCK)),
    )


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
