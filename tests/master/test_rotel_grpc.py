"""rotel, an agent of another project, in the middle: OTLP/HTTP in, OTLP/gRPC out to the master."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.journal import Kind
from tests.forwarders.test_rotel import BINARY, _listens, request
from tests.master.running import Master, journal_of, settings_for, until
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(240)]


def start_rotel(port: int, grpc_address: str, folder: Path) -> subprocess.Popen[bytes]:
    options = {
        "otlp-http-endpoint": f"127.0.0.1:{port}",
        "otlp-grpc-endpoint": f"127.0.0.1:{free_port()}",
        "exporter": "otlp",
        "otlp-exporter-endpoint": f"http://{grpc_address}",
        "otlp-exporter-protocol": "grpc",
        "pid-file": str(folder / "rotel.pid"),
        "log-file": str(folder / "rotel.log"),
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROTEL_")}
    with (folder / "rotel.out").open("ab") as log:
        return subprocess.Popen(
            [str(BINARY), "start", *arguments], stdout=log, stderr=log, env={**environment, "NO_PROXY": "*"}
        )


def names_in(data_dir: Path) -> set[str]:
    return {
        metric.name
        for record in journal_of(data_dir)
        if record.kind == Kind.REQUEST
        for entry in ExportMetricsServiceRequest.FromString(record.payload).resource_metrics
        for scope in entry.scope_metrics
        for metric in scope.metrics
    }


def test_everything_arrives_also_what_came_while_the_receiver_was_killed(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(40)]
    port = free_port()
    with Master(settings_for(tmp_path / "data")) as master:
        process = start_rotel(port, master.info()["otlp_grpc"], tmp_path)
        try:
            until("rotel listens", lambda: _listens(port))
            for number, name in enumerate(names):
                if number == 20:
                    master.kill_role("receive")
                answer = requests.post(
                    f"http://127.0.0.1:{port}/v1/metrics",
                    request(name),
                    headers={"content-type": "application/x-protobuf"},
                    timeout=20,
                )
                assert answer.status_code == 200
            until("all of it", lambda: set(names) <= names_in(tmp_path / "data"))
            status = until("its words", lambda: _received(master))
            assert {row["protocol"] for row in status["requests"]} == {"grpc"}
        finally:
            process.terminate()
            process.wait(20)


def _received(master: Master) -> dict[str, list[dict[str, str]]] | None:
    receiver = (master.query("/api/v1/status") or {}).get("receiver", {})
    return receiver if receiver.get("requests") else None
