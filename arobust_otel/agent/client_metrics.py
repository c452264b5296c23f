"""What a MasterClient counts about itself, under the names of the dictionary."""

from __future__ import annotations

from arobust_otel.model import signals
from arobust_otel.model.samples import Point
from arobust_otel.selfmetrics import SelfMetrics


class ClientMetrics(SelfMetrics):
    """Accepted = delivered + dropped + waiting, in items; a capture of stacks counts twice."""

    def accepted(self, count: int) -> None:
        """Items were handed over."""
        self.add(signals.CLIENT_REPORTS, count, arobust__result="accepted")

    def delivered(self, count: int) -> None:
        """Items were taken by the master."""
        self.add(signals.CLIENT_REPORTS, count, arobust__result="delivered")

    def dropped(self, reason: str, count: int) -> None:
        """Items were given up: queue_full, closed, invalid, refused (a request) or rejected (a part)."""
        if count:
            self.add(signals.CLIENT_DROPPED, count, arobust__reason=reason)
            self.add(signals.CLIENT_REPORTS, count, arobust__result="dropped")

    def latency(self, seconds: float) -> None:
        """Duration of a delivery."""
        self.put(signals.CLIENT_LATENCY, round(seconds, 6))

    def totals(self) -> dict[str, float]:
        """Counts since the start, by result and by reason of a drop."""
        results = self.sums_by(signals.CLIENT_REPORTS, signals.RESULT)
        reasons = self.sums_by(signals.CLIENT_DROPPED, signals.REASON)
        found = {name: results.get(name, 0) for name in ("accepted", "delivered", "dropped")}
        return found | {f"dropped.{reason}": count for reason, count in sorted(reasons.items())}

    def points_with(self, stats: dict[str, float], now_ns: int) -> list[Point]:
        """All of it as points, with what waits now."""
        self.put(signals.CLIENT_QUEUE_ITEMS, int(stats["queue_items"]))
        self.put(signals.CLIENT_QUEUE_BYTES, int(stats["queue_bytes"]))
        self.put(signals.CLIENT_OLDEST_AGE, stats["oldest_age_seconds"])
        return self.points(now_ns)
