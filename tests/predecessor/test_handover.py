"""A compatibility agent beside the agent of the node, and without it: each line is sent once."""

from __future__ import annotations

import logging
import os
import signal as unix_signals
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel.agent import handover
from arobust_otel.agent.data_collector import DataCollector, LogCollector
from arobust_otel.agent.handover import HANDED, Handover
from arobust_otel.agent.lock import AgentLock, is_held
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.monitor import ResourceMonitor, TrainingMonitor, write_training_metrics
from arobust_otel.common.constants import EnvConfigKey
from arobust_otel.common.diagnosis_data import ResourceStats
from arobust_otel.controller.diagnosis import DiagnosisAgent
from arobust_otel.model import signals
from tests.agent.server import MasterDouble, running
from tests.predecessor.support import JOB, UserClient, our_threads, until


@pytest.fixture
def master() -> Iterator[MasterDouble]:
    with running() as double:
        yield double


class Writer:
    """Numbered lines, written one after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def write(self, lines: int) -> None:
        with self.path.open("a") as file:
            for _ in range(lines):
                file.write(f"line {self.count}\n")
                self.count += 1


class NodeAgent:
    """The node's agent as a process."""

    def __init__(self, master: MasterDouble, folder: Path) -> None:
        command = [sys.executable, "-m", "arobust_otel.agent", "--beacon-dir", str(folder.parent)]
        settings = {"AROBUST_SAMPLE_SECONDS": "0.1", "AROBUST_SPOOL_DIR": str(folder.parent / "spool")}
        self.process = subprocess.Popen(
            [*command, "--job-id", JOB, "--master", master.url],
            env={**os.environ, **settings},
            stderr=subprocess.PIPE,
        )

    def __enter__(self) -> NodeAgent:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(unix_signals.SIGTERM)
        self.process.communicate(timeout=30)


def lines_of(master: MasterDouble) -> Counter[str]:
    return Counter(body for body in master.bodies() if body.startswith("line "))


def all_once(master: MasterDouble, count: int) -> bool:
    return lines_of(master) == Counter({f"line {number}": 1 for number in range(count)})


def test_beside_the_nodes_agent_nothing_is_sent_from_training(
    master: MasterDouble, folder: Path, tmp_path: Path
) -> None:
    writer = Writer(tmp_path / "train.log")
    writer.write(100)
    client = MasterClient(master.url)
    with NodeAgent(master, folder):
        until("the node's agent", lambda: is_held(folder))
        agent = DiagnosisAgent(training_log_file=str(writer.path))
        agent.set_client(client)
        agent.register_periodical_data_collector(LogCollector(str(tmp_path / "other.log")), 0.1)
        agent.start()
        assert agent.send_heartbeat() is True  # the node's agent speaks to the master
        writer.write(100)
        assert master.wait_for(lambda: all_once(master, 200), 30), lines_of(master)
        assert not [name for name in our_threads() if name.startswith("arobust-collect")]
        agent.stop()
    client.flush(5)
    assert client.stats()["accepted"] == 0
    client.close()
    assert all_once(master, 200)
    written = handover.load(folder)
    assert next(written).files == (str(tmp_path / "other.log"), str(writer.path))
    assert (folder / f"handover-{os.getpid()}.json").stat().st_mode & 0o777 == 0o600


def test_a_users_own_collector_runs_also_beside_the_nodes_agent(master: MasterDouble, folder: Path) -> None:
    class Loss(DataCollector):
        def is_enabled(self) -> bool:
            return True

        def collect_data(self) -> dict[str, float]:
            return {"loss": 0.5}

    client = MasterClient(master.url)
    lock = AgentLock(folder)
    assert lock.take()  # as the node's agent does
    agent = DiagnosisAgent()
    agent.set_client(client)
    agent.register_periodical_data_collector(Loss(), 60)
    agent.start()
    assert master.wait_for(lambda: bool(master.points()), 20)
    agent.stop()
    client.close()
    lock.release()
    assert [(name, value) for name, value, _ in master.points()] == [("Loss.loss", 0.5)]


def test_a_users_own_client_gets_everything_also_beside_the_nodes_agent(folder: Path, tmp_path: Path) -> None:
    """Whoever brings another client wants the data there."""
    writer = Writer(tmp_path / "train.log")
    writer.write(3)
    client, lock = UserClient(), AgentLock(folder)
    assert lock.take()
    agent = DiagnosisAgent(training_log_file=str(writer.path))
    agent.set_client(client)
    agent.start()
    assert client.wait_for(lambda: client.text() == "line 0\nline 1\nline 2\n")
    agent.stop()
    lock.release()


