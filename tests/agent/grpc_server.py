"""A small real OTLP/gRPC server for tests, with the official stubs and scripted answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from arobust_otel.model.wire_names import BATCH_ID_HEADER

SERVICES: dict[str, tuple[Any, Any, Any]] = {
    "metrics": (
        metrics_service_pb2_grpc.MetricsServiceServicer,
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
        metrics_service_pb2.ExportMetricsServiceResponse,
    ),
    "logs": (
        logs_service_pb2_grpc.LogsServiceServicer,
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
        logs_service_pb2.ExportLogsServiceResponse,
    ),
    "traces": (
        trace_service_pb2_grpc.TraceServiceServicer,
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
        trace_service_pb2.ExportTraceServiceResponse,
    ),
}


@dataclass
class Reply:
    """An answer; `partial` are the fields of partial_success."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: tuple[tuple[str, bytes], ...] = ()
    partial: Mapping[str, Any] | None = None
    hold: threading.Event | None = None  # answer only when it is set


@dataclass(frozen=True)
class Received:
    signal: str
    request: Any
    metadata: Mapping[str, str]
    peer: str


Script = Callable[[Received], Reply]


def retry_info(seconds: float) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1e9))
    return info


def as_trailer(info: RetryInfo) -> tuple[tuple[str, bytes], ...]:
    """The form that only the Python exporters read."""
    return (("google.rpc.retryinfo-bin", info.SerializeToString()),)


def as_details(info: RetryInfo) -> tuple[tuple[str, bytes], ...]:
    """The form that everybody else sends."""
    detail = AnyMessage()
    detail.Pack(info)
    return (("grpc-status-details-bin", Status(code=14, details=[detail]).SerializeToString()),)


class GrpcMasterDouble:
    """Collects what arrives; `script` decides the answer, success by default.

    As the real master, it keeps a batch once that comes again under the same id.
    """

    def __init__(
        self,
        port: int = 0,
        script: Script | None = None,
        credentials: grpc.ServerCredentials | None = None,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        self.script = script or (lambda received: Reply())
        self.seen: list[Received] = []
        self.accepted: list[Received] = []
        self._kept: set[tuple[str, str]] = set()  # signal and batch id
        self._changing = threading.Lock()
        self._pool = futures.ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, options=(("grpc.so_reuseport", 0), *options))
        for signal, (servicer, add, response) in SERVICES.items():
            add(self._servicer(signal, servicer, response), self._server)
        where = f"127.0.0.1:{port}"
        self.port = (
            self._server.add_secure_port(where, credentials)
            if credentials
            else self._server.add_insecure_port(where)
        )
        self.target = f"127.0.0.1:{self.port}"
        self._server.start()

    def _servicer(self, signal: str, base: Any, response: Any) -> Any:
        double = self

        class Servicer(base):
            def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
                return double.take(signal, request, context, response)

        return Servicer()

    def take(self, signal: str, request: Any, context: grpc.ServicerContext, response: Any) -> Any:
        metadata = {entry.key: entry.value for entry in context.invocation_metadata()}
        received = Received(signal, request, metadata, context.peer())
        with self._changing:
            self.seen.append(received)
        reply = self.script(received)
        if reply.hold is not None:
            reply.hold.wait(20)
        if reply.trailers:
            context.set_trailing_metadata(reply.trailers)
        if reply.code is not grpc.StatusCode.OK:
            context.abort(reply.code, reply.details)
        key = (signal, metadata.get(BATCH_ID_HEADER, ""))
        with self._changing:
            if not key[1] or key not in self._kept:  # other exporters give no id
                self.accepted.append(received)
            self._kept.add(key)
        return response(partial_success=reply.partial) if reply.partial else response()

    def stop(self) -> None:
        self._server.stop(None).wait(5)
        self._pool.shutdown()

    def values(self) -> list[float]:
        return [
            point.as_int or point.as_double
            for received in self.accepted
            if received.signal == "metrics"
            for resource in received.request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in (metric.gauge.data_points or metric.sum.data_points)
        ]

    def bodies(self) -> list[str]:
        return [
            record.body.string_value
            for received in self.accepted
            if received.signal == "logs"
            for resource in received.request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


@contextmanager
def serving(
    port: int = 0,
    script: Script | None = None,
    credentials: grpc.ServerCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> Iterator[GrpcMasterDouble]:
    double = GrpcMasterDouble(port, script, credentials, options)
    try:
        yield double
    finally:
        double.stop()
