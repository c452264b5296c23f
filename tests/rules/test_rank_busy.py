"""Stories of the rule rank_busy."""

from __future__ import annotations

from arobust_otel.testing import Story


def test_a_working_rank_is_shown_and_nobody_is_blamed() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(0).works_in("save_checkpoint")
    story.run(12)
    (incident,) = story.incidents()
    assert (incident.status, incident.cause, incident.culprits) == ("pending", "rank_busy", ())
    assert "save_checkpoint() train.py:200" in incident.summary
    assert "200 MB/s" in incident.summary
    assert incident.action.kind == "watch"


def test_silent_on_the_healthy_story() -> None:
    story = Story(ranks=4)
    story.run(60)
    assert story.incidents() == []
    assert [output for output in story.outputs if output.kind == "command"] == []


def test_vanishes_when_the_work_is_done() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(0).works_in("evaluate", phase="none", reading=False)
    story.run(20)
    assert [item.status for item in story.incidents()] == ["pending"]
    story.rank(0).trains()
    story.run(10)
    assert story.incidents() == []
