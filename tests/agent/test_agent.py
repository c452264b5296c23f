"""The whole agent, as a process: real ranks with beacons, a real socket to the master."""

from __future__ import annotations

import json
import os
import signal as unix_signals
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel.agent.runner import Agent, Assignment
from arobust_otel.agent.sampler import Sampler
from arobust_otel.config import AgentSettings
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.heartbeat import CAPTURE_STACKS, Command
from arobust_otel.model.samples import Event
from tests.agent.server import MasterDouble, free_port, running
from tests.agent.world import JOB_ID, World


@pytest.fixture
def master() -> Iterator[MasterDouble]:
    with running() as double:
        yield double


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def start(world: World, master_url: str, *flags: str, **environ: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "arobust_otel.agent", "--beacon-dir", str(world.root)]
    command += ["--job-id", JOB_ID, "--master", master_url, *flags]
    settings = {"AROBUST_LINGER_SECONDS": "1", "AROBUST_SAMPLE_SECONDS": "0.1"}
    settings |= {"AROBUST_SPOOL_DIR": str(world.root / "spool"), **environ}
    process = subprocess.Popen(command, env={**os.environ, **settings}, stderr=subprocess.PIPE)
    world.processes.append(process)
    return process


def finished(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, text = process.communicate(timeout=50)
    return process.returncode, text.decode()


def test_an_agent_sees_a_rank_be_born_and_die_and_ends_after_it(world: World, master: MasterDouble) -> None:
    rank = world.rank(0)
    agent = start(world, master.url)
    assert master.wait_for(lambda: signals.RANK_BORN in master.events())
    assert master.wait_for(lambda: any(beat.ranks for beat in master.heartbeats))
    assert json.loads((world.folder / "agent.json").read_text())["pid"] == agent.pid
    killed = time.monotonic()
    world.end(rank)
    assert master.wait_for(lambda: signals.RANK_EXITED in master.events(), 40)
    assert time.monotonic() - killed < 15
    assert finished(agent)[0] == 0
    assert [beat.final for beat in master.heartbeats] == [False] * (len(master.heartbeats) - 1) + [True]
    names = {name for name, _, _ in master.points()}
    assert {signals.STEP, signals.AGENT_UP, signals.COLLECTOR_UP, signals.CLIENT_REPORTS} <= names
    assert names <= set(signals.DICTIONARY)
    last = master.heartbeats[-1]
    assert (last.ranks[0].pid, last.ranks[0].state, last.world_size) == (rank.pid, "X", 1)
    assert any("rank 0: the loss cannot be seen" in gap for gap in last.gaps)
    assert last.stats["dropped"] == 0


def test_a_second_agent_of_the_job_ends_at_once_with_0(world: World, master: MasterDouble) -> None:
    world.rank(0)
    first = start(world, master.url)
    assert master.wait_for(lambda: bool(master.heartbeats))
    code, text = finished(start(world, master.url))
    assert (code, "another agent already watches" in text) == (0, True)
    first.terminate()
    assert finished(first)[0] == 0
    assert master.heartbeats[-1].final


def test_stacks_are_taken_on_command_and_answered_at_once(world: World, master: MasterDouble) -> None:
    rank = world.rank(0)
    agent = start(world, master.url)
    assert master.wait_for(lambda: any(beat.ranks for beat in master.heartbeats))
    identity = master.heartbeats[-1].agent
    master.commands = [Command("c1", CAPTURE_STACKS, identity, JOB_ID, 0, 10.0, (0,))] * 2
    assert master.wait_for(lambda: any(beat.results for beat in master.heartbeats), 40)
    result = next(beat.results[0] for beat in master.heartbeats if beat.results)
    assert (result.id, result.outcome) == ("c1", "done"), result
    assert master.wait_for(lambda: bool(master.spans()) and signals.STACK_DUMP in master.events())
    agent.terminate()
    assert finished(agent)[0] == 0
    (span,) = master.spans()
    assert any("read_shard" in str(event.attributes) for event in span.events)
    dump = next(record for record in master.log_records() if record.event_name == signals.STACK_DUMP)
    assert dump.span_id == span.span_id
    # Once, however often it was told: a heartbeat that hears no answer is repeated.
    assert {(found.id, found.outcome) for beat in master.heartbeats for found in beat.results} == {
        ("c1", "done")
    }
    assert rank.poll() is None


def test_a_restarted_job_is_a_new_attempt_and_the_old_ones_end_belongs_to_the_old(
    world: World, master: MasterDouble
) -> None:
    old = world.rank(0, incarnation=0)
    agent = start(world, master.url, AROBUST_LINGER_SECONDS="20")
    assert master.wait_for(lambda: signals.RANK_BORN in master.events())
    world.rank(0, incarnation=1)
    assert master.wait_for(lambda: any(beat.incarnation == 1 for beat in master.heartbeats))
    world.end(old)
    assert master.wait_for(lambda: signals.RANK_EXITED in master.events())
    agent.terminate()
    finished(agent)
    attempts = {
        (record.event_name, item.value.int_value)
        for request in master.requests("logs")
        for resource in request.resource_logs
        for item in resource.resource.attributes
        if item.key == signals.INCARNATION
        for scope in resource.scope_logs
        for record in scope.log_records
    }
    assert {(signals.RANK_BORN, 0), (signals.RANK_BORN, 1), (signals.RANK_EXITED, 0)} <= attempts
    assert (signals.RANK_EXITED, 1) not in attempts


def test_training_logs_arrive_once_also_over_an_outage_of_the_master(world: World, tmp_path: Path) -> None:
    world.rank(0)
    log = tmp_path / "train.log"
    log.write_text("step 1\n")
    port = free_port()
    agent = start(world, f"http://127.0.0.1:{port}", "--log-file", str(log))
    with log.open("a") as file:
        file.writelines(f"step {number}\n" for number in range(2, 50))
    with running(port) as master:
        expected = [f"step {number}" for number in range(1, 50)]
        assert master.wait_for(
            lambda: [text for text in master.bodies() if text.startswith("step")] == expected, 40
        )
        agent.terminate()
        assert finished(agent)[0] == 0
        again = start(world, f"http://127.0.0.1:{port}", "--log-file", str(log))
        with log.open("a") as file:
            file.write("step 50\n")
        assert master.wait_for(lambda: "step 50" in master.bodies(), 40)
        again.terminate()
        finished(again)
        assert [text for text in master.bodies() if text.startswith("step")] == [*expected, "step 50"]


def test_the_agent_stays_while_the_launcher_may_restart_the_ranks(world: World, master: MasterDouble) -> None:
    world.launcher(exit_begun=False)
    rank = world.rank(0)
    agent = start(world, master.url, AROBUST_LINGER_SECONDS="0.2")
    assert master.wait_for(lambda: signals.RANK_BORN in master.events())
    world.end(rank)
    assert master.wait_for(lambda: signals.RANK_EXITED in master.events())
    with pytest.raises(subprocess.TimeoutExpired):
        agent.wait(1.0)
    world.launcher(exit_begun=True)
    assert finished(agent)[0] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--master", "ftp://host"], "grpc://host:4317"),
        (["--config", "/nowhere.toml"], "a file that can be read"),
    ],
)
def test_wrong_settings_are_refused_at_the_start(world: World, flags: list[str], said: str) -> None:
    code, text = finished(start(world, "http://127.0.0.1:1", *flags))
    assert code == 2
    assert said in text


