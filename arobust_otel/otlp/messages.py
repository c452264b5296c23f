"""The three signals, their request and response messages, and the one place that parses them."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from arobust_otel.errors import DecodeError

METRICS = "metrics"
LOGS = "logs"
TRACES = "traces"
SIGNALS = (METRICS, LOGS, TRACES)

REQUESTS: dict[str, type[Message]] = {
    METRICS: ExportMetricsServiceRequest,
    LOGS: ExportLogsServiceRequest,
    TRACES: ExportTraceServiceRequest,
}
RESPONSES: dict[str, type[Message]] = {
    METRICS: ExportMetricsServiceResponse,
    LOGS: ExportLogsServiceResponse,
    TRACES: ExportTraceServiceResponse,
}
# Name of the field of partial_success that counts what was rejected.
REJECTED = {METRICS: "rejected_data_points", LOGS: "rejected_log_records", TRACES: "rejected_spans"}


def parse(signal: str, body: bytes) -> Any:
    """The export request of a signal; every level of nesting and all text is checked by the parser.

    Raises:
        DecodeError: the bytes are not this message (cut short, invalid UTF-8, nested too deep).
    """
    try:
        return request_class(signal).FromString(body)
    except ProtobufError as error:
        raise DecodeError(f"not an OTLP request of {signal}: {error}") from None


def request_class(signal: str) -> type[Message]:
    """Class of the export request.

    Raises:
        DecodeError: there is no such signal.
    """
    found = REQUESTS.get(signal)
    if found is None:
        raise DecodeError(f"{signal!r} is not a signal; signals are {', '.join(SIGNALS)}")
    return found


def merge(signal: str, bodies: list[bytes]) -> bytes:
    """One request out of several of the same signal: serialized requests concatenate.

    Each body must have been validated: one malformed piece spoils the whole.
    """
    request_class(signal)
    return b"".join(bodies)
