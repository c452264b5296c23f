"""The master about itself, as points: for the destinations of metrics and for `/metrics`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from arobust_otel.master.journal_end import JournalEnd
from arobust_otel.master.layout import Layout, read_json
from arobust_otel.master.receptions import receptions, stored_points
from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, Point

Snapshots = Mapping[str, Mapping[str, Mapping[str, Any]]]  # forwarder: stream: counters


class OwnMetrics:
    """Gathers points when asked. `snapshots` is replaced as a whole by the role, once a second."""

    def __init__(self, layout: Layout) -> None:
        self.snapshots: Snapshots = {}
        self.end_offset = 0
        self._layout = layout
        self._start_ns = time.time_ns()

    def points(self, now_ns: int) -> list[Point]:
        """Everything that is known; what another role has not said is left out."""
        found = [*self._roles(now_ns), *self._journal(now_ns)]
        found += receptions(self._layout, now_ns) + stored_points(self._layout.judging, now_ns)
        for name, streams in self.snapshots.items():
            for stream, counters in streams.items():
                where: Attributes = {signals.FORWARDER: name, signals.STREAM: stream}
                found += self._forwarder(where, counters, now_ns)
        return found

    def _roles(self, now_ns: int) -> list[Point]:
        pids = read_json(self._layout.master).get("roles", {})
        return [
            Point(signals.MASTER_UP, int(_runs(pid)), now_ns, {signals.MASTER_ROLE: role})
            for role, pid in pids.items()
        ]

    def _journal(self, now_ns: int) -> list[Point]:
        end = JournalEnd(self._layout.journal)
        return [
            Point(signals.JOURNAL_SIZE, end.size_bytes(), now_ns),
            Point(signals.JOURNAL_RECORDS, self.end_offset, now_ns, start_time_ns=self._start_ns),
        ]

    def _forwarder(self, where: Attributes, counters: Mapping[str, Any], now_ns: int) -> list[Point]:
        gauges = {
            signals.FORWARDER_UP: int(counters["state"] == "ok"),
            signals.FORWARDER_LAG: counters["lag_seconds"],
            signals.FORWARDER_BEHIND: counters["lag_records"],
        }
        sums = {
            signals.FORWARDER_SENT: counters["sent_requests"],
            signals.FORWARDER_SENT_SIZE: counters["sent_bytes"],
            signals.FORWARDER_RETRIES: counters["retries"],
        }
        found = [Point(name, value, now_ns, where) for name, value in gauges.items()]
        found += [Point(name, value, now_ns, where, self._start_ns) for name, value in sums.items()]
        return found + [
            Point(signals.FORWARDER_DROPPED, items, now_ns, {**where, signals.REASON: reason}, self._start_ns)
            for reason, items in counters["dropped"].items()
        ]


def _runs(pid: int) -> bool:
    """Whether a process of ours is there; one that another user has is not ours."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
