"""What the master's receiver says of itself, in a few lines of `arobust status`."""

from __future__ import annotations

from collections import Counter
from typing import Any

MEBIBYTE = 1024 * 1024


def received_lines(status: dict[str, Any]) -> list[str]:
    """Lines about requests, repeats and refusals; what is wrong with disk and ports comes first."""
    receiver = status.get("receiver") or {}
    rows = receiver.get("requests")
    if rows is None:
        return []
    lines = _troubles(receiver)
    for protocol in sorted({row["protocol"] for row in rows}):
        results: Counter[str] = Counter()
        for row in rows:
            results[row["result"]] += row["count"] if row["protocol"] == protocol else 0
        parts = [f"{results[name]} {name}" for name in ("accepted", "repeated", "refused") if results[name]]
        lines.append(f"Receiver, {protocol}: {', '.join(parts)}")
    lines += [f"  refused: {count} {what}" for what, count in sorted(_refusals(rows).items())]
    return lines + _sums(receiver)


def _troubles(receiver: dict[str, Any]) -> list[str]:
    lines = [] if receiver.get("connected") else ["Receiver: it is started again; its last figures were:"]
    if receiver.get("journal") not in (None, "ok"):
        lines.append(f"Receiver takes nothing: {receiver['journal']}; senders keep what they have")
    if receiver.get("otlp_grpc") not in (None, "ok"):
        lines.append(f"Receiver, grpc: {receiver['otlp_grpc']}")
    return lines


def _refusals(rows: list[dict[str, Any]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in rows:
        if row["result"] == "refused":
            found[f"{row['signal']} over {row['protocol']}, {row['status']}"] += row["count"]
    return found


def _sums(receiver: dict[str, Any]) -> list[str]:
    parts = [f"{receiver.get('received_bytes', 0) / MEBIBYTE:.1f} MiB taken"]
    if receiver.get("rejected_items"):
        parts.append(f"{receiver['rejected_items']} items cut out as bad for ever")
    if receiver.get("invalid_batch_ids"):
        parts.append(f"{receiver['invalid_batch_ids']} with a batch id that was none")
    return [f"  {', '.join(parts)}"]
