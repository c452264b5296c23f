"""The master's own metrics: what another process of it counted is told while that process counts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from arobust_otel.master.layout import Layout
from arobust_otel.master.own_metrics import OwnMetrics
from arobust_otel.master.receptions import STALE_SECONDS, store_points
from arobust_otel.model import signals
from arobust_otel.model.samples import Point


@pytest.mark.parametrize("name", ["judging", "receptions"])
def test_a_process_that_stands_still_is_absent_and_not_healthy(tmp_path: Path, name: str) -> None:
    layout = Layout(tmp_path)
    layout.make()
    path = getattr(layout, name)
    store_points(path, [Point(signals.JUDGE_LAG, 0.0, 1)])
    metrics = OwnMetrics(layout)
    now_ns = time.time_ns()
    assert signals.JUDGE_LAG in {point.name for point in metrics.points(now_ns)}
    old = now_ns - int((STALE_SECONDS + 1) * 1e9)
    os.utime(path, ns=(old, old))
    assert signals.JUDGE_LAG not in {point.name for point in metrics.points(now_ns)}
