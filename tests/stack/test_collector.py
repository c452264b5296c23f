"""The Collector's configurations in the real Collector: accepted, and nothing is lost before the master."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
import requests
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.forwarders.sink import TAKEN, Sink, sinking
from tests.stack.guides import placed
from tests.stack.running import CONFIG, check, collecting, free_ports, program, until_answer

FILES = ("otelcol-agent.yaml", "otelcol-gateway.yaml", "otelcol-prometheus-2.yaml")


@pytest.mark.parametrize("file", FILES)
def test_the_collector_accepts_it(file: str, tmp_path: Path) -> None:
    check(
        [program("otelcol"), "validate", "--config", str(CONFIG / file)],
        {"OTELCOL_QUEUE": str(tmp_path / "queue"), "AROBUST_HOST": "node-a"},
    )


def test_the_node_agent_does_not_start_without_a_name_of_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AROBUST_HOST", raising=False)
    command = [program("otelcol"), "validate", "--config", str(CONFIG / "otelcol-agent.yaml")]
    with pytest.raises(AssertionError, match=r'error with key "host\.name"'):
        check(command, {"OTELCOL_QUEUE": str(tmp_path / "queue")})


def test_the_collector_accepts_what_the_compose_file_adds(tmp_path: Path) -> None:
    service = yaml.safe_load((CONFIG.parent / "docker-compose.yml").read_text())["services"]["collector"]
    (tmp_path / "token").write_text("secret")
    places = {"/etc/otelcol/gateway.yaml": str(CONFIG / "otelcol-gateway.yaml"), "/identity": str(tmp_path)}
    words = placed([word.replace("$$", "$") for word in service["command"]], places)
    said = check([program("otelcol"), "print-config", *words], {"OTELCOL_QUEUE": str(tmp_path / "queue")})
    (exporter,) = yaml.safe_load(said)["exporters"].values()
    assert exporter["sending_queue"]["queue_size"] == 2**30
    assert exporter["sending_queue"]["storage"] == "file_storage"


def lines_of(sink: Sink) -> list[str]:
    """Bodies of the log records that the sink took, in order."""
    found = []
    for body in sink.bodies("logs"):
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in resource.scope_logs:
                found += [record.body.string_value for record in scope.log_records]
    return found


def send_line(url: str, text: str) -> None:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=time.time_ns())
    record.body.string_value = text
    headers = {"content-type": "application/x-protobuf"}
    answer = requests.post(f"{url}/v1/logs", request.SerializeToString(), headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_what_the_gateway_took_survives_its_restart_while_the_master_is_away(tmp_path: Path) -> None:
    with socket.socket() as away:
        away.bind(("127.0.0.1", 0))  # held, and nobody listens
        port = int(away.getsockname()[1])
        with collecting("otelcol-gateway.yaml", tmp_path, f"http://127.0.0.1:{port}") as url:
            for number in range(20):
                send_line(url, f"line {number}")
    with sinking(port) as sink, collecting("otelcol-gateway.yaml", tmp_path, sink.url):
        until_answer("all lines", lambda: len(set(lines_of(sink))) == 20)
        assert set(lines_of(sink)) == {f"line {number}" for number in range(20)}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_node_agent_keeps_a_traceback_whole_and_names_its_host_and_job(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.touch()
    traceback = 'ValueError: odd\n  File "train.py", line 3, in step\n    raise ValueError("odd")'
    environ = {
        "AROBUST_LOGS": str(tmp_path / "*.log"), "AROBUST_JOB_ID": "gpt", "AROBUST_HOST": "node-a",
        "AROBUST_MASTER_TOKEN": "secret",
    }  # fmt: skip
    folder = tmp_path / "otelcol"
    folder.mkdir()
    with sinking() as sink, collecting("otelcol-agent.yaml", folder, sink.url, **environ):
        until_answer("host metrics", lambda: sink.bodies("metrics"))
        with log.open("a") as file:
            file.write(f"step 1\n{traceback}\nstep 2\n")
        until_answer("the lines", lambda: traceback in lines_of(sink))
        request = ExportMetricsServiceRequest.FromString(sink.bodies("metrics")[0])
    attributes = {
        item.key: item.value.string_value for item in request.resource_metrics[0].resource.attributes
    }
    assert {headers["Authorization"] for headers in sink.headers} == {"Bearer secret"}
    assert attributes["host.name"] == "node-a"
    assert attributes["service.instance.id"] == "node-a/otelcol-agent"
    assert attributes["arobust.job.id"] == "gpt"
    assert lines_of(sink)[0] == "step 1"


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("file", ["otelcol-gateway.yaml", "otelcol-agent.yaml"])
def test_a_wrong_token_makes_it_drop_and_it_counts_what_it_dropped(file: str, tmp_path: Path) -> None:
    (metrics,) = free_ports(1)
    environ = {"AROBUST_HOST": "node-a", "OTELCOL_METRICS_PORT": str(metrics)}
    with sinking() as sink:
        sink.judge = lambda signal, body: (401, {}, b"")
        with collecting(file, tmp_path, sink.url, **environ) as url:
            send_line(url, "lost")
            until_answer("its count", lambda: failed_records(f"http://127.0.0.1:{metrics}/metrics"))
        sink.judge = lambda signal, body: TAKEN
        with collecting(file, tmp_path, sink.url, **environ) as url:
            send_line(url, "later")
            until_answer("a line", lambda: lines_of(sink))
    assert lines_of(sink) == ["later"]


def failed_records(url: str) -> float:
    """Log records that the Collector gave up."""
    name = "otelcol_exporter_send_failed_log_records"
    lines = requests.get(url, timeout=10).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
