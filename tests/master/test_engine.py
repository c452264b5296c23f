"""The engine: determinism, snapshots, revisions, containment, commands."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arobust_otel.errors import ConfigurationError
from arobust_otel.journal import Kind, Record
from arobust_otel.master.engine import Engine, EngineSettings, Output, build_engine
from arobust_otel.model.finding import Finding, StacksWanted
from arobust_otel.model.incident import Incident
from arobust_otel.state.book import AgentState
from arobust_otel.state.job import JobState
from arobust_otel.testing import Story, replay


def a_night() -> Story:
    """A hang that recovers, a checkpoint, a stop, and the death of a rank."""
    story = Story(ranks=4)
    story.run(8)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run(15)
    story.rank(2).trains()
    story.run(12)
    story.rank(0).works_in("save_checkpoint")
    story.run(12)
    story.rank(0).trains()
    story.run(5)
    story.rank(3).stops()
    story.run(8)
    story.rank(3).trains()
    story.run(8)
    story.ends(1, signal=int(signal.SIGKILL))
    story.run(5)
    return story


NIGHT = a_night()


def texts(engine: Engine) -> list[str]:
    return [json.dumps(incident.to_json(), sort_keys=True) for incident in engine.incidents()]


def test_a_night_has_three_incidents_and_no_more() -> None:
    causes = [(item.cause, item.status) for item in reversed(NIGHT.incidents())]
    assert causes == [
        ("hang_user_code", "resolved"),
        ("process_stopped", "resolved"),
        ("process_killed", "open"),
    ]


def test_a_replay_gives_the_same_incidents_byte_for_byte() -> None:
    assert NIGHT.engine is not None
    assert texts(replay(NIGHT.records)) == texts(NIGHT.engine)


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=0, max_value=len(NIGHT.records)))
def test_a_snapshot_anywhere_goes_on_exactly_as_if_nothing_had_happened(cut: int) -> None:
    outputs: list[Output] = []
    engine = build_engine({})
    for record in NIGHT.records[:cut]:
        outputs += engine.process(record)
    engine = build_engine({}, engine.snapshot())
    for record in NIGHT.records[cut:]:
        outputs += engine.process(record)
    assert NIGHT.engine is not None
    assert texts(engine) == texts(NIGHT.engine)
    assert outputs == NIGHT.outputs
    assert engine.snapshot() == NIGHT.engine.snapshot()


def test_a_request_delivered_twice_changes_nothing() -> None:
    twice = [record for record in NIGHT.records for _ in range(2 if record.kind == Kind.REQUEST else 1)]
    assert NIGHT.engine is not None
    assert texts(replay(twice)) == texts(NIGHT.engine)


def test_no_incident_while_the_master_was_away() -> None:
    """Silence is counted in ticks: an hour without any ages nobody."""
    story = Story(ranks=2)
    story.run(10)
    story.second += 3600
    for person in story.people:
        person.event_s = person.cpu_s = person.io_s = person.tick_s = float(story.second)
    story.run(20)
    assert story.incidents() == []


def test_a_culprit_is_revised_with_the_reason_and_keeps_its_id() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(1).hangs_in("read_shard", "/job/data.py", 88)
    story.run_until_open(20)
    before = story.the_open_one()
    story.rank(3).hangs_in("read_shard", "/job/data.py", 88)
    story.rank(3).entered -= 1
    story.rank(3).left = story.rank(3).entered
    story.run(25)
    after = story.the_open_one()
    assert after.id == before.id
    assert story.open_culprits() == [1, 3]
    assert [revision.culprits for revision in after.revisions] == [(1,)]
    assert after.revisions[0].because


def test_a_process_end_before_the_stall_replaces_the_hang() -> None:
    """The exit arrives late, after the hang opened: the incident is revised, no second one opens."""
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run_until_open(20)
    story.ends(2, signal=int(signal.SIGSEGV), at_s=-13.0)
    story.run(8)
    incident = story.the_open_one()
    assert (incident.rule, incident.cause) == ("process_end", "process_crashed")
    assert [revision.cause for revision in incident.revisions] == ["hang_user_code"]


def test_stacks_are_asked_for_by_commands_with_expiry_and_not_every_second() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run(14)
    commands = [output.body for output in story.outputs if output.kind == "command"]
    assert 2 <= len(commands) <= 5
    assert len({command["id"] for command in commands}) == len(commands)
    assert all(command["agent"] == "node-a/job-1" and 2 in command["ranks"] for command in commands)
    assert all(command["expires_in_seconds"] > 0 for command in commands)


def test_the_incident_carries_the_stack_of_its_culprit() -> None:
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run_until_open(20)
    (opened,) = [output for output in story.outputs if output.kind == "incident"]
    assert {stack["rank"] for stack in opened.body["stacks"]} >= {2}


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule with a bug."""

    name: ClassVar[str] = "broken"
    family: ClassVar[str] = "none"
    priority: ClassVar[int] = 0
    hold_seconds: float = 0.0
    clear_seconds: float = 0.0

    def judge(self, job: JobState, agents: Sequence[AgentState]) -> Iterator[Finding | StacksWanted]:
        raise ZeroDivisionError
        yield

    def cleared(self, job: JobState, agents: Sequence[AgentState], incident: Incident) -> str | None:
        return None


def test_a_rule_that_raises_is_counted_and_hurts_no_other() -> None:
    healthy = build_engine({})
    story = Story(ranks=4, engine=Engine(EngineSettings(), [*healthy.rules, Broken()]))
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run_until_open(20)
    assert story.engine is not None
    assert story.engine.status()["rule_errors"]["broken"] >= 20


def test_what_cannot_be_decoded_is_counted() -> None:
    engine = build_engine({})
    engine.process(Record(0, 1, Kind.REQUEST, "metrics", "x", b"\xff\xff\xff"))
    engine.process(Record(1, 1, Kind.HEARTBEAT, "", "x", b"{}"))
    assert engine.status()["undecodable_records"] == 2


@pytest.mark.parametrize(
    ("configuration", "key"),
    [
        ({"rules": {"hagn": {}}}, "rules.hagn"),
        ({"rules": {"hang": {"idle": 3}}}, "rules.hang.idle"),
        ({"rules": {"hang": {"idle_seconds": "3"}}}, "rules.hang.idle_seconds"),
        ({"engine": {"tick": 3}}, "engine.tick"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(configuration: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_engine(configuration)
    assert key in str(caught.value)


def test_a_rule_can_be_turned_off_and_tuned() -> None:
    story = Story(ranks=4, rules={"hang": {"idle_seconds": 20.0}, "silent": {"enabled": False}})
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    assert 20 <= story.run_until_open(30) <= 24
    assert story.engine is not None
    assert "silent" not in story.engine.status()["rules"]


def test_two_attempts_do_not_share_state() -> None:
    story = Story(ranks=2)
    story.run(10)
    second = Story(ranks=2, incarnation=1, engine=story.engine)
    second.second = story.second
    second.run(3)
    assert story.engine is not None
    rows = story.engine.ranks("job-1")
    assert {row["incarnation"] for row in rows} == {1}
    assert [job["superseded"] for job in story.engine.jobs()] == [True, False]
