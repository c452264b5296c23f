"""What a way to the master looks like.

OTLP/HTTP is `http_transport`, OTLP/gRPC is `grpc_transport`; which one an address means, and how several of
them are one way, stands in `addresses`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from arobust_otel.errors import ConfigurationError, PermanentDelivery

SIGNALS = ("metrics", "logs", "traces")
# A server's hint is followed at most so long: the queue must not stand still for an hour.
MAX_HINT_SECONDS = 60.0


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
    def bytes_sent(self) -> int:
        """Bytes of all requests so far as they went out, without headers; tries count each."""
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
        """In a forked child: leave the parent's connections alone; the next call opens its own."""
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


def silence_exporter_loggers() -> None:
    """Keep the SDK's complaints out of user logs; exported again they would feed themselves for ever."""
    for name in ("opentelemetry.exporter", "opentelemetry.sdk"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