class Broken:
    """A collector of somebody else that fails after its first item."""

    name = "broken"

    def collect(self, now: object, node: object) -> Iterator[Event]:
        yield Event("arobust.rank.born", 1, "told before it failed")
        raise OSError("sensor is gone")


class Unable:
    """A collector whose source is not to be had."""

    name = "unable"

    def collect(self, now: object, node: object) -> Iterator[Event]:
        raise CapabilityError("sensor", "no sensor here", "plug one in")


def test_a_collector_that_fails_hides_no_other_and_is_named(world: World, master: MasterDouble) -> None:
    def plugs() -> list[str]:
        missing = [rec for rec in master.log_records() if rec.event_name == signals.CAPABILITY_MISSING]
        return [rec.body.string_value for rec in missing if "plug one in" in rec.body.string_value]

    world.rank(0)
    sampler = Sampler({})
    sampler.add(Broken())
    sampler.add(Unable())
    settings = AgentSettings(sample_seconds=0.1, gauge_seconds=0.2, heartbeat_seconds=0.2)
    agent = Agent(Assignment(JOB_ID, world.root, master.url), settings, sampler)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        assert master.wait_for(lambda: "told before it failed" in master.bodies())
        assert master.wait_for(lambda: any(name == signals.STEP for name, _, _ in master.points()))
        assert master.wait_for(lambda: any(beat.collectors for beat in master.heartbeats))
        assert master.wait_for(lambda: bool(plugs()))
    finally:
        agent.stop()
        thread.join()
    reports = {report.name: (report.ok, report.reason) for report in master.heartbeats[-1].collectors}
    assert reports["broken"] == (False, "OSError: sensor is gone")
    assert reports["unable"] == (False, "no sensor here; plug one in")
    assert reports["beacons"] == (True, "")
    assert len(plugs()) == 1


