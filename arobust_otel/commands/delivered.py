"""What `arobust status` says of the forwarders."""

from __future__ import annotations

from typing import Any


def delivered_lines(status: dict[str, Any]) -> list[str]:
    """One line for each forwarder, and one for each stream that is in trouble or has dropped something."""
    found: list[str] = []
    for name, streams in sorted(status.get("forwarders", {}).items()):
        sent = sum(row["sent_requests"] for row in streams.values())
        lag = max((row["lag_seconds"] for row in streams.values()), default=0.0)
        behind = f", {lag:.0f} s behind" if lag >= 1 else ""
        found.append(f"Forwarder {name}: {sent} requests delivered{behind}")
        for stream, row in sorted(streams.items()):
            if row["state"] != "ok":
                found.append(f"  {stream}: tried again, {row['lag_records']} records wait: {row['state']}")
            if row["dropped"]:
                why = ", ".join(f"{count} {reason}" for reason, count in sorted(row["dropped"].items()))
                found.append(f"  {stream}: dropped {why}")
    return found
