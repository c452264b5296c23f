"""A small real master for tests: OTLP/HTTP and heartbeats on a free port, with scripted answers."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arobust_otel.model.heartbeat import PATH, Command, Heartbeat, Reply, decode_heartbeat, encode
from arobust_otel.model.wire_names import BATCH_ID_HEADER

REQUESTS = {
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
    "traces": ExportTraceServiceRequest,
}


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None  # answer only when it is set
    close: bool = False  # close the connection without an answer


Script = Callable[[str, bytes], Answer]


class MasterDouble:
    """Collects what arrives; `script` decides the answer to OTLP requests, 200 by default.

    As the real master, it keeps a batch once that comes again under the same id.
    """

    def __init__(self, port: int = 0, script: Script | None = None) -> None:
        self.script = script or (lambda signal, body: Answer())
        self.accepted: list[tuple[str, bytes]] = []
        self._kept: set[tuple[str, str]] = set()  # signal and batch id
        self.seen: list[tuple[str, float]] = []
        self.batch_ids: list[str] = []  # of each request in `seen`
        self.headers: list[dict[str, str]] = []  # of OTLP requests, names in lower case
        self.paths: list[str] = []  # of OTLP requests
        self.peers: list[tuple[str, int]] = []
        self.heartbeats: list[Heartbeat] = []
        self.heartbeat_times: list[float] = []
        self.commands: list[Command] = []
        self.interval_seconds = 2.0
        self._connections: list[socket.socket] = []
        self.changed = threading.Condition()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                double._connections.append(self.connection)

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = double.take(self.path, body, headers, self.client_address)
                if answer.hold is not None:
                    answer.hold.wait(20)
                if answer.close:
                    self.close_connection = True
                    return
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=lambda: self.server.serve_forever(0.02), daemon=True)
        self._thread.start()

    def take(self, path: str, body: bytes, headers: dict[str, str], peer: Any) -> Answer:
        with self.changed:
            try:
                if path == PATH:
                    return self._heartbeat(body)
                signal = path.rpartition("/")[2]
                batch_id = headers.get(BATCH_ID_HEADER, "")
                self.seen.append((signal, time.monotonic()))
                self.headers.append(headers)
                self.paths.append(path)
                self.peers.append(peer)
                self.batch_ids.append(batch_id)
                answer = self.script(signal, body)
                if answer.status == 200 and not answer.close and self._is_new(signal, batch_id):
                    self.accepted.append((signal, body))
                return answer
            finally:
                self.changed.notify_all()

    def _is_new(self, signal: str, batch_id: str) -> bool:
        """Whether this batch was not accepted before; who gives no id, as other exporters, is always new."""
        key = (signal, batch_id)
        if batch_id and key in self._kept:
            return False
        self._kept.add(key)
        return True

    def _heartbeat(self, body: bytes) -> Answer:
        self.heartbeats.append(decode_heartbeat(body))
        self.heartbeat_times.append(time.monotonic())
        commands, self.commands = tuple(self.commands), []
        return Answer(body=encode(Reply(self.interval_seconds, commands)))

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()
        for connection in self._connections:  # kept alive by clients
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 40.0) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    # --- what was accepted --------------------------------------------------------------------------------

    def requests(self, signal: str) -> list:
        return [REQUESTS[signal].FromString(body) for name, body in list(self.accepted) if name == signal]

    def points(self) -> list[tuple[str, float, int]]:
        """Metric name, value, time; in order of arrival."""
        return [
            (metric.name, point.as_int or point.as_double, point.time_unix_nano)
            for request in self.requests("metrics")
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in (metric.gauge.data_points or metric.sum.data_points)
        ]

    def log_records(self) -> list:
        return [
            record
            for request in self.requests("logs")
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def bodies(self) -> list[str]:
        return [record.body.string_value for record in self.log_records()]

    def events(self) -> list[str]:
        return [record.event_name for record in self.log_records() if record.event_name]

    def spans(self) -> list:
        return [
            span
            for request in self.requests("traces")
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def running(port: int = 0, script: Script | None = None) -> Iterator[MasterDouble]:
    double = MasterDouble(port, script)
    try:
        yield double
    finally:
        double.stop()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
