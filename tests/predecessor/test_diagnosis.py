"""What DiagnosisAgent makes of a failure, and how it treats what users register."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arobust_otel.agent.data_collector import DataCollector, LogCollector, StackCollector
from arobust_otel.common.constants import DiagnosisActionType, DiagnosisDataType, TrainingExceptionLevel
from arobust_otel.common.diagnosis_data import NodeAction, ProcessError, ResourceStats, WorkerTrainingMetric
from arobust_otel.controller import verdict
from arobust_otel.controller.diagnosis import DiagnosisAgent
from tests.predecessor.support import UserClient, our_threads, until

RESTART, RELAUNCH = DiagnosisActionType.RESTART_WORKER, DiagnosisActionType.RELAUNCH_WORKER


@pytest.mark.parametrize(
    ("failures", "restarts", "expected"),
    [
        (None, 0, RESTART),
        (None, 2, RESTART),
        (None, 3, RELAUNCH),
        ([ProcessError(3, 1, "ValueError: no", "")], 0, RESTART),
        ([ProcessError(3, 1, "CUDA error: uncorrectable ECC error encountered", "")], 0, RELAUNCH),
        (RuntimeError("GPU is lost"), 0, RELAUNCH),
        ({0: SimpleNamespace(message={"message": "GPU_ERROR"}, exitcode=-6)}, 0, RELAUNCH),
        ("NODE_FAILED", 0, RELAUNCH),
        ("NETWORK_ERROR", 0, RESTART),
        (SimpleNamespace(level=TrainingExceptionLevel.NODE_ERROR), 0, RELAUNCH),
        (SimpleNamespace(level=TrainingExceptionLevel.JOB_ERROR), 0, DiagnosisActionType.STOP_JOB),
        (["my very own text"], 0, RELAUNCH),
        (object(), 0, RESTART),
        (b"\xff", 0, RESTART),
    ],
)
def test_the_action_follows_what_is_said(failures: object, restarts: int, expected: object) -> None:
    agent = DiagnosisAgent(errors="#my very own text#other#")
    action = agent.diagnose_training_failure(failures, restarts)
    assert isinstance(action, NodeAction)
    assert action.action_type is expected
    assert action.reason
    assert (action.instance, action.node_type) == ("local", "worker")


def test_a_pattern_in_the_end_of_the_log_counts_unfinished_line_included(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text("x" * 1_000_000 + "\nNCCL WARN: link down")
    agent = DiagnosisAgent(str(path), errors="link down")
    action = agent.diagnose_training_failure()
    assert action.action_type is RELAUNCH
    assert action.reason == "the training log says 'link down'"
    agent.update_config(errors="something else")
    assert agent.diagnose_training_failure().action_type is RESTART


@pytest.mark.parametrize(("sign", "example"), verdict.NODE_SIGNS)
def test_each_sign_of_a_failed_node_knows_its_example(sign: str, example: str) -> None:
    found = verdict.judge(example, "", (), 0)
    assert found.action_type is RELAUNCH
    assert found.reason.startswith("the failure blames the node"), sign


def test_failures_without_end_are_read_to_a_limit() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert verdict.texts_of(loop) == []
    assert len(verdict.texts_of(str(i) for i in range(10**6))) == 1000


class Returning(DataCollector):
    def __init__(self, value: object) -> None:
        self.value = value

    def is_enabled(self) -> bool:
        return True

    def collect_data(self) -> object:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(
    ("value", "kind", "content"),
    [
        ("a line", DiagnosisDataType.TRAINING_LOG, "a line"),
        ({"loss": 0.5}, DiagnosisDataType.TRAINING_METRIC, '{"loss": 0.5}'),
        (ResourceStats(0.5, 7), DiagnosisDataType.RESOURCE_STATS, '"memory_mb": 7'),
        (WorkerTrainingMetric(DiagnosisDataType.STACK_TRACE, "s"), DiagnosisDataType.STACK_TRACE, "s"),
    ],
)
def test_what_a_users_collector_may_return(value: object, kind: DiagnosisDataType, content: str) -> None:
    client, collector = UserClient(), Returning(value)
    collector.set_client(client)
    collector.store_data(collector.collect_data())
    (metric,) = client.metrics
    assert metric.data_type is kind
    assert content in metric.data_content


@pytest.mark.parametrize("nothing", [None, "", {}, []])
def test_nothing_is_reported_of_nothing(nothing: object) -> None:
    client, collector = UserClient(), Returning(nothing)
    collector.set_client(client)
    collector.store_data(nothing)
    assert client.metrics == []


def test_what_cannot_be_sent_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    client, collector = UserClient(), Returning(7)
    collector.set_client(client)
    collector.store_data(7)
    assert "cannot be sent" in caplog.text
    for strict in (LogCollector(), StackCollector()):
        strict.set_client(client)
        strict.store_data(7)
    assert "LogCollector hands over str, not int" in caplog.text
    assert client.metrics == []


def test_without_a_client_a_warning_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    collector = LogCollector()
    collector.store_data("one")
    collector.store_data("two")
    assert [record.getMessage() for record in caplog.records] == [
        "LogCollector has no client: nothing is sent; call set_client()"
    ]
    agent = DiagnosisAgent()
    agent.start()
    agent.stop()
    assert "DiagnosisAgent has no client" in caplog.text


def test_an_object_with_collect_data_is_enough_and_one_that_fails_hides_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Duck:
        def collect_data(self) -> str:
            return "quack"

    client = UserClient()
    agent = DiagnosisAgent()
    agent.register_periodical_data_collector(Returning(OSError("no disk")), 0.05)
    agent.register_periodical_data_collector(Duck(), 0.05)
    agent.set_client(client)
    agent.start()
    assert client.wait_for(lambda: len(client.of(DiagnosisDataType.TRAINING_LOG)) > 3)
    agent.stop()
    assert caplog.text.count("collector Returning failed: OSError: no disk") == 1
    reports = {report.name: report for report in agent._reports()}
    assert reports["Returning"].reason == "OSError: no disk"
    assert reports["Duck"].ok


def test_collectors_of_ones_own_replace_the_agents() -> None:
    agent = DiagnosisAgent(training_log_file="train.log")
    agent.register_periodical_data_collector(LogCollector("train.log"), 1)
    agent.register_periodical_data_collector(StackCollector(), 1)
    agent.start()
    agent.stop()
    names = sorted(entry.name for entry in agent._registry.entries)
    assert names == ["LogCollector", "MetricCollector", "ResourceCollector", "StackCollector"]


def test_another_log_before_the_start_takes_no_collector_away(tmp_path: Path) -> None:
    for name in ("own", "training"):
        (tmp_path / f"{name}.log").write_text(f"{name}\n")
    client = UserClient()
    agent = DiagnosisAgent()
    agent.set_client(client)
    agent.register_periodical_data_collector(LogCollector(str(tmp_path / "own.log")), 0.1)
    agent.update_config(training_log_file=str(tmp_path / "training.log"))
    agent.start()
    assert client.wait_for(lambda: sorted(client.text().split()) == ["own", "training"])
    agent.stop()


def test_a_collector_that_is_registered_while_it_runs_begins_at_once() -> None:
    client = UserClient()
    agent = DiagnosisAgent()
    agent.start()
    agent.set_client(client)
    own = Returning("late")
    agent.register_periodical_data_collector(own, 60)
    assert client.wait_for(lambda: client.text() == "late")
    agent.register_periodical_data_collector(own, 0.05)  # again: only more often
    assert client.wait_for(lambda: len(client.of(DiagnosisDataType.TRAINING_LOG)) > 3)
    assert len([name for name in our_threads() if name == "arobust-collect-Returning"]) == 1
    agent.stop()
    until("no thread left", lambda: not our_threads())
