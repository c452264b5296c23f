"""The documented examples, run as they stand against a real master; what they report is in its journal."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel import MasterClient
from arobust_otel.journal import Kind
from arobust_otel.model import signals
from tests.agent.server import REQUESTS
from tests.master.running import Master, journal_of, settings_for
from tests.predecessor.support import XPU_TEXT, serving

EXAMPLES = Path(__file__).parents[2] / "examples" / "predecessor"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Found:
    """What a journal holds, as OTel signals."""

    def __init__(self, data_dir: Path) -> None:
        records = journal_of(data_dir)
        requests = [record for record in records if record.kind == Kind.REQUEST]
        parsed = [(r.signal, REQUESTS[r.signal].FromString(r.payload)) for r in requests]
        self.heartbeats = [record for record in records if record.kind == Kind.HEARTBEAT]
        self.metrics = [
            metric
            for signal, request in parsed
            if signal == "metrics"
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        self.logs = [
            record
            for signal, request in parsed
            if signal == "logs"
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]
        self.spans = [
            span
            for signal, request in parsed
            if signal == "traces"
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def values(self, name: str) -> list[float]:
        return [
            point.as_int or point.as_double
            for metric in self.metrics
            if metric.name == name
            for point in (metric.gauge.data_points or metric.sum.data_points)
        ]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    with Master(settings_for(tmp_path / "data")) as running:
        yield running


def address(master: Master, protocol: str) -> str:
    return master.url if protocol == "http" else str(master.info()["otlp_grpc"]).rpartition("/")[2]


def run(name: str, *arguments: str, **environ: str) -> str:
    """The example as it stands, in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parents[1]), **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_usage(master: Master, tmp_path: Path, protocol: str) -> None:
    """Client, agent, four collectors, five seconds, stop: it could not pass before (defect 9)."""
    log = tmp_path / "train.log"
    log.write_text("step 1 loss 2.5\nWARNING: slow\n")
    with serving(lambda: (200, XPU_TEXT)) as port:
        output = run(
            "usage",
            str(log),
            address(master, protocol),
            AROBUST_HEARTBEAT_URL=master.url,
            AROBUST_JOB_ID="old",
            arobust_XPU_TIMER_PORT=str(port),
        )
    assert "'dropped': 0" in output
    found = Found(tmp_path / "data")
    lines = [
        (record.body.string_value, record.severity_number) for record in found.logs if not record.event_name
    ]
    assert lines == [("step 1 loss 2.5", 9), ("WARNING: slow", 13)]
    assert found.values(signals.HOST_MEMORY_USAGE)[0] > 0
    assert {m.unit for m in found.metrics if m.name == signals.HOST_MEMORY_USAGE} == {"By"}
    assert sorted(found.values(signals.XPU_HANG)) == [0, 1]
    assert found.values(signals.XPU_COLLECTIVE_P99) == [pytest.approx(772e-6)]
    assert {m.unit for m in found.metrics if m.name == signals.XPU_COLLECTIVE_P99} == {"s"}
    stacks = [span for span in found.spans if span.name == signals.STACK_CAPTURE]
    texts = [item.value.string_value for span in stacks for event in span.events for item in event.attributes]
    assert any("usage.py" in text for text in texts)
    dumps = [record for record in found.logs if record.event_name == signals.STACK_DUMP]
    assert "usage.py" in dumps[0].body.string_value
    assert len(found.heartbeats) >= 2  # the first and the last


def test_dlrovers_json_is_found_as_signals(master: Master, tmp_path: Path) -> None:
    """As its agents write it: types by name, seconds, keys that are not ours."""
    common = {"timestamp": 1_800_000_000, "node_id": 3, "node_type": "worker", "node_rank": 2}
    texts = {"TRAINING_LOG": "RuntimeError: 损失\nstep 2", "XPU_TIMER_METRIC": XPU_TEXT}
    client = MasterClient(address(master, "grpc"))
    for kind, text in texts.items():
        foreign = {"data_type": kind, "data_content": text, **common, "is_final_result": False}
        client.report_diagnosis_agent_metrics(json.dumps(foreign))
    assert client.flush(20.0)
    assert client.stats()["dropped"] == 0
    client.close()
    found = Found(tmp_path / "data")
    assert {record.body.string_value for record in found.logs} == {"RuntimeError: 损失", "step 2"}
    assert {record.time_unix_nano or record.observed_time_unix_nano for record in found.logs} == {
        1_800_000_000 * 10**9
    }
    assert sorted(found.values(signals.XPU_HANG)) == [0, 1]


def test_own_collector(master: Master, tmp_path: Path) -> None:
    run("own_collector", address(master, "grpc"), AROBUST_HEARTBEAT_URL=master.url)
    found = Found(tmp_path / "data")
    rewards = found.values("RewardCollector.reward")
    assert len(rewards) >= 2
    assert all(0 <= reward <= 1 for reward in rewards)
    assert set(found.values("RewardCollector.kl")) == {0.01}


def test_monitors(master: Master, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    run("monitors", str(path), arobust_MASTER_ADDR=address(master, "grpc"), arobust_MONITOR_ENABLED="true")
    found = Found(tmp_path / "data")
    steps = found.values(signals.STEP)  # the monitor's first look may come late, its last may not
    assert steps == sorted(set(steps))
    assert set(steps) <= {1, 2, 3, 4}
    assert steps[-1] == 4
    assert found.values(signals.HOST_MEMORY_LIMIT)[0] > 0


def test_mock_client() -> None:
    assert run("mock_client") == "['TRAINING_LOG', 'STACK_TRACE']\n"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_only_import_lines_name_the_package(path: Path) -> None:
    """Put the old name back, and the script is what its user had."""
    code = re.sub(r'^""".*?^"""', "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    others = [
        line for line in code.splitlines() if "arobust_otel" in line and not re.match(r"(from|import) ", line)
    ]
    assert others == []
