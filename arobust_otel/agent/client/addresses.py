"""Where the master is: what an address means, and the way to it.

``http://`` and ``https://`` mean OTLP/HTTP; a bare ``host:port``, ``grpc://`` and, with TLS, ``grpcs://``
mean OTLP/gRPC. ``metrics=``, ``logs=`` or ``traces=`` before one means that signal alone: a URL is then used
as it is, without ``/v1/...`` behind it. Which variable counts is decided by `resolve_master` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from arobust_otel.agent.client.transport import Transport
from arobust_otel.agent.client.ways import Failover, PerSignal
from arobust_otel.errors import ConfigurationError
from arobust_otel.model.heartbeat import PATH
from arobust_otel.model.identity import OTLP_SIGNALS, master_variable, resolve_master

HEARTBEAT_URL = "AROBUST_HEARTBEAT_URL"
HTTP_PORT, GRPC_PORT = 4318, 4317
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
    """One way to a master. `url` is what HTTP requests start with; gRPC has `target`.

    With a `signal` it is the way of that one alone, and `url` is all of the URL.
    """

    protocol: Literal["http", "grpc"]
    secure: bool
    host: str
    port: int
    url: str = ""
    signal: str = ""

    @property
    def target(self) -> str:
        """``host:port``, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        """For people: without a password that the URL may hold."""
        scheme = f"{self.protocol}s" if self.secure else self.protocol
        shown = f"{scheme}://{self.target}"
        return f"{self.signal}={shown}" if self.signal else shown


def resolve_addresses(
    master_addr: str | Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[Address, ...]:
    """The master's addresses, the preferred one first; None means what the environment says.

    Raises:
        ConfigurationError: one of them is no address; the message lists the forms.
    """
    given = resolve_master(environ) if master_addr is None else master_addr
    key = master_variable(environ) if master_addr is None else "master"
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(key, given, _EXAMPLES)
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not parts:
        raise ConfigurationError(key, given, _EXAMPLES)
    return tuple(dict.fromkeys(parse(part, environ, key) for part in parts))


def parse(text: str, environ: Mapping[str, str], key: str = "master") -> Address:
    """One address; `key` is what a message calls the setting that it comes from.

    Raises:
        ConfigurationError: it is none; the message lists the forms.
    """
    before, mark, after = text.partition("=")
    signal, rest = (before, after) if mark and before in OTLP_SIGNALS else ("", text)
    scheme = "" if "://" in rest else _bare_scheme(environ, signal)
    try:
        parts = urlsplit(f"{scheme}://{rest}" if scheme else rest)
        protocol, secure = _SCHEMES[parts.scheme]
        host, port = parts.hostname, parts.port
    except (KeyError, ValueError):
        raise ConfigurationError(key, text, _EXAMPLES) from None
    plain = protocol == "http" or not (parts.username or parts.path.rstrip("/"))
    complete = host and (port or not scheme) and not (parts.query or parts.fragment)
    if not (host and plain and complete and text.isprintable()) or any(map(str.isspace, text)):
        raise ConfigurationError(key, text, _EXAMPLES)
    if protocol == "grpc":
        return Address("grpc", secure, host, port or GRPC_PORT, signal=signal)
    url = rest if signal else rest.rstrip("/")
    return Address("http", secure, host, port or (443 if secure else 80), url, signal)


def _bare_scheme(environ: Mapping[str, str], signal: str) -> str:
    """A bare ``host:port`` goes without TLS, unless the OTLP variables ask for it."""

    def said(name: str) -> str:
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}") if signal else None
        return own or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")

    return "grpcs" if said("INSECURE").lower() == "false" or said("CERTIFICATE") else "grpc"


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
    for address in sorted(addresses, key=lambda it: it.signal != ""):
        if address.protocol == "http":
            return address.url.rstrip("/").removesuffix(f"/v1/{address.signal}")
    first = addresses[0]
    target = Address("http", first.secure, first.host, HTTP_PORT).target
    return f"{'https' if first.secure else 'http'}://{target}"


def make_transport(addresses: Sequence[Address], call_seconds: float) -> Transport:
    """The way to the master; over several addresses it fails over, and a signal may have its own.

    Args:
        addresses: of `resolve_addresses`, the preferred one first.
        call_seconds: longest time of one request.
    """
    by_signal: dict[str, list[Address]] = {}
    for address in addresses:
        by_signal.setdefault(address.signal, []).append(address)
    ways = {signal: _way(found, call_seconds) for signal, found in by_signal.items()}
    return PerSignal(ways) if any(ways) else ways[""]


def _way(addresses: Sequence[Address], call_seconds: float) -> Transport:
    if len(addresses) == 1:
        return _open(addresses[0], call_seconds)
    return Failover([lambda it=address: _open(it, call_seconds) for address in addresses])  # type: ignore[misc]


def _open(address: Address, call_seconds: float) -> Transport:
    """Imports one exporter only: each takes a quarter of a second and some MiB."""
    if address.protocol == "grpc":
        from arobust_otel.agent.client.grpc_transport import GrpcTransport

        return GrpcTransport(address.target, address.secure, call_seconds)
    from arobust_otel.agent.client.http_transport import HttpTransport

    return HttpTransport(address.url, call_seconds, is_whole=bool(address.signal))
