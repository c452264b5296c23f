"""Jaeger under our configuration: an incident comes back as a trace with its stacks as events."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from arobust_otel.forwarders.otlp_http import OtlpHttp
from arobust_otel.otlp.incidents import incident_requests, trace_id
from tests.stack import guides
from tests.stack.incident import INCIDENT, STACKS
from tests.stack.running import CONFIG, asked, check, free_ports, program, running, until_answer


def environment(query: int) -> dict[str, str]:
    """Free ports for everything, the query API on the given one."""
    query_grpc, http, grpc = free_ports(3)
    return {
        "JAEGER_UI": f"127.0.0.1:{query}",
        "JAEGER_QUERY_GRPC": f"127.0.0.1:{query_grpc}",
        "JAEGER_HTTP": f"127.0.0.1:{http}",
        "JAEGER_GRPC": f"127.0.0.1:{grpc}",
    }


def connections_after_questions(folder: Path, sampler: dict[str, str]) -> int:
    """How often Jaeger calls where traces of itself go, once it was asked something and ended."""
    (query,) = free_ports(1)
    url = f"http://127.0.0.1:{query}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        arguments = ["--config", str(CONFIG / "jaeger.yaml")]
        environ = {**environment(query), **endpoint, **sampler}
        with running("jaeger", arguments, folder, f"{url}/api/services", environ):
            assert asked(f"{url}/api/services") is not None
        found = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.accept()[0].close()
                found += 1
        return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_started_as_the_guide_says_it_sends_no_traces_of_itself(tmp_path: Path) -> None:
    assert connections_after_questions(tmp_path, guides.environment("jaeger")) == 0
    assert connections_after_questions(tmp_path, {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}) > 0


def test_jaeger_accepts_it() -> None:
    check([program("jaeger"), "validate", "--config", str(CONFIG / "jaeger.yaml")])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_an_incident_comes_back_with_one_event_per_stack(tmp_path: Path) -> None:
    (query,) = free_ports(1)
    environ = environment(query)
    url = f"http://127.0.0.1:{query}"
    arguments = ["--config", str(CONFIG / "jaeger.yaml")]
    with running("jaeger", arguments, tmp_path, f"{url}/api/services", environ):
        forwarder = OtlpHttp(endpoint=f"http://{environ['JAEGER_HTTP']}", signals=("traces",))
        for signal, body in incident_requests({"incident": INCIDENT, "stacks": STACKS}):
            if forwarder.accepts(signal):
                forwarder.send(signal, body)
        forwarder.close()
        trace = trace_id(INCIDENT["id"]).hex()
        found = until_answer("the trace", lambda: asked(f"{url}/api/traces/{trace}"))
    (span,) = found["data"][0]["spans"]
    assert span["operationName"] == "arobust.incident hang_user_code"
    events = [{field["key"]: field["value"] for field in log["fields"]} for log in span["logs"]]
    assert sorted(event["arobust.rank"] for event in events) == [0, 2]
    assert all(event["event"] == "arobust.stack.dump" for event in events)
