"""A Prometheus before 3 under our configuration: it scrapes a real master, and its rules load."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from arobust_otel.config import ForwarderSettings
from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import metric_name
from tests.master.running import Master, settings_for
from tests.stack.running import CONFIG, asked, collecting, configuration, free_ports, running, until_answer
from tests.stack.test_series import OF_A_RANK, attempt

JUDGE_UP = 'arobust_master_up{arobust_master_role="judge"} == 1'
WRITABLE = "arobust_journal_writable == 1"
OUTAGE_SECONDS = 8.0  # longer than the exporter's own default, which bounds all its retries


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_it_sees_the_master_and_no_alert_says_that_it_is_blind(tmp_path: Path) -> None:
    own, scraped = free_ports(2)
    url = f"http://127.0.0.1:{own}"
    files = configuration(tmp_path, {"127.0.0.1:9464": f"127.0.0.1:{scraped}", "15s": "1s"})
    scrape = ForwarderSettings("scrape", "prometheus_scrape", {"listen": f"127.0.0.1:{scraped}"})
    arguments = [f"--config.file={files / 'prometheus-2.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{own}"]

    def firing() -> list[str]:
        answer = asked(f"{url}/api/v1/alerts")
        return [alert["labels"]["alertname"] for alert in answer["data"]["alerts"]] if answer else []

    with (
        Master(settings_for(tmp_path / "data", forwarders=(scrape,))),
        running("prometheus2", arguments, tmp_path, f"{url}/-/ready"),
    ):
        until_answer(
            "the dead-man switch alone",
            lambda: "ArobustWatchdog" in (found := firing()) and "ArobustMasterBlind" not in found,
        )
        roles = until_answer("roles", lambda: values(url, "arobust_master_up"))
        # what the alerts about judge and journal look at is there, and nothing of it is wrong
        judged = f"{JUDGE_UP} and on (instance) arobust_judge_lag_seconds and on (instance) {WRITABLE}"
        until_answer("a judge that speaks", lambda: values(url, judged))
        assert not {"ArobustJudgeBehind", "ArobustJournalFull"} & set(firing())
        rules = until_answer("rules", lambda: asked(f"{url}/api/v1/rules"))["data"]["groups"]
    assert roles == {"receive": 1.0, "judge": 1.0, "deliver": 1.0}
    assert {group["name"] for group in rules} == {"arobust-incidents", "arobust-master", "arobust-jobs"}
    assert all(rule["health"] == "ok" for group in rules for rule in group["rules"])


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_judge_that_stands_still_is_told(tmp_path: Path) -> None:
    own, scraped = free_ports(2)
    url = f"http://127.0.0.1:{own}"
    quick = {"127.0.0.1:9464": f"127.0.0.1:{scraped}", "15s": "1s", "for: 1m": "for: 1s"}
    files = configuration(tmp_path, quick)
    scrape = ForwarderSettings("scrape", "prometheus_scrape", {"listen": f"127.0.0.1:{scraped}"})
    arguments = [f"--config.file={files / 'prometheus-2.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{own}"]
    told = 'ALERTS{alertname="ArobustJudgeBehind", alertstate="firing"}'
    with (
        Master(settings_for(tmp_path / "data", forwarders=(scrape,))) as master,
        running("prometheus2", arguments, tmp_path, f"{url}/-/ready"),
    ):
        until_answer("a judge that speaks", lambda: values(url, "arobust_judge_lag_seconds"))
        judge = master.role("judge")
        os.kill(judge, signal.SIGSTOP)
        try:
            found = until_answer("the alert", lambda: values(url, told))
        finally:
            os.kill(judge, signal.SIGCONT)
    assert found == {"judge": 1.0}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_ranks_reach_it_through_a_collector_with_the_same_names_and_labels(tmp_path: Path) -> None:
    (own,) = free_ports(1)
    url = f"http://127.0.0.1:{own}"
    arguments = [f"--config.file={CONFIG / 'prometheus-2.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{own}", "--web.enable-remote-write-receiver"]
    with (
        running("prometheus2", arguments, tmp_path, f"{url}/-/ready"),
        collecting("otelcol-prometheus-2.yaml", tmp_path, "", PROMETHEUS=url) as collector,
    ):
        forwarder = OtlpHttp(endpoint=collector, signals=("metrics",))
        forwarder.send("metrics", attempt(0, time.time_ns()))
        forwarder.close()
        query = f'{metric_name(signals.STEP)}{{arobust_rank="3"}}'
        answer = until_answer("a step", lambda: rows(url, query))
        names = until_answer("names", lambda: asked(f"{url}/api/v1/label/__name__/values"))["data"]
    (row,) = answer
    assert row["metric"] == {
        "__name__": "arobust_training_step",
        "arobust_job_id": "gpt",
        "arobust_local_rank": "3",
        "arobust_rank": "3",
        "arobust_role": "trainer",
        "host_name": "node-a",
        "instance": "node-a/gpt",
        "job": "arobust-agent",
    }
    assert {metric_name(name) for name in OF_A_RANK} <= set(names)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_collector_keeps_what_it_took_while_prometheus_is_away_and_refuses_more(tmp_path: Path) -> None:
    (own,) = free_ports(1)
    url = f"http://127.0.0.1:{own}"
    arguments = [f"--config.file={CONFIG / 'prometheus-2.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    arguments += [f"--web.listen-address=127.0.0.1:{own}", "--web.enable-remote-write-receiver"]
    with collecting("otelcol-prometheus-2.yaml", tmp_path, "", PROMETHEUS=url) as collector:
        since = time.monotonic()
        answers = send_many(collector, 110)
        time.sleep(max(0.0, since + OUTAGE_SECONDS - time.monotonic()))
        with running("prometheus2", arguments, tmp_path, f"{url}/-/ready"):
            query = f'count_over_time({metric_name(signals.STEP)}{{arobust_rank="3"}}[1h])'
            found = until_answer("all batches", lambda: counted(url, query, answers.count(200)))
    assert answers == [200] * 100 + [503] * 10
    assert found == 100


def send_many(collector: str, count: int) -> list[int]:
    """Statuses with which it answers so many batches; their points are a second apart."""
    headers = {"content-type": "application/x-protobuf"}
    first_ns = time.time_ns() - count * 10**9
    found = []
    for number in range(count):
        body = attempt(0, first_ns + number * 10**9)
        found.append(requests.post(f"{collector}/v1/metrics", body, headers=headers, timeout=10).status_code)
    return found


def rows(url: str, query: str) -> list[dict[str, Any]]:
    """Result of a query; empty where it does not answer."""
    answer = asked(f"{url}/api/v1/query", query=query)
    return answer["data"]["result"] if answer else []


def counted(url: str, query: str, least: int) -> float | None:
    """The one value of a query, from `least` on."""
    found = rows(url, query)
    value = float(found[0]["value"][1]) if found else 0.0
    return value if value >= least else None


def values(url: str, metric: str) -> dict[str, float]:
    return {row["metric"].get("arobust_master_role", ""): float(row["value"][1]) for row in rows(url, metric)}