def test_the_nodes_agent_comes_later_goes_and_nothing_is_sent_twice(
    master: MasterDouble, folder: Path, tmp_path: Path
) -> None:
    """Alone, beside, alone again, with lines all the time."""
    writer = Writer(tmp_path / "train.log")
    client = MasterClient(master.url)
    own = LogCollector(str(writer.path))
    agent = DiagnosisAgent()
    agent.set_client(client)
    agent.register_periodical_data_collector(own, 0.1)
    ended = threading.Event()

    def write() -> None:
        while not ended.wait(0.01):
            writer.write(3)

    thread = threading.Thread(target=write)
    agent.start()
    thread.start()
    try:
        assert master.wait_for(lambda: len(lines_of(master)) > 50, 30)
        with NodeAgent(master, folder):
            until("it is handed over", lambda: agent._beside, 30)
            handed, before = writer.count, client.stats()["accepted"]
            assert master.wait_for(lambda: len(lines_of(master)) > handed + 50, 30)
            assert client.stats()["accepted"] == before
        until("it works alone again", lambda: not agent._beside, 30)
        taken = writer.count
        assert master.wait_for(lambda: len(lines_of(master)) > taken + 50, 30)
    finally:
        ended.set()
        thread.join()
    assert master.wait_for(lambda: all_once(master, writer.count), 30), [
        pair for pair in lines_of(master).items() if pair[1] != 1
    ]
    agent.stop()
    client.close()


def test_two_ranks_that_follow_one_log_send_it_once(
    master: MasterDouble, folder: Path, tmp_path: Path
) -> None:
    """And the node's figures come from one of them. When the first one ends, the other goes on."""
    master.interval_seconds = 30.0  # so that a beat is the first or the last of its process
    writer = Writer(tmp_path / "train.log")
    writer.write(10)
    code = (
        "import sys\n"
        "from arobust_otel import DiagnosisAgent, LogCollector, MasterClient\n"
        "from arobust_otel.controller import beating\n"
        "beating.GOODBYE_SECONDS = 20.0\n"
        "client = MasterClient(sys.argv[1])\n"
        "agent = DiagnosisAgent()\n"
        "agent.set_client(client)\n"
        "agent.register_periodical_data_collector(LogCollector(sys.argv[2]), 0.1)\n"
        "agent.start()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "agent.stop()\n"
        "client.close()\n"
    )
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, master.url, str(writer.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        for _ in range(2)
    ]
    try:
        for rank in ranks:
            assert rank.stdout is not None
            assert rank.stdout.readline() == b"ready\n"
        assert master.wait_for(lambda: all_once(master, 10) and bool(master.heartbeats), 30)
        until("it is acknowledged", lambda: any(item.positions for item in handover.load(folder)))
        speaker = master.heartbeats[0].ranks[0].pid
        ranks.sort(key=lambda rank: rank.pid != speaker)
        ranks[0].communicate(b"\n", timeout=30)
        writer.write(10)
        assert master.wait_for(lambda: len(lines_of(master)) == 20 and len(master.heartbeats) >= 3, 30)
        ranks[1].communicate(b"\n", timeout=30)
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
                rank.communicate()
    assert all_once(master, 20)
    # One process at a time speaks for the node: the second one begins after the first one's last word.
    assert [(beat.sequence, beat.final) for beat in master.heartbeats] == [(1, False), (2, True)] * 2


def test_two_ranks_hand_one_log_to_an_agent_that_comes_later(
    master: MasterDouble, folder: Path, tmp_path: Path
) -> None:
    """One of them has sent lines, the other has not: the position of the first one counts."""
    writer = Writer(tmp_path / "train.log")
    writer.write(50)
    link = tmp_path / "current.log"
    link.symlink_to(writer.path)
    clients = [MasterClient(master.url) for _ in range(2)]
    environ = {"AROBUST_JOB_ID": JOB, "AROBUST_BEACON_DIR": str(folder.parent)}
    code = (
        "import sys\n"
        "from arobust_otel import DiagnosisAgent, MasterClient\n"
        "agent = DiagnosisAgent(training_log_file=sys.argv[2])\n"
        "agent.set_client(MasterClient(sys.argv[1]))\n"
        "agent.start()\n"
        "sys.stdin.readline()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, master.url, str(link)],
        stdin=subprocess.PIPE,
        env={**os.environ, **environ, "PYTHONPATH": os.getcwd()},
    )
    agent = DiagnosisAgent()
    agent.set_client(clients[0])
    agent.register_periodical_data_collector(LogCollector(str(writer.path)), 0.1)
    agent.start()
    try:
        assert master.wait_for(lambda: all_once(master, 50), 30), lines_of(master)
        with NodeAgent(master, folder):
            until("both have handed over", lambda: len([*handed_of(folder)]) == 2)
            writer.write(50)
            assert master.wait_for(lambda: len(lines_of(master)) == 100, 30)
    finally:
        agent.stop()
        other.communicate(b"\n", timeout=30)
        for client in clients:
            client.close()
    assert all_once(master, 100), lines_of(master)


