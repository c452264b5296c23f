"""What a way to the master looks like, and which one an address means.

OTLP/HTTP is here; OTLP/gRPC comes as a second module beside `http_transport`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from arobust_otel.errors import ConfigurationError, PermanentDelivery


class PoisonedBatch(PermanentDelivery):
    """Refused for its content or size: smaller parts of it may be accepted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A success; `rejected` items were refused for good (partial success), `message` says why."""

    rejected: int = 0
    message: str = ""


class Transport(Protocol):
    """Sends one batch once. Not safe for several threads."""

    def send(self, signal: str, payload: Any, deadline_seconds: float) -> Answer:
        """Deliver export values of ``metrics``, ``logs`` or ``traces``.

        Raises:
            RetryableDelivery: the same batch may succeed later.
            PoisonedBatch: parts of the batch may be accepted.
            PermanentDelivery: none of it ever will.
        """
        ...

    def close(self) -> None:
        """Give back sockets."""
        ...


def base_url(master: str) -> str:
    """The master's base URL without a trailing slash.

    Raises:
        ConfigurationError: no URL of HTTP, for example a bare ``host:port``.
    """
    if "://" not in master:
        expected = (
            f"a URL; a bare host:port means OTLP/gRPC, which comes later: give http://{master or 'host:4318'}"
        )
        raise ConfigurationError("master", master, expected)
    parts = urlsplit(master)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("master", master, "a URL such as http://host:4318 or https://host:4318")
    return master.rstrip("/")
