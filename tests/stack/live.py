"""A live hang: a training whose telemetry goes through a Collector and the master into every store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.demo.api import Api, read_master_file
from arobust_otel.demo.drill import Drill
from arobust_otel.demo.options import DemoOptions
from arobust_otel.demo.places import Places, copy_script, make_places
from arobust_otel.demo.processes import Processes
from arobust_otel.demo.progress import Progress
from arobust_otel.demo.run import TRAINING_ARGUMENTS
from arobust_otel.demo.torch_env import ensure
from arobust_otel.demo.watch import Watch
from tests.forwarders.sink import Sink, sinking
from tests.stack import guides
from tests.stack.running import (
    AT_ONCE,
    CONFIG,
    asked,
    configuration,
    free_ports,
    listens_beyond,
    running,
    until_answer,
)

RANKS, CULPRIT = 4, 2
RUN_SECONDS = 300.0

MASTER = """
[forwarders.prometheus]
type = "otlp_http"
endpoint = "{prometheus}/api/v1/otlp"
signals = ["metrics"]

[forwarders.loki]
type = "otlp_http"
endpoint = "{loki}/otlp"
signals = ["logs"]

[forwarders.traces]
type = "otlp_http"
endpoint = "{traces}"
signals = ["traces"]

[forwarders.prometheus_scrape]
listen = "{scraped}"
"""


@dataclass(frozen=True)
class Addresses:
    """Ports of this run; a URL of each."""

    prometheus: str
    loki: str
    traces: str
    jaeger: str
    alertmanager: str
    gateway: str
    scraped: str

    @classmethod
    def free(cls) -> Addresses:
        return cls(*(f"http://127.0.0.1:{port}" for port in free_ports(7)))


@dataclass(frozen=True)
class Story:
    """What is there to ask once the verdict is open."""

    at: Addresses
    webhook: Sink
    api: Api
    incident: dict[str, Any]
    progress: Progress

    @property
    def job(self) -> str:
        return str(self.incident["job_id"])

    def promql(self, query: str) -> list[dict[str, Any]]:
        answer = asked(f"{self.at.prometheus}/api/v1/query", query=query)
        return list(answer["data"]["result"]) if answer else []

    def logql(self, query: str) -> list[tuple[str, dict[str, str]]]:
        """(line, labels and structured metadata) of everything that the query finds."""
        answer = asked(f"{self.at.loki}/loki/api/v1/query_range", query=query, since="1h", limit=500)
        streams = answer["data"]["result"] if answer else []
        return [(line, stream["stream"]) for stream in streams for _, line in stream["values"]]

    def spans(self, trace: str) -> list[dict[str, Any]]:
        answer = asked(f"{self.at.jaeger}/api/traces/{trace}")
        return list(answer["data"][0]["spans"]) if answer and answer["data"] else []


@contextlib.contextmanager
def stores(at: Addresses, folder: Path, webhook: Sink) -> Iterator[None]:
    """Prometheus, Alertmanager, Loki and Jaeger as the guides start them, on this run's ports."""
    replaced = {
        "127.0.0.1:9464": _host(at.scraped),
        "127.0.0.1:9093": _host(at.alertmanager),
        "127.0.0.1:9099": f"127.0.0.1:{webhook.port}",
        "# external_labels:": "external_labels:",
    }
    places = {"collector_config/": f"{configuration(folder, replaced)}/"}
    places |= {"127.0.0.1:9090": _host(at.prometheus), "127.0.0.1:9093": _host(at.alertmanager)}
    first, second, third = (f"127.0.0.1:{port}" for port in free_ports(3))
    # name: arguments beside the guide's, URL that answers when it is ready, environment
    started: dict[str, tuple[list[str], str, dict[str, str]]] = {
        "alertmanager": ([f"--storage.path={folder / 'alerts'}"], f"{at.alertmanager}/-/ready", {}),
        "prometheus": ([f"--storage.tsdb.path={folder / 'tsdb'}"], f"{at.prometheus}/-/ready", {}),
        "jaeger": ([], f"{at.jaeger}/api/services", {
            "JAEGER_UI": _host(at.jaeger), "JAEGER_HTTP": _host(at.traces),
            "JAEGER_QUERY_GRPC": first, "JAEGER_GRPC": second, **guides.environment("jaeger"),
        }),
        "loki": ([AT_ONCE], f"{at.loki}/ready", {
            "LOKI_PORT": _port(at.loki), "LOKI_GRPC_PORT": _port(third), "LOKI_DATA": str(folder / "loki"),
        }),
    }  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, (more, ready, environ) in started.items():
            arguments = [*guides.placed(guides.starts(name), places), *more]
            process = stack.enter_context(running(name, arguments, folder, ready, environ))
            assert listens_beyond(process.pid) == []
        yield


