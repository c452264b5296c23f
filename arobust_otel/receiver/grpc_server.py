"""OTLP/gRPC: the three Export services and grpc.health.v1, on the same `Intake` as OTLP/HTTP.

The services are the official ones of opentelemetry-proto by name and method, without their generated
servicers: those hand over parsed messages, and what we validate, journal and forward are the bytes as they
came. A handler without a deserialiser gets exactly these. It is a stream-unary one, which is the same on the
wire: so token, drain and load are judged before the message is read, and what is refused is never held.

gRPC can take no listening socket from outside. The master holds the port with a socket that is bound and
never listens; this server binds beside it (SO_REUSEADDR; never SO_REUSEPORT, which would let a second server
of the same user share the port in silence).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from arobust_otel.checked import Address
from arobust_otel.model.wire_names import BATCH_ID_HEADER
from arobust_otel.otlp.messages import LOGS, METRICS, TRACES
from arobust_otel.otlp.status import Encoding, rpc_status, success
from arobust_otel.receiver.answers import Refusal
from arobust_otel.receiver.auth import is_authorised
from arobust_otel.receiver.body import Budget, Deadline
from arobust_otel.receiver.counts import GRPC
from arobust_otel.receiver.intake import Intake, Upload
from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.server import Tls

SERVICES = {
    metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"].full_name: METRICS,
    logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"].full_name: LOGS,
    trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name: TRACES,
}
MESSAGE_CHARACTERS = 200  # it travels three times in the trailers, and clients take 8 KiB of them
STOP_SECONDS = 0.5  # what is left then are watchers of the health service
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Metadata = tuple[tuple[str, str | bytes], ...]


class GrpcReceiver:
    """Answers Export calls. `draining` sends new ones away; `idle` is set while none is in flight."""

    def __init__(self, intake: Intake, limits: ReceiverLimits, budget: Budget, token: str = "") -> None:
        """`budget` is shared with the HTTP server; everybody is authorised where `token` is empty."""
        self.draining = False
        self.idle = asyncio.Event()
        self.idle.set()
        self._in_flight = 0
        self._reads = asyncio.Semaphore(limits.grpc_reads)
        self._intake = intake
        self._limits = limits
        self._budget = budget
        self._token = token

    def handlers(self) -> tuple[Any, ...]:
        """One generic handler for each service."""
        return tuple(
            grpc.method_handlers_generic_handler(
                service, {"Export": grpc.stream_unary_rpc_method_handler(self._export(signal))}
            )
            for service, signal in SERVICES.items()
        )

    def _export(self, signal: str) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def export(_messages: Any, context: Any) -> bytes:
            self._in_flight += 1
            self.idle.clear()
            try:
                return await self._answer(signal, context)
            except Refusal as refusal:
                code, message, trailers = refusal_parts(refusal)
                self._intake.counts.refused(GRPC, signal, code.name)
                await context.abort(code, message, trailers)
                raise AssertionError("abort raises") from None
            finally:
                self._in_flight -= 1
                if not self._in_flight:
                    self.idle.set()

        return export

    async def _answer(self, signal: str, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        if self.draining:
            raise Refusal(503, "the master is about to end", self._limits.retry_after_seconds)
        if not is_authorised(self._token, _bytes(metadata.get("authorization"))):
            raise Refusal(401, "no valid bearer token")
        if self._in_flight > self._limits.grpc_calls:
            raise self._overload()
        peer = self._intake.counts.peer(peer_address(context.peer()))
        message = await self._read(context)
        if not self._budget.take(len(message)):
            raise self._overload()
        try:
            batch = (_bytes(metadata.get(BATCH_ID_HEADER)) or b"").decode("latin-1")
            upload = Upload(signal, message, Encoding.PROTOBUF, "", peer, batch, GRPC)
            taken = await self._intake.telemetry(upload)
        finally:
            self._budget.give_back(len(message))
        return success(signal, Encoding.PROTOBUF, taken.rejected, taken.message)

    async def _read(self, context: Any) -> bytes:
        """The message, inflated by gRPC and within its limit; few are read at one time, the others wait."""
        late = Refusal(408, "the message did not arrive in time")
        if self._reads.locked():
            await _within(self._limits.drain_seconds, self._reads.acquire(), self._overload())
        else:
            await self._reads.acquire()
        try:
            message = await _within(self._limits.body_seconds, context.read(), late)
        finally:
            self._reads.release()
        if not isinstance(message, bytes):
            raise Refusal(400, "the call carries no message")
        return message

    def _overload(self) -> Refusal:
        return Refusal(503, "too many requests at one time", self._limits.retry_after_seconds)


class GrpcServer:
    """Serves a `GrpcReceiver` and the health of its services until `stop`."""

    def __init__(
        self, receiver: GrpcReceiver, address: Address, limits: ReceiverLimits, tls: Tls | None = None
    ) -> None:
        """`address` is numeric; port 0 takes any free one, see `port`."""
        self.port = address.port
        self._address = address
        self._receiver = receiver
        self._limits = limits
        self._tls = tls or Tls()
        self._health = health.HealthServicer()
        self._server: Any = None

    async def start(self) -> None:
        """Return once it accepts connections; may be called again after an error.

        Raises:
            OSError: the port is taken, or certificate and key cannot be read.
        """
        server = grpc.aio.server(options=options(self._limits), maximum_concurrent_rpcs=MAX_CALLS)
        server.add_generic_rpc_handlers(self._receiver.handlers())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.port = self._bind(server)
        await server.start()
        self._server = server
        for service in SERVICES:
            await self._health.set(service, HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Say that new calls are sent away."""
        self._receiver.draining = True
        await self._health.enter_graceful_shutdown()

    async def stop(self) -> None:
        """Accept nothing more, let what is in flight end for a moment, close every connection."""
        if self._server is not None:
            await self._server.stop(STOP_SECONDS)
            self._server = None

    def _bind(self, server: Any) -> int:
        text = str(self._address)
        try:
            if self._tls.certificate:
                port = server.add_secure_port(text, _credentials(self._tls))
            else:
                port = server.add_insecure_port(text)
        except RuntimeError as error:
            raise OSError(f"{text} cannot be bound: it is taken") from error
        if not port:
            raise OSError(f"{text} cannot be bound: it is taken")
        return int(port)


