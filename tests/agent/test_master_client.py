"""MasterClient against a real server that goes away, refuses, stalls and rejects."""

from __future__ import annotations

import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from arobust_otel.agent.master_client import MasterClient
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import WorkerTrainingMetric
from arobust_otel.errors import ConfigurationError
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.prometheus_names import metric_name
from arobust_otel.model.samples import Event, LogLine, Point
from tests.agent.clients import JOB, QUICK, client, line, points
from tests.agent.server import Answer, free_port, running

ROOT = Path(__file__).parents[2]


def test_everything_that_fits_arrives_in_order_when_the_master_is_back() -> None:
    said: list[str] = []
    port = free_port()
    away = MasterClient(f"http://127.0.0.1:{port}", JOB, QUICK, say=said.append)
    for number in range(20):
        away.report(points(number * 10, 10))
        away.report([Event(signals.RANK_STALLED, number + 1, f"fact {number}")])
    assert not away.flush(0.3)
    with running(port) as master:
        assert away.flush(10)
        assert [value for _, value, _ in master.points()] == list(range(200))
        assert master.bodies() == [f"fact {number}" for number in range(20)]
    assert away.stats()["delivered"] == 220
    assert away.stats()["dropped"] == 0
    assert len([text for text in said if "does not take data" in text]) == 1
    away.close(1.0)


def test_what_does_not_fit_is_dropped_from_the_oldest_bulk_and_counted() -> None:
    port = free_port()
    small = replace(QUICK, queue_items=30, bulk_seconds=60, urgent_seconds=60)  # nothing is on its way
    with client(f"http://127.0.0.1:{port}", small) as away:
        for number in range(20):
            away.report([line(number)])
        for number in range(20):
            away.report(points(number, 1))
        away.report([Event(signals.RANK_BORN, 1, "born")])
        assert away.stats()["queue_items"] <= 30
        deadline = time.monotonic() + 20
        while away.stats().get("dropped.queue_full", 0) < 11 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert away.stats()["dropped.queue_full"] == 11
        with running(port) as master:
            assert away.flush(10)
            assert [value for _, value, _ in master.points()] == list(range(20))
            assert sorted(master.bodies()) == sorted(
                ["born", *(f"line {number}" for number in range(11, 20))]
            )


def test_of_a_report_larger_than_all_room_the_newest_part_is_delivered() -> None:
    with running() as master, client(master.url, replace(QUICK, queue_items=3000)) as ours:
        ours.report(points(0, 5500))
        assert ours.flush(20)
        arrived = [value for _, value, _ in master.points()]
        assert arrived == list(range(5500 - len(arrived), 5500))
        assert 2000 <= len(arrived) <= 3000
        assert ours.stats()["dropped.queue_full"] == 5500 - len(arrived)


def test_a_source_hears_that_its_lines_were_given_up_and_nothing_of_an_acknowledgement() -> None:
    heard: list[str] = []
    small = replace(QUICK, queue_items=5, bulk_seconds=60, urgent_seconds=60)
    with client(f"http://127.0.0.1:{free_port()}", small) as away:
        away.report(
            [line(1)], lambda: heard.append("acknowledged"), given_up=lambda: heard.append("given up")
        )
        away.report(points(0, 5))
        deadline = time.monotonic() + 20
        while not heard and time.monotonic() < deadline:
            time.sleep(0.02)
        assert heard == ["given up"]


def test_the_servers_own_hint_is_honoured() -> None:
    busy = [Answer(503, headers={"Retry-After": "1"})]
    with (
        running(script=lambda signal, body: busy.pop() if busy else Answer()) as master,
        client(master.url) as ours,
    ):
        ours.report(points(0, 1))
        assert master.wait_for(lambda: len(master.accepted) == 1)
        (_, first), (_, second) = master.seen
        assert 1.0 <= second - first < 10


def test_facts_go_before_bulk_when_the_master_is_back() -> None:
    port = free_port()
    with client(f"http://127.0.0.1:{port}", replace(QUICK, batch_items=1)) as away:
        away.report([line(number) for number in range(20)])
        away.report(points(0, 20))
        away.report([Event(signals.RANK_EXITED, 1, "exited")])
        assert not away.flush(0.3)
        with running(port) as master:
            assert away.flush(10)
            assert "exited" in master.bodies()[:2], "after at most one probe of another lane"
            signals_seen = [signal for signal, _ in master.accepted]
            assert signals_seen.index("metrics") < signals_seen.index("logs", 2)
            assert len(signals_seen) == 41


def test_facts_without_end_do_not_hold_points_and_lines_back() -> None:
    def slowly(_: str, __: bytes) -> Answer:
        time.sleep(0.05)
        return Answer()

    with running(script=slowly) as master, client(master.url) as ours:
        ours.report([*points(0, 1), line(1)])
        deadline = time.monotonic() + 10
        while not (master.points() and "line 1" in master.bodies()) and time.monotonic() < deadline:
            ours.report([Event(signals.RANK_STALLED, 1, "stalled")])  # one is due whenever a call ends
            time.sleep(0.005)
        assert [value for _, value, _ in master.points()] == [0]
        assert "line 1" in master.bodies()