@contextlib.contextmanager
def gateway(at: Addresses, folder: Path, master: str) -> Iterator[None]:
    """The Collector between agents and master."""
    health, grpc, metrics = free_ports(3)
    environ = {
        "AROBUST_MASTER": master, "OTELCOL_HTTP": _host(at.gateway), "OTELCOL_GRPC": f"127.0.0.1:{grpc}",
        "OTELCOL_HEALTH": f"127.0.0.1:{health}", "OTELCOL_METRICS_PORT": str(metrics),
        "OTELCOL_QUEUE": str(folder / "queue"),
    }  # fmt: skip
    arguments = guides.placed(guides.starts("otelcol"), {"collector_config/": f"{CONFIG}/"})
    with running("otelcol", arguments, folder, f"http://127.0.0.1:{health}", environ) as process:
        assert listens_beyond(process.pid) == []
        yield


def _host(url: str) -> str:
    return url.removeprefix("http://")


def _port(address: str) -> str:
    return address.rpartition(":")[2]


@contextlib.contextmanager
def ended(processes: Processes, places: Places) -> Iterator[None]:
    try:
        yield
    finally:
        left = processes.end()
        places.remove()
        assert left == []


def hang(api: Api, at: Addresses, places: Places, processes: Processes, progress: Progress) -> dict[str, Any]:
    """Train through the gateway, hang one rank, and wait for the open incident."""
    options = DemoOptions("hang", CULPRIT, RANKS, timeout_seconds=RUN_SECONDS)
    drill = Drill(options, places)
    try:
        copy_script(places)
        arguments = (*TRAINING_ARGUMENTS, "--extension", drill.extension.name)
        (port,) = free_ports(1)
        processes.start_training(at.gateway, RANKS, port, arguments, heartbeats=api.otlp_http)
        deadline = time.monotonic() + RUN_SECONDS
        watch = Watch(options, places, processes, api, progress, deadline)
        watch.until_healthy()
        progress.say(f"rank {CULPRIT} gets {drill.says}")
        moment = drill.carry_out(CULPRIT, processes.ranks()[CULPRIT])
        found, seconds = watch.until_open(moment)
        assert seconds is not None, f"no verdict: {found}"
        progress.say(f"verdict {seconds:.1f} s after the injection")
        return next(incident for incident in found if incident["status"] == "open")
    finally:
        drill.close()


@contextlib.contextmanager
def telling(folder: Path) -> Iterator[Story]:
    """Everything up, the rank hung, the verdict open; everything ended afterwards."""
    at, progress = Addresses.free(), Progress()
    torch = ensure()
    places = make_places(folder / "run")
    processes = Processes(places, torch.python_path)
    config = folder / "master.toml"
    urls = {"prometheus": at.prometheus, "loki": at.loki, "traces": at.traces, "scraped": _host(at.scraped)}
    config.write_text(MASTER.format(**urls))
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.delenv("AROBUST_RAISE", raising=False)  # a user's run contains its errors
        webhook = stack.enter_context(sinking())
        stack.enter_context(ended(processes, places))
        processes.start_master(config)
        api = until_answer("the master", lambda: read_master_file(places.data))
        stack.enter_context(stores(at, folder, webhook))
        stack.enter_context(gateway(at, folder, api.otlp_http))
        progress.say("stores and gateway are up")
        incident = hang(api, at, places, processes, progress)
        yield Story(at, webhook, api, incident, progress)
