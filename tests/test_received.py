"""Lines of `arobust status` about the master's receiver."""

from __future__ import annotations

from typing import Any

from arobust_otel.commands.received import received_lines


def row(protocol: str, signal: str, result: str, status: str, count: int) -> dict[str, Any]:
    return {"protocol": protocol, "signal": signal, "result": result, "status": status, "count": count}


HEALTHY = {
    "connected": True,
    "journal": "ok",
    "otlp_grpc": "ok",
    "received_bytes": 3 * 1024 * 1024,
    "rejected_items": 0,
    "invalid_batch_ids": 0,
    "requests": [
        row("grpc", "logs", "accepted", "", 7),
        row("grpc", "metrics", "repeated", "", 2),
        row("http", "heartbeat", "accepted", "", 30),
        row("http", "metrics", "accepted", "", 12),
    ],
}


def test_a_healthy_receiver_takes_three_lines() -> None:
    assert received_lines({"receiver": HEALTHY}) == [
        "Receiver, grpc: 7 accepted, 2 repeated",
        "Receiver, http: 42 accepted",
        "  3.0 MiB taken",
    ]


def test_trouble_comes_first_and_refusals_are_told_apart() -> None:
    requests = [*HEALTHY["requests"], row("http", "traces", "refused", "503", 4)]  # type: ignore[misc]
    ill = {
        **HEALTHY,
        "connected": False,
        "journal": "[Errno 28] No space left on device",
        "otlp_grpc": "127.0.0.1:4317 cannot be bound: it is taken",
        "rejected_items": 5,
        "invalid_batch_ids": 1,
        "requests": [*requests, row("grpc", "logs", "refused", "INVALID_ARGUMENT", 1)],
    }
    assert received_lines({"receiver": ill}) == [
        "Receiver: it is started again; its last figures were:",
        "Receiver takes nothing: [Errno 28] No space left on device; senders keep what they have",
        "Receiver, grpc: 127.0.0.1:4317 cannot be bound: it is taken",
        "Receiver, grpc: 7 accepted, 2 repeated, 1 refused",
        "Receiver, http: 42 accepted, 4 refused",
        "  refused: 1 logs over grpc, INVALID_ARGUMENT",
        "  refused: 4 traces over http, 503",
        "  3.0 MiB taken, 5 items cut out as bad for ever, 1 with a batch id that was none",
    ]


def test_a_receiver_that_has_said_nothing_yet_takes_no_line() -> None:
    assert received_lines({}) == []
    assert received_lines({"receiver": {"connected": False}}) == []