def test_the_last_words_of_a_job_need_no_line_end(world: World, master: MasterDouble, tmp_path: Path) -> None:
    """A killed rank leaves half a line; an agent that is only stopped leaves it to the next one."""
    log = tmp_path / "train.log"
    log.write_text("step 1\nstep")
    rank = world.rank(0)
    stopped = start(world, master.url, "--log-file", str(log))
    assert master.wait_for(lambda: "step 1" in master.bodies(), 40)
    stopped.terminate()
    assert finished(stopped)[0] == 0
    with log.open("a") as file:
        file.write(" 2\nRuntimeError: CUDA error: out of mem")
    agent = start(world, master.url, "--log-file", str(log))
    assert master.wait_for(lambda: "step 2" in master.bodies(), 40)
    world.end(rank)
    assert finished(agent)[0] == 0
    lines = [text for text in master.bodies() if text.startswith(("step", "RuntimeError"))]
    assert lines == ["step 1", "step 2", "RuntimeError: CUDA error: out of mem"]


def test_the_agent_ends_in_time_without_a_master(world: World) -> None:
    world.rank(0)
    agent = start(world, f"http://127.0.0.1:{free_port()}")
    deadline = time.monotonic() + 40
    while not (world.folder / "agent.json").exists():
        assert time.monotonic() < deadline, "the agent has begun"
        time.sleep(0.02)
    started = time.monotonic()
    agent.send_signal(unix_signals.SIGTERM)
    assert finished(agent)[0] == 0
    assert time.monotonic() - started < 15


def test_lines_that_an_agent_without_a_disk_had_at_its_end_are_read_by_the_next(
    world: World, tmp_path: Path
) -> None:
    world.rank(0)
    log = tmp_path / "train.log"
    log.write_text("".join(f"step {number}\n" for number in range(1, 50)))
    port = free_port()
    flags = (f"http://127.0.0.1:{port}", "--log-file", str(log))
    ended = start(world, *flags, AROBUST_SPOOL_DIR="off")
    deadline = time.monotonic() + 40
    while not (world.folder / "agent.json").exists():
        assert time.monotonic() < deadline, "the agent has begun"
        time.sleep(0.02)
    time.sleep(1.0)  # it has read the log
    ended.send_signal(unix_signals.SIGTERM)
    assert finished(ended)[0] == 0
    with running(port) as master:
        again = start(world, *flags, AROBUST_SPOOL_DIR="off")
        assert master.wait_for(lambda: "step 49" in master.bodies(), 40)
        again.terminate()
        assert finished(again)[0] == 0
        steps = [text for text in master.bodies() if text.startswith("step")]
        assert steps == [f"step {number}" for number in range(1, 50)]


def test_an_agent_that_is_killed_in_an_outage_leaves_everything_to_the_next(
    world: World, tmp_path: Path
) -> None:
    world.rank(0)
    log = tmp_path / "train.log"
    log.write_text("".join(f"step {number}\n" for number in range(1, 50)))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    spool = {"AROBUST_SPOOL_DIR": str(tmp_path / "spool")}
    killed = start(world, url, "--log-file", str(log), **spool)
    offsets = world.folder / "logs.json"
    deadline = time.monotonic() + 40
    while not (offsets.exists() and str(log.stat().st_size) in offsets.read_text()):
        assert time.monotonic() < deadline, "the offset moves once the spool has the lines"
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    with log.open("a") as file:
        file.write("step 50\n")
    with running(port) as master:
        again = start(world, url, "--log-file", str(log), **spool)
        assert master.wait_for(lambda: "step 50" in master.bodies(), 40)
        again.terminate()
        assert finished(again)[0] == 0
        steps = [text for text in master.bodies() if text.startswith("step")]
        assert steps == [f"step {number}" for number in range(1, 51)]
        assert signals.RANK_BORN in master.events()
        stats = master.heartbeats[-1].stats
        assert stats["recovered"] > 0
        waiting = stats["queue_items"] + stats["spool_items"]
        assert stats["accepted"] + stats["recovered"] == stats["delivered"] + stats["dropped"] + waiting


def test_an_agent_speaks_grpc_and_beats_over_http(world: World, master: MasterDouble) -> None:
    world.rank(0)
    agent = start(world, f"127.0.0.1:{free_port()}", AROBUST_HEARTBEAT_URL=master.url)
    assert master.wait_for(lambda: len(master.heartbeats) > 1, 40)
    agent.terminate()
    assert finished(agent)[0] == 0
    assert master.heartbeats[-1].final
    assert master.heartbeats[-1].stats["connected"] == 0
    assert master.heartbeats[-1].stats["spool_ok"] == 1
