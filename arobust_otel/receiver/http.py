"""The HTTP surface of a master as a raw ASGI application: OTLP/HTTP, heartbeats, health.

Statuses and bodies follow the OTLP specification ("OTLP/HTTP Response"): google.rpc.Status in the request's
encoding, retryable codes only where the same bytes may succeed later. Bodies and headers are never logged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from arobust_otel.model import heartbeat as heartbeats
from arobust_otel.model.wire_names import BATCH_ID_HEADER
from arobust_otel.otlp.status import Encoding, encoding_of, success
from arobust_otel.receiver.answers import Answer, Refusal, json_answer, refusal_answer
from arobust_otel.receiver.auth import is_authorised
from arobust_otel.receiver.body import BodyReader, Budget, ClientGone, Receive, Scope
from arobust_otel.receiver.counts import HEARTBEAT, HTTP, OTHER
from arobust_otel.receiver.intake import Intake, Upload
from arobust_otel.receiver.limits import ReceiverLimits

Send = Callable[[dict[str, Any]], Awaitable[None]]

SIGNAL_OF_PATH = {"/v1/metrics": "metrics", "/v1/logs": "logs", "/v1/traces": "traces"}
HEALTH_PATH = "/healthz"
POSTED = frozenset((*SIGNAL_OF_PATH, heartbeats.PATH))
_BATCH_ID = BATCH_ID_HEADER.encode()


class ReceiverApp:
    """ASGI application. `draining` is set when the master is about to end: new requests get 503.

    `idle` is set while no request is in flight.
    """

    def __init__(self, intake: Intake, limits: ReceiverLimits, token: str = "") -> None:
        """Everybody is authorised where `token` is empty."""
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._in_flight = 0
        self.statuses: Counter[str] = Counter()
        self._intake = intake
        self._limits = limits
        self._token = token
        self._bodies = BodyReader(limits)

    @property
    def budget(self) -> Budget:
        """Bytes that may be held at one time; a server of another protocol shares it."""
        return self._bodies.budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        encoding = encoding_of(headers.get(b"content-type", b"").decode("latin-1"))
        self._in_flight += 1
        self.idle.clear()
        try:
            answer = await self._answer(scope, headers, encoding, receive)
        except Refusal as refusal:
            answer = refusal_answer(refusal, encoding or Encoding.JSON)
            self._intake.counts.refused(HTTP, _counted_as(scope["path"]), str(refusal.status))
        except ClientGone:
            return
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self.idle.set()
        self.statuses[f"{scope['path'] if answer.status == 200 else 'refused'} {answer.status}"] += 1
        await respond(send, answer)

    def counts(self) -> dict[str, Any]:
        """Numbers for the status page, by path and status, and over both protocols."""
        return {
            "statuses": dict(self.statuses),
            **self._intake.counts.status(),
            "in_flight_bytes": self._bodies.budget.held_bytes,
            "dropped_ticks": self._intake.dropped_ticks,
            "expired_commands": self._intake.commands.expired,
        }

    async def _answer(
        self, scope: Scope, headers: dict[bytes, bytes], encoding: Encoding | None, receive: Receive
    ) -> Answer:
        path, method = scope["path"], scope["method"]
        if path == HEALTH_PATH:
            return self._health(method)
        if path not in POSTED:
            raise Refusal(404, f"{path[:200]} is not a path of this server")
        if method != "POST":
            raise Refusal(405, f"{path} takes POST only", headers=((b"allow", b"POST"),))
        if self.draining:
            raise Refusal(503, "the master is about to end", self._limits.retry_after_seconds)
        if not is_authorised(self._token, headers.get(b"authorization")):
            raise Refusal(401, "no valid bearer token", headers=((b"www-authenticate", b"Bearer"),))
        if encoding is None:
            raise Refusal(415, "Content-Type is neither application/x-protobuf nor application/json")
        peer = self._intake.counts.peer(_peer(scope))
        if path == heartbeats.PATH:
            return await self._heartbeat(headers, encoding, receive)
        return await self._telemetry((SIGNAL_OF_PATH[path], peer), headers, encoding, receive)

    async def _telemetry(
        self, source: tuple[str, str], headers: dict[bytes, bytes], encoding: Encoding, receive: Receive
    ) -> Answer:
        signal, peer = source
        body = await self._bodies.read(headers, receive, self._limits.body_bytes)
        try:
            batch = headers.get(_BATCH_ID, b"").decode("latin-1")
            upload = Upload(signal, body, encoding, _content_encoding(headers), peer, batch)
            taken = await self._intake.telemetry(upload)
        finally:
            self._bodies.release(len(body))
        answer = success(signal, encoding, taken.rejected, taken.message)
        return Answer(200, answer, encoding.value)

    async def _heartbeat(self, headers: dict[bytes, bytes], encoding: Encoding, receive: Receive) -> Answer:
        if encoding is not Encoding.JSON:
            raise Refusal(415, "a heartbeat is application/json")
        body = await self._bodies.read(headers, receive, self._limits.heartbeat_bytes)
        try:
            reply = await self._intake.heartbeat(body, _content_encoding(headers))
        finally:
            self._bodies.release(len(body))
        self._intake.counts.accepted(HTTP, HEARTBEAT)
        return json_answer(200, heartbeats.encode(reply))

    def _health(self, method: str) -> Answer:
        if method not in ("GET", "HEAD"):
            raise Refusal(405, f"{HEALTH_PATH} takes GET only", headers=((b"allow", b"GET, HEAD"),))
        if self.draining:
            raise Refusal(503, "the master is about to end", self._limits.retry_after_seconds)
        return json_answer(200, b'{"status":"ok"}')


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unix"


def _counted_as(path: str) -> str:
    return HEARTBEAT if path == heartbeats.PATH else SIGNAL_OF_PATH.get(path, OTHER)


def _content_encoding(headers: dict[bytes, bytes]) -> str:
    return headers.get(b"content-encoding", b"").decode("latin-1")


async def respond(send: Send, answer: Answer) -> None:
    """Send an answer with its length, so that the connection can be used again."""
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
