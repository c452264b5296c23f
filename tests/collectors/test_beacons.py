"""What beacons say becomes gauges and facts; what they do not know is left out."""

from __future__ import annotations

import os

import pytest

from arobust_otel.collectors.beacons import BeaconsCollector
from arobust_otel.model import signals
from arobust_otel.model.beacon import PHASES, STATES, Child, GroupCounters, SeenException

LOADED_SECONDS = 20  # how late a busy machine may read what was just written


@pytest.fixture
def sample(world):
    collector = BeaconsCollector()
    return lambda: list(collector.collect(world.clock(), world.node()))


def test_progress_of_a_rank_is_told_as_gauges(world, sample, values) -> None:
    now = world.clock()
    world.rank(
        os.getpid(),
        rank=3,
        step=41,
        loss=2.75,
        state="checkpoint",
        phase="backward",
        phase_since_mono_ns=now.mono_ns - 2_000_000_000,
        event_mono_ns=now.mono_ns - 5_000_000_000,
        tick_count=9,
        tick_mono_ns=now.mono_ns - 1_000_000_000,
        groups=(GroupCounters("dp", "0-3", "gloo", 12, 11),),
        groups_read_mono_ns=now.mono_ns - 1_000_000_000,
    )
    items = sample()
    assert values(items, signals.STEP) == [41]
    assert values(items, signals.LOSS) == [2.75]
    assert values(items, signals.STATE) == [STATES.index("checkpoint")]
    assert values(items, signals.PHASE) == [PHASES.index("backward")]
    assert values(items, signals.STEP_DURATION) == [0.25]
    assert 2 <= values(items, signals.PHASE_AGE)[0] < 2 + LOADED_SECONDS
    assert 2 <= values(items, signals.EVENT_AGE)[0] < 2 + LOADED_SECONDS  # a phase is an event
    assert 1 <= values(items, signals.TICK_AGE)[0] < 1 + LOADED_SECONDS
    (entered,) = [item for item in items if item.name == signals.ENQUEUED]
    assert entered.value == 12
    assert entered.attributes == {
        signals.RANK: 3,
        signals.LOCAL_RANK: 3,
        signals.ROLE: "trainer",
        signals.GROUP_NAME: "dp",
        signals.GROUP_RANKS: "0-3",
        signals.BACKEND: "gloo",
    }
    assert values(items, signals.COMPLETED) == [11]
    assert 1 <= values(items, signals.READ_AGE)[0] < 1 + LOADED_SECONDS


def test_what_a_beacon_does_not_know_is_no_point(world, sample, values) -> None:
    world.rank(os.getpid(), step_duration_ns=0, phase_since_mono_ns=0)
    items = sample()
    for name in (
        signals.STEP_DURATION,
        signals.PHASE_AGE,
        signals.TICK_AGE,
        signals.ENQUEUED,
        signals.READ_AGE,
    ):
        assert values(items, name) == []


def test_facts_are_told_once_with_the_time_at_which_they_happened(world, sample, events) -> None:
    seen = SeenException(
        123_000, 40, "ValueError", "bad shard", "read_shard", "/job/data.py", 88, "MainThread"
    )
    path = world.rank(
        os.getpid(), rank=2, exception=seen, exit_begun_ns=456_000, nonfinite_step=9, nonfinite_ns=99
    )
    path.with_suffix(".exception").write_text("Traceback ...\nValueError: bad shard\n")
    items = sample() + sample()
    (born,) = events(items, signals.RANK_BORN)
    assert born.attributes[signals.WORLD_SIZE] == 4
    assert born.attributes[signals.PID] == os.getpid()
    (raised,) = events(items, signals.RANK_EXCEPTION)
    assert raised.time_ns == 123_000
    assert raised.attributes[signals.EXCEPTION_TYPE] == "ValueError"
    assert raised.attributes[signals.CODE_FUNCTION] == "read_shard"
    assert raised.attributes[signals.CODE_LINE] == 88
    assert raised.attributes[signals.STEP_ATTRIBUTE] == 40
    assert "Traceback" in raised.attributes[signals.EXCEPTION_STACK]
    (exiting,) = events(items, signals.RANK_EXITING)
    assert exiting.time_ns == 456_000
    (nonfinite,) = events(items, signals.RANK_NONFINITE)
    assert (nonfinite.time_ns, nonfinite.attributes[signals.STEP_ATTRIBUTE]) == (99, 9)


def test_facts_of_a_rank_that_is_gone_are_told_but_no_gauges(world, sample, events, values) -> None:
    process = world.python("print('ready')")
    process.wait()
    seen = SeenException(1, 1, "OSError", "", "", "", 0, "MainThread")
    world.rank(process.pid, start_ticks=5, exception=seen)
    items = sample()
    (raised,) = events(items, signals.RANK_EXCEPTION)
    assert signals.CODE_FUNCTION not in raised.attributes
    assert values(items, signals.STEP) == []


def test_a_gap_is_named_once_for_all_ranks_with_its_remedy(world, sample, events) -> None:
    world.rank(os.getpid(), rank=0, gaps=("p2p",))
    process = world.python("print('ready', flush=True); input()")
    world.rank(process.pid, rank=1, gaps=("p2p", "loss_signal"))
    gaps = events(sample() + sample(), signals.CAPABILITY_MISSING)
    assert sorted(gap.attributes[signals.CAPABILITY] for gap in gaps) == ["loss_signal", "p2p"]
    assert all(gap.attributes[signals.REMEDY] in gap.body for gap in gaps)


@pytest.mark.parametrize(
    ("facts", "expected_signal"),
    [({"signal_received": 15}, 15), ({"exit_begun_ns": 77}, None), ({"start_ticks": 1}, None)],
    ids=["told to end", "ends", "gone"],
)
def test_the_end_of_the_launcher_is_told_at_its_first_sign(
    world, sample, events, facts, expected_signal
) -> None:
    world.launcher(os.getpid())
    assert not events(sample(), signals.LAUNCHER_EXITED)
    world.launcher(os.getpid(), **facts)
    (ended,) = events(sample() + sample(), signals.LAUNCHER_EXITED)
    assert ended.attributes.get(signals.EXIT_SIGNAL) == expected_signal
    assert ended.attributes[signals.PID] == os.getpid()


def test_a_rank_without_a_beacon_is_born_too(world, sample, events) -> None:
    process = world.python("print('ready', flush=True); input()")
    world.launcher(os.getpid(), Child(process.pid, 0, 1, 1, 1, None, None))
    (born,) = events(sample(), signals.RANK_BORN)
    assert born.attributes == {
        signals.RANK: 1,
        signals.LOCAL_RANK: 1,
        signals.ROLE: "trainer",
        signals.PID: process.pid,
    }
