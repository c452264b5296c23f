"""What a real Loki keeps of what a master forwards, asked back by LogQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.master.streams import BulkStream
from arobust_otel.model import signals
from tests.forwarders.sink import sinking
from tests.master.delivering import World
from tests.master.running import until
from tests.stack.running import CONFIG, asked, free_ports, running, until_answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECOND = 10**9


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with sinking() as unused:
        made = World(tmp_path, unused)
        yield made
        made.appender.close()


def lines(*texts: str, at_ns: int, rank: int = 0) -> bytes:
    """Log lines of one rank, a millisecond apart."""
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add()
    for key, value in (("service.name", "arobust-agent"), (signals.JOB_ID, "gpt")):
        entry.resource.attributes.add(key=key).value.string_value = value
    records = entry.scope_logs.add().log_records
    for place, text in enumerate(texts):
        record = records.add(time_unix_nano=at_ns + place * 1_000_000)
        record.body.string_value = text
        record.attributes.add(key=signals.RANK).value.int_value = rank
    return request.SerializeToString()


def found(url: str) -> list[str]:
    """Every line of the last day, in order."""
    query = '{service_name="arobust-agent", arobust_job_id="gpt"}'
    answer = asked(
        f"{url}/loki/api/v1/query_range", query=query, since="24h", limit=5000, direction="forward"
    )
    rows = [value for stream in (answer["data"]["result"] if answer else []) for value in stream["values"]]
    return [text for _, text in sorted(rows)]


def test_lines_arrive_once_each_from_a_start_with_failures_on_and_beside_one_that_is_refused(
    world: World, tmp_path: Path
) -> None:
    port, grpc = free_ports(2)
    url = f"http://127.0.0.1:{port}"
    environ = {
        "LOKI_PORT": str(port),
        "LOKI_GRPC_PORT": str(grpc),
        "LOKI_DATA": str(tmp_path / "loki-data"),
    }
    now_ns = time.time_ns()
    world.uncertain_seconds = 120.0  # it says 500 until its ring is there
    early = [f"early {number}" for number in range(200)]
    world.append(lines(*early, at_ns=now_ns - 600 * SECOND), signal="logs")
    arguments = [f"-config.file={CONFIG / 'loki.yaml'}", "-config.expand-env=true"]
    forwarder = OtlpHttp(endpoint=f"{url}/otlp", signals=("logs",))
    with world.delivering(BulkStream, forwarder) as stream:
        until("a try", lambda: stream.sender.counts.retries)
        with running("loki", arguments, tmp_path, f"{url}/ready", environ):
            until_answer("the lines of before", lambda: found(url) == early)
            late = [f"late {number}" for number in range(50)]
            week_ns = 8 * 86_400 * SECOND
            world.append(
                lines(*late[:25], at_ns=now_ns - 300 * SECOND),
                lines("far too old", at_ns=now_ns - week_ns),
                lines(*late[25:], at_ns=now_ns - 200 * SECOND, rank=1),
                signal="logs",
            )
            until("taken", lambda: stream.sender.counts.next_offset == 4)
            until_answer("all the others", lambda: len(found(url)) >= 250)
            assert found(url) == early + late
            series = asked(f"{url}/loki/api/v1/series", match='{service_name=~".+"}', since="24h")["data"]
    assert len(series) == 1
    assert stream.sender.counts.dropped == {"too_old": 1}
