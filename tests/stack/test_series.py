"""Series stay few: twenty restarts of an 8-rank job, with our promoted labels and without them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

from arobust_otel.agent.client import encode
from arobust_otel.agent.client.encode import Part
from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.prometheus_names import metric_name
from arobust_otel.model.samples import Point
from tests.stack.running import CONFIG, asked, free_ports, running, until_answer

RANKS, RESTARTS = 8, 20
OF_A_RANK = (
    signals.STEP, signals.STATE, signals.PHASE, signals.STEP_DURATION, signals.EVENT_AGE, signals.CPU_AGE,
    signals.IO_AGE, signals.PROCESS_STATE, signals.CPU_UTILIZATION, signals.MEMORY_USAGE,
)  # fmt: skip
# The one metric with the process id, and what Prometheus makes of the resource: these grow with restarts.
INFO = metric_name(signals.PROCESS_INFO)
GROWING = f'{{__name__!~"{INFO}|target_info", job="arobust-agent"}}'
PLAIN = "global: {scrape_interval: 15s}\n"


def attempt(number: int, at_ns: int) -> bytes:
    """What the agent sends for one attempt of the job: new process ids, another incarnation."""
    identity = JobIdentity("gpt", number, "node-a")
    points = []
    for rank in range(RANKS):
        who = {signals.RANK: rank, signals.LOCAL_RANK: rank, signals.ROLE: "trainer"}
        points += [Point(name, float(rank), at_ns, who) for name in OF_A_RANK]
        points.append(Point(signals.PROCESS_INFO, 1, at_ns, {**who, signals.PID: 1000 * number + rank}))
    parts = [Part(point, identity, at_ns) for point in points]
    encoded = encode.metrics(parts)
    assert (encoded.count, encoded.refused) == (len(points), ())
    return encode_metrics(encoded.payload).SerializeToString()


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("promoted", [True, False], ids=["promoted labels", "plain Prometheus"])
def test_twenty_restarts_add_no_series(promoted: bool, tmp_path: Path) -> None:
    text = (CONFIG / "prometheus.yml").read_text() if promoted else PLAIN
    (tmp_path / "prometheus.yml").write_text(text)
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    arguments = [f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-otlp-receiver"]
    with running("prometheus", arguments, tmp_path, f"{url}/-/ready"):
        forwarder = OtlpHttp(endpoint=f"{url}/api/v1/otlp", signals=("metrics",))
        begun_ns = time.time_ns() - 200 * 10**9
        counts = []
        for number in range(RESTARTS + 1):
            forwarder.send("metrics", attempt(number, begun_ns + number * 5 * 10**9))
            counts.append(until_answer("series", lambda: series(url, GROWING)))
        forwarder.close()
        info = series(url, INFO)
        (labels,) = asked(
            f"{url}/api/v1/series", **{"match[]": f'{metric_name(signals.STEP)}{{arobust_rank="3"}}'}
        )["data"]
    assert set(counts) == {RANKS * len(OF_A_RANK)}
    assert info == RANKS * (RESTARTS + 1)
    assert "arobust_incarnation" not in labels
    assert (labels.get("arobust_job_id"), labels["instance"]) == ("gpt" if promoted else None, "node-a/gpt")


def series(url: str, selector: str) -> int:
    """Number of series that the selector found within the last hour."""
    answer = asked(f"{url}/api/v1/query", query=f"count(last_over_time({selector}[1h]))")
    found = answer["data"]["result"] if answer else []
    return int(found[0]["value"][1]) if found else 0
