"""What the receiver counts, for other processes: it writes a file now and then, they make points of it.

The file lives as long as the master runs, so it is replaced without `fsync`: the disk has better to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from arobust_otel.master.layout import Layout, read_json
from arobust_otel.model.samples import Point


def store_receptions(layout: Layout, points: Sequence[Point]) -> None:
    """Replace the file; a full disk is no reason to stop: there will be a next one."""
    rows = [[point.name, point.value, dict(point.attributes), point.start_time_ns] for point in points]
    temporary = layout.receptions.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps({"pid": os.getpid(), "points": rows}), encoding="utf-8")
        temporary.rename(layout.receptions)
    except OSError:
        return


def receptions(layout: Layout, now_ns: int) -> list[Point]:
    """The receiver's points as of a moment ago; none where no receiver has run."""
    rows: list[list[Any]] = read_json(layout.receptions).get("points", [])
    return [Point(name, value, now_ns, attributes, start_ns) for name, value, attributes, start_ns in rows]
