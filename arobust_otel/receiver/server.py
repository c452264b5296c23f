"""A uvicorn server inside an event loop of ours, on a socket that is bound already."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.protocol import bounded_protocol

START_SECONDS = 10.0
STOP_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate and key files in PEM; empty where the server speaks plain HTTP."""

    certificate: str = ""
    key: str = ""


class _Server(uvicorn.Server):
    """Signals belong to the role that runs the loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class HttpServer:
    """Serves an ASGI application until `stop`."""

    def __init__(
        self, app: Any, listener: socket.socket, limits: ReceiverLimits, tls: Tls | None = None
    ) -> None:
        """`listener` is bound; listening, accepting and closing are the server's."""
        tls = tls or Tls()
        config = uvicorn.Config(
            app,
            http=bounded_protocol(limits),
            loop="asyncio",
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            backlog=2048,
            timeout_keep_alive=limits.idle_seconds,
            timeout_graceful_shutdown=STOP_SECONDS,
            ssl_certfile=tls.certificate or None,
            ssl_keyfile=tls.key or None,
        )
        self._server = _Server(config)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return once it accepts connections.

        Raises:
            TimeoutError: it did not start; OSError where the socket or the certificate is not usable.
        """
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise OSError("the server ended at its start")
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"the server did not start within {START_SECONDS:.0f} s")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Accept nothing more, answer what is in flight, close every connection."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
            self._task = None
