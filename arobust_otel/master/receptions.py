"""What receiver and judge count, for other processes: a file now and then, of which others make points.

The file lives as long as the master runs, so it is replaced without `fsync`: the disk has better to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arobust_otel.master.layout import Layout, read_json
from arobust_otel.model.samples import Point

STALE_SECONDS = 10.0  # both files are written every second or two


def store_receptions(layout: Layout, points: Sequence[Point]) -> None:
    """Replace the receiver's file."""
    store_points(layout.receptions, points)


def receptions(layout: Layout, now_ns: int) -> list[Point]:
    """The receiver's points as of a moment ago; none where no receiver has run."""
    return stored_points(layout.receptions, now_ns)


def store_points(path: Path, points: Sequence[Point]) -> None:
    """Replace a file; a full disk is no reason to stop: there will be a next one."""
    rows = [[point.name, point.value, dict(point.attributes), point.start_time_ns] for point in points]
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps({"pid": os.getpid(), "points": rows}), encoding="utf-8")
        temporary.rename(path)
    except OSError:
        return


def stored_points(path: Path, now_ns: int) -> list[Point]:
    """The points of a file as of a moment ago; none where there is none, or its process stands still."""
    try:
        age_ns = now_ns - path.stat().st_mtime_ns
    except OSError:
        return []
    if age_ns > STALE_SECONDS * 1e9:
        return []
    rows: list[list[Any]] = read_json(path).get("points", [])
    return [Point(name, value, now_ns, attributes, start_ns) for name, value, attributes, start_ns in rows]
