"""Panels that count what is wrong: zero where somebody says so, empty where nobody reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import label_name, metric_name
from tests.stack.boards import questions
from tests.stack.running import check, program

HOST, REASON, FORWARDER = (
    label_name(name) for name in (signals.HOST_NAME, signals.REASON, signals.FORWARDER)
)
QUERIES = {found.panel: found.about("gpt") for found in questions() if found.store == "prometheus"}


def row(signal: str, values: str, **labels: str) -> dict[str, str]:
    inside = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{metric_name(signal)}{{{inside}}}", "values": values}


UP = row(signals.COLLECTOR_UP, "1x8", host_name="a", arobust_collector="proc")
REPORTS = row(signals.CLIENT_REPORTS, "5x8", host_name="a", arobust_result="accepted")
LAG = row(signals.FORWARDER_LAG, "0x8", arobust_forwarder="loki", arobust_stream="logs")
JUDGE = row(signals.MASTER_UP, "1x8", arobust_master_role="judge")
# panel: what is there, and the samples that the panel shows
STORIES: list[tuple[str, list[dict[str, str]], list[tuple[dict[str, str], int]]]] = [
    ("Collectors that fail", [], []),
    ("Collectors that fail", [UP], [({}, 0)]),
    (
        "Collectors that fail",
        [UP, row(signals.COLLECTOR_UP, "0x8", host_name="a", arobust_collector="nvidia")],
        [({}, 1)],
    ),
    ("Given up", [], []),
    ("Given up", [REPORTS], [({HOST: "a"}, 0)]),
    (
        "Given up",
        [REPORTS, row(signals.CLIENT_DROPPED, "3x8", host_name="a", arobust_reason="old")],
        [({HOST: "a", REASON: "old"}, 3)],
    ),
    ("Never delivered", [], []),
    ("Never delivered", [LAG], [({FORWARDER: "loki"}, 0)]),
    (
        "Never delivered",
        [LAG, row(signals.FORWARDER_DROPPED, "2x8", arobust_forwarder="loki", arobust_reason="old")],
        [({FORWARDER: "loki", REASON: "old"}, 2)],
    ),
    ("Open incidents", [], []),
    ("Open incidents", [row(signals.MASTER_UP, "0x8", arobust_master_role="judge")], []),
    ("Open incidents", [JUDGE], [({}, 0)]),
    ("Open incidents", [JUDGE, row(signals.INCIDENT_OPEN, "1x8", arobust_job_id="other")], [({}, 0)]),
    ("Open incidents", [row(signals.INCIDENT_OPEN, "1x8", arobust_job_id="gpt")], [({}, 1)]),
    (  # pushed, and scraped from the master: one incident
        "Open incidents",
        [row(signals.INCIDENT_OPEN, "1x8", arobust_job_id="gpt", instance=way) for way in ("gpt", "m:9464")],
        [({}, 1)],
    ),
    ("Roles that are down", [], []),
    ("Roles that are down", [JUDGE], [({}, 0)]),
    ("Roles that are down", [JUDGE, row(signals.MASTER_UP, "0x8", arobust_master_role="receive")], [({}, 1)]),
]


@pytest.mark.parametrize(("panel", "there", "shown"), STORIES)
def test_zero_is_said_only_where_somebody_reports(
    panel: str, there: list[dict[str, str]], shown: list[tuple[dict[str, str], int]], tmp_path: Path
) -> None:
    samples = [{"labels": _selector(labels), "value": value} for labels, value in shown]
    question = {"expr": QUERIES[panel], "eval_time": "1m", "exp_samples": samples}
    story: dict[str, Any] = {"interval": "15s", "input_series": there, "promql_expr_test": [question]}
    file = tmp_path / "story.yml"
    file.write_text(json.dumps({"evaluation_interval": "15s", "tests": [story]}))
    check([program("promtool"), "test", "rules", str(file)])


def _selector(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
