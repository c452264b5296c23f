"""The gRPC exporters of the OpenTelemetry SDK, as they are, deliver all three signals and heed RetryInfo."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.receiver.serving import Receiver, receiving


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "journal", retry_after_seconds=1, token="secret") as served:
        yield served


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_the_sdk_delivers_every_signal(receiver: Receiver, compression: grpc.Compression) -> None:
    where = {
        "endpoint": f"127.0.0.1:{receiver.grpc_port}",
        "insecure": True,
        "compression": compression,
        "headers": {"authorization": "Bearer secret"},
    }
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(**where)))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(**where), export_interval_millis=60_000)
    metering = MeterProvider([reader], shutdown_on_exit=False)
    logging = LoggerProvider(shutdown_on_exit=False)
    logging.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(**where)))

    with tracing.get_tracer("t").start_as_current_span("s"):
        metering.get_meter("m").create_counter("c").add(1)
        logging.get_logger("l").emit(body="hello", severity_number=SeverityNumber.INFO)
    for provider in (tracing, metering, logging):
        provider.shutdown()

    assert sorted({record.signal for record in receiver.records()}) == ["logs", "metrics", "traces"]
    rows = receiver.intake.counts.status()["requests"]
    assert {(row["protocol"], row["result"]) for row in rows} == {("grpc", "accepted")}


def test_the_sdk_tries_again_after_a_drain(receiver: Receiver) -> None:
    """It is sent away with UNAVAILABLE and RetryInfo, and delivers when the next try is welcome."""
    exporter = OTLPSpanExporter(
        endpoint=f"127.0.0.1:{receiver.grpc_port}", insecure=True, headers={"authorization": "Bearer secret"}
    )
    tracing = TracerProvider(shutdown_on_exit=False)
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    receiver.grpc_app.draining = True

    def refused() -> bool:
        return any(row["status"] == "UNAVAILABLE" for row in receiver.intake.counts.status()["requests"])

    def open_again() -> None:
        while not refused() and not done.wait(0.01):
            pass
        receiver.grpc_app.draining = False

    done = threading.Event()
    door = threading.Thread(target=open_again)
    door.start()
    try:
        with tracing.get_tracer("t").start_as_current_span("s"):
            pass
    finally:
        done.set()
        door.join()
        tracing.shutdown()
    assert refused()
    assert [record.signal for record in receiver.records()] == ["traces"]
