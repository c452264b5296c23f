"""What `arobust status` says of the forwarders."""

from __future__ import annotations

from typing import Any

from arobust_otel.commands.delivered import delivered_lines

FINE: dict[str, Any] = {
    "state": "ok", "sent_requests": 3, "dropped": {}, "lag_records": 0, "lag_seconds": 0.0,
}  # fmt: skip


def test_a_forwarder_that_delivers_is_one_line() -> None:
    status = {"forwarders": {"loki": {"bulk": FINE, "incidents": {**FINE, "sent_requests": 1}}}}
    assert delivered_lines(status) == ["Forwarder loki: 4 requests delivered"]
    assert delivered_lines({}) == []


def test_trouble_is_told_with_its_reason() -> None:
    away = {**FINE, "state": "http://a cannot be reached", "lag_records": 7, "lag_seconds": 61.2}
    away["dropped"] = {"too_old": 2, "refused": 1}
    assert delivered_lines({"forwarders": {"a": {"bulk": away, "incidents": FINE}}}) == [
        "Forwarder a: 6 requests delivered, 61 s behind",
        "  bulk: tried again, 7 records wait: http://a cannot be reached",
        "  bulk: dropped 1 refused, 2 too_old",
    ]
