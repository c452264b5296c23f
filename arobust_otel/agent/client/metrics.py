"""What a MasterClient counts about itself, under the names of the dictionary."""

from __future__ import annotations

from arobust_otel.model import signals
from arobust_otel.model.samples import Point
from arobust_otel.selfmetrics import SelfMetrics

# Counters of the OTel conventions, by signal.
_EXPORTED = {
    "metrics": signals.SDK_EXPORTED_POINTS,
    "logs": signals.SDK_EXPORTED_LOGS,
    "traces": signals.SDK_EXPORTED_SPANS,
}


class ClientMetrics(SelfMetrics):
    """Accepted + recovered = delivered + dropped + waiting, in items; a capture of stacks counts twice."""

    def __init__(self, start_ns: int) -> None:
        super().__init__(start_ns)
        self.start_ns = start_ns

    def accepted(self, count: int) -> None:
        """Items were handed over."""
        self.add(signals.CLIENT_REPORTS, count, arobust__result="accepted")

    def recovered(self, count: int) -> None:
        """Items of earlier processes were found in the spool, or are known to be lost with them."""
        if count:
            self.add(signals.CLIENT_REPORTS, count, arobust__result="recovered")

    def delivered(self, count: int, signal: str) -> None:
        """Items were taken by the master."""
        if count:
            self.add(signals.CLIENT_REPORTS, count, arobust__result="delivered")
            self.add(_EXPORTED[signal], count)

    def dropped(self, reason: str, count: int) -> None:
        """Items were given up.

        Reasons: queue_full, closed, invalid, refused (a request), rejected (a part), killed (with an earlier
        process), spool_full, spool_expired, spool_damaged.
        """
        if count:
            self.add(signals.CLIENT_DROPPED, count, arobust__reason=reason)
            self.add(signals.CLIENT_REPORTS, count, arobust__result="dropped")

    def tried(self, seconds: float, is_repeat: bool) -> None:
        """A parcel was sent, with or without success."""
        self.put(signals.CLIENT_LATENCY, round(seconds, 6))
        self.add(signals.CLIENT_SENDS, 1)
        self.add(signals.CLIENT_RETRIES, int(is_repeat))

    def totals(self) -> dict[str, float]:
        """Counts since the start, by result and by reason of a drop, and how long the last try took."""
        results = self.sums_by(signals.CLIENT_REPORTS, signals.RESULT)
        reasons = self.sums_by(signals.CLIENT_DROPPED, signals.REASON)
        found = {name: results.get(name, 0) for name in ("accepted", "recovered", "delivered", "dropped")}
        found |= {"sends": self.sum(signals.CLIENT_SENDS), "retries": self.sum(signals.CLIENT_RETRIES)}
        if (latency := self.value(signals.CLIENT_LATENCY)) is not None:
            found["latency_seconds"] = latency
        return found | {f"dropped.{reason}": count for reason, count in sorted(reasons.items())}

    def points_with(self, stats: dict[str, float], now_ns: int) -> list[Point]:
        """All of it as points, with what waits now."""
        for name, key in _STATE.items():
            if key in stats:
                self.put(name, stats[key])
        counted = [
            Point(name, stats[key], now_ns, start_time_ns=self.start_ns)
            for name, key in _VOLUME.items()
            if stats.get(key)
        ]
        return [*self.points(now_ns), *counted]


_STATE = {
    signals.CLIENT_QUEUE_ITEMS: "queue_items",
    signals.CLIENT_QUEUE_BYTES: "queue_bytes",
    signals.CLIENT_OLDEST_AGE: "oldest_age_seconds",
    signals.CLIENT_CIRCUIT: "circuit_open",
    signals.CLIENT_SPOOL_UP: "spool_ok",  # absent where there is none
    signals.CLIENT_SPOOL_ITEMS: "spool_items",
    signals.CLIENT_SPOOL_BYTES: "spool_bytes",
}
_VOLUME = {signals.CLIENT_BYTES_RAW: "bytes_raw", signals.CLIENT_BYTES_SENT: "bytes_sent"}
