"""What the master checks before it acknowledges: is it this message, and which parts are bad for ever.

A body that is fine passes unchanged, byte for byte, unknown fields and all. Rejected for ever are: sums and
histograms without aggregation temporality, histogram points whose bucket counts do not fit their bounds,
metrics without a name, spans without valid ids. Everything odd but legal (unknown metric kinds, points
without value, log records with broken ids, NaN) passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from arobust_otel.errors import DecodeError
from arobust_otel.otlp.messages import LOGS, METRICS, TRACES, parse

MAX_MESSAGE_CHARACTERS = 1000
TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8

_ENVELOPES = {
    METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    LOGS: ("resource_logs", "scope_logs", "log_records"),
    TRACES: ("resource_spans", "scope_spans", "spans"),
}


@dataclass(frozen=True, slots=True)
class Validated:
    """What may be journaled: `items` are data points, log records or spans that are left in `body`.

    `body` is empty where nothing is left. `rejected` and `message` belong into partial_success.
    """

    body: bytes
    items: int
    rejected: int = 0
    message: str = ""


class _Reasons:
    """Counts rejected items by reason."""

    __slots__ = ("by_reason",)

    def __init__(self) -> None:
        self.by_reason: dict[str, int] = {}

    def add(self, reason: str, count: int) -> None:
        self.by_reason[reason] = self.by_reason.get(reason, 0) + count

    @property
    def total(self) -> int:
        return sum(self.by_reason.values())

    def message(self) -> str:
        text = "; ".join(f"{count} rejected: {reason}" for reason, count in self.by_reason.items())
        return text[:MAX_MESSAGE_CHARACTERS]


def validate(signal: str, body: bytes) -> Validated:
    """Parse the whole request, check its structure, cut out what is permanently bad.

    Raises:
        DecodeError: not this message, or bytes of another signal that happen to parse.
    """
    request = parse(signal, body)
    _check_fields(request, signal)
    resources, scopes, leaves = _ENVELOPES[signal]
    reasons, items, changed = _Reasons(), 0, False
    for resource in getattr(request, resources):
        for scope in getattr(resource, scopes):
            kept = getattr(scope, leaves)
            if kept:
                _check_fields(kept[0], signal)
                changed |= _CUTS[signal](kept, reasons)
            items += _count(signal, kept)
    if items == 0:
        return Validated(b"", 0, reasons.total, reasons.message())
    if changed:
        _drop_empty(request, _ENVELOPES[signal])
        body = request.SerializeToString()
    return Validated(body, items, reasons.total, reasons.message())


def _check_fields(message: Message, signal: str) -> None:
    """Refuse a message whose known field numbers came with another wire type: it is another message.

    Fields of a later version of OTLP have numbers that we do not know, and pass.
    """
    known = message.DESCRIPTOR.fields_by_number
    for field in cast("Iterable[Any]", UnknownFieldSet(message)):
        if field.field_number in known or not message.ListFields():
            name = message.DESCRIPTOR.name
            raise DecodeError(f"not an OTLP request of {signal}: field {field.field_number} of {name}")


def _count(signal: str, leaves: Any) -> int:
    if signal != METRICS:
        return len(leaves)
    return sum(len(getattr(metric, kind).data_points) if kind else 1 for metric, kind in _with_kind(leaves))


def _with_kind(metrics: Any) -> list[tuple[Any, str | None]]:
    return [(metric, metric.WhichOneof("data")) for metric in metrics]


def _keep(leaves: Any, good: list[bool]) -> bool:
    """Delete what is not good, order kept."""
    for index in range(len(good) - 1, -1, -1):
        if not good[index]:
            del leaves[index]
    return not all(good)


def _cut_metrics(metrics: Any, reasons: _Reasons) -> bool:
    changed = False
    good = []
    for metric, kind in _with_kind(metrics):
        data: Any = getattr(metric, kind) if kind else None
        reason = _metric_fault(metric, kind, data) if data is None or data.data_points else ""
        good.append(not reason)
        if reason:
            reasons.add(reason, len(data.data_points) if data is not None else 1)
        elif kind == "histogram":
            changed |= _cut_buckets(metric.name, data.data_points, reasons)
    return _keep(metrics, good) or changed


def _metric_fault(metric: Any, kind: str | None, data: Any) -> str:
    if not metric.name:
        return "a metric has no name"
    if kind in ("sum", "histogram", "exponential_histogram") and not data.aggregation_temporality:
        return f"{metric.name} has no aggregation temporality"
    return ""


def _cut_buckets(name: str, points: Any, reasons: _Reasons) -> bool:
    good = [
        len(point.bucket_counts) == (len(point.explicit_bounds) + 1 if point.bucket_counts else 0)
        and (bool(point.bucket_counts) or not point.explicit_bounds)
        for point in points
    ]
    if all(good):
        return False
    reasons.add(f"{name} has bucket counts that do not fit its bounds", good.count(False))
    return _keep(points, good)


def _cut_spans(spans: Any, reasons: _Reasons) -> bool:
    good = [_has_valid_ids(span) for span in spans]
    if all(good):
        return False
    reasons.add("a span has no valid trace id or span id", good.count(False))
    return _keep(spans, good)


def _has_valid_ids(span: Any) -> bool:
    return _valid_id(span.trace_id, TRACE_ID_BYTES) and _valid_id(span.span_id, SPAN_ID_BYTES)


def _valid_id(value: bytes, size_bytes: int) -> bool:
    return len(value) == size_bytes and any(value)


def _cut_nothing(_leaves: Any, _reasons: _Reasons) -> bool:
    """A log record with broken ids is a record without a link, and fine."""
    return False


_CUTS: dict[str, Callable[[Any, _Reasons], bool]] = {
    METRICS: _cut_metrics,
    LOGS: _cut_nothing,
    TRACES: _cut_spans,
}


def _drop_empty(message: Any, fields: tuple[str, ...]) -> None:
    """Delete envelopes that hold nothing (any more)."""
    entries = getattr(message, fields[0])
    if len(fields) > 1:
        for entry in entries:
            _drop_empty(entry, fields[1:])
        _keep(entries, [len(getattr(entry, fields[1])) > 0 for entry in entries])
