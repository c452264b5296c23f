"""Answers of servers, for who sends with `requests`: one deadline, an end, and whether a web site gave them.

The timeout of a request is what each single read may take: a peer that sends one byte at a time could hold a
call for ever. Here what is left of it when the answer is waited for is the time for all of the answer. An
answer over `MAX_ANSWER_BYTES` is cut off: what we ask for fits into a few of them.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

MAX_ANSWER_BYTES = 4 * 1024 * 1024  # as the OTLP specification has it


def is_web_page(content_type: str, body: bytes) -> bool:
    """Whether a web site answered, whose words about OTLP mean nothing."""
    return "html" in content_type and body.lstrip().startswith(b"<")


class _Timely(io.RawIOBase):
    """What a socket brings, until a deadline and up to a size."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._connection = connection
        self._deadline = deadline
        self._left_bytes = MAX_ANSWER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As that of a socket's file, for no longer and no more than is left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        count = self._raw.readinto(buffer)
        self._left_bytes -= count or 0
        if self._left_bytes < 0:
            raise OSError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        return count

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimelyResponse(http.client.HTTPResponse):
    """An answer; the timeout that its socket has when it is waited for is that of the whole of it."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        seconds = sock.gettimeout()
        if seconds is not None and isinstance(self.fp, io.BufferedReader):
            raw: Any = self.fp.detach()
            self.fp = io.BufferedReader(_Timely(raw, sock, time.monotonic() + seconds))


class _Connection(HTTPConnection):
    response_class = _TimelyResponse


class _SecureConnection(HTTPSConnection):
    response_class = _TimelyResponse


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


_POOLS = {"http": _Pool, "https": _SecurePool}


class TimelyAdapter(HTTPAdapter):
    """Directly or through a proxy of HTTP; one of SOCKS keeps its own connections."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """As that of `requests`, with our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """As that of `requests`, with our connections."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager
