"""What a way to the master looks like.

OTLP/HTTP is `http_transport`, OTLP/gRPC is `grpc_transport`; which one an address means, and how several of
them are one way, stands in `addresses`.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from arobust_otel.errors import ConfigurationError, PermanentDelivery

# A server's hint is followed at most so long: the queue must not stand still for an hour.
MAX_HINT_SECONDS = 60.0
# response message, its field of rejected items, and the same field in JSON
_RESPONSES: dict[str, tuple[Any, str, str]] = {
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
    "traces": (ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
}


class PoisonedBatch(PermanentDelivery):
    """Refused for its content or size: smaller parts of it may be accepted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success; `rejected` items were refused for good (partial success), `message` says why."""

    rejected: int = 0
    message: str = ""


class Transport(Protocol):
    """Sends one batch once. Not safe for several threads."""

    @property
    def bytes_raw(self) -> int:
        """Bytes of all requests so far, before compression; tries count each."""
        ...

    @property
    def bytes_sent(self) -> int | None:
        """Bytes of all requests so far as they went out, without headers; None where that is not seen."""
        ...

    def send(self, signal: str, payload: Any, deadline_seconds: float, batch_id: str = "") -> Answer:
        """Deliver export values of ``metrics``, ``logs`` or ``traces``: one try.

        Args:
            signal: which of the three.
            payload: what the SDK's exporter of that signal takes.
            deadline_seconds: longest time of the whole call.
            batch_id: travels beside the request, so that a receiver knows a repeat; "" for none.

        Raises:
            RetryableDelivery: the same batch may succeed later.
            PoisonedBatch: parts of the batch may be accepted.
            PermanentDelivery: none of it ever will.
        """
        ...

    def reset(self) -> None:
        """In a forked child: leave the parent's connections alone; the next call opens its own.

        Bytes are counted from 0 again.
        """
        ...

    def close(self) -> None:
        """Give back sockets."""
        ...


def base_url(master: str) -> str:
    """The base URL of an HTTP server without a trailing slash.

    Raises:
        ConfigurationError: no URL of HTTP, for example a bare ``host:port``, which means OTLP/gRPC.
    """
    parts = urlsplit(master)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        expected = "a URL of HTTP (a bare host:port means OTLP/gRPC), such as http://host:4318"
        raise ConfigurationError("master", master, expected)
    return master.rstrip("/")


def partial_success(signal: str, body: bytes, is_json: bool = False) -> Answer:
    """Rejected items and the reason in the answer to an export; an answer that is none says nothing."""
    message_type, field, json_field = _RESPONSES[signal]
    try:
        if is_json:
            partial = json.loads(body or b"{}").get("partialSuccess") or {}
            return Answer(int(partial.get(json_field, 0)), str(partial.get("errorMessage", "")))
        partial = message_type.FromString(body).partial_success
        return Answer(int(getattr(partial, field)), partial.error_message)
    except (ValueError, AttributeError, TypeError, DecodeError):
        return Answer()


def silence_exporter_loggers() -> None:
    """Keep the SDK's complaints out of user logs; exported again they would feed themselves for ever."""
    for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
