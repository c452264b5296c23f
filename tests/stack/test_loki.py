"""Loki under our configuration: incidents and stacks are found by attribute, and streams stay few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.otlp.incidents import incident_requests
from tests.stack.incident import INCIDENT, STACK, STACKS
from tests.stack.running import AT_ONCE, CONFIG, asked, check, free_ports, program, running, until_answer

ARGUMENTS = [f"-config.file={CONFIG / 'loki.yaml'}", "-config.expand-env=true"]


def environment(port: int, folder: Path) -> dict[str, str]:
    (grpc,) = free_ports(1)
    return {"LOKI_PORT": str(port), "LOKI_GRPC_PORT": str(grpc), "LOKI_DATA": str(folder / "loki-data")}


def streams(url: str, query: str) -> list[dict[str, Any]]:
    """Streams of the last hour that a LogQL query finds."""
    answer = asked(f"{url}/loki/api/v1/query_range", query=query, since="1h", limit=1000)
    return list(answer["data"]["result"]) if answer else []


def test_loki_accepts_it(tmp_path: Path) -> None:
    check([program("loki"), *ARGUMENTS, "-verify-config"], environment(3100, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_incident_and_its_stacks_are_found_in_one_stream(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with running("loki", [*ARGUMENTS, AT_ONCE], tmp_path, f"{url}/ready", environment(port, tmp_path)):
        forwarder = OtlpHttp(endpoint=f"{url}/otlp", signals=("logs",))
        for signal, body in incident_requests({"incident": INCIDENT, "stacks": STACKS}):
            if forwarder.accepts(signal):
                forwarder.send(signal, body)
        forwarder.close()
        job = '{service_name="arobust-master", arobust_job_id="gpt"}'
        found = until_answer("the incident", lambda: streams(url, f'{job} | arobust_cause="hang_user_code"'))
        stacks = until_answer("the stacks", lambda: streams(url, f'{job} | event_name="arobust.stack.dump"'))
        labels = asked(f"{url}/loki/api/v1/labels", since="1h")["data"]
        series = asked(f"{url}/loki/api/v1/series", match='{service_name=~".+"}', since="1h")["data"]
    assert "Rank 2 hangs in read_shard" in found[0]["values"][0][1]
    assert {line for stream in stacks for _, line in stream["values"]} == {
        f"{STACK}\nrank {n}" for n in (0, 2)
    }
    assert sorted(labels) == ["arobust_job_id", "service_name"]
    assert len(series) == 1
