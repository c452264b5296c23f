"""The rotel agent as destination: away, then back, and the whole journal arrives behind it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import rotel
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.model import signals
from tests.forwarders.sink import Sink, sinking
from tests.master.running import Master, forward_to, settings_for, until
from tests.ports import free_port

BINARY = Path(rotel.__file__).parent / "rotel-agent"
pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(240)]


@contextlib.contextmanager
def rotel_between(port: int, sink: Sink, folder: Path) -> Iterator[None]:
    """rotel that receives on `port` and exports to the sink."""
    options = {
        "otlp-http-endpoint": f"127.0.0.1:{port}",
        "otlp-grpc-endpoint": f"127.0.0.1:{free_port()}",
        "exporter": "otlp",
        "otlp-exporter-endpoint": sink.url,
        "otlp-exporter-protocol": "http",
        "pid-file": str(folder / "rotel.pid"),
        "log-file": str(folder / "rotel.log"),
    }
    command = [
        str(BINARY),
        "start",
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]
    log = (folder / "rotel.out").open("ab")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROTEL_")}
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**environment, "NO_PROXY": "*"})
    log.close()
    try:
        until("rotel listens", lambda: _listens(port))
        yield
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def request(name: str) -> bytes:
    body = ExportMetricsServiceRequest()
    entry = body.resource_metrics.add()
    entry.resource.attributes.add(key=signals.JOB_ID).value.string_value = "job-1"
    metric = entry.scope_metrics.add().metrics.add(name=name)
    metric.gauge.data_points.add(time_unix_nano=1_800_000_000_000_000_000, as_int=1)
    return body.SerializeToString()


def arrived(sink: Sink) -> set[str]:
    return {
        metric.name
        for body in sink.bodies("metrics")
        for entry in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in entry.scope_metrics
        for metric in scope.metrics
    }


def test_the_whole_journal_arrives_after_rotel_was_away(tmp_path: Path) -> None:
    port = free_port()
    settings = settings_for(tmp_path / "data", forwarders=forward_to(f"http://127.0.0.1:{port}"))
    headers = {"content-type": "application/x-protobuf"}
    names = [f"m{number}" for number in range(60)]

    with sinking() as sink, Master(settings) as master:

        def post(part: list[str]) -> None:
            for name in part:
                answer = requests.post(f"{master.url}/v1/metrics", request(name), headers=headers, timeout=10)
                assert answer.status_code == 200

        post(names[:20])  # rotel is not there yet
        until("the forwarder noticed", lambda: _bulk(master).get("retries"))
        with rotel_between(port, sink, tmp_path):
            post(names[20:40])
            until("everything so far", lambda: set(names[:40]) <= arrived(sink))
        post(names[40:])  # away again
        with rotel_between(port, sink, tmp_path):
            until("the whole journal", lambda: set(names) <= arrived(sink))
        assert _bulk(master)["dropped"] == {}
    merged = ExportMetricsServiceRequest.FromString(sink.bodies("metrics")[0])
    keys = {pair.key for pair in merged.resource_metrics[0].resource.attributes}
    assert keys == {signals.JOB_ID, signals.FORWARDED}


def _bulk(master: Master) -> dict[str, Any]:
    status = master.query("/api/v1/status") or {}
    found: dict[str, Any] = status.get("forwarders", {}).get("sink", {}).get("bulk", {})
    return found
