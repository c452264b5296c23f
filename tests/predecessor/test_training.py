"""What runs inside a training process: whatever its user or its node is like, training goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from arobust_otel.agent.data_collector import DataCollector, LogCollector
from arobust_otel.agent.lock import AgentLock
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.monitor import write_training_metrics
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.controller.diagnosis import DiagnosisAgent
from tests.agent.server import MasterDouble, running
from tests.predecessor.support import UserClient, our_threads, until

ROOT = Path(__file__).parents[2]
LOG = DiagnosisDataType.TRAINING_LOG


@pytest.fixture
def master() -> Iterator[MasterDouble]:
    with running() as double:
        yield double


class Own(DataCollector):
    """A user's collector whose attributes happen to be called as ours were."""

    def __init__(self) -> None:
        self._client, self.node_rank, self._told, self.data_type = "docker", 42, "x", "rewards"

    def is_enabled(self) -> bool:
        return True

    def collect_data(self) -> str:
        return f"{self._client} {self.node_rank} {self._told} {self.data_type}"


@dataclass(frozen=True)
class Frozen(DataCollector):
    text: str = "frozen"

    def is_enabled(self) -> bool:
        return True

    def collect_data(self) -> str:
        return self.text


class Whole:
    """No base class, no `is_enabled`, no attributes; keeps what it collects."""

    __slots__ = ()
    stored: list[object] = []  # noqa: RUF012 - there is no other place with these slots

    def collect_data(self) -> str:
        return "whole"

    def store_data(self, data: object) -> None:
        Whole.stored.append(data)


class Refusing(Own):
    def set_client(self, client: object) -> None:
        raise RuntimeError("no client, please")


