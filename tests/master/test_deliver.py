"""The process `deliver` of a real master: many destinations, one of them away, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from arobust_otel.commands.delivered import delivered_lines
from arobust_otel.config import ForwarderSettings
from arobust_otel.model import signals
from arobust_otel.model.prometheus_names import metric_name
from tests.forwarders.sink import Sink, sinking
from tests.forwarders.test_otlp_http import self_signed
from tests.master.running import Master, WireStory, settings_for, until
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def forwarders(url: str, away: str, port: int) -> tuple[ForwarderSettings, ...]:
    options: dict[str, tuple[str, dict[str, Any]]] = {
        "away": ("otlp_http", {"endpoint": away, "timeout_seconds": 1.0}),
        "store": ("otlp_http", {"endpoint": url}),
        "hook": ("webhook", {"url": f"{url}/hook"}),
        "pager": ("alertmanager", {"urls": (url,), "repeat_seconds": 0.5}),
        "page": ("prometheus_scrape", {"listen": f"127.0.0.1:{port}"}),
    }
    return tuple(ForwarderSettings(name, kind, found) for name, (kind, found) in options.items())


def samples(url: str, name: str) -> list[tuple[dict[str, str], float]]:
    text = requests.get(url, timeout=5).text
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric_name(name)
    ]


def test_a_fault_reaches_every_destination_beside_one_that_is_away(tmp_path: Path) -> None:
    port = free_port()
    with sinking() as sink:
        settings = settings_for(
            tmp_path / "data", forwarders=forwarders(sink.url, f"http://127.0.0.1:{free_port()}", port)
        )
        page = f"http://127.0.0.1:{port}/metrics"
        with Master(settings) as master:
            story = WireStory(ranks=4, master=master)
            story.run(4)
            story.ends(2, signal=9)
            story.run(2)
            until("an open incident", master.incidents)

            notices = until("the notice", lambda: _notices(sink, "process_killed"))
            assert notices[0]["type"] == "incident.opened"
            alerts = until("the alert", lambda: _alerts(sink, "process_killed"))
            assert alerts[0]["labels"]["arobust_rank"] == "2"
            until("bulk data", lambda: len(sink.bodies("metrics")) > 2)
            until("the page", lambda: "process_killed" in _causes(page))

            rows = until("the one that is away is told", lambda: _away(master))
            assert "cannot be reached" in rows["away"]["bulk"]["state"]
            assert rows["away"]["bulk"]["lag_records"] > 0
            told = delivered_lines(master.query("/api/v1/status"))
            assert [line for line in told if line.startswith("  bulk: tried again") and "cannot be" in line]
            assert any(line.startswith("Forwarder store: ") for line in told)
            assert set(rows["hook"]) == set(rows["pager"]) == set(rows["page"]) == {"incidents"}
            up = {
                (labels["arobust_forwarder"], labels["arobust_stream"]): value
                for labels, value in samples(page, signals.FORWARDER_UP)
            }
            assert (up["away", "bulk"], up["store", "bulk"], up["hook", "incidents"]) == (0.0, 1.0, 1.0)
            assert {labels["arobust_master_role"] for labels, _ in samples(page, signals.MASTER_UP)} == {
                "receive",
                "judge",
                "deliver",
            }
            until("the receiver's words", lambda: samples(page, signals.RECEIVER_REQUESTS))
            until("the judge's words", lambda: samples(page, signals.JUDGE_BEHIND))
            assert requests.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 404


def _notices(sink: Sink, cause: str) -> list[Any]:
    """Of a cause: on a slow machine agents look silent, which is an incident of its own."""
    found = [json.loads(body) for body in sink.bodies("hook")]
    return [notice for notice in found if notice["data"]["incident"]["cause"] == cause]


def _alerts(sink: Sink, cause: str) -> list[Any]:
    found = [alert for body in sink.bodies("alerts") for alert in json.loads(body)]
    return [alert for alert in found if alert["labels"]["alertname"] == cause]


def _causes(page: str) -> set[str]:
    """Of the incidents that are open."""
    return {labels["arobust_cause"] for labels, value in samples(page, signals.INCIDENT_OPEN) if value}


def _away(master: Master) -> Any:
    rows = (master.query("/api/v1/status") or {}).get("forwarders", {})
    away = rows.get("away", {}).get("bulk", {})
    return rows if away.get("retries") and away.get("lag_records") else None


def test_a_page_on_a_port_that_is_taken_is_named_at_the_start(tmp_path: Path) -> None:
    with sinking() as taken:
        only = (ForwarderSettings("page", "prometheus_scrape", {"listen": f"127.0.0.1:{taken.port}"}),)
        master = Master(settings_for(tmp_path / "data", forwarders=only)).start(ready=False)
        assert master.process is not None
        assert master.process.wait(60) == 2
    assert f"forwarders.page.listen = '127.0.0.1:{taken.port}'" in master.ended()


def test_a_page_for_others_needs_token_and_tls(tmp_path: Path) -> None:
    only = (ForwarderSettings("page", "prometheus_scrape", {"listen": "0.0.0.0:0"}),)
    master = Master(settings_for(tmp_path / "data", forwarders=only)).start(ready=False)
    assert master.process is not None
    assert master.process.wait(60) == 2
    assert "set a token and a TLS certificate" in master.ended()


def test_a_page_for_others_speaks_tls_and_wants_the_token(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    port = free_port()
    settings = settings_for(
        tmp_path / "data",
        token="s3cret",
        tls_certificate=str(certificate),
        tls_key=str(key),
        forwarders=(ForwarderSettings("page", "prometheus_scrape", {"listen": f"127.0.0.1:{port}"}),),
    )
    url = f"https://127.0.0.1:{port}/metrics"
    with Master(settings):
        refused = requests.get(url, timeout=5, verify=str(certificate))
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        headers = {"authorization": "Bearer s3cret"}
        page = requests.get(url, timeout=5, verify=str(certificate), headers=headers)
        assert (page.status_code, metric_name(signals.MASTER_UP) in page.text) == (200, True)
