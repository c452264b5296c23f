"""Alertmanager under our configuration: checked by amtool; a root cause silences its symptoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.forwarders.sink import Sink, sinking
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


@pytest.mark.parametrize("file", ["alertmanager.yml", "compose/alertmanager.yml"])
def test_amtool_accepts_it(file: str) -> None:
    check([program("amtool"), "check-config", str(CONFIG / file)])


def told(sink: Sink) -> set[tuple[str, str]]:
    """(job, alert) of every firing alert that the webhook got."""
    alerts = [alert for body in sink.bodies("alerts") for alert in json.loads(body)["alerts"]]
    return {
        (alert["labels"].get("arobust_job_id", ""), alert["labels"]["alertname"])
        for alert in alerts
        if alert["status"] == "firing"
    }


def alert(name: str, tier: str, job: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, "arobust_tier": tier, "arobust_job_id": job}, "annotations": {}}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_root_cause_silences_its_symptoms_and_no_other_job(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with sinking() as sink:
        replaced = {"127.0.0.1:9099": f"127.0.0.1:{sink.port}", "group_wait: 5s": "group_wait: 1s"}
        file = configuration(tmp_path, replaced) / "alertmanager.yml"
        arguments = [f"--config.file={file}", f"--storage.path={tmp_path / 'data'}"]
        arguments += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
        with running("alertmanager", arguments, tmp_path, f"{url}/-/ready"):
            alerts = [
                alert("ArobustNodeLost", "node", "gpt"),
                alert("ArobustProcessKilled", "process", "gpt"),
                alert("ArobustHangUserCode", "hang", "gpt"),
                alert("ArobustAgentLost", "view", "gpt"),
                alert("ArobustProcessKilled", "process", "bert"),
                alert("ArobustHangCollective", "symptom", "bert"),
                alert("ArobustHangUserCode", "hang", "llama"),
                alert("process_killed", "", "t5"),  # as the master sends them itself
                alert("hang_user_code", "", "t5"),
                alert("ArobustNodeLost", "node", ""),  # of a Prometheus that does not promote the job
                alert("ArobustOutOfMemoryHost", "process", ""),
                alert("ArobustWatchdog", "master", ""),
            ]
            answer = requests.post(f"{url}/api/v2/alerts", json=alerts, timeout=10)
            assert answer.status_code == 200, answer.text
            until_answer("four jobs, and alerts without one", lambda: len(told(sink)) >= 6)
            until_answer("the dead-man switch", lambda: sink.bodies("alive"))
            silenced = asked(f"{url}/api/v2/alerts", inhibited="true", active="false", silenced="false")
    assert told(sink) == {
        ("gpt", "ArobustNodeLost"),
        ("bert", "ArobustProcessKilled"),
        ("llama", "ArobustHangUserCode"),
        ("t5", "process_killed"),
        ("", "ArobustNodeLost"),
        ("", "ArobustOutOfMemoryHost"),
    }
    assert len(silenced) == 5
