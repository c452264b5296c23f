"""GET the figures that a program of this machine serves: all of them in time, or an error that says why not.

Half an answer is none: a number that was cut off would be another number.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

MAX_BYTES = 4 * 1024 * 1024
_REQUEST = (
    b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAccept-Encoding: identity\r\n\r\n"
)


class _Timely(io.RawIOBase):
    """What a connection brings, until a deadline: however slowly it comes."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)

    def makefile(self, *_: object) -> io.BufferedReader:
        """As `http.client` asks for it."""
        return io.BufferedReader(self)


def scrape(port: int, timeout_seconds: float) -> str:
    """The text behind ``/metrics`` of a port of this machine; no proxy, no redirect.

    Args:
        port: of 127.0.0.1.
        timeout_seconds: for the whole answer.

    Raises:
        ConnectionRefusedError: nothing listens.
        OSError: no answer in time, another status than 200, more than `MAX_BYTES`, or only a part of it.
    """
    deadline = time.monotonic() + timeout_seconds
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_seconds) as connection:
        connection.sendall(_REQUEST)
        link: Any = _Timely(connection, deadline)
        answer = http.client.HTTPResponse(link, method="GET")
        try:
            answer.begin()
            if answer.status != 200:
                raise ConnectionError(f"it answers HTTP {answer.status}")
            content = answer.read(MAX_BYTES + 1)
            left = answer.length
        except http.client.HTTPException as error:
            raise ConnectionError(f"it answers no whole HTTP ({type(error).__name__})") from None
        finally:
            answer.close()
    if len(content) > MAX_BYTES:
        raise ConnectionError(f"it answers more than {MAX_BYTES} bytes")
    if left or (left is None and content and not content.endswith(b"\n")):
        raise ConnectionError(f"its answer was cut off after {len(content)} bytes")
    return content.decode("utf-8", "replace")
