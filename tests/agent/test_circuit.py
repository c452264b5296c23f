"""Waits after failures: full jitter, hints, and a circuit that probes and closes quickly."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from arobust_otel.agent.client.circuit import Circuit, Waits
from arobust_otel.agent.parcel import Lane
from arobust_otel.errors import RetryableDelivery
from arobust_otel.model import signals
from arobust_otel.model.samples import Event
from tests.agent.clients import QUICK, client, line, points
from tests.agent.server import Answer, free_port, running

WAITS = Waits(first_seconds=0.25, max_seconds=5.0, probe_seconds=2.0, threshold=5)
PLAIN = RetryableDelivery("503")


def test_waits_spread_over_the_whole_range_and_grow_to_their_limit() -> None:
    first = [WAITS.after(1, PLAIN) for _ in range(300)]
    late = [WAITS.after(20, PLAIN) for _ in range(300)]
    assert 0 <= min(first) < 0.05
    assert 0.2 < max(first) <= 0.25
    assert 4.0 < max(late) <= 5.0
    assert min(late) < 1.0, "full jitter: a crowd does not come back at once"


def test_a_server_that_says_at_once_gets_no_storm() -> None:
    hinted = [WAITS.after(8, RetryableDelivery("503", 0.0)) for _ in range(100)]
    assert max(hinted) > WAITS.first_seconds
    probes = [WAITS.between_probes(RetryableDelivery("503", 0.0)) for _ in range(100)]
    assert min(probes) >= WAITS.probe_seconds / 2


def test_a_hint_is_never_cut_short_and_a_little_spread() -> None:
    hinted = [WAITS.after(1, RetryableDelivery("429", 3.0)) for _ in range(100)]
    assert min(hinted) >= 3.0
    assert max(hinted) <= 3.75
    assert len(set(hinted)) > 50


def test_a_lane_that_fails_alone_waits_alone() -> None:
    circuit = Circuit(WAITS)
    circuit.failed(Lane.FACTS, RetryableDelivery("503", 10.0), 100.0)
    assert circuit.free(101.0) == [Lane.STACKS, Lane.POINTS, Lane.LINES]
    circuit.succeeded(Lane.POINTS)
    assert Lane.FACTS not in circuit.free(109.0), "the server's hint stands"
    assert Lane.FACTS in circuit.free(113.0)


def test_one_lane_that_fails_while_another_succeeds_opens_no_circuit() -> None:
    circuit = Circuit(WAITS)
    for _ in range(50):
        circuit.failed(Lane.FACTS, PLAIN, 100.0)
        circuit.succeeded(Lane.POINTS)
        assert not circuit.is_open
    assert circuit.is_failing


def test_an_open_circuit_probes_each_lane_in_turn_and_a_success_frees_all() -> None:
    circuit = Circuit(WAITS)
    now = 100.0
    for _ in range(5):
        circuit.failed(Lane.FACTS, PLAIN, now)
    probed = []
    for _ in range(8):
        assert circuit.free(now + 0.9) == [], "at most one probe a second"
        now += 2.0
        lane = circuit.free(now)[0]
        probed.append(lane)
        circuit.failed(lane, PLAIN, now)
    assert probed == [Lane.STACKS, Lane.POINTS, Lane.LINES, Lane.FACTS] * 2
    circuit.succeeded(Lane.POINTS)
    assert circuit.free(now) == list(Lane)
    assert not circuit.is_open
    assert not circuit.is_failing


def test_who_waits_in_flush_shortens_a_wait_but_makes_no_storm() -> None:
    circuit = Circuit(WAITS)
    for _ in range(6):
        circuit.failed(Lane.FACTS, PLAIN, 100.0)
    circuit.hurry()
    assert circuit.free(100.2) == []
    assert circuit.free(100.26) != []


def test_a_storm_of_503_gets_a_few_probes_and_the_first_success_ends_it() -> None:
    is_well = threading.Event()
    settings = replace(QUICK, probe_seconds=0.4)
    with (
        running(script=lambda *_: Answer() if is_well.is_set() else Answer(503)) as master,
        client(master.url, settings) as ours,
    ):
        started, elapsed = time.monotonic(), 0.0
        number = 0
        while elapsed < 3.0 or (len(master.seen) < 8 and elapsed < 20):
            ours.report(points(number, 1))
            ours.report([line(number), Event(signals.RANK_STALLED, number + 1, f"fact {number}")])
            number += 1
            time.sleep(0.002)
            elapsed = time.monotonic() - started
        assert ours.stats()["circuit_open"] == 1
        seen = len(master.seen)
        elapsed = time.monotonic() - started
        assert seen <= 5 + elapsed / 0.2 + 3, "five to open it, then one in 0.2 to 0.4 s"
        assert seen >= 8, "and probing goes on"
        is_well.set()
        back = time.monotonic()
        assert master.wait_for(lambda: bool(master.accepted))
        assert time.monotonic() - back < 10
        assert ours.flush(10)
        assert ours.stats()["circuit_open"] == 0
        assert [value for _, value, _ in master.points()] == list(range(number))


def test_many_flushes_during_an_outage_make_no_storm() -> None:
    with (
        running(script=lambda *_: Answer(503)) as master,
        client(master.url, replace(QUICK, retry_first_seconds=0.25, probe_seconds=5.0)) as ours,
    ):
        ours.report(points(0, 1))
        started = time.monotonic()
        for _ in range(100):
            assert not ours.flush(0.02)
        assert len(master.seen) <= 4 * (time.monotonic() - started) + 6


def test_a_master_that_refuses_logs_for_now_still_gets_metrics() -> None:
    with (
        running(script=lambda signal, _: Answer(503 if signal == "logs" else 200)) as master,
        client(master.url) as ours,
    ):
        for number in range(50):
            ours.report([Event(signals.RANK_STALLED, 1, "fact")])
            ours.report(points(number, 1), urgent=True)
            time.sleep(0.01)
        assert master.wait_for(lambda: len(master.points()) == 50)
        assert ours.stats()["delivered"] <= 50
        master.script = lambda *_: Answer()
        assert ours.flush(10)
        assert len(master.events()) == 50


def test_a_try_that_is_repeated_carries_the_same_id_and_the_same_items() -> None:
    bodies: list[bytes] = []

    def script(signal: str, body: bytes) -> Answer:
        bodies.append(body)
        return Answer(503) if len(bodies) < 4 else Answer()

    with running(script=script) as master, client(master.url) as ours:
        ours.report(points(0, 5))
        assert master.wait_for(lambda: len(bodies) > 1)
        ours.report(points(5, 5))  # not into the parcel that was tried already
        assert ours.flush(10)
        assert len(set(master.batch_ids[:4])) == 1
        assert len(set(bodies[:4])) == 1
        assert len(set(master.batch_ids)) == 2
        assert ours.stats()["retries"] == 3
        assert [value for _, value, _ in master.points()] == list(range(10))


def test_parts_of_a_refused_parcel_have_ids_of_their_own_that_a_repeat_has_again() -> None:
    seen: dict[bytes, set[str]] = {}
    failed = []

    def script(signal: str, body: bytes) -> Answer:
        seen.setdefault(body, set()).add(master.batch_ids[-1])
        if b"poison" in body:
            return Answer(400)
        if b"line 3" in body and len(failed) < 2:
            failed.append(body)
            return Answer(503)
        return Answer()

    with running(script=script) as master, client(master.url) as ours:
        ours.report(
            [replace(line(number), body="poison" if number == 1 else f"line {number}") for number in range(4)]
        )
        assert ours.flush(10)
        assert master.bodies() == ["line 0", "line 2", "line 3"]
        assert all(len(ids) == 1 for ids in seen.values()), "the same items, the same id"
        assert len({next(iter(ids)) for ids in seen.values()}) == len(seen)


def test_flush_returns_while_others_go_on_reporting() -> None:
    stop = threading.Event()
    with running() as master, client(master.url) as ours:

        def report_for_ever() -> None:
            number = 0
            while not stop.wait(0.0005):
                ours.report(points(number, 1))
                number += 1

        busy = threading.Thread(target=report_for_ever)
        busy.start()
        try:
            for _ in range(5):
                ours.report([Event(signals.RANK_BORN, 1, "mine")])
                assert ours.flush(10)
            assert master.bodies() == ["mine"] * 5
        finally:
            stop.set()
            busy.join()


def test_flush_always_returns_by_its_deadline() -> None:
    held, settings = threading.Event(), replace(QUICK, call_seconds=30)
    with running(script=lambda *_: Answer(hold=held)) as master, client(master.url, settings) as ours:
        ours.report(points(0, 1))
        for seconds in (0.0, 0.05, 0.3):
            started = time.monotonic()
            assert not ours.flush(seconds)
            assert time.monotonic() - started < seconds + 5
        held.set()
        assert master.seen
    with client(f"http://127.0.0.1:{free_port()}") as ours:
        ours.report(points(0, 1))
        started = time.monotonic()
        assert not ours.flush(0.2)
        assert time.monotonic() - started < 10
