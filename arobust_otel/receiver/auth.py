"""Who may speak to the master: a bearer token; and where it may listen without one."""

from __future__ import annotations

import hmac
import ipaddress

from arobust_otel.errors import ConfigurationError


def is_authorised(token: str, header: bytes | None) -> bool:
    """Whether an Authorization header carries `token`, compared in constant time; an empty one admits all."""
    if not token:
        return True
    scheme, _, given = (header or b"").strip().partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_protection(key: str, host: str, *, token: str, tls: bool) -> None:
    """Refuse to listen where others can reach it without token and TLS.

    Args:
        key: name of the setting that gave the host, for the message.
        host: address to be bound.
        token: the configured token, empty where there is none.
        tls: whether the server will speak TLS.

    Raises:
        ConfigurationError: others could reach an unprotected server.
    """
    if is_loopback(host) or (token and tls):
        return
    lacking = " and ".join(
        name for name, there in (("a token", token), ("a TLS certificate", tls)) if not there
    )
    expected = (
        f"127.0.0.1, ::1 or localhost, since no other address is served without token and TLS: set {lacking}"
    )
    raise ConfigurationError(key, host, expected)