def test_users_collectors_keep_their_own_attributes_and_are_what_they_like(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, agent = UserClient(), DiagnosisAgent(node_rank=7)
    Whole.stored.clear()
    for collector in (Own(), Frozen(), Whole(), Refusing()):
        agent.register_periodical_data_collector(collector, 60)
    agent.set_client(client)
    agent.start()
    assert client.wait_for(lambda: len(client.of(LOG)) == 2 and bool(Whole.stored))
    agent.stop()
    assert {metric.data_content for metric in client.of(LOG)} == {"docker 42 x rewards", "frozen"}
    assert {metric.node_rank for metric in client.of(LOG)} == {7}
    assert Whole.stored == ["whole"]
    assert "Refusing took no client: RuntimeError: no client, please" in caplog.text


def test_an_interval_without_end_is_one_round() -> None:
    client, agent = UserClient(), DiagnosisAgent()
    agent.set_client(client)
    agent.register_periodical_data_collector(Frozen(), float("inf"))
    agent.start()
    assert client.wait_for(lambda: bool(client.of(LOG)))
    until("it waits", lambda: "arobust-collect-Frozen" in our_threads())
    agent.register_periodical_data_collector(agent._registry.entries[0].given, 1e12)  # the same, woken
    assert client.wait_for(lambda: len(client.of(LOG)) == 2)
    agent.stop()
    until("no thread left", lambda: not our_threads())


OF_ANOTHER = """
import os, sys
from arobust_otel import DiagnosisAgent, LogCollector, ResourceMonitor, TrainingMonitor
from arobust_otel.agent import folders
from tests.predecessor.support import UserClient
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
agent = DiagnosisAgent(training_log_file="/nowhere.log")
agent.start()
agent.stop()
monitor = TrainingMonitor("/nowhere.json")
monitor.set_client(UserClient())
monitor.start()
monitor.stop()
print("training goes on")
"""


def test_a_folder_of_another_user_is_a_warning(tmp_path: Path) -> None:
    """The platform's agent may be root's, and its folder closed to everybody else."""
    root = tmp_path / "beacons"
    (root / "j").mkdir(parents=True)
    root.chmod(0o700 if os.geteuid() == 0 else 0)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "AROBUST_JOB_ID": "j", "AROBUST_BEACON_DIR": str(root)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", OF_ANOTHER],
            env={**environ, "arobust_MONITOR_ENABLED": "true"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        root.chmod(0o700)
    assert (done.returncode, done.stdout) == (0, "training goes on\n"), done.stderr
    assert "another rank may report the same" in done.stderr
    assert "Traceback" not in done.stderr


FORKED = """
import os, sys, time
from arobust_otel import DiagnosisAgent, LogCollector, MasterClient
client = MasterClient(sys.argv[1])
agent = DiagnosisAgent()
agent.set_client(client)
agent.register_periodical_data_collector(LogCollector(sys.argv[2]), 0.05)
agent.start()
print("ready", flush=True)
sys.stdin.readline()
child = os.fork()
if child == 0:
    import threading
    def ours():
        return [t.name for t in threading.enumerate() if t.name.startswith("arobust-collect")]
    assert not ours()
    agent.start()
    assert ours()
    time.sleep(1)
    agent.stop()
    assert not ours(), ours()
    client.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
print("child", status, flush=True)
sys.stdin.readline()
agent.stop()
client.close()
"""


def test_a_forked_child_that_starts_the_agent_has_one_of_its_own(
    master: MasterDouble, folder: Path, tmp_path: Path
) -> None:
    """It takes no line from its parent, sends none twice, and ends its threads."""
    path = tmp_path / "train.log"
    path.write_text("".join(f"line {i}\n" for i in range(10)))
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKED, master.url, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        assert master.wait_for(lambda: len(lines(master)) == 10, 30)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "child 0\n"
        with path.open("a") as file:
            file.writelines(f"line {i}\n" for i in range(10, 20))
        assert master.wait_for(lambda: len(lines(master)) == 20, 30), lines(master)
        process.communicate("\n", timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert sorted(lines(master), key=lambda line: int(line.split()[1])) == [f"line {i}" for i in range(20)]


def lines(master: MasterDouble) -> list[str]:
    return [body for body in master.bodies() if body.startswith("line ")]


def test_a_child_that_reads_a_log_takes_no_line_from_its_parent(tmp_path: Path) -> None:
    """Both have the same descriptor: its offset must not be what counts."""
    path = tmp_path / "train.log"
    path.write_text("1\n")
    collector = LogCollector(str(path))
    assert collector.collect_data() == "1\n"
    with path.open("a") as file:
        file.write("2\n")
    child = os.fork()
    if child == 0:
        os._exit(0 if collector.collect_data() == "2\n" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert collector.collect_data() == "2\n"


def test_whoever_brings_a_client_of_his_own_is_told_so(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that works for the job is not said to be missing."""
    monkeypatch.setattr("arobust_otel.controller.diagnosis._COST_AFTER_SECONDS", 0.0)
    lock, agent = AgentLock(folder), DiagnosisAgent()
    assert lock.take()
    agent.set_client(UserClient())
    agent.start()
    until("the words", lambda: "ms of processor time" in caplog.text)
    agent.stop()
    lock.release()
    assert "the client is not MasterClient, so 3 collectors run as threads" in caplog.text
    assert "no agent works" not in caplog.text


def test_training_hears_of_no_error_of_ours(
    master: MasterDouble, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A bug in what is around the collectors is one line on standard error."""

    def broken(self: object) -> bool:
        raise OSError("the disk of the folder is gone")

    monkeypatch.setattr("arobust_otel.controller.diagnosis.Neighbour.has_agent", broken)
    monkeypatch.delenv("AROBUST_RAISE")
    client, agent = MasterClient(master.url), DiagnosisAgent()
    agent.set_client(client)
    agent.start()
    agent.start()
    agent.stop()
    client.close()
    until("no thread left", lambda: not our_threads())
    assert capfd.readouterr().err.count("DiagnosisAgent.start failed") == 1


def test_a_step_that_cannot_be_written_down_is_said_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "metrics"
    folder.write_text("no folder")
    for step in range(1, 4):
        write_training_metrics(folder / "metrics.json", step)
    assert [record.getMessage()[:29] for record in caplog.records] == ["step 1 is not written down: ["]
    folder.unlink()
    write_training_metrics(folder / "metrics.json", 4)
    assert json.loads((folder / "metrics.json").read_text())["step"] == 4
