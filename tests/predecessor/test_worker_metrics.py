"""A WorkerTrainingMetric, in each of its forms, as what travels."""

from __future__ import annotations

import json
import math

import pytest

from arobust_otel.agent.worker_metrics import CollectedMetric, identity_of, items_of, parse_stacks
from arobust_otel.common.constants import DiagnosisDataType as Kind
from arobust_otel.common.diagnosis_data import WorkerTrainingMetric
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import ERROR, INFO, LogLine, Point, StackCapture
from tests.predecessor.support import XPU_TEXT

AT = 1_800_000_000
NS = AT * 10**9


def items(kind: Kind, content: str, **more: int) -> list:
    return items_of(WorkerTrainingMetric(kind, content, timestamp=AT, **more))


def values(found: list[Point]) -> dict[str, float]:
    return {point.name: point.value for point in found}


def test_log_text_is_one_record_per_line_and_one_per_traceback() -> None:
    text = 'step 1\n\nTraceback (most recent call last):\n  File "t.py", line 3, in f\nValueError: no\nstep 2'
    found = items(Kind.TRAINING_LOG, text, node_id=4)
    assert [line.body for line in found] == [
        "step 1",
        text.split("\n\n")[1].removesuffix("\nstep 2"),
        "step 2",
    ]
    assert [line.severity for line in found] == [INFO, ERROR, INFO]
    assert all(isinstance(line, LogLine) and line.time_ns == NS for line in found)
    assert found[0].attributes == {signals.NODE_ID: 4}
    assert found[0].path == ""


def test_figures_of_xpu_timer_are_typed() -> None:
    found = items(Kind.XPU_TIMER_METRIC, XPU_TEXT)
    hangs = {p.attributes[signals.RANK]: p.value for p in found if p.name == signals.XPU_HANG}
    assert hangs == {0: 0, 1: 1}
    assert values(found)[signals.XPU_COLLECTIVE_P99] == pytest.approx(0.000772)
    assert all(point.time_ns == NS for point in found)


def test_resources_have_the_units_of_the_dictionary() -> None:
    gpu = {"index": 1, "total_memory_mb": 1024, "used_memory_mb": 512.5, "gpu_utilization": 87}
    content = {"cpu_percent": 0.25, "memory_mb": 100, "gpu_stats": [gpu], "timestamp": AT + 1}
    found = items(Kind.RESOURCE_STATS, json.dumps(content))
    assert values(found) == {
        signals.HOST_CPU: 0.25,
        signals.HOST_MEMORY_USAGE: 100 * 2**20,
        signals.HW_UTILIZATION: pytest.approx(0.87),
        signals.HW_MEMORY_USAGE: int(512.5 * 2**20),
        signals.HW_MEMORY_LIMIT: 2**30,
    }
    assert {point.time_ns for point in found} == {NS + 10**9}
    assert found[-1].attributes == {signals.HW_ID: "1", signals.HW_TYPE: "gpu"}


def test_what_could_not_be_read_is_no_point() -> None:
    gpu = {"index": 0, "total_memory_mb": math.nan, "used_memory_mb": None, "gpu_utilization": 1}
    found = items(Kind.RESOURCE_STATS, json.dumps({"cpu_percent": None, "gpu_stats": [gpu]}))
    assert set(values(found)) == {signals.HW_UTILIZATION}


def test_a_share_above_one_is_percent() -> None:
    for given, share in ((0.85, 0.85), (85.0, 0.85), (1.0, 1.0)):
        assert (
            values(items(Kind.RESOURCE_STATS, json.dumps({"cpu_percent": given})))[signals.HOST_CPU] == share
        )


def test_steps_are_points_of_their_own_time() -> None:
    content = {"step": 7, "loss": 0.5, "timestamp": AT - 1, "rank": 3, "note": "x", "lr": 1e-4}
    found = items(Kind.TRAINING_METRIC, json.dumps(content))
    assert values(found) == {signals.STEP: 7, signals.LOSS: 0.5}
    assert {point.time_ns for point in found} == {NS - 10**9}
    assert found[0].attributes == {signals.RANK: 3}


def test_stacks_are_a_capture_with_the_text_as_it_was() -> None:
    text = (
        'Thread 140 (MainThread):\n  File "t.py", line 9, in main\n  File "d.py", line 88, in read_shard\n\n'
        'Thread 141 (loader):\n  File "l.py", line 1, in fetch\n'
    )
    (capture,) = items(Kind.STACK_TRACE, text)
    assert isinstance(capture, StackCapture)
    assert capture.text == text
    assert [(t.name, t.thread_id, t.is_main) for t in capture.threads] == [
        ("MainThread", 140, True),
        ("loader", 141, False),
    ]
    assert [frame.function for frame in capture.threads[0].frames] == ["read_shard", "main"]


def test_stacks_of_faulthandler_are_read_too() -> None:
    text = 'Current thread 0x00007f (most recent call first):\n  File "d.py", line 88 in read_shard\n'
    assert parse_stacks(text)[0].frames[0].function == "read_shard"


def test_json_is_as_good_as_the_object_and_so_is_dlrovers() -> None:
    metric = WorkerTrainingMetric(Kind.TRAINING_LOG, "one\ntwo", timestamp=AT)
    foreign = {**json.loads(metric.to_json()), "is_final_result": True}
    for form in (metric, metric.to_json(), metric.to_json().encode(), json.dumps(foreign)):
        assert [line.body for line in items_of(form)] == ["one", "two"]


def test_a_collected_metric_brings_its_own_items() -> None:
    metric = CollectedMetric(Kind.TRAINING_LOG, "text")
    metric.items = (Point("a", 1, NS),)
    assert items_of(metric) == [Point("a", 1, NS)]
    assert json.loads(metric.to_json())["data_content"] == "text"


@pytest.mark.parametrize(
    "stranger",
    [
        None,
        7,
        object(),
        "no json",
        b"\xff",
        "[]",
        '{"data_type": "NEWS", "data_content": ""}',
        '{"data_type": "TRAINING_LOG"}',
        WorkerTrainingMetric(Kind.RESOURCE_STATS, "no json"),
        WorkerTrainingMetric(Kind.RESOURCE_STATS, "[1]"),
        WorkerTrainingMetric(Kind.RESOURCE_STATS, "{}"),
        WorkerTrainingMetric(Kind.TRAINING_METRIC, '{"step": "x"}'),
        WorkerTrainingMetric(Kind.XPU_TIMER_METRIC, "no figures"),
        WorkerTrainingMetric(Kind.STACK_TRACE, " "),
        WorkerTrainingMetric(Kind.TRAINING_LOG, 7),  # type: ignore[arg-type]
        WorkerTrainingMetric("TRAINING_LOG", "x"),  # type: ignore[arg-type]
        WorkerTrainingMetric(Kind.TRAINING_LOG, "x", timestamp=10**300),
    ],
)
def test_what_cannot_be_read_comes_back_to_be_counted(stranger: object) -> None:
    assert items_of(stranger) == [stranger]


def test_the_metrics_node_rank_counts_for_its_items() -> None:
    known = JobIdentity("j", 1, "h", 0)
    metric = WorkerTrainingMetric(Kind.TRAINING_LOG, "x", node_rank=7)
    assert identity_of(metric, known) == JobIdentity("j", 1, "h", 7)
    assert identity_of(metric.to_json(), known).node_rank == 7
    for other in (WorkerTrainingMetric(Kind.TRAINING_LOG, "x"), "no json", None, 5):
        assert identity_of(other, known) is known
