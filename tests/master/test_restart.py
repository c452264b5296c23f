"""Whatever is killed in the middle of an incident: the same incident, no output twice, nothing lost."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import pytest

from arobust_otel.journal import Kind
from arobust_otel.journal.strip import strip
from arobust_otel.master.replay import replay
from tests.master.running import Master, WireStory, bodies_of, journal_of, outputs_of, settings_for, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def a_killed_rank(master: Master) -> WireStory:
    """Four ranks train, then rank 2 is killed; returns once the incident is open."""
    story = WireStory(ranks=4, master=master)
    story.run(4)
    story.ends(2, signal=int(signal.SIGKILL))
    story.run(2)
    until("an open incident", master.incidents)
    return story


def assert_sound(data_dir: Path, story: WireStory) -> None:
    """Every acknowledged request is in the journal, and no output twice."""
    requests = {r.payload for r in journal_of(data_dir) if r.kind in (Kind.REQUEST, Kind.HEARTBEAT)}
    assert set(story.acknowledged or []) <= requests
    outputs = outputs_of(data_dir)
    assert outputs
    assert len(outputs) == len(set(outputs))
    assert outputs == sorted(outputs)
    bodies = [json.dumps(body) for body in bodies_of(data_dir)]
    assert len(bodies) == len(set(bodies))


def replayed(data_dir: Path, tmp_path: Path) -> str:
    stripped = tmp_path / "stripped"
    strip(data_dir / "journal", stripped)
    out = io.StringIO()
    assert replay(stripped, out, as_json=True) == 0
    return out.getvalue()


@pytest.mark.parametrize("role", ["judge", "receive", "deliver"])
def test_a_role_that_is_killed_in_mid_incident_changes_nothing(tmp_path: Path, role: str) -> None:
    data = tmp_path / "data"
    with Master(settings_for(data)) as master:
        story = a_killed_rank(master)
        (before,) = master.incidents()
        outputs = outputs_of(data)
        master.kill_role(role)
        story.run(4)
        (after,) = until("the incident again", master.incidents)
        assert (after["id"], after["opened_at"]) == (before["id"], before["opened_at"])
        assert after["culprits"] == before["culprits"]
    assert outputs_of(data)[: len(outputs)] == outputs
    assert_sound(data, story)
    assert replayed(data, tmp_path) == (data / "incidents.jsonl").read_text()


def test_the_whole_master_is_killed_and_comes_back(tmp_path: Path) -> None:
    data = tmp_path / "data"
    master = Master(settings_for(data)).start()
    try:
        story = a_killed_rank(master)
        (before,) = master.incidents()
        master.kill()
        master.ended()
        master.errors = ""
        master.start()
        story.run(4)
        (after,) = until("the incident again", master.incidents)
        assert (after["id"], after["opened_at"]) == (before["id"], before["opened_at"])
    finally:
        master.stop()
    assert_sound(data, story)
    assert replayed(data, tmp_path) == (data / "incidents.jsonl").read_text()


def test_a_regular_restart_goes_on_from_the_snapshot(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Master(settings_for(data)) as master:
        a_killed_rank(master)
        (before,) = master.incidents()
    with Master(settings_for(data)) as master:
        (after,) = until("the incident again", master.incidents)
    assert after["id"] == before["id"]
    outputs = outputs_of(data)
    assert len(outputs) == len(set(outputs))
    assert replayed(data, tmp_path) == (data / "incidents.jsonl").read_text()


def test_roles_end_by_themselves_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    master = Master(settings_for(tmp_path / "data")).start()
    try:
        pids = list(master.info()["roles"].values())
        assert master.process is not None
        master.process.kill()
        master.process.wait(60)
        until("roles are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    finally:
        master.stop()


def test_a_new_master_waits_for_the_roles_of_a_killed_one(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "data")
    master = Master(settings).start()
    assert master.process is not None
    os.kill(master.process.pid, signal.SIGKILL)
    master.process.wait(60)
    master.ended()
    with Master(settings) as second:
        assert second.query("/healthz") == {"status": "ok"}


def test_other_settings_after_a_restart_keep_what_was_known(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Master(settings_for(data)) as master:
        a_killed_rank(master)
        (before,) = master.incidents()
    changed = settings_for(data, engine={"tick_seconds": 1.0, "keep_resolved": 7})
    with Master(changed) as master:
        (after,) = until("the incident again", master.incidents)
        assert after["id"] == before["id"]
    assert replayed(data, tmp_path) == (data / "incidents.jsonl").read_text()
