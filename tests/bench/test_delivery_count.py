"""The comparison that `bench delivery` lives on: a loss that nobody counted cannot hide."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.bench.delivery_count import Item, Row, Truth, compare, read_journal, read_truth
from arobust_otel.bench.delivery_reporter import EVENT, LINE, NUMBER, NUMBERS_PER_PROCESS, POINT
from arobust_otel.journal import Appender, Kind, Source

PHASES = [(0, "none"), (100, "storm"), (200, "flood")]


def truth_of(*items: Item, time_ns: int = 50) -> Truth:
    return Truth(reported=dict.fromkeys(items, time_ns), killed={0: (0, 0)})


def total(truth: Truth, found: Counter[Item]) -> Row:
    return compare(truth, found, PHASES)[-1]


def test_everything_delivered_once_is_good() -> None:
    row = total(truth_of(("P", 1), ("E", 2), ("L", 3)), Counter([("P", 1), ("E", 2), ("L", 3)]))
    assert (row.reported, row.delivered, row.lost, row.uncounted, row.repeated) == (3, 3, 0, 0, 0)


def test_loss_that_nobody_counted_is_uncounted_in_its_fault() -> None:
    truth = truth_of(("P", 1), ("P", 2), time_ns=150)
    rows = compare(truth, Counter([("P", 1)]), PHASES)
    assert [(row.fault, row.reported, row.lost, row.uncounted) for row in rows] == [
        ("none", 0, 0, 0),
        ("storm", 2, 1, 1),
        ("flood", 0, 0, 0),
        ("total", 2, 1, 1),
    ]


def test_what_the_client_dropped_and_counted_is_excused_in_the_total() -> None:
    truth = truth_of(("P", 1), ("P", 2), ("P", 3), time_ns=150)
    truth.dropped.append((250, 2))
    rows = compare(truth, Counter([("P", 1)]), PHASES)
    assert [(row.dropped, row.uncounted) for row in rows] == [(0, 0), (0, 2), (2, 0), (2, 0)]


def test_killed_excuses_only_what_that_process_had() -> None:
    """Five counted for the first process do not excuse a loss of the second."""
    first, second = ("P", 1), ("P", NUMBERS_PER_PROCESS + 1)
    truth = truth_of(first, second)
    truth.killed = {0: (0, 0), 1: (150, 5), 2: (250, 0)}
    assert total(truth, Counter([second])).uncounted == 0
    assert total(truth, Counter([first])).uncounted == 1
    assert total(truth, Counter()).uncounted == 1


def test_killed_never_excuses_a_log_line() -> None:
    truth = truth_of(("L", 1))
    truth.killed = {0: (0, 0), 1: (150, 5)}
    assert total(truth, Counter()).uncounted == 1


def test_twice_is_repeated_but_a_line_may_be_read_again_after_each_kill() -> None:
    twice = Counter([("P", 1), ("P", 1), ("L", 2), ("L", 2)])
    row = total(truth_of(("P", 1), ("L", 2)), twice)
    assert (row.repeated, row.read_again) == (2, 0)
    killed = truth_of(("P", 1), ("L", 2))
    killed.killed = {0: (0, 0), 1: (150, 0)}
    row = total(killed, twice)
    assert (row.repeated, row.read_again) == (1, 1)
    row = total(killed, twice + Counter([("L", 2)]))
    assert (row.repeated, row.read_again) == (3, 0)


def test_report_that_was_cut_short_is_asked_of_nobody_but_may_not_come_twice() -> None:
    truth = truth_of()
    truth.cut_short = {("P", 1): 50, ("P", 2): 50}
    row = total(truth, Counter([("P", 1), ("P", 1)]))
    assert (row.reported, row.lost, row.uncounted, row.cut_short, row.repeated) == (0, 0, 0, 2, 1)


def test_truth_is_read_from_what_reporters_wrote(tmp_path: Path) -> None:
    (tmp_path / "truth-0").write_text("P 0 2 70\n.\nE 2 1 80\n")
    (tmp_path / "truth-1").write_text(f"P {NUMBERS_PER_PROCESS} 1 90\n.\n")
    (tmp_path / "train.log").write_text(f"{LINE} 5 75\n")
    stats = [
        {"time_ns": 1, "dropped": 0, "retries": 0, "queue_items": 0, "ended": False},
        {"time_ns": 2, "dropped": 3, "retries": 2, "queue_items": 4, "spool_items": 5, "ended": False},
    ]
    killed = {
        "time_ns": 3,
        "dropped": 7,
        "dropped.killed": 6,
        "retries": 0,
        "queue_items": 0,
        "spool_items": 1,
        "ended": True,
    }
    (tmp_path / "stats-0").write_text("".join(json.dumps(line) + "\n" for line in stats))
    (tmp_path / "stats-1").write_text(json.dumps(killed) + "\n")
    truth = read_truth(tmp_path, 2)
    assert truth.reported == {("P", 0): 70, ("P", 1): 70, ("P", NUMBERS_PER_PROCESS): 90, ("L", 5): 75}
    assert truth.cut_short == {("E", 2): 80}
    assert truth.dropped == [(2, 3), (3, 1)]
    assert truth.retries == [(2, 2)]
    assert truth.killed == {0: (1, 0), 1: (3, 6)}
    assert (truth.waiting, truth.ended, truth.kills) == (1, True, 1)


@pytest.mark.parametrize("times", [1, 2])
def test_journal_is_counted_item_by_item_and_batch_by_batch(tmp_path: Path, times: int) -> None:
    metrics = ExportMetricsServiceRequest()
    points = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name=POINT).gauge.data_points
    points.add(as_int=7).attributes.add(key=NUMBER).value.int_value = 7
    other = metrics.resource_metrics[0].scope_metrics[0].metrics.add(name="something.else")
    other.gauge.data_points.add(as_int=8).attributes.add(key=NUMBER).value.int_value = 8
    logs = ExportLogsServiceRequest()
    records = logs.resource_logs.add().scope_logs.add().log_records
    records.add(event_name=EVENT).attributes.add(key=NUMBER).value.int_value = 9
    records.add().body.string_value = f"{LINE} 10 123"
    records.add().body.string_value = "of somebody else"
    with Appender.open(tmp_path / "journal") as appender:
        for batch in ["aa" * 16] * times:
            source = Source("metrics", "", batch)
            appender.append(Kind.REQUEST, metrics.SerializeToString(), received_ns=1, source=source)
        appender.append(Kind.REQUEST, logs.SerializeToString(), received_ns=2, source=Source("logs", "", ""))
        appender.append(Kind.TICK, b"", received_ns=3)
    found, repeated = read_journal(tmp_path / "journal")
    assert found == {("P", 7): times, ("E", 9): 1, ("L", 10): 1}
    assert repeated == times - 1