MAX_CALLS = 8192  # of any service, health included: what comes beyond is refused by gRPC itself


def options(limits: ReceiverLimits) -> list[tuple[str, int]]:
    """Channel arguments: names and units are those of gRPC core (grpc/impl/channel_arg_names.h)."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.body_bytes),  # before and after inflating
        ("grpc.max_metadata_size", limits.grpc_metadata_bytes),
        ("grpc.max_concurrent_streams", limits.grpc_streams),
        ("grpc.server_handshake_timeout_ms", int(limits.header_seconds * 1000)),
        # Clients may ping as they like: agents ping to learn that a master is away.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_time_ms", 60_000),  # and we ping, so that dead clients do not stay
        ("grpc.keepalive_timeout_ms", 20_000),
        # Connections end now and then, so that clients find their way back after a failover.
        ("grpc.max_connection_age_ms", int(limits.grpc_connection_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", 30_000),
    ]


def refusal_parts(refusal: Refusal) -> tuple[grpc.StatusCode, str, Metadata]:
    """Code, message and trailers of a refusal.

    RetryInfo goes into both places where clients look: the details of google.rpc.Status (Go, Java, Rust), and
    a trailer of its own (the exporter of the Python SDK).
    """
    retry = None
    trailers: Metadata = ()
    if refusal.retry_after_seconds is not None:
        retry = RetryInfo(retry_delay=Duration(seconds=refusal.retry_after_seconds))
        trailers = (("google.rpc.retryinfo-bin", retry.SerializeToString()),)
    status = rpc_status(refusal.status, refusal.message, retry, MESSAGE_CHARACTERS)
    trailers += (("grpc-status-details-bin", status.SerializeToString()),)
    return _CODES[status.code], status.message, trailers


def peer_address(peer: str) -> str:
    """The address in what gRPC says of a peer.

    >>> peer_address("ipv4:127.0.0.1:4711"), peer_address("ipv6:%5B::1%5D:4711"), peer_address("unix:")
    ('127.0.0.1', '::1', 'unix')
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    return rest.rpartition(":")[0].removeprefix("[").removesuffix("]")


async def _within(seconds: float, waited: Awaitable[Any], refusal: Refusal) -> Any:
    deadline = Deadline(seconds, seconds)
    try:
        return await waited
    except asyncio.CancelledError:
        if deadline.expired:
            raise refusal from None
        raise
    finally:
        deadline.cancel()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode("utf-8", "replace") if isinstance(value, str) else value


def _credentials(tls: Tls) -> Any:
    key, certificate = Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes()
    return grpc.ssl_server_credentials([(key, certificate)])