def handed_of(folder: Path) -> Iterator[Handover]:
    return (item for item in handover.load(folder) if item.state == HANDED)


def test_alone_it_says_once_what_that_costs(
    folder: Path, master: MasterDouble, caplog: pytest.LogCaptureFixture
) -> None:
    client = MasterClient(master.url)
    agent = DiagnosisAgent()
    agent.set_client(client)
    agent.start()
    until("the words", lambda: "ms of processor time" in caplog.text)
    agent.stop()
    agent.start()
    agent.stop()
    client.close()
    said = [record for record in caplog.records if "ms of processor time" in record.getMessage()]
    assert len(said) == 1
    assert said[0].levelno == logging.WARNING


def test_monitors_report_only_what_the_nodes_agent_does_not(
    folder: Path, master: MasterDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EnvConfigKey.MASTER_ADDR, master.url)
    path, none = tmp_path / "metrics.json", threading.Event()
    write_training_metrics(path, 7)
    resources, training = ResourceMonitor.singleton_instance(), TrainingMonitor(path)
    lock = AgentLock(folder)
    assert lock.take()
    (folder / "rank-0-1.beacon").touch()
    resources._round(none)
    training._round(none)
    assert master.seen == []
    lock.release()
    resources._round(none)
    training._round(none)
    assert master.wait_for(lambda: {signals.STEP, signals.HOST_MEMORY_USAGE} <= names_of(master))
    resources.stop()
    training.stop()


def test_a_reading_that_comes_after_the_stop_is_not_reported(
    master: MasterDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may take its time; and no client is made that nobody would close."""
    monkeypatch.setenv(EnvConfigKey.MASTER_ADDR, master.url)
    begun, go_on = threading.Event(), threading.Event()
    read = ResourceMonitor.read

    def slow_read(self: ResourceMonitor) -> ResourceStats:
        begun.set()
        go_on.wait(30)
        return read(self)

    monkeypatch.setattr(ResourceMonitor, "read", slow_read)
    resources = ResourceMonitor.singleton_instance()
    resources.start()
    assert begun.wait(30)
    resources.stop()
    assert [name for name in our_threads() if "client" in name] == []
    go_on.set()
    until("its thread ends", lambda: not our_threads())
    assert master.seen == []


def names_of(master: MasterDouble) -> set[str]:
    return {name for name, _, _ in master.points()}


def test_a_script_that_stops_nothing_says_goodbye_and_loses_no_line(
    master: MasterDouble, folder: Path, tmp_path: Path
) -> None:
    """Also where it forked a child that ended before."""
    master.interval_seconds = 30.0
    path = tmp_path / "train.log"
    code = (
        "import os, sys\n"
        "from arobust_otel import DiagnosisAgent, MasterClient\n"
        "from arobust_otel.controller import beating, diagnosis\n"
        "diagnosis.STOP_SECONDS = diagnosis.FLUSH_SECONDS = beating.GOODBYE_SECONDS = 20.0\n"
        "agent = DiagnosisAgent(training_log_file=sys.argv[2])\n"
        "agent.set_client(MasterClient(sys.argv[1]))\n"
        "agent.start()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "with open(sys.argv[2], 'a') as log:\n"
        "    log.write('line 0\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, master.url, str(path)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert all_once(master, 1)
    assert [beat.final for beat in master.heartbeats] == [False, True]


# --- the file -----------------------------------------------------------------------------------------


def test_without_a_thread_nothing_is_raised_and_a_later_start_works(
    folder: Path, master: MasterDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path / "train.log")
    writer.write(3)
    client = MasterClient(master.url)
    agent = DiagnosisAgent(training_log_file=str(writer.path))
    agent.set_client(client)

    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        agent.start()
        agent.stop()
        agent.start()
    agent.start()
    assert master.wait_for(lambda: all_once(master, 3) and bool(master.heartbeats), 30), lines_of(master)
    agent.stop()
    client.close()
