"""Counters about ourselves become points with start times."""

from __future__ import annotations

from arobust_otel.model import signals
from arobust_otel.model.samples import Point
from arobust_otel.selfmetrics import SelfMetrics


def test_sums_grow_and_values_are_the_last() -> None:
    metrics = SelfMetrics(start_ns=5)
    metrics.add(signals.CLIENT_DROPPED, 2, arobust__reason="closed")
    metrics.add(signals.CLIENT_DROPPED, 1, arobust__reason="closed")
    metrics.add(signals.CLIENT_DROPPED, 4, arobust__reason="queue_full")
    metrics.put(signals.CLIENT_LATENCY, 1.0)
    metrics.put(signals.CLIENT_LATENCY, 0.5)
    assert metrics.sum(signals.CLIENT_DROPPED) == 7
    assert metrics.sum(signals.CLIENT_DROPPED, arobust__reason="closed") == 3
    assert metrics.sums_by(signals.CLIENT_DROPPED, signals.REASON) == {"closed": 3, "queue_full": 4}
    assert metrics.points(9) == [
        Point(signals.CLIENT_DROPPED, 3, 9, {signals.REASON: "closed"}, 5),
        Point(signals.CLIENT_DROPPED, 4, 9, {signals.REASON: "queue_full"}, 5),
        Point(signals.CLIENT_LATENCY, 0.5, 9),
    ]
