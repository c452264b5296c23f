"""A real receiver on a free port, in a thread of the test, with a journal in a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import grpc

from arobust_otel.checked import Address
from arobust_otel.journal import Appender, Reader, Record
from arobust_otel.receiver.commit import GroupCommit
from arobust_otel.receiver.grpc_server import SERVICES, GrpcReceiver, GrpcServer
from arobust_otel.receiver.http import ReceiverApp
from arobust_otel.receiver.intake import Intake
from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.server import HttpServer, Tls


class Receiver:
    """`port` serves HTTP, `grpc_port` gRPC; `call` runs a coroutine in its loop."""

    def __init__(self, folder: Path, limits: ReceiverLimits, token: str = "", tls: Tls | None = None) -> None:
        self.folder = folder
        self.limits = limits
        self.token = token
        self.tls = tls
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = self.listener.getsockname()[1]
        self.ready = threading.Event()
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="receiver", daemon=True
        )

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.end = asyncio.Event()
        self.appender = Appender.open(self.folder)
        self.commit = GroupCommit(self.appender)
        self.intake = Intake(self.appender, self.commit, self.limits)
        self.app = ReceiverApp(self.intake, self.limits, self.token)
        server = HttpServer(self.app, self.listener, self.limits, self.tls)
        self.grpc_app = GrpcReceiver(self.intake, self.limits, self.app.budget, self.token)
        self.grpc = GrpcServer(self.grpc_app, Address("127.0.0.1", 0), self.limits, self.tls)
        await server.start()
        await self.grpc.start()
        self.grpc_port = self.grpc.port
        self.ready.set()
        await self.end.wait()
        await server.stop()
        await self.grpc.stop()
        self.intake.close()
        self.commit.close()
        self.appender.close()

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def records(self) -> list[Record]:
        with Reader(self.folder) as reader:
            return reader.read(100_000)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body; `content_type="..."` becomes a header."""
        with contextlib.closing(self.connect()) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            named.setdefault("content-type", "application/x-protobuf")
            connection.request("POST", path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def export(self, signal: str, body: bytes, **metadata: str) -> bytes:
        """One Export call over a connection of its own; `batch_id="..."` becomes a metadata key."""
        with self.channel() as channel:
            return exporting(channel, signal)(body, metadata=metadata_of(metadata), timeout=20)

    def channel(self, **options: int) -> grpc.Channel:
        """A client without any limit of its own; options like ``keepalive_time_ms=200``."""
        named = [(f"grpc.{name}", value) for name, value in {**UNLIMITED, **options}.items()]
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", named)


UNLIMITED = {"max_send_message_length": -1, "max_receive_message_length": -1, "enable_retries": 0}
METHODS = {signal: f"/{service}/Export" for service, signal in SERVICES.items()}


def exporting(channel: grpc.Channel, signal: str) -> Any:
    """The Export method of a signal, from bytes to bytes."""
    return channel.unary_unary(METHODS[signal])


def metadata_of(values: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", "-"), value) for name, value in values.items())


@contextlib.contextmanager
def receiving(folder: Path, token: str = "", tls: Tls | None = None, **limits: Any) -> Iterator[Receiver]:
    receiver = Receiver(folder, ReceiverLimits(**limits), token, tls)
    receiver.thread.start()
    assert receiver.ready.wait(60)
    try:
        yield receiver
    finally:
        receiver.loop.call_soon_threadsafe(receiver.end.set)
        receiver.thread.join(60)
        assert not receiver.thread.is_alive()
        _let_grpc_end()


def _let_grpc_end(seconds: float = 2.0) -> None:
    """gRPC ends its thread with the last reference to a server, and refusals leave cycles."""
    deadline = time.monotonic() + seconds
    gc.collect()
    while any("_poll_wrapper" in thread.name for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)
        gc.collect()
