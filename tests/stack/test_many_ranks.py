"""The board of a job in a real Prometheus: 0, 1, 8 and 1,000 ranks, beside another job, and later."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

from arobust_otel.agent.client import encode
from arobust_otel.agent.client.encode import Part
from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.prometheus_names import label_name
from arobust_otel.model.samples import Point
from arobust_otel.otlp.incidents import incident_gauge
from tests.stack import boards
from tests.stack.incident import INCIDENT
from tests.stack.running import CONFIG, asked, free_ports, running

OF_A_RANK = (
    signals.STEP, signals.STATE, signals.PHASE, signals.STEP_DURATION, signals.EVENT_AGE, signals.LOSS,
    signals.CPU_UTILIZATION, signals.MEMORY_USAGE,
)  # fmt: skip
OF_A_HOST = (
    signals.AGENT_UP, signals.HOST_CPU, signals.HOST_MEMORY_USAGE, signals.HOST_MEMORY_LIMIT,
    signals.HOST_FS_UTILIZATION,
)  # fmt: skip
RANK = label_name(signals.RANK)
JOBS = {"none": 0, "one": 1, "eight": 8, "thousand": 1000}
BY_RANK = ("state-timeline", "heatmap")
LINES = 32  # of more ranks a panel with lines shows the highest
QUESTIONS = [found for found in boards.questions() if found.board == "job" and found.store == "prometheus"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def request(job: str, host: str, ranks: Sequence[int], at_ns: int, moment: int) -> bytes:
    """What an agent says about so many ranks at one moment."""
    points = [Point(name, 1.0 + moment, at_ns, {signals.MOUNTPOINT: "/"}) for name in OF_A_HOST]
    for rank in ranks:
        who = {signals.RANK: rank, signals.LOCAL_RANK: rank, signals.ROLE: "trainer"}
        points += [Point(name, float(rank + moment), at_ns, who) for name in OF_A_RANK]
        points.append(Point(signals.ENQUEUED, rank, at_ns, {**who, signals.GROUP_NAME: "0"}))
    identity = JobIdentity(job, 1, host)
    encoded = encode.metrics([Part(point, identity, at_ns) for point in points])
    return encode_metrics(encoded.payload).SerializeToString()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """URL of a Prometheus that heard of all jobs for a minute, and the newest moment."""
    folder = tmp_path_factory.mktemp("many")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    arguments = [f"--config.file={CONFIG / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-otlp-receiver"]
    with running("prometheus", arguments, folder, f"{url}/-/ready"):
        forwarder = OtlpHttp(endpoint=f"{url}/api/v1/otlp", signals=("metrics",))
        now_ns = time.time_ns()
        for moment in range(4):
            at_ns = now_ns - (3 - moment) * 15 * 10**9
            for job, count in JOBS.items():
                if count:
                    forwarder.send("metrics", request(job, "a", range(count), at_ns, moment))
                    forwarder.send("metrics", incident_gauge({**INCIDENT, "job_id": job}, at_ns))
            # the last rank of this job has moved, and nobody has forgotten yet where it was
            forwarder.send("metrics", request("eight", "b", [7], at_ns, moment))
            forwarder.send("metrics", request("other", "a", range(5000, 5003), at_ns, moment))
        forwarder.close()
        yield url, now_ns // 10**9


def shown(url: str, question: boards.Question, job: str, at: int) -> list[dict[str, Any]]:
    """What the panel gets for the minute that ends at a moment."""
    answer = requests.get(
        f"{url}/api/v1/query_range",
        {"query": question.about(job), "start": str(at - 45), "end": str(at), "step": "15"},
        timeout=60,
    ).json()
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def names(question: boards.Question, rows: list[dict[str, Any]]) -> list[str]:
    """Legends, as Grafana fills them in."""
    return [
        re.sub(r"{{(\w+)}}", lambda found, row=row: row["metric"].get(found[1], ""), question.legend)
        for row in rows
    ]


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda found: found.panel)
def test_a_panel_shows_the_ranks_of_its_job_and_no_other(
    question: boards.Question, job: str, told: tuple[str, int]
) -> None:
    url, now = told
    rows = shown(url, question, job, now)
    legends, ranks = names(question, rows), [row["metric"][RANK] for row in rows if RANK in row["metric"]]
    assert not {"5000", "5001", "5002"} & set(ranks)
    if question.legend:
        assert len(set(legends)) == len(legends), "two lines of one name"
    if question.kind in BY_RANK:
        # a culprit is shown, whether or not its rank says anything itself
        culprit = {"2"} if job == "one" and question.panel.startswith("State") else set()
        assert set(ranks) == {str(rank) for rank in range(JOBS[job])} | culprit
        assert all(name.isdigit() for name in legends), "a heat map sorts only bare numbers by their value"
        if question.kind == "state-timeline":  # which shows rows as they come
            assert legends == sorted(legends, key=int)
    elif RANK in question.legend:
        assert len(rows) == min(JOBS[job], LINES)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda found: found.panel)
def test_a_job_that_is_over_shows_nothing_that_looks_alive(
    question: boards.Question, told: tuple[str, int]
) -> None:
    url, now = told
    rows = shown(url, question, "eight", now + 600)
    assert {float(value) for row in rows for _, value in row["values"]} <= {0.0}


def test_the_variables_find_every_job_and_host(told: tuple[str, int]) -> None:
    url, _ = told
    found = {}
    for board, selector, label in boards.variables():
        answer = asked(f"{url}/api/v1/label/{label}/values", **{"match[]": selector})
        found[board, label] = set(answer["data"])
    assert found == {
        ("job", label_name(signals.JOB_ID)): {"one", "eight", "thousand", "other"},
        ("master-and-agents", label_name(signals.HOST_NAME)): {"a", "b"},
    }