def test_a_poisoned_item_is_cut_out_and_the_rest_of_its_batch_is_delivered() -> None:
    def refuse(signal: str, body: bytes) -> Answer:
        return Answer(400) if b"poison" in body else Answer()

    acknowledged: list[int] = []
    with running(script=refuse) as master, client(master.url) as ours:
        for number in range(50):
            body = "poison" if number == 17 else f"line {number}"
            ours.report([LogLine(body, 1, "/log", number)], lambda number=number: acknowledged.append(number))
        assert ours.flush(10)
        assert master.bodies() == [f"line {number}" for number in range(50) if number != 17]
        assert ours.stats()["dropped.refused"] == 1
        assert sorted(acknowledged) == list(range(50)), (
            "a refused line is settled: its offset has to move too"
        )


def test_an_item_that_cannot_be_encoded_does_not_spoil_its_batch() -> None:
    with running() as master, client(master.url) as ours:
        ours.report(
            [Point(signals.STEP, float("nan"), 1), *points(1, 2), "no item", Event("x", -5, "caf\udce9")]
        )
        assert ours.flush(10)
        assert [value for _, value, _ in master.points()] == [1, 2]
        assert master.bodies() == ["caf\\udce9"]
        assert ours.stats()["dropped.invalid"] == 2


def test_partial_success_is_counted() -> None:
    partial = ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
    body = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    said: list[str] = []
    with running(script=lambda *_: Answer(body=body)) as master:
        ours = MasterClient(master.url, JOB, QUICK, say=said.append)
        ours.report(points(0, 10))
        assert ours.flush(10)
        assert ours.stats()["dropped.rejected"] == 3
        assert ours.stats()["delivered"] == 7
        assert any("too old" in text for text in said)
        ours.close(1.0)


def test_a_report_is_acknowledged_exactly_once_after_all_of_it_is_delivered() -> None:
    failures = [Answer(503), Answer(503)]
    acknowledged: list[int] = []

    def script(signal: str, body: bytes) -> Answer:
        assert not acknowledged
        return failures.pop() if failures else Answer()

    with running(script=script) as master, client(master.url, replace(QUICK, batch_items=3)) as ours:
        ours.report([line(number) for number in range(10)], lambda: acknowledged.append(len(master.accepted)))
        assert ours.flush(10)
        assert acknowledged == [4]


def test_a_connection_that_the_server_closes_is_no_loss() -> None:
    cuts = [True, False, True, False]
    with (
        running(script=lambda *_: Answer(close=bool(cuts and cuts.pop(0)))) as master,
        client(master.url) as ours,
    ):
        for number in range(5):
            ours.report(points(number, 1))
            assert ours.flush(10)
        assert [value for _, value, _ in master.points()] == list(range(5))


def test_a_report_never_blocks_while_the_queue_is_full_and_the_master_silent() -> None:
    held = threading.Event()
    settings = replace(QUICK, queue_items=500, call_seconds=20)
    with running(script=lambda *_: Answer(hold=held)) as master, client(master.url, settings) as ours:
        wall, processor = [], []
        batch = points(0, 20)
        for _ in range(1000):
            started, used = time.perf_counter(), time.thread_time()
            ours.report(batch)
            wall.append(time.perf_counter() - started)
            processor.append(time.thread_time() - used)
        held.set()
        assert sorted(processor)[990] < 0.005, "0.2 ms on an idle machine, see benchmarks/agent_cost.py"
        assert max(wall) < 10, "the silent master holds a request for twenty seconds"
        assert ours.stats()["queue_items"] <= 500


def test_memory_is_bounded_by_bytes_also_while_a_call_hangs() -> None:
    held = threading.Event()
    settings = replace(QUICK, queue_bytes=1024 * 1024, call_seconds=5.0)
    with running(script=lambda *_: Answer(hold=held)) as master, client(master.url, settings) as ours:
        ours.report(points(0, 1))
        assert master.wait_for(lambda: bool(master.seen))
        tracemalloc.start()
        try:
            for number in range(400):
                ours.report([replace(line(number), body=f"{number:06}" * 8_000)])
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            held.set()
        assert used < 3 * 1024 * 1024, "of 19 MB that were handed over"
        assert ours.stats()["dropped.queue_full"] > 350


def test_the_client_closes_in_time_while_the_master_is_silent_and_counts_what_is_left() -> None:
    held, settings = threading.Event(), replace(QUICK, call_seconds=1.0)
    with running(script=lambda *_: Answer(hold=held)) as master, client(master.url, settings) as ours:
        ours.report(points(0, 20))
        assert master.wait_for(lambda: bool(master.seen))
        started = time.monotonic()
        ours.close(2.0)
        assert time.monotonic() - started < 10, "the server would hold each request for 20 seconds"
        # A thread that is late counts what it holds when its call has ended.
        deadline = time.monotonic() + 20
        while ours.stats().get("dropped.closed") != 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        held.set()
        assert ours.stats()["dropped.closed"] == 20


