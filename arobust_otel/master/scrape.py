"""`/metrics` of a forwarder that is asked instead of sending: a raw ASGI application beside the streams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Any

from arobust_otel.checked import parse_address
from arobust_otel.config import MasterSettings
from arobust_otel.errors import ConfigurationError
from arobust_otel.model.samples import Point
from arobust_otel.receiver.answers import Answer
from arobust_otel.receiver.auth import is_authorised, require_protection
from arobust_otel.receiver.body import Receive, Scope
from arobust_otel.receiver.http import HEALTH_PATH, Send, respond
from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.server import HttpServer, Tls

METRICS_PATH = "/metrics"
_TEXT = "text/plain; charset=utf-8"

OwnPoints = Callable[[int], Iterable[Point]]


class ScrapeApp:
    """ASGI application; `page(accept)` gives content type and body. `token` empty admits everybody."""

    def __init__(self, page: Callable[[str], tuple[str, bytes]], token: str = "") -> None:
        self._page = page
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one question."""
        await respond(send, await self._answer(scope))

    async def _answer(self, scope: Scope) -> Answer:
        headers = dict(scope["headers"])
        if scope["path"] == HEALTH_PATH:
            return Answer(200, b"ok\n", _TEXT)
        if scope["path"] != METRICS_PATH:
            return Answer(404, f"only {METRICS_PATH} is served\n".encode(), _TEXT)
        if scope["method"] not in ("GET", "HEAD"):
            return Answer(405, b"this page is only read\n", _TEXT, ((b"allow", b"GET, HEAD"),))
        if not is_authorised(self._token, headers.get(b"authorization")):
            return Answer(401, b"no valid bearer token\n", _TEXT, ((b"www-authenticate", b"Bearer"),))
        accept = headers.get(b"accept", b"").decode("latin-1")
        content_type, body = await asyncio.to_thread(self._page, accept)
        return Answer(200, body, content_type)


async def serve(name: str, forwarder: Any, settings: MasterSettings, own: OwnPoints) -> HttpServer:
    """Serve a forwarder that has `listen` and `page(accept, own)`, protected like the query API.

    Raises:
        ConfigurationError: the address cannot be used, or others could reach it without token and TLS.
    """
    key = f"forwarders.{name}.listen"
    address = parse_address(key, forwarder.listen)
    tls = Tls(settings.tls_certificate, settings.tls_key)
    require_protection(key, address.host, token=settings.token, tls=bool(tls.certificate and tls.key))
    try:
        listener = socket.create_server(
            address, family=socket.AF_INET6 if ":" in address.host else socket.AF_INET
        )
    except OSError as error:
        raise ConfigurationError(key, str(address), f"an address that is free ({error.strerror})") from None
    app = ScrapeApp(lambda accept: forwarder.page(accept, own), settings.token)
    server = HttpServer(app, listener, ReceiverLimits(), tls)
    await server.start()
    return server
