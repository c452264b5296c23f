"""Stories of the rule process_stopped."""

from __future__ import annotations

from arobust_otel.testing import Story


def test_a_stopped_rank_is_named_before_it_looks_like_a_hang() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).stops()
    assert story.run_until_open(12) <= 8
    incident = story.the_open_one()
    assert (incident.cause, story.open_culprits()) == ("process_stopped", [2])
    story.run(60)
    assert len(story.incidents()) == 1


def test_silent_when_the_whole_job_is_suspended() -> None:
    story = Story(ranks=4)
    story.run(10)
    for rank in range(4):
        story.rank(rank).stops()
    story.run(40)
    assert story.incidents("open") == []
    assert "suspended" in story.incidents("pending")[0].summary
    for rank in range(4):
        story.rank(rank).trains()
    story.run(20)
    assert story.incidents() == []


def test_silent_on_a_stop_of_two_seconds() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(1).stops()
    story.run(2)
    story.rank(1).trains()
    story.run(30)
    assert story.incidents() == []


def test_closes_when_the_rank_runs_again() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).stops()
    story.run_until_open(12)
    story.rank(2).trains()
    story.run(10)
    assert story.incidents("open") == []
    assert [item.cause for item in story.incidents("resolved")] == ["process_stopped"]
