"""When the agent samples, sends and ends: pure decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arobust_otel.agent.lifetime import Lifetime
from arobust_otel.agent.pace import GaugePace, Ticks, sort, wakes_master
from arobust_otel.agent.view import View, next_identity
from arobust_otel.model import signals
from arobust_otel.model.beacon import LauncherBeacon
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point
from arobust_otel.plugins import LauncherProcess, Node, RankProcess

RANK = RankProcess(0, 0, "trainer", 100, 1, 2, 0, alive=True)
ENDED = replace(RANK, alive=False)
LAUNCHER = LauncherProcess(
    LauncherBeacon(50, 1, "j", 0, "h", 1, "torchrun", None, None, ()), alive=True, path=Path("/l")
)
ENDING = replace(LAUNCHER, beacon=replace(LAUNCHER.beacon, exit_begun_ns=1))
JOB = JobIdentity("j", 0, "h")


def still(seconds: float) -> list[Point]:
    return [Point(signals.EVENT_AGE, seconds, 1, {signals.RANK: 0})]


def test_missed_ticks_are_left_out_and_the_schedule_does_not_drift() -> None:
    ticks = Ticks(0.5)
    assert ticks.seconds_until_next(100.0) == 0.5
    assert ticks.seconds_until_next(100.7) == pytest.approx(0.3)
    assert ticks.seconds_until_next(107.9) == pytest.approx(0.1)


def test_gauges_go_every_5_seconds_and_every_second_while_a_rank_stands_still() -> None:
    pace = GaugePace(5.0, 1.0, 3.0)
    times = [tick / 2 for tick in range(41)]
    sent = [now for now in times if pace.is_due(still(max(0.0, now - 10)), now)]
    assert sent == [0.0, 5.0, 10.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0]


def test_a_stopped_rank_makes_gauges_fast() -> None:
    pace = GaugePace(5.0, 1.0, 3.0)
    stopped = [Point(signals.STOPPED_FOR, 0.5, 1)]
    assert [pace.is_due(stopped, now) for now in (0.0, 0.5, 1.0)] == [True, False, True]


def test_items_travel_by_their_kind() -> None:
    event, line = Event(signals.RANK_BORN, 1, ""), LogLine("x", 1, "/l", 1)
    found = sort([line, *still(1), event])
    assert (found.facts, found.lines, len(found.points)) == ((event,), (line,), 1)
    assert wakes_master(found.facts)
    assert not wakes_master([Event(signals.CAPABILITY_MISSING, 1, "")])


def over_at(nodes: list[tuple[float, Node]], linger: float = 5.0) -> float | None:
    """The first time at which the work is over; each node holds until the next."""
    lifetime = Lifetime(linger, 120.0)
    ends = [*[at for at, _ in nodes[1:]], 1000.0]
    for (start, node), end in zip(nodes, ends, strict=True):
        now = start
        while now < end:
            if lifetime.is_over(node, {}, now):
                return now
            now += 0.5
    return None


@pytest.mark.parametrize(
    ("story", "end"),
    [
        ([(0.0, Node())], 120.0),
        ([(0.0, Node((RANK,)))], None),
        ([(0.0, Node((RANK,))), (10.0, Node((ENDED,)))], 15.0),
        ([(0.0, Node((RANK,), (LAUNCHER,))), (10.0, Node((ENDED,), (LAUNCHER,)))], None),
        ([(0.0, Node((RANK,), (LAUNCHER,))), (10.0, Node((ENDED,), (ENDING,)))], 11.0),
        ([(0.0, Node((RANK,))), (10.0, Node((ENDED,))), (12.0, Node((RANK,))), (20.0, Node((ENDED,)))], 25.0),
    ],
)
def test_the_agent_ends_after_its_ranks(story: list[tuple[float, Node]], end: float | None) -> None:
    assert over_at(story) == end


def test_a_zombie_rank_counts_as_ended() -> None:
    lifetime = Lifetime(0.0, 120.0)
    assert lifetime.is_over(Node((RANK,)), {RANK.key: "Z"}, 0.0)


def test_the_attempt_only_grows_and_reports_show_its_ranks_alone() -> None:
    restarted = replace(RANK, pid=200, incarnation=1)
    node = Node((ENDED, restarted))
    identity = next_identity(JOB, node)
    assert identity.incarnation == 1
    assert next_identity(identity, Node((ENDED,))).incarnation == 1
    view = View(identity, node, {restarted.key: "S"})
    assert [(rank.pid, rank.state) for rank in view.reports()] == [(200, "S")]
    assert view.identity_of(100).incarnation == 0
    assert view.identity_of(200).incarnation == 1
    assert "no beacon" in view.gaps()[0]
