"""Taking out of a request what is too old, or too far ahead, for one destination.

A request of which nothing is taken keeps its bytes; what is left empty (metric, scope, resource) goes too,
since Prometheus refuses a whole request for a metric without points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from arobust_otel.otlp.messages import LOGS, METRICS, TRACES, parse

TOO_OLD = "too_old"
TOO_NEW = "too_new"


@dataclass(frozen=True, slots=True)
class Span:
    """Times that a destination takes, in nanoseconds since the epoch; None is without limit."""

    oldest_ns: int | None = None
    newest_ns: int | None = None

    def verdict(self, time_ns: int) -> str | None:
        """Why this time is outside; None where it is not, or where there is none (0)."""
        if not time_ns:
            return None
        if self.oldest_ns is not None and time_ns < self.oldest_ns:
            return TOO_OLD
        if self.newest_ns is not None and time_ns > self.newest_ns:
            return TOO_NEW
        return None


def within(signal: str, body: bytes, span: Span) -> tuple[bytes, dict[str, int]]:
    """The request without items outside of `span`, and how many were taken out by reason.

    The time of a log record without one is the time it was observed; that of a span is its end. An empty
    body where nothing is left.

    Raises:
        DecodeError: the bytes are not a request of this signal.
    """
    taken: dict[str, int] = {}
    request = parse(signal, body)

    def keep(time_ns: int) -> bool:
        reason = span.verdict(time_ns)
        if reason is not None:
            taken[reason] = taken.get(reason, 0) + 1
        return reason is None

    _LEVELS[signal](request, keep)
    return (request.SerializeToString(), taken) if taken else (body, taken)


def count_items(signal: str, body: bytes) -> int:
    """Points, log records or spans of a request."""
    seen = 0

    def keep(_time_ns: int) -> bool:
        nonlocal seen
        seen += 1
        return True

    _LEVELS[signal](parse(signal, body), keep)
    return seen


def newest_ns(signal: str, body: bytes) -> int:
    """Time of the newest item of a request, 0 where none has one."""
    newest = 0

    def keep(time_ns: int) -> bool:
        nonlocal newest
        newest = max(newest, time_ns)
        return True

    _LEVELS[signal](parse(signal, body), keep)
    return newest


Keep = Callable[[int], bool]


def _metrics(request: Any, keep: Keep) -> None:
    def points_of(metric: Any) -> bool:
        kind = metric.WhichOneof("data")
        return bool(kind) and _sift(getattr(metric, kind).data_points, lambda p: keep(p.time_unix_nano))

    def scope_of(scope: Any) -> bool:
        return _sift(scope.metrics, points_of)

    _sift(request.resource_metrics, lambda entry: _sift(entry.scope_metrics, scope_of))


def _logs(request: Any, keep: Keep) -> None:
    def record_of(record: Any) -> bool:
        return keep(record.time_unix_nano or record.observed_time_unix_nano)

    def scope_of(scope: Any) -> bool:
        return _sift(scope.log_records, record_of)

    _sift(request.resource_logs, lambda entry: _sift(entry.scope_logs, scope_of))


def _traces(request: Any, keep: Keep) -> None:
    def scope_of(scope: Any) -> bool:
        return _sift(scope.spans, lambda span: keep(span.end_time_unix_nano))

    _sift(request.resource_spans, lambda entry: _sift(entry.scope_spans, scope_of))


_LEVELS: dict[str, Callable[[Any, Keep], None]] = {METRICS: _metrics, LOGS: _logs, TRACES: _traces}


def _sift(items: Any, wanted: Callable[[Any], bool]) -> bool:
    """Keep what is wanted, in order; whether anything is left."""
    kept: Sequence[Any] = [item for item in items if wanted(item)]
    if len(kept) != len(items):
        del items[:]
        items.extend(kept)
    return bool(kept)
