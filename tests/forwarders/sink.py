"""A little HTTP destination of the tests: keeps what it takes, refuses what it is told to.

What it calls a signal is the last part of the path.
"""

from __future__ import annotations

import contextlib
import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Certificate = tuple[Path, Path]  # PEM files of certificate and key
Verdict = tuple[int, dict[str, str], bytes]
TAKEN: Verdict = (200, {}, b"")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust the certificate hangs up."""


class Sink:
    """`taken` holds (signal, plain body) of every request that was answered with 200."""

    def __init__(self, port: int = 0, certificate: Certificate | None = None) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.asked = 0
        self.judge: Callable[[str, bytes], Verdict] = lambda signal, body: TAKEN
        self.server = _Server(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), name="sink")

    def bodies(self, signal: str) -> list[bytes]:
        return [body for kind, body in list(self.taken) if kind == signal]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                signal = self.path.rpartition("/")[2]
                sink.asked += 1
                status, headers, answer = sink.judge(signal, body)
                if status == 200:
                    sink.taken.append((signal, body))
                    sink.headers.append(dict(self.headers))
                    sink.paths.append(self.path)
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(answer))}.items():
                    self.send_header(name, value)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it did not wait
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                return

        return Handler


@contextlib.contextmanager
def sinking(port: int = 0, certificate: Certificate | None = None) -> Iterator[Sink]:
    sink = Sink(port, certificate)
    sink.thread.start()
    try:
        yield sink
    finally:
        sink.server.shutdown()
        sink.server.server_close()
        sink.thread.join(10)
