"""What became of requests, by protocol and signal: counted once, shown by status and by every export."""

from __future__ import annotations

from collections import Counter
from typing import Any

from arobust_otel.model import signals
from arobust_otel.selfmetrics import SelfMetrics

HTTP, GRPC = "http", "grpc"
ACCEPTED, REPEATED, REFUSED = "accepted", "repeated", "refused"
HEARTBEAT, OTHER = "heartbeat", "other"  # beside the three signals of OTLP
MAX_PEERS = 1000  # peers counted by address; the rest is counted together


class ReceiverCounts:
    """Counters of one receiver over both protocols; `metrics` holds them under the dictionary's names."""

    def __init__(self, start_ns: int) -> None:
        """`start_ns`: since when they count, nanoseconds since the epoch."""
        self.metrics = SelfMetrics(start_ns)
        self.peers: Counter[str] = Counter()
        self._rows: Counter[tuple[str, str, str, str]] = Counter()

    def accepted(self, protocol: str, signal: str, *, repeated: bool = False) -> None:
        """A request was answered with success; `repeated` where it is in the journal already."""
        self._request(protocol, signal, REPEATED if repeated else ACCEPTED, "")

    def refused(self, protocol: str, signal: str, status: str) -> None:
        """A request was refused; `status` is the HTTP status or the name of the gRPC code."""
        self._request(protocol, signal, REFUSED, status)

    def taken(self, protocol: str, signal: str, size_bytes: int, rejected_items: int) -> None:
        """Bytes that entered the journal, and items that were cut out before."""
        labels = {"arobust__protocol": protocol, "arobust__signal": signal}
        self.metrics.add(signals.RECEIVER_BYTES, size_bytes, **labels)
        if rejected_items:
            self.metrics.add(signals.RECEIVER_REJECTED, rejected_items, **labels)

    def invalid_batch_id(self, protocol: str) -> None:
        """A batch id was none and is ignored."""
        self.metrics.add(signals.RECEIVER_INVALID_IDS, 1, arobust__protocol=protocol)

    def peer(self, address: str) -> str:
        """Count a sender; the name under which it is counted."""
        known = address in self.peers or len(self.peers) < MAX_PEERS
        self.peers[address if known else OTHER] += 1
        return address

    def status(self) -> dict[str, Any]:
        """For the status page: one row for each protocol, signal, result and status, and the sums."""
        names = ("protocol", "signal", "result", "status")
        rows = [dict(zip(names, row, strict=True)) | {"count": n} for row, n in sorted(self._rows.items())]
        return {
            "requests": rows,
            "peers": dict(self.peers),
            "received_bytes": int(self.metrics.sum(signals.RECEIVER_BYTES)),
            "rejected_items": int(self.metrics.sum(signals.RECEIVER_REJECTED)),
            "repeats": sum(n for row, n in self._rows.items() if row[2] == REPEATED),
            "invalid_batch_ids": int(self.metrics.sum(signals.RECEIVER_INVALID_IDS)),
        }

    def journal(self, *, writable: bool) -> None:
        """Whether the journal takes records now."""
        self.metrics.put(signals.JOURNAL_WRITABLE, int(writable))

    def _request(self, protocol: str, signal: str, result: str, status: str) -> None:
        self._rows[protocol, signal, result, status] += 1
        labels = {"arobust__protocol": protocol, "arobust__signal": signal, "arobust__result": result}
        if status:
            labels["arobust__status"] = status
        self.metrics.add(signals.RECEIVER_REQUESTS, 1, **labels)
