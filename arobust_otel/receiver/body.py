"""Reading request bodies without trusting their senders: size cap, deadlines, a budget over all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from arobust_otel.receiver.answers import Refusal
from arobust_otel.receiver.limits import ReceiverLimits

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
CLOSE = ((b"connection", b"close"),)


class ClientGone(Exception):
    """The client closed the connection before its request was complete: nobody waits for an answer."""


class Budget:
    """Bytes that may be held at one time, over all requests."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, size_bytes: int) -> bool:
        """Reserve; False where it does not fit."""
        if self.held_bytes + size_bytes > self.limit_bytes:
            return False
        self.held_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """End a reservation."""
        self.held_bytes -= size_bytes


class Deadline:
    """Cancels the current task at a time; cheaper than a task for every portion of every body."""

    def __init__(self, total_seconds: float, idle_seconds: float) -> None:
        """`idle_seconds` may pass without `progress`, `total_seconds` in any case."""
        self.expired = False
        self._loop = asyncio.get_running_loop()
        self._idle_seconds = idle_seconds
        self._end = self._loop.time() + total_seconds
        self._task = asyncio.current_task()
        self._handle = self._loop.call_at(self._end, self._expire)
        self.progress()

    def progress(self) -> None:
        """A portion came."""
        self._handle.cancel()
        when = min(self._end, self._loop.time() + self._idle_seconds)
        self._handle = self._loop.call_at(when, self._expire)

    def cancel(self) -> None:
        """It was kept."""
        self._handle.cancel()

    def _expire(self) -> None:
        self.expired = True
        assert self._task is not None
        self._task.cancel()


class BodyReader:
    """Reads one body after the other; `read` gives the body, `release` ends its reservation."""

    def __init__(self, limits: ReceiverLimits) -> None:
        self.limits = limits
        self.budget = Budget(limits.in_flight_bytes)

    async def read(self, headers: dict[bytes, bytes], receive: Receive, limit_bytes: int) -> bytes:
        """The whole body as it was sent, chunked or not. The caller owes `release(len(body))`.

        Raises:
            Refusal: 413 over `limit_bytes`, 503 over the budget, 408 too slow, 400 a bad length.
            ClientGone: the connection was closed.
        """
        declared = _declared_length(headers, limit_bytes)
        if not self.budget.take(declared):
            raise self._overload()
        body = _Body(self, limit_bytes, declared)
        deadline = Deadline(self.limits.body_seconds, self.limits.body_idle_seconds)
        try:
            await body.fill(receive, deadline)
        except asyncio.CancelledError:
            self.budget.give_back(body.reserved)
            if deadline.expired:
                raise Refusal(408, "the body did not arrive in time", headers=CLOSE) from None
            raise
        except (Refusal, ClientGone):
            self.budget.give_back(body.reserved)
            raise
        finally:
            deadline.cancel()
        self.budget.give_back(body.reserved - body.size_bytes)
        return b"".join(body.parts)

    def release(self, size_bytes: int) -> None:
        """The body is not held any more."""
        self.budget.give_back(size_bytes)

    def _overload(self) -> Refusal:
        return Refusal(503, "too many requests at one time", self.limits.retry_after_seconds)


class _Body:
    """One body as it grows; what was reserved for it never falls below what it holds."""

    def __init__(self, reader: BodyReader, limit_bytes: int, declared: int) -> None:
        self.reader = reader
        self.limit_bytes = limit_bytes
        self.reserved = declared
        self.size_bytes = 0
        self.parts: list[bytes] = []

    async def fill(self, receive: Receive, deadline: Deadline) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            more = message.get("more_body", False)
            self._add(message.get("body", b""))
            if more:
                deadline.progress()

    def _add(self, part: bytes) -> None:
        self.size_bytes += len(part)
        if self.size_bytes > self.limit_bytes:
            raise _too_large(self.limit_bytes)
        lacking = self.size_bytes - self.reserved
        if lacking > 0:
            if not self.reader.budget.take(lacking):
                raise self.reader._overload()
            self.reserved += lacking
        self.parts.append(part)


def _declared_length(headers: dict[bytes, bytes], limit_bytes: int) -> int:
    text = headers.get(b"content-length", b"0")
    if not text.isdigit():
        raise Refusal(400, "Content-Length is not a number", headers=CLOSE)
    length = int(text)
    if length > limit_bytes:
        raise _too_large(limit_bytes)
    return length


def _too_large(limit_bytes: int) -> Refusal:
    return Refusal(413, f"the body has more than {limit_bytes} bytes")
