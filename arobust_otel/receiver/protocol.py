"""uvicorn's HTTP/1.1 protocol with the bounds that it lacks: for headers, connections and late bodies.

uvicorn waits without end for the first byte, for the rest of a header, for the rest of a body whose answer
has been sent already, and behind an empty line between two requests. Each of them gets a deadline here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from arobust_otel.otlp.status import Encoding, failure
from arobust_otel.receiver.limits import ReceiverLimits

_PORTION_BYTES = 256 * 1024  # asyncio hands over at most this at a time; a header may share it with a body


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `limits` is set by `bounded_protocol`."""

    limits = ReceiverLimits()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = self._kept_bytes = 0
        self._in_header = True
        self._in_body = False
        self._late_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection over the cap; else give it a deadline for its first header."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections")
            return
        self._arm(self.limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what cannot be attributed to a body."""
        if self.transport.is_closing():
            return
        if self._in_header:
            self._header_bytes += len(data)
            if self._header_bytes > self.limits.header_bytes + _PORTION_BYTES:
                self._refuse(431, "the header is too large")
                return
        if self._in_body and self.cycle.response_complete:
            self._late_bytes += len(data)
            if self._late_bytes > self.limits.drain_bytes:
                self.transport.close()
                return
        super().data_received(data)
        self._bound()

    def _bound(self) -> None:
        """With bytes uvicorn ends its deadline of an idle connection, and only an answer begins another."""
        answered = self.cycle is None or self.cycle.response_complete
        if answered and self._deadline is None and not self.transport.is_closing():
            self._arm(self.limits.header_seconds)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_header = True
        self._header_bytes = self._kept_bytes = 0
        self._arm(self.limits.header_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header line; the parser turns the error into a 400 and closes."""
        super().on_header(name, value)
        self._kept_bytes += len(name) + len(value)
        if self._kept_bytes + len(self.url) > self.limits.header_bytes:
            raise ValueError("the header is too large")

    def on_headers_complete(self) -> None:
        """The deadline of the header has been kept; the body's is the application's."""
        self._disarm()
        self._in_header, self._in_body, self._late_bytes = False, True, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is complete: a late body has no deadline any more, the connection is idle."""
        self._in_body = False
        if self._deadline is not None and self.cycle.response_complete:
            self._arm(self.limits.idle_seconds)
        super().on_message_complete()
        self._in_header, self._header_bytes = True, 0

    def on_response_complete(self) -> None:
        """Where the answer came before the end of the body, the rest is read for a moment and thrown away."""
        super().on_response_complete()
        early = self._in_body and self.cycle.response_complete  # and not that of a request before this one
        if early and not self.transport.is_closing():
            self._arm(self.limits.drain_seconds)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Answer without the application, and close."""
        body = failure(status, Encoding.JSON, message)
        reason = {431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}[status]
        lines = [
            b"HTTP/1.1 %d %s" % (status, reason),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"retry-after: %d" % self.limits.retry_after_seconds,
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()


def bounded_protocol(limits: ReceiverLimits) -> type[BoundedProtocol]:
    """The protocol with these limits: uvicorn makes one object per connection and passes none of ours."""
    return type("LimitedProtocol", (BoundedProtocol,), {"limits": limits})
