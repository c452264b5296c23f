"""Configuration and rules of Prometheus: checked by promtool, their stories told to it, and a real start."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from tests.stack.running import (
    CONFIG,
    asked,
    check,
    configuration,
    free_ports,
    program,
    running,
    until_answer,
)

RULES = tuple(sorted((CONFIG / "rules").glob("*.yml")))


@pytest.mark.parametrize("file", ["prometheus.yml", "prometheus-2.yml"])
def test_promtool_accepts_it(file: str) -> None:
    check([program("promtool"), "check", "config", "--lint=all", "--lint-fatal", str(CONFIG / file)])


def test_promtool_accepts_the_rules() -> None:
    check([program("promtool"), "check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES)])


def test_the_stories_of_the_alerts_come_true() -> None:
    check([program("promtool"), "test", "rules", *map(str, (CONFIG / "rules" / "tests").glob("*.yml"))])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_prometheus_takes_otlp_with_our_labels_and_late_points(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    file = configuration(tmp_path, {"127.0.0.1:9464": address}) / "prometheus.yml"
    arguments = [f"--config.file={file}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    arguments += [f"--web.listen-address={address}", "--web.enable-otlp-receiver"]
    with running("prometheus", arguments, tmp_path, f"http://{address}/-/ready"):
        forwarder = OtlpHttp(endpoint=f"http://{address}/api/v1/otlp", signals=("metrics",))
        now_ns = _now_ns()
        for age_seconds in (0, 3600, 20 * 3600):  # each older than the one before: out of order
            forwarder.send("metrics", _step(now_ns - age_seconds * 10**9, incarnation=age_seconds))
        forwarder.close()
        found = until_answer(
            "three points of one series",
            lambda: _points(address, "arobust_training_step[24h]"),
        )
    assert found == {
        "__name__": "arobust_training_step",
        "arobust_job_id": "gpt",
        "arobust_rank": "3",
        "host_name": "node-a",
        "instance": "node-a/gpt",
        "job": "arobust-agent",
    }


def _now_ns() -> int:
    import time

    return time.time_ns()


def _step(at_ns: int, incarnation: int) -> bytes:
    request = ExportMetricsServiceRequest()
    entry = request.resource_metrics.add()
    resource = {
        "service.name": "arobust-agent", "service.instance.id": "node-a/gpt", "host.name": "node-a",
        "arobust.job.id": "gpt", "arobust.incarnation": str(incarnation),
    }  # fmt: skip
    for key, value in resource.items():
        entry.resource.attributes.add(key=key).value.string_value = value
    metric = entry.scope_metrics.add().metrics.add(name="arobust.training.step", unit="{step}")
    point = metric.gauge.data_points.add(time_unix_nano=at_ns, as_int=7)
    point.attributes.add(key="arobust.rank").value.int_value = 3
    return request.SerializeToString()


def _points(address: str, query: str) -> dict[str, str] | None:
    """Labels of the one series that has three points; None until then."""
    answer = asked(f"http://{address}/api/v1/query", query=query)
    series = answer["data"]["result"] if answer else []
    whole = [row["metric"] for row in series if len(row["values"]) == 3]
    return whole[0] if len(series) == 1 and whole else None
