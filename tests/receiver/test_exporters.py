"""The exporters of the OpenTelemetry SDK, as they are, deliver all three signals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.receiver.serving import Receiver, receiving


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path / "journal") as served:
        yield served


@pytest.mark.parametrize("compression", list(Compression))
def test_the_sdk_delivers_every_signal(receiver: Receiver, compression: Compression) -> None:
    url = f"http://127.0.0.1:{receiver.port}/v1"
    tracing = TracerProvider(shutdown_on_exit=False)
    span_exporter = OTLPSpanExporter(endpoint=f"{url}/traces", compression=compression)
    tracing.add_span_processor(SimpleSpanProcessor(span_exporter))
    metric_exporter = OTLPMetricExporter(endpoint=f"{url}/metrics", compression=compression)
    reader = PeriodicExportingMetricReader(metric_exporter, export_interval_millis=60_000)
    metering = MeterProvider([reader], shutdown_on_exit=False)
    logging = LoggerProvider(shutdown_on_exit=False)
    log_exporter = OTLPLogExporter(endpoint=f"{url}/logs", compression=compression)
    logging.add_log_record_processor(SimpleLogRecordProcessor(log_exporter))

    with tracing.get_tracer("t").start_as_current_span("s"):
        metering.get_meter("m").create_counter("c").add(1)
        logging.get_logger("l").emit(body="hello", severity_number=SeverityNumber.INFO)
    for provider in (tracing, metering, logging):
        provider.shutdown()

    assert sorted({record.signal for record in receiver.records()}) == ["logs", "metrics", "traces"]
    assert set(receiver.app.counts()["statuses"]) == {f"/v1/{s} 200" for s in ("logs", "metrics", "traces")}
