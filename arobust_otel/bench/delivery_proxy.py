"""A network that fails, between a reporter and a master: slow, refusing, or losing answers. Real sockets.

HTTP requests are forwarded one by one; of HTTP/2 (gRPC) frames are looked at only as far as it takes to lose
an answer and keep the connection's own talk. What a mode means is said once, in `Mode`.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from enum import Enum
from typing import Any

_FRAME_HEAD = 9
_DATA, _HEADERS = 0, 1
_GONE = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError)
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Mode(Enum):
    """What happens to requests."""

    PASS = "pass"  # noqa: S105 - everything arrives
    SLOW = "slow"  # answers come late, some of them after the client has given up
    REFUSE = "refuse"  # 503 and 429 by turns, never forwarded; for gRPC the connection is cut
    LOSE = "lose"  # the master gets the request, the client never hears of it


class Proxy:
    """Listens on a free port of this machine and forwards to another; runs in a thread of its own.

    Args:
        target: port of the master.
        protocol: http or grpc.
        call_seconds: how long the client waits for an answer: slow ones take up to a third longer.
    """

    def __init__(self, target: int, protocol: str, call_seconds: float) -> None:
        self.mode = Mode.PASS
        self.lost_answers = 0
        self._target = target
        self._delays = itertools.cycle([0.2 * call_seconds, 0.7 * call_seconds, 1.3 * call_seconds])
        self._refusals = itertools.cycle(["503 Service Unavailable", "429 Too Many Requests"])
        serve = self._serve_http if protocol == "http" else self._serve_frames
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(serve,), name="bench-proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and every connection."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5.0)

    def _run(self, serve: Callable[[_Streams, _Streams], Awaitable[None]]) -> None:
        self._loop.run_until_complete(self._listen(serve))
        self._loop.close()

    async def _listen(self, serve: Callable[[_Streams, _Streams], Awaitable[None]]) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            with suppress(asyncio.CancelledError):  # the end; asyncio would complain about it
                await self._connect(serve, (reader, writer))

        server = await asyncio.start_server(accept, sock=self._listener)
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(
        self, serve: Callable[[_Streams, _Streams], Awaitable[None]], client: _Streams
    ) -> None:
        """One connection of the client; the master's is made with it."""
        upstream: _Streams | None = None
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
            await serve(client, upstream)
        except _GONE:
            pass  # that is what this is for
        finally:
            for _, writer in filter(None, (client, upstream)):
                _cut(writer)

    # --- HTTP/1.1 -----------------------------------------------------------------------------------------

    async def _serve_http(self, client: _Streams, upstream: _Streams) -> None:
        while True:
            request = await _message(client[0])
            if self.mode is Mode.REFUSE:
                head = f"HTTP/1.1 {next(self._refusals)}\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
                client[1].write(head.encode())
                await client[1].drain()
                continue
            upstream[1].write(request)
            await upstream[1].drain()
            answer = await _message(upstream[0])
            if self.mode is Mode.LOSE:
                self.lost_answers += 1
                return
            if self.mode is Mode.SLOW:
                await asyncio.sleep(next(self._delays))
            client[1].write(answer)
            await client[1].drain()

    # --- HTTP/2 -------------------------------------------------------------------------------------------

    async def _serve_frames(self, client: _Streams, upstream: _Streams) -> None:
        pumps = [self._requests(client[0], upstream[1]), self._answers(upstream[0], client[1])]
        await _first_of(pumps)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.mode is Mode.REFUSE:
                return
            writer.write(data)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(_FRAME_HEAD)
            length, kind = int.from_bytes(head[:3], "big"), head[3]
            body = await reader.readexactly(length)
            if kind in (_DATA, _HEADERS):
                if self.mode is Mode.LOSE:
                    self.lost_answers += 1
                    return
                if self.mode is Mode.SLOW and kind == _HEADERS:
                    await asyncio.sleep(next(self._delays))
            if self.mode is Mode.REFUSE:
                return
            writer.write(head + body)
            await writer.drain()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Head and body of one HTTP message with a length, which is how exporters and master speak."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length)


async def _first_of(pumps: list[Coroutine[Any, Any, None]]) -> None:
    """Run until one ends, then end the others."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cut(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, so that whoever waits for an answer hears at once that none comes."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
