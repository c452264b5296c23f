"""A peer whose answer does not end."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def trickling(
    head: bytes, context: ssl.SSLContext | None = None, part: bytes = b"x", every_seconds: float = 0.1
) -> Iterator[int]:
    """The port of a peer that sends `head` at once, and then `part` every so often, for ever."""
    ended = threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with context.wrap_socket(connection, server_side=True) if context else connection as peer:
            peer.recv(1 << 16)
            with suppress(OSError):
                peer.sendall(head)
                while not ended.wait(every_seconds):
                    peer.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ended.set()
            thread.join()
