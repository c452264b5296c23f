"""The page of a real master, with a drop on it, in the eyes of Prometheus's own checker."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from arobust_otel.config import ForwarderSettings
from tests.forwarders.sink import TAKEN, sinking
from tests.master.delivering import request
from tests.master.running import Master, forward_to, settings_for, until
from tests.stack.running import free_ports, program

FAMILIES = ("arobust_master_up", "arobust_receiver_requests", "arobust_forwarder_dropped")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_page_pleases_promtool(tmp_path: Path) -> None:
    promtool = program("promtool")
    (port,) = free_ports(1)
    page = ForwarderSettings("page", "prometheus_scrape", {"listen": f"127.0.0.1:{port}"})
    with sinking() as sink:
        sink.judge = lambda signal, body: (400, {}, b"no") if b"bad" in body else TAKEN
        forwarders = (page, *forward_to(sink.url))
        with Master(settings_for(tmp_path, forwarders=forwarders)) as master:
            headers = {"content-type": "application/x-protobuf"}
            for body in (request("good", time_ns=time.time_ns()), request("bad"), b"\xff"):
                requests.post(f"{master.url}/v1/metrics", body, headers=headers, timeout=20)
            text = until("the drop, and what each role says", lambda: _whole_page(port))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(FAMILIES) <= set(families)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def _whole_page(port: int) -> str:
    """Each role says its own once a second; empty before all have."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20).text
    return text if all(words in text for words in (*FAMILIES, 'arobust_reason="refused"')) else ""
