"""Where the master is: what an address means, and several of them as one way.

``http://`` and ``https://`` mean OTLP/HTTP; a bare ``host:port``, ``grpc://`` and, with TLS, ``grpcs://``
mean OTLP/gRPC. Which environment variable counts is decided by `resolve_master` alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from arobust_otel.agent.client.transport import Answer, Transport
from arobust_otel.errors import ConfigurationError, RetryableDelivery
from arobust_otel.model.heartbeat import PATH
from arobust_otel.model.identity import resolve_master

HEARTBEAT_URL = "AROBUST_HEARTBEAT_URL"
HTTP_PORT, GRPC_PORT = 4318, 4317
# How long another address serves before the first one is tried again, and how long that try may take.
RETURN_SECONDS = 60.0
PROBE_SECONDS = 1.0
_EXAMPLES = (
    "http://host:4318 or https://host:4318 for OTLP/HTTP, host:4317, grpc://host:4317 or grpcs://host:4317 "
    "(TLS) for OTLP/gRPC; an IPv6 address in brackets, several addresses with commas between them"
)
# scheme -> protocol, TLS
_SCHEMES: dict[str, tuple[Literal["http", "grpc"], bool]] = {
    "http": ("http", False),
    "https": ("http", True),
    "grpc": ("grpc", False),
    "grpcs": ("grpc", True),
}


@dataclass(frozen=True, slots=True)
class Address:
    """One way to a master. `url` is what HTTP requests start with; gRPC has `target`."""

    protocol: Literal["http", "grpc"]
    secure: bool
    host: str
    port: int
    url: str = ""

    @property
    def target(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """For people: without a password that the URL may hold."""
        scheme = f"{self.protocol}s" if self.secure else self.protocol
        return f"{scheme}://{self.target}"


def resolve_addresses(
    master_addr: str | Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[Address, ...]:
    """The master's addresses, the preferred one first; None means what the environment says.

    Raises:
        ConfigurationError: one of them is no address; the message lists the forms.
    """
    given = resolve_master(environ) if master_addr is None else master_addr
    texts = [given] if isinstance(given, str) else list(given)
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigurationError("master", given, _EXAMPLES)
    return tuple(dict.fromkeys(parse(part, environ) for part in parts))


def parse(text: str, environ: Mapping[str, str]) -> Address:
    """One address.

    Raises:
        ConfigurationError: it is none; the message lists the forms.
    """
    scheme = "" if "://" in text else _bare_scheme(environ)
    parts = urlsplit(f"{scheme}://{text}" if scheme else text)
    try:
        protocol, secure = _SCHEMES[parts.scheme]
        host, port = parts.hostname, parts.port
    except (KeyError, ValueError):
        raise ConfigurationError("master", text, _EXAMPLES) from None
    plain = protocol == "http" or not (parts.username or parts.path.rstrip("/"))
    complete = host and (port or not scheme) and not (parts.query or parts.fragment)
    if not (host and plain and complete) or any(character.isspace() for character in text):
        raise ConfigurationError("master", text, _EXAMPLES)
    if protocol == "grpc":
        return Address("grpc", secure, host, port or GRPC_PORT)
    return Address("http", secure, host, port or (443 if secure else 80), text.rstrip("/"))


def _bare_scheme(environ: Mapping[str, str]) -> str:
    """A bare ``host:port`` goes without TLS, unless the OTLP variables ask for it."""
    asked = environ.get("OTEL_EXPORTER_OTLP_INSECURE", "").lower() == "false"
    return "grpcs" if asked or environ.get("OTEL_EXPORTER_OTLP_CERTIFICATE") else "grpc"


def heartbeat_url(addresses: Sequence[Address], environ: Mapping[str, str]) -> str:
    """Base URL for heartbeats, which always go over HTTP.

    `AROBUST_HEARTBEAT_URL`, else the first HTTP address, else port 4318 of the first host.

    Raises:
        ConfigurationError: the variable holds no URL of HTTP.
    """
    named = environ.get(HEARTBEAT_URL)
    if named:
        address = parse(named, environ)
        if address.protocol != "http":
            raise ConfigurationError(HEARTBEAT_URL, named, "a URL such as http://host:4318")
        return address.url.removesuffix(PATH)
    for address in addresses:
        if address.protocol == "http":
            return address.url
    first = addresses[0]
    target = Address("http", first.secure, first.host, HTTP_PORT).target
    return f"{'https' if first.secure else 'http'}://{target}"


def make_transport(addresses: Sequence[Address], call_seconds: float) -> Transport:
    """The way to the master; over several addresses it fails over.

    Args:
        addresses: of `resolve_addresses`, the preferred one first.
        call_seconds: longest time of one request.
    """
    if len(addresses) == 1:
        return _open(addresses[0], call_seconds)
    return Failover([lambda it=address: _open(it, call_seconds) for address in addresses])  # type: ignore[misc]


def _open(address: Address, call_seconds: float) -> Transport:
    """Imports one exporter only: each takes a quarter of a second and some MiB."""
    if address.protocol == "grpc":
        from arobust_otel.agent.client.grpc_transport import GrpcTransport

        return GrpcTransport(address.target, address.secure, call_seconds)
    from arobust_otel.agent.client.http_transport import HttpTransport

    return HttpTransport(address.url, call_seconds)


class Failover:
    """Several ways as one: stays with the one that works, and goes back to the first after a while.

    Args:
        makers: make the ways, the preferred one first; each is made when it is first needed.
        return_seconds: how long another one serves before the first is tried again, spread by half of it.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        makers: Sequence[Callable[[], Transport]],
        return_seconds: float = RETURN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._makers = makers
        self._made: dict[int, Transport] = {}
        self._return_seconds = return_seconds
        self._clock = clock
        self.current = 0
        self._return_at = 0.0

    @property
    def bytes_raw(self) -> int:
        """See `Transport.bytes_raw`."""
        return sum(transport.bytes_raw for transport in self._made.values())

    @property
    def bytes_sent(self) -> int | None:
        """See `Transport.bytes_sent`."""
        sent = [transport.bytes_sent for transport in self._made.values()]
        known = [size for size in sent if size is not None]
        return sum(known) if len(known) == len(sent) else None

    def send(self, signal: str, payload: Any, deadline_seconds: float, batch_id: str = "") -> Answer:
        """See `Transport.send`; while time is left, a way that fails retryably is followed by the next."""
        end = self._clock() + deadline_seconds
        errors: list[RetryableDelivery] = []
        for index, probe in self._candidates():
            left = end - self._clock()
            if errors and left <= 0:
                break
            seconds = min(left, PROBE_SECONDS) if probe else left
            try:
                answer = self._way(index).send(signal, payload, seconds, batch_id)
            except (RetryableDelivery, OSError, ConfigurationError) as error:
                errors.append(
                    error if isinstance(error, RetryableDelivery) else RetryableDelivery(str(error))
                )
                if not probe:
                    self._move_to((index + 1) % len(self._makers))
                continue
            self._move_to(index)
            return answer
        raise _summary(errors)

    def _candidates(self) -> list[tuple[int, bool]]:
        """Indices in the order of trying, each with whether it only looks if the first is back."""
        count = len(self._makers)
        order = [((self.current + step) % count, False) for step in range(count)]
        if self.current != 0 and self._clock() >= self._return_at:
            self._plan_return()
            order = [(0, True), *(item for item in order if item[0] != 0)]
        return order

    def _move_to(self, index: int) -> None:
        if index != self.current:
            self.current = index
            self._plan_return()

    def _plan_return(self) -> None:
        """Spread, so that a thousand agents do not come back at once."""
        self._return_at = self._clock() + self._return_seconds * random.uniform(1.0, 1.5)  # noqa: S311

    def _way(self, index: int) -> Transport:
        if index not in self._made:
            self._made[index] = self._makers[index]()
        return self._made[index]

    def reset(self) -> None:
        """See `Transport.reset`."""
        for transport in self._made.values():
            transport.reset()

    def close(self) -> None:
        """See `Transport.close`."""
        for transport in self._made.values():
            transport.close()


def _summary(errors: Sequence[RetryableDelivery]) -> RetryableDelivery:
    """Why nobody took it; a hint counts only where every address gave one."""
    hints = [error.retry_after_seconds for error in errors]
    known = [hint for hint in hints if hint is not None]
    reasons = "; ".join(dict.fromkeys(str(error) for error in errors))
    return RetryableDelivery(reasons, min(known) if known and len(known) == len(hints) else None)
