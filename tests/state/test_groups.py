"""Counters of groups: steady after a second of equal reads, exact beyond float32."""

from __future__ import annotations

import numpy as np

from arobust_otel.state.groups import GroupState

SECOND = 1_000_000_000


def enter(group: GroupState, rank: int, second: float, count: float) -> None:
    group.enter(np.array([rank]), np.array([int(second * SECOND)]), np.array([count]))


def test_steady_needs_two_equal_reads_a_second_apart() -> None:
    group = GroupState.empty("dp", (3, 7))
    enter(group, 7, 1.0, 5)
    assert not group.steady().any()
    enter(group, 7, 1.5, 5)
    assert not group.steady().any()
    enter(group, 7, 2.0, 5)
    assert list(group.steady()) == [False, True]
    enter(group, 7, 3.0, 6)
    assert not group.steady().any()


def test_counts_are_exact_beyond_16_million() -> None:
    group = GroupState.empty("dp", (0, 1))
    enter(group, 0, 1.0, 16_777_217)
    enter(group, 1, 1.0, 16_777_216)
    assert group.enqueued[0] - group.enqueued[1] == 1


def test_a_late_report_changes_nothing() -> None:
    group = GroupState.empty("dp", (0, 1))
    enter(group, 0, 5.0, 9)
    enter(group, 0, 4.0, 8)
    assert group.enqueued[0] == 9


def test_a_rank_that_is_no_member_is_left_out() -> None:
    group = GroupState.empty("dp", (0, 2))
    enter(group, 1, 1.0, 9)
    enter(group, 99, 1.0, 9)
    assert list(group.enqueued) == [-1, -1]
