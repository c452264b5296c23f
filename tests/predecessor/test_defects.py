"""The predecessor's defects 1 to 15, one test per number: lifecycle and data path. Then `test_defects_16`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from arobust_otel.agent.data_collector import (
    DataCollector,
    LogCollector,
    MetricCollector,
    ResourceCollector,
    StackCollector,
)
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.monitor import ResourceMonitor, TrainingMonitor, write_training_metrics
from arobust_otel.agent.periodic import Periodic
from arobust_otel.common.constants import DiagnosisDataType, EnvConfigKey
from arobust_otel.common.utils import Singleton
from arobust_otel.controller.diagnosis import DiagnosisAgent
from arobust_otel.model import signals
from arobust_otel.model.heartbeat import CAPTURE_STACKS, Command
from tests.agent.server import MasterDouble, running
from tests.predecessor.support import IDENTITY, UserClient, our_threads, refuse, serving, until

LOG = DiagnosisDataType.TRAINING_LOG


class Counting(DataCollector):
    """A user's own collector: two methods and nothing else."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.collected = 0
        self.hold = hold

    def is_enabled(self) -> bool:
        return True

    def collect_data(self) -> str:
        self.collected += 1
        if self.hold is not None:
            self.hold.wait(20)
        return f"sample {self.collected}"


@pytest.fixture
def master() -> Iterator[MasterDouble]:
    with running() as double:
        yield double


def agent_with(client: object, *collectors: tuple[object, float], **options: object) -> DiagnosisAgent:
    agent = DiagnosisAgent(**options)  # type: ignore[arg-type]
    agent.set_client(client)
    for collector, seconds in collectors:
        agent.register_periodical_data_collector(collector, seconds)
    return agent


def test_defect_01_stop_returns_within_about_a_second_and_leaves_no_thread() -> None:
    """25 s with five threads before; here four collectors of the agent's own, and one of 120 s."""
    client = UserClient()
    agent = agent_with(client, (Counting(), 120))
    agent.start()
    assert client.wait_for(lambda: bool(client.of(LOG)))
    assert our_threads()
    began = time.monotonic()
    agent.stop()
    assert time.monotonic() - began < 5  # 0.02 s on a quiet machine
    until("no thread left", lambda: not our_threads())
    monitor = ResourceMonitor()
    monitor.set_client(client)
    monitor.start()
    until("a thread", our_threads)
    monitor.stop()
    until("no thread left", lambda: not our_threads())


def test_defect_02_nothing_is_collected_or_reported_after_stop() -> None:
    client, fast, hold = UserClient(), Counting(), threading.Event()
    slow = Counting(hold)
    agent = agent_with(client, (fast, 0.05), (slow, 0.05))
    agent.start()
    until("both collect", lambda: fast.collected and slow.collected)
    agent.stop()
    counts = (fast.collected, slow.collected)
    reported = len(client.of(LOG))
    hold.set()  # the collection that hung comes back after the stop: its data is not sent
    until("no thread left", lambda: not our_threads())
    assert (fast.collected, slow.collected) == counts
    assert len(client.of(LOG)) == reported


def test_defect_03_it_starts_again_with_each_collector_once() -> None:
    client, own = UserClient(), Counting()
    agent = agent_with(client, (own, 0.05))
    for _ in range(3):
        agent.start()
        agent.start()  # a second start changes nothing
        before = own.collected
        until("it collects", lambda seen=before: own.collected > seen + 1)
        names = [name for name in our_threads() if name == "arobust-collect-Counting"]
        assert len(names) == 1
        agent.stop()
        until("no thread left", lambda: not our_threads())
    assert len([entry for entry in agent._registry.entries if entry.given is own]) == 1
    assert len(agent._registry.entries) == 4  # its own three, and this one


