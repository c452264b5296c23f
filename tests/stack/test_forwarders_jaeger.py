"""What a real Jaeger shows of what a master forwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.master.incident_streams import OtlpStream
from arobust_otel.master.streams import BulkStream
from arobust_otel.model.incident import rfc3339
from arobust_otel.otlp.incidents import trace_id
from tests.forwarders.sink import sinking
from tests.master.delivering import World, an_incident
from tests.stack.running import CONFIG, asked, free_ports, running, until_answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sinking() as unused:
        made = World(tmp_path, unused)
        yield made
        made.appender.close()


def captures(count: int) -> bytes:
    """Spans as an agent sends them: one per capture of stacks."""
    request = ExportTraceServiceRequest()
    entry = request.resource_spans.add()
    entry.resource.attributes.add(key="service.name").value.string_value = "arobust-agent"
    now_ns = time.time_ns()
    for _ in range(count):
        span = entry.scope_spans.add().spans.add(
            trace_id=os.urandom(16), span_id=os.urandom(8), name="arobust.stack.capture"
        )
        span.start_time_unix_nano, span.end_time_unix_nano = now_ns, now_ns + 1000
        span.events.add(name="arobust.stack.dump", time_unix_nano=now_ns)
    return request.SerializeToString()


def test_spans_and_incidents_come_back(world: World, tmp_path: Path) -> None:
    ui, query, http, grpc = free_ports(4)
    environ = {
        "JAEGER_UI": f"127.0.0.1:{ui}",
        "JAEGER_QUERY_GRPC": f"127.0.0.1:{query}",
        "JAEGER_HTTP": f"127.0.0.1:{http}",
        "JAEGER_GRPC": f"127.0.0.1:{grpc}",
    }
    now = rfc3339(time.time_ns())
    arguments = ["--config", str(CONFIG / "jaeger.yaml")]
    url = f"http://127.0.0.1:{ui}"
    with running("jaeger", arguments, tmp_path, url, environ):
        for _ in range(3):
            world.append(captures(20), signal="traces")
        world.append(captures(1), signal="traces")
        forwarder = OtlpHttp(traces_endpoint=f"http://127.0.0.1:{http}/v1/traces")
        stream = world.deliver(BulkStream, forwarder)
        assert stream.sender.counts.sent_requests == 1  # four requests travel as one
        world.incident(an_incident(opened_at=now, first_evidence_at=now, updated_at=now))
        (world.folder / "cursor").unlink()
        world.deliver(OtlpStream, OtlpHttp(endpoint=f"http://127.0.0.1:{http}", signals=("traces",)))

        def found() -> int:
            answer = asked(f"{url}/api/traces", service="arobust-agent", limit=200, lookback="1h")
            return len(answer["data"]) if answer else 0

        until_answer("every span", lambda: found() == 61)
        trace = until_answer("the incident", lambda: asked(f"{url}/api/traces/{trace_id('i1').hex()}"))
    (span,) = trace["data"][0]["spans"]
    tags = {tag["key"]: tag["value"] for tag in span["tags"]}
    assert (tags["arobust.cause"], tags["arobust.rank"], tags["arobust.severity"]) == (
        "hang_user_code",
        2,
        "critical",
    )
    (process,) = trace["data"][0]["processes"].values()
    assert process["serviceName"] == "arobust-master"
    resource = {tag["key"]: tag["value"] for tag in process["tags"]}
    assert resource["arobust.job.id"] == "job-1"
