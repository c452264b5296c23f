"""MasterClient and a master that does everything wrong at random: nothing twice, nothing lost uncounted."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from arobust_otel.agent.master_client import MasterClient
from arobust_otel.model import signals
from arobust_otel.model.samples import Event, LogLine, Point, StackCapture
from tests.agent.clients import JOB, QUICK
from tests.agent.server import REQUESTS, Answer, MasterDouble, running

SETTINGS = replace(
    QUICK, batch_items=7, retry_first_seconds=0.002, retry_max_seconds=0.01, probe_seconds=0.02
)


class Capricious:
    """A master that knows repeats by their batch id, as ours does, and loses answers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.kept: dict[str, tuple[str, bytes]] = {}
        self.master: MasterDouble
        self.well = False

    def __call__(self, signal: str, body: bytes) -> Answer:
        batch_id = self.master.batch_ids[-1]
        mood = 1.0 if self.well else self.random.random()
        if b"poison" in body:
            return Answer(400)
        if mood < 0.15:
            return Answer(503)
        if mood < 0.2:
            return Answer(429, headers={"Retry-After": "0"})
        if mood < 0.3:
            return Answer(close=True)
        if batch_id not in self.kept:
            self.kept[batch_id] = (signal, body)
        return Answer(close=mood < 0.5)  # what it kept, it may fail to say

    def texts(self) -> dict[str, list[str]]:
        """What arrived, by signal and in the order of arrival; points by their value."""
        found: dict[str, list[str]] = {"metrics": [], "logs": [], "traces": []}
        for signal, body in self.kept.values():
            request = REQUESTS[signal].FromString(body)
            if signal == "metrics":
                found[signal] += [
                    str(point.as_int)
                    for resource in request.resource_metrics
                    for scope in resource.scope_metrics
                    for metric in scope.metrics
                    for point in metric.gauge.data_points
                ]
            elif signal == "logs":
                found[signal] += [
                    record.body.string_value
                    for resource in request.resource_logs
                    for scope in resource.scope_logs
                    for record in scope.log_records
                ]
            else:
                found[signal] += [
                    span.name
                    for resource in request.resource_spans
                    for scope in resource.scope_spans
                    for span in scope.spans
                ]
        return found


def report_some(client: MasterClient, number: int, choice: random.Random) -> dict[str, list[str]]:
    """One report of each kind; returns what has to arrive."""
    body = "poison" if choice.random() < 0.05 else f"line {number}"
    client.report([LogLine(body, 1, "/log", number)], urgent=choice.random() < 0.5)
    client.report([Point(signals.STEP, 10 * number + item, number, {signals.RANK: 0}) for item in range(10)])
    client.report([Event(signals.RANK_STALLED, 1, f"fact {number}")])
    expected = {
        "metrics": [str(10 * number + item) for item in range(10)],
        "logs": [f"fact {number}"] + ([body] if body != "poison" else []),
        "traces": [],
    }
    if number % 10 == 0:
        client.report([StackCapture(number + 1, 1, 0, 1, "py-spy", "c", (), f"stacks {number}")])
        expected["logs"].append(f"stacks {number}")
        expected["traces"].append(signals.STACK_CAPTURE)
    return expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_disk", [False, True])
def test_with_repeats_known_by_their_id_everything_arrives_exactly_once(
    tmp_path: Path, seed: int, with_disk: bool
) -> None:
    capricious = Capricious(seed)
    choice = random.Random(seed)
    expected: dict[str, list[str]] = {"metrics": [], "logs": [], "traces": []}
    dropped = 0
    with running(script=capricious) as master:
        capricious.master = master
        for life in range(3 if with_disk else 1):
            client = MasterClient(
                master.url, JOB, SETTINGS, spool_dir=tmp_path if with_disk else None, say=lambda text: None
            )
            for number in range(40 * life, 40 * life + 40):
                for signal, texts in report_some(client, number, choice).items():
                    expected[signal] += texts
                time.sleep(choice.random() * 0.01)
            capricious.well = life == 2 or not with_disk
            if capricious.well:
                assert client.flush(20)
            client.close(20.0)
            stats = client.stats()
            dropped += int(stats["dropped"])
            waiting = stats["queue_items"] + stats.get("spool_items", 0)
            assert stats["accepted"] + stats["recovered"] == stats["delivered"] + stats["dropped"] + waiting
            assert set(stats) & {"dropped.closed", "dropped.queue_full", "dropped.invalid"} == set()
    arrived = capricious.texts()
    assert arrived["metrics"] == expected["metrics"], "in order, without a gap, none twice"
    assert sorted(arrived["logs"]) == sorted(expected["logs"])
    assert arrived["traces"] == expected["traces"]
    facts = [text for text in arrived["logs"] if text.startswith("fact")]
    assert facts == [text for text in expected["logs"] if text.startswith("fact")]
    assert dropped == client_poisons(seed, 3 if with_disk else 1)


def client_poisons(seed: int, lives: int) -> int:
    """How many lines of `report_some` are poisoned: the same dice."""
    choice, count = random.Random(seed), 0
    for _ in range(40 * lives):
        count += choice.random() < 0.05
        choice.random()
        choice.random()
    return count


def test_reports_from_many_threads_are_all_counted_once() -> None:
    with running() as master:
        client = MasterClient(master.url, JOB, QUICK, say=lambda text: None)

        def work(first: int) -> None:
            for number in range(500):
                client.report([Point(signals.STEP, first + number, number, {signals.RANK: first})])

        threads = [threading.Thread(target=work, args=(1000 * index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.flush(20)
        client.close()
        assert client.stats()["delivered"] == 4000
        assert sorted(value for _, value, _ in master.points()) == sorted(
            1000 * index + number for index in range(8) for number in range(500)
        )
