"""Stories of the rule silent."""

from __future__ import annotations

from arobust_otel.testing import Story


def test_a_silent_agent_is_said_and_nobody_is_blamed() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.agent_speaks = False
    assert 28 <= story.run_until_open(40) <= 33
    incident = story.the_open_one()
    assert (incident.cause, incident.grade, incident.culprits) == ("agent_lost", "cannot_see", ())
    assert incident.unseen == ("rank 0", "rank 1", "rank 2", "rank 3")


def test_a_node_that_others_wait_for_is_lost() -> None:
    near = Story(ranks=4, groups={"default": "0-3"})
    far = Story(ranks=4, groups={"default": "0-3"}, host="node-b", engine=near.engine)
    for story, gone in ((near, (2, 3)), (far, (0, 1))):
        for rank in gone:
            story.rank(rank).visible = False
    for _ in range(10):
        near.run(1)
        far.run(1)
    far.agent_speaks = False
    for rank in (2, 3):
        near.rank(rank).hangs_in("unknown", "/job/x.py", 1)
    near.run(45)
    incident = near.the_open_one()
    assert incident.cause == "node_lost"
    assert sorted(near.open_culprits()) == [2, 3]
    assert {culprit.node for culprit in incident.culprits} == {"node-b"}


def test_a_rank_whose_beacon_fell_silent_is_a_gap() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(1).watcher_lives = False
    story.run(40)
    incident = story.the_open_one()
    assert (incident.cause, incident.culprits) == ("telemetry_gap", ())


def test_silent_when_the_agent_said_goodbye() -> None:
    story = Story(ranks=4)
    story.run(9)
    story.agent_ends = True
    story.run(1)
    story.agent_speaks = False
    story.run(60)
    assert story.incidents() == []


def test_closes_when_the_agent_speaks_again() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.agent_speaks = False
    story.run_until_open(40)
    story.agent_speaks = True
    story.run(12)
    assert story.incidents("open") == []
