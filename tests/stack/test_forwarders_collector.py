"""A real Collector as destination: away, then there, and everything arrives behind it once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.master.streams import BulkStream
from arobust_otel.model import signals
from tests.forwarders.sink import sinking
from tests.master.delivering import World, points_of, request
from tests.master.running import until
from tests.stack.running import free_ports, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

CONFIGURATION = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{otlphttp: {{endpoint: "{behind}", sending_queue: {{enabled: false}}}}}}
extensions: {{health_check: {{endpoint: "127.0.0.1:{health}"}}}}
service:
  extensions: [health_check]
  pipelines:
    metrics: {{receivers: [otlp], exporters: [otlphttp]}}
    logs: {{receivers: [otlp], exporters: [otlphttp]}}
  telemetry: {{metrics: {{level: none}}}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sinking() as behind:
        made = World(tmp_path, behind)
        yield made
        made.appender.close()


def lines(count: int) -> bytes:
    body = ExportLogsServiceRequest()
    entry = body.resource_logs.add()
    entry.resource.attributes.add(key=signals.JOB_ID).value.string_value = "job-1"
    for number in range(count):
        entry.scope_logs.add().log_records.add(time_unix_nano=number + 1).body.string_value = f"line {number}"
    return body.SerializeToString()


def test_both_signals_arrive_marked_behind_a_collector_that_was_away(world: World, tmp_path: Path) -> None:
    port, health = free_ports(2)
    file = tmp_path / "otelcol.yaml"
    file.write_text(CONFIGURATION.format(port=port, behind=world.sink.url, health=health))
    names = [f"m{number}" for number in range(100)]
    world.append(*(request(name, points=3) for name in names))
    world.append(lines(50), signal="logs")
    forwarder = OtlpHttp(endpoint=f"http://127.0.0.1:{port}", timeout_seconds=30.0)
    with world.delivering(BulkStream, forwarder) as stream:
        until("a try", lambda: stream.sender.counts.retries)
        with running("otelcol", [f"--config={file}"], tmp_path, f"http://127.0.0.1:{health}/"):
            until("everything", lambda: stream.sender.counts.next_offset == 101)
    metrics, logs = world.sink.bodies("metrics"), world.sink.bodies("logs")
    assert sorted(points_of(metrics)) == sorted((name, n) for name in names for n in range(3))
    entries = [
        entry for body in metrics for entry in ExportMetricsServiceRequest.FromString(body).resource_metrics
    ]
    keys = {tuple(sorted(pair.key for pair in entry.resource.attributes)) for entry in entries}
    assert keys == {(signals.FORWARDED, "service.name")}
    assert sum(body.count(b"line ") for body in logs) == 50
    # What comes back from there is known for what it is, and is not sent a second time.
    world.append(*metrics)
    before = world.sink.asked
    world.deliver(BulkStream, forwarder)
    assert world.sink.asked == before