def test_closing_delivers_what_waits() -> None:
    with running() as master:
        ours = MasterClient(master.url, JOB, replace(QUICK, bulk_seconds=60), say=lambda text: None)
        ours.report(points(0, 3))
        ours.close(5.0)
        assert len(master.points()) == 3
        ours.report(points(3, 1))
        assert ours.stats()["dropped.closed"] == 1


def test_an_address_that_is_none_is_refused_with_the_forms_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"http://host:4318.*grpc://host:4317"):
        MasterClient("ftp://host", JOB)


def test_a_new_attempt_of_the_job_is_a_new_resource_also_for_what_waits() -> None:
    port = free_port()
    with client(f"http://127.0.0.1:{port}") as ours:
        ours.report(points(0, 1))
        ours.resource = JobIdentity("job-1", 1, "host-a")
        ours.report(points(1, 1))
        with running(port) as master:
            assert ours.flush(10)
            attempts = [
                [
                    item.value.int_value
                    for item in found.resource.attributes
                    if item.key == signals.INCARNATION
                ]
                for request in master.requests("metrics")
                for found in request.resource_metrics
            ]
            assert attempts == [[0], [1]]


def test_the_client_reports_about_itself() -> None:
    with running() as master, client(master.url) as ours:
        ours.report(points(0, 3))
        assert ours.flush(10)
        found = {(point.name, *point.attributes.values()): point.value for point in ours.self_points(5)}
        assert found[signals.CLIENT_REPORTS, "delivered"] == 3
        assert found[signals.CLIENT_QUEUE_ITEMS,] == 0
        assert all(point.name in signals.DICTIONARY for point in ours.self_points(5))


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("delivered", signals.CLIENT_REPORTS),
        ("dropped.queue_full", signals.CLIENT_DROPPED),
        ("latency_seconds", signals.CLIENT_LATENCY),
        ("bytes_raw", signals.CLIENT_BYTES_RAW),
        ("bytes_sent", signals.CLIENT_BYTES_SENT),
        ("queue_items", signals.CLIENT_QUEUE_ITEMS),
        ("queue_bytes", signals.CLIENT_QUEUE_BYTES),
        ("spool_items", signals.CLIENT_SPOOL_ITEMS),
        ("spool_bytes", signals.CLIENT_SPOOL_BYTES),
        ("oldest_age_seconds", signals.CLIENT_OLDEST_AGE),
    ],
)
def test_each_figure_is_in_stats_among_the_points_and_on_the_board(
    key: str, name: str, tmp_path: Path
) -> None:
    board = (ROOT / "dashboards" / "master-and-agents.json").read_text()
    with running() as master, client(master.url, replace(QUICK, queue_items=2), spool_dir=tmp_path) as ours:
        ours.report(points(0, 1))
        assert ours.flush(10)
        ours.report(points(1, 3))  # more than there is room for
        assert key in ours.stats()
        assert name in {point.name for point in ours.self_points(5)}
    assert metric_name(name) in board


def test_a_workers_metric_is_taken_and_what_cannot_be_read_is_counted() -> None:
    metric = WorkerTrainingMetric(
        DiagnosisDataType.TRAINING_LOG, "first\nsecond\n", node_rank=3, timestamp=int(time.time())
    )
    with running() as master, client(master.url) as ours:
        ours.report_diagnosis_agent_metrics(metric)
        ours.report_diagnosis_agent_metrics("no metric at all")
        ours.report_diagnosis_agent_metrics(object())
        assert ours.flush(10)
        assert master.bodies() == ["first", "second"]
        assert ours.stats()["dropped.invalid"] == 2
        (request,) = master.requests("logs")
        attributes = {item.key: item.value for item in request.resource_logs[0].resource.attributes}
        assert attributes[signals.NODE_RANK].int_value == 3


def test_a_client_without_arguments_finds_job_and_master_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running() as master:
        for name, value in {
            "AROBUST_MASTER": f"http://127.0.0.1:{free_port()}, {master.url}",
            "AROBUST_JOB_ID": "from-environment",
            "RANK": "5",
            "LOCAL_RANK": "1",
            "TORCHELASTIC_RESTART_COUNT": "2",
        }.items():
            monkeypatch.setenv(name, value)
        ours = MasterClient(say=lambda text: None)
        ours.report(points(0, 1))
        assert ours.flush(10)
        ours.close()
        (request,) = master.requests("metrics")
        attributes = {item.key: item.value for item in request.resource_metrics[0].resource.attributes}
        assert attributes[signals.JOB_ID].string_value == "from-environment"
        assert attributes[signals.INCARNATION].int_value == 2


def test_a_signal_that_goes_elsewhere_is_a_gap_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AROBUST_MASTER", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:9/v1/metrics")
    with client(None, QUICK) as ours:
        (gap,) = ours.gaps()
    assert gap.startswith("metrics: they go to http://127.0.0.1:9")
    assert "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT" in gap
    with client("http://127.0.0.1:9", QUICK) as ours:
        assert ours.gaps() == ()
