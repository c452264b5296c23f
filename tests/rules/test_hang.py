"""Stories of the rule hang."""

from __future__ import annotations

import pytest

from arobust_otel.testing import Story


def test_names_the_rank_that_blocks_in_user_code() -> None:
    story = Story(ranks=4)
    story.run(20)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    assert 10 <= story.run_until_open(20) <= 14
    incident = story.the_open_one()
    assert incident.cause == "hang_user_code"
    assert story.open_culprits() == [2]
    assert incident.victims == (0, 1, 3)
    assert incident.grade == "two_witnesses"
    assert "read_shard() data.py:88" in incident.summary
    assert "the same stack twice" in incident.summary


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_another_rank_another_verdict(rank: int) -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(rank).hangs_in("pack_batch", "/job/tokens.py", 7)
    story.run_until_open(20)
    assert story.open_culprits() == [rank]


def test_a_native_call_asleep_with_the_interpreter_lock() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(1).holds_lock_in("decode_block", "/job/data.py", 12)
    assert story.run_until_open(20) <= 15
    assert story.the_open_one().cause == "hang_interpreter_lock"
    assert story.open_culprits() == [1]


def test_a_native_call_that_burns_gets_thirty_seconds() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(1).holds_lock_in("match_spans", "/job/data.py", 12, burning=True)
    assert 30 <= story.run_until_open(45) <= 36
    assert story.the_open_one().cause == "hang_interpreter_lock"


def test_silent_on_a_numpy_call_of_eighteen_seconds() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(1).holds_lock_in("unique", "/job/data.py", 12, burning=True)
    story.run(18)
    story.rank(1).trains()
    story.run(60)
    assert story.incidents("open") == story.incidents("resolved") == []


def test_silent_on_a_numpy_call_that_a_crowded_host_stretches() -> None:
    """The same work with a third of a processor takes three times as long."""
    story = Story(ranks=4)
    story.run(10)
    story.rank(1).cpu_share = 0.33
    story.rank(1).holds_lock_in("unique", "/job/data.py", 12, burning=True)
    story.run(54)
    story.rank(1).trains()
    story.run(20)
    assert story.incidents("open") == story.incidents("resolved") == []


def test_silent_on_a_checkpoint_of_45_seconds_on_rank_0() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(0).works_in("save_checkpoint")
    story.run(45)
    pending = story.incidents("pending")
    assert [item.cause for item in pending] == ["rank_busy"]
    story.rank(0).trains()
    story.run(20)
    assert story.incidents() == []


def test_silent_on_a_pause_of_all_ranks() -> None:
    story = Story(ranks=4)
    story.run(10)
    for rank in range(4):
        story.rank(rank).waits_for_data()
    story.run(40)
    for rank in range(4):
        story.rank(rank).trains()
    story.run(20)
    assert story.incidents("open") == story.incidents("resolved") == []


def test_all_ranks_idle_outside_of_a_collective_are_a_stop_of_unknown_cause() -> None:
    story = Story(ranks=4)
    story.run(10)
    for rank in range(4):
        story.rank(rank).waits_for_data()
    assert 60 <= story.run_until_open(90) <= 63
    incident = story.the_open_one()
    assert (incident.cause, incident.culprits) == ("unknown", ())
    assert "next_batch() data.py:10" in incident.summary


def test_ranks_that_spin_in_a_collective_that_does_not_end() -> None:
    """As on an accelerator: the host burns processor time while it waits."""
    story = Story(ranks=4)
    story.run(10)
    for rank in range(4):
        story.rank(rank).waits_in_collective(spinning=True)
    assert 118 <= story.run_until_open(140) <= 126
    assert (story.the_open_one().cause, story.open_culprits()) == ("hang_collective", [])


def test_silent_while_all_ranks_compute_for_minutes_in_changing_places() -> None:
    story = Story(ranks=4)
    story.run(10)
    for second in range(180):
        for rank in range(4):
            story.rank(rank).works_in(f"compile_{second // 7}", phase="none", reading=False)
        story.run(1)
    assert story.incidents("open") == []


def test_all_ranks_without_progress_blame_nobody() -> None:
    story = Story(ranks=4)
    story.run(10)
    for rank in range(4):
        story.rank(rank).waits_in_collective()
    assert 60 <= story.run_until_open(90) <= 63
    incident = story.the_open_one()
    assert incident.cause == "hang_collective"
    assert incident.culprits == ()


def test_closes_after_recovery() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run_until_open(20)
    story.rank(2).trains()
    story.run(12)
    assert story.incidents("open") == []
    (resolved,) = story.incidents("resolved")
    assert resolved.resolved_ns is not None
    story.run(60)
    assert len(story.incidents()) == 1


def test_without_any_stack_it_waits_longer_and_says_so() -> None:
    story = Story(ranks=4, stacks_can_be_had=False)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    assert 20 <= story.run_until_open(30) <= 23
    incident = story.the_open_one()
    assert incident.grade == "one_witness"
    assert "stack of rank 2" in incident.unseen


def test_a_single_process_that_stands_still_is_named_after_a_minute() -> None:
    story = Story(ranks=1)
    story.run(10)
    story.rank(0).hangs_in("read_shard", "/job/data.py", 88)
    assert 60 <= story.run_until_open(90) <= 63
    assert story.open_culprits() == [0]
    assert "read_shard() data.py:88" in story.the_open_one().summary


def test_the_rank_behind_two_groups_is_blamed_and_not_the_one_between() -> None:
    """Rank 1 lags in group a because it waits in group b, where rank 2 hangs."""
    story = Story(ranks=3, groups={"a": "0-1", "b": "1-2"})
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run_until_open(25)
    assert story.open_culprits() == [2]