def test_defect_04_resources_and_steps_leave_the_node(
    master: MasterDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a client that is given, and with one that the environment names."""
    client = UserClient()
    monitor = ResourceMonitor()
    monitor.set_client(client)
    monitor.report_resource()
    content = json.loads(client.of(DiagnosisDataType.RESOURCE_STATS)[0].data_content)
    assert content["memory_mb"] > 0
    assert 0 <= content["cpu_percent"] <= 1

    monkeypatch.setenv(EnvConfigKey.MASTER_ADDR, master.url)
    monkeypatch.setenv(EnvConfigKey.MONITOR_ENABLED, "true")
    path = tmp_path / "metrics.json"
    write_training_metrics(path, 12)
    monitor.set_client(None)
    training = TrainingMonitor(path)
    training.start()
    assert master.wait_for(
        lambda: {signals.STEP, signals.HOST_MEMORY_USAGE} <= {name for name, _, _ in master.points()}, 20
    )
    training.stop()
    until("no thread left", lambda: not our_threads())
    assert (signals.STEP, 12) in [(name, value) for name, value, _ in master.points()]


def test_defect_05_heartbeats_are_real_and_bring_commands_back(
    master: MasterDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arobust_otel.controller.beating.GOODBYE_SECONDS", 20.0)
    client = MasterClient(master.url, IDENTITY)
    master.interval_seconds = 0.2
    agent = agent_with(client)
    try:
        assert agent.send_heartbeat() is True
        assert master.heartbeats[-1].agent == IDENTITY.instance_id
        master.commands.append(
            Command("c1", CAPTURE_STACKS, IDENTITY.instance_id, IDENTITY.job_id, 0, 30.0, (0,))
        )
        agent.start()
        assert master.wait_for(
            lambda: any(result.id == "c1" for beat in master.heartbeats for result in beat.results), 20
        )
        client.flush(20)
        dumps = [r.body.string_value for r in master.log_records() if r.event_name == signals.STACK_DUMP]
        assert any("test_defect_05" in body for body in dumps)
        agent.stop()
        assert master.heartbeats[-1].final
    finally:
        agent.stop()
        client.close()


def test_defect_05_a_heartbeat_without_a_master_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert DiagnosisAgent().send_heartbeat() is False
    assert "no master is known" in caplog.text


def test_defect_06_what_is_reported_is_received_and_kept(master: MasterDouble) -> None:
    """There is a receiver now (tests/master, and the examples here against a real one)."""
    client = MasterClient(master.url, IDENTITY)
    collector = LogCollector()
    collector.set_client(client)
    collector.store_data("loss 0.5\n")
    assert client.flush(10)
    client.close()
    assert master.bodies() == ["loss 0.5"]


def test_defect_07_a_slow_client_delays_nobody_else() -> None:
    """Our own client never blocks at all: tests/agent/test_master_client.py."""
    hold = threading.Event()
    other = Counting()

    def slow(metric: object) -> None:
        if "slow" in str(metric):
            hold.wait(20)

    class Slow(Counting):
        def collect_data(self) -> str:
            return "slow"

    client = UserClient(slow)
    agent = agent_with(client, (Slow(), 0.05), (other, 0.05))
    agent.start()
    until("the others go on", lambda: other.collected > 5)
    assert len([metric for metric in client.of(LOG) if metric.data_content == "slow"]) == 1
    hold.set()
    agent.stop()
    until("no thread left", lambda: not our_threads())


@pytest.mark.parametrize("failure", [refuse, lambda metric: False])
def test_defect_08_a_failed_report_loses_no_line(tmp_path: Path, failure: object) -> None:
    path = tmp_path / "train.log"
    path.write_text("one\ntwo\n")
    collector, client = LogCollector(str(path)), UserClient(failure)  # type: ignore[arg-type]
    collector.set_client(client)
    collector.store_data(collector.collect_data())
    assert client.text() == "one\ntwo\n"
    assert collector.positions() == {}  # what others are told of it, too
    with path.open("a") as file:
        file.write("three\n")
    client.metrics.clear()
    client.script = lambda metric: None
    collector.store_data(collector.collect_data())
    collector.store_data(collector.collect_data())
    assert client.text() == "one\ntwo\nthree\n"
    assert collector.collect_data() == ""


def test_defect_08_the_position_waits_for_the_masters_acknowledgement(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("one\n")
    answer = threading.Event()
    from tests.agent.server import Answer

    with running(script=lambda signal, body: Answer(hold=answer)) as master:
        client = MasterClient(master.url, IDENTITY)
        collector = LogCollector(str(path))
        collector.set_client(client)
        collector.store_data(collector.collect_data())
        assert master.wait_for(lambda: bool(master.seen))
        assert collector.positions() == {}
        assert collector.collect_data() == ""  # one batch is on its way
        answer.set()
        until("it is delivered", lambda: [p.offset for p in collector.positions().values()] == [4])
        client.close()


def test_defect_09_the_first_sample_comes_at_once_and_short_intervals_are_honoured() -> None:
    client, often, seldom = UserClient(), Counting(), Counting()
    agent = agent_with(client, (often, 0.2), (seldom, 600))
    began = time.monotonic()
    agent.start()
    assert client.wait_for(lambda: often.collected >= 4 and seldom.collected == 1)
    assert time.monotonic() - began < 10  # 0.6 s on a quiet machine; 120 and 600 s before
    agent.stop()


def test_defect_10_every_kind_of_metric_says_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, began = UserClient(), int(time.time())
    path = tmp_path / "train.log"
    path.write_text("one\n")
    with serving(lambda: (200, XPU)) as port:
        monkeypatch.setenv(EnvConfigKey.XPU_TIMER_PORT, str(port))
        for collector in (LogCollector(str(path)), MetricCollector(), StackCollector(), ResourceCollector()):
            collector.set_client(client)
            collector.store_data(collector.collect_data())
    kinds = {metric.data_type.name for metric in client.metrics}
    assert kinds == {"TRAINING_LOG", "XPU_TIMER_METRIC", "STACK_TRACE", "RESOURCE_STATS"}
    assert all(began <= metric.timestamp <= time.time() for metric in client.metrics)


XPU = 'XPU_TIMER_COMMON_HANG{local_rank="0",rank="0"} 0\n'


@pytest.mark.parametrize(
    ("environ", "options", "node_rank", "node_id"),
    [
        ({}, {"node_rank": 7}, 7, -1),
        ({"arobust_NODE_RANK": "3", "arobust_NODE_ID": "11"}, {}, 3, 11),
        ({"AROBUST_NODE_RANK": "4", "AROBUST_NODE_ID": "12"}, {}, 4, 12),
        ({"NODE_RANK": "5", "NODE_ID": "13"}, {}, 5, 13),
        ({"RANK": "6"}, {}, 6, -1),
        ({"RANK": "17", "LOCAL_RANK": "1", "GROUP_RANK": "2"}, {}, 2, -1),
        ({"arobust_NODE_RANK": "3"}, {"node_rank": 7}, 7, -1),
    ],
)
def test_defect_11_the_node_is_named(
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    options: dict[str, int],
    node_rank: int,
    node_id: int,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    client = UserClient()
    agent = agent_with(client, (Counting(), 60), **options)
    agent.start()
    assert client.wait_for(lambda: bool(client.of(LOG)))
    agent.stop()
    assert (client.of(LOG)[0].node_rank, client.of(LOG)[0].node_id) == (node_rank, node_id)


def test_defect_11_host_job_process_and_rank_travel_with_the_data(
    master: MasterDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("AROBUST_JOB_ID", "llm-7"), ("RANK", "9"), ("LOCAL_RANK", "1"), ("GROUP_RANK", "2")):
        monkeypatch.setenv(name, value)
    client = MasterClient(master.url)
    collector = StackCollector()
    collector.set_client(client)
    collector.store_data(collector.collect_data())
    assert client.flush(10)
    client.close()
    resource = {
        item.key: item.value.string_value or item.value.int_value
        for item in master.requests("logs")[0].resource_logs[0].resource.attributes
    }
    assert resource[signals.JOB_ID] == "llm-7"
    assert resource[signals.NODE_RANK] == 2
    assert resource[signals.HOST_NAME]
    own = {item.key: item.value.int_value for item in master.log_records()[0].attributes}
    import os

    assert (own[signals.RANK], own[signals.PID]) == (9, os.getpid())


@pytest.mark.parametrize(
    ("environ", "speaks"),
    [({}, True), ({"RANK": "0", "LOCAL_RANK": "0"}, True), ({"RANK": "1", "LOCAL_RANK": "1"}, False)],
)
def test_defect_12_steps_are_reported_by_rank_0_or_where_nobody_says_a_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], speaks: bool
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "metrics.json"
    write_training_metrics(path, 100)
    client = UserClient()
    monitor = TrainingMonitor(str(path))
    monitor.set_client(client)
    assert monitor.report_step() is speaks
    assert len(client.of(DiagnosisDataType.TRAINING_METRIC)) == int(speaks)


def test_defect_13_a_singleton_is_one_and_hears_later_arguments() -> None:
    class Slow(Singleton):
        made = 0

        def __init__(self, value: int = 0) -> None:
            time.sleep(0.05)
            self.value = value
            Slow.made += 1

        def reconfigure(self, value: int = 0) -> None:
            self.value = value

    found: list[Slow] = []
    threads = [threading.Thread(target=lambda: found.append(Slow.singleton_instance())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Slow.made == 1
    assert len({id(instance) for instance in found}) == 1
    assert Slow.singleton_instance(value=5) is found[0]
    assert found[0].value == 5
    Slow.reset_singleton()
    direct = Slow(3)
    assert Slow.singleton_instance() is direct

    first = DiagnosisAgent.singleton_instance(errors="a")
    assert DiagnosisAgent.singleton_instance(errors="b", node_rank=7) is first
    assert (first.errors, first.node_rank) == ("b", 7)


def test_defect_13_arguments_that_change_nothing_are_said(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(Singleton):
        def __init__(self, value: int = 0) -> None:
            self.value = value

    kept = Plain.singleton_instance(1)
    assert Plain.singleton_instance(2) is kept
    assert "2 change nothing" in caplog.text


def test_defect_14_clients_and_collectors_come_from_several_threads() -> None:
    client = UserClient()
    agent = agent_with(client)
    collectors = [Counting() for _ in range(200)]
    errors: list[BaseException] = []

    def register() -> None:
        try:
            for collector in collectors:
                agent.register_periodical_data_collector(collector, 60)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=register)
    thread.start()
    while thread.is_alive():
        agent.set_client(client)
    thread.join()
    agent.set_client(client)
    assert errors == []
    for number, collector in enumerate(collectors):
        collector.store_data(f"from {number}")
    assert [metric.data_content for metric in client.of(LOG)] == [f"from {n}" for n in range(200)]


def test_defect_14_a_client_that_looks_empty_is_a_client() -> None:
    class Odd(UserClient):
        def __len__(self) -> int:
            return 0

        def __bool__(self) -> bool:
            return False

    client, collector = Odd(), LogCollector()
    collector.set_client(client)
    collector.store_data("test log content")
    assert client.text() == "test log content"


def test_defect_15_another_log_file_is_followed_by_the_running_collector(tmp_path: Path) -> None:
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    first.write_text("from a\n")
    second.write_text("from b\n")
    client = UserClient()
    own = LogCollector(str(first))
    agent = agent_with(client, (own, 0.05))
    agent.start()
    assert client.wait_for(lambda: "from a" in client.text())
    agent.update_config(training_log_file=str(second), errors="#ECC#", node_rank=3)
    assert client.wait_for(lambda: "from b" in client.text())
    with first.open("a") as file:
        file.write("nobody looks here\n")
    with second.open("a") as file:
        file.write("the end\n")
    assert client.wait_for(lambda: "the end" in client.text())
    agent.stop()
    assert client.text() == "from a\nfrom b\nthe end\n"
    assert client.of(LOG)[-1].node_rank == 3


def test_a_mock_of_unittest_is_a_client() -> None:
    """The predecessor's own suggestion for a test."""
    mock = Mock()
    collector = LogCollector()
    collector.set_client(mock)
    collector.store_data("test log content")
    mock.report_diagnosis_agent_metrics.assert_called_once()
    metric = mock.report_diagnosis_agent_metrics.call_args[0][0]
    assert (metric.data_type, metric.data_content) == (LOG, "test log content")


def test_a_thread_that_is_told_to_end_begins_no_round() -> None:
    rounds: list[int] = []
    periodic = Periodic("test", 0.05, lambda ended: rounds.append(1))
    periodic.start()
    until("rounds", lambda: len(rounds) > 2)
    periodic.tell_to_end()
    assert periodic.join(10)
    count = len(rounds)
    assert not periodic.is_running
    periodic.start()
    until("more rounds", lambda: len(rounds) > count)
    periodic.tell_to_end()
    assert periodic.join(10)
