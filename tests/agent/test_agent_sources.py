"""A real agent with sources that hang, and with the real log of this machine's kernel."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel.collectors.kmsg import KERNEL_LOG
from arobust_otel.model import signals
from tests.agent.server import MasterDouble
from tests.agent.world import JOB_ID, World
from tests.collectors.fake_nvml.library import Control, build

HANGING = """
import ctypes, os

class Hanging:
    def collect_data(self):
        reader, self.writer = os.pipe()
        ctypes.CDLL(None).read(reader, ctypes.create_string_buffer(1), 1)
"""
pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
SETTINGS = "[agent]\ngauge_seconds = 0.2\nheartbeat_seconds = 0.2\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "beacons")
    made.rank(0)
    yield made
    made.close()


@pytest.fixture
def master() -> Iterator[MasterDouble]:
    made = MasterDouble()
    yield made
    made.stop()


def start(world: World, url: str, tmp_path: Path, settings: str, **environ: str) -> subprocess.Popen[bytes]:
    config = tmp_path / "arobust.toml"
    config.write_text(settings)
    command = [sys.executable, "-m", "arobust_otel.agent", "--job-id", JOB_ID, "--master", url]
    more = {"AROBUST_CONFIG": str(config), "AROBUST_SPOOL_DIR": str(tmp_path / "spool"), **environ}
    return subprocess.Popen(
        [*command, "--beacon-dir", str(world.root)], env={**os.environ, **more}, stderr=subprocess.DEVNULL
    )


def reason(master: MasterDouble, name: str) -> str:
    reports = [report for beat in master.heartbeats for report in beat.collectors if report.name == name]
    return reports[-1].reason if reports else ""


def test_a_collector_that_never_comes_back_is_named_and_the_agent_ends_in_time(
    world: World, master: MasterDouble, tmp_path: Path
) -> None:
    info = tmp_path / "site/hanging-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[arobust_otel.collectors]\nhanging = hanging_part:Hanging\n")
    (tmp_path / "site/hanging_part.py").write_text(HANGING)
    agent = start(world, master.url, tmp_path, SETTINGS, PYTHONPATH=str(tmp_path / "site"))
    try:
        assert master.wait_for(lambda: "has not come back for" in reason(master, "hanging"), 40)
        steps = sum(name == signals.STEP for name, _, _ in master.points())
        assert master.wait_for(
            lambda: sum(name == signals.STEP for name, _, _ in master.points()) > steps + 3, 30
        )
        assert any(gap.startswith("hanging: ") for gap in master.heartbeats[-1].gaps)
    finally:
        began = time.monotonic()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(30) == 0
    assert time.monotonic() - began < 20
    assert master.heartbeats[-1].final


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the library that stands in")
def test_accelerators_reach_the_master_and_a_lost_one_at_once(
    world: World, master: MasterDouble, tmp_path: Path
) -> None:
    """The agent loads the driver's library as in production; here it is one of our own."""
    build(tmp_path)
    control = Control(tmp_path / "control", devices=2)
    control.set("1.processes", f"{world.processes[0].pid}:1048576")
    environ = {"LD_LIBRARY_PATH": str(tmp_path), "FAKE_NVML": str(control.path)}
    settings = SETTINGS + "[collectors.nvidia]\nhost_pids = true\n"
    agent = start(world, master.url, tmp_path, settings, **environ)

    def facts(name: str) -> list[dict[str, object]]:
        return [
            {pair.key: pair.value.string_value or pair.value.int_value for pair in record.attributes}
            for record in master.log_records()
            if record.event_name == name
        ]

    try:
        assert master.wait_for(lambda: facts(signals.RANK_ACCELERATOR), 30)
        assert facts(signals.RANK_ACCELERATOR)[0][signals.HW_ID] == "GPU-1"
        assert facts(signals.RANK_ACCELERATOR)[0].get(signals.RANK, 0) == 0
        assert master.wait_for(lambda: (signals.HW_UTILIZATION, 0.97) in named(master), 30)
        control.set("1.error", 15)
        assert master.wait_for(lambda: facts(signals.ACCELERATOR_LOST), 30)
        assert facts(signals.ACCELERATOR_LOST)[0][signals.ACCELERATOR_PCI] == "0000:3c:00.0"
        assert reason(master, "nvidia") == ""
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(30)


def named(master: MasterDouble) -> set[tuple[str, float]]:
    return {(name, value) for name, value, _ in master.points()}


@pytest.mark.skipif(not os.access(KERNEL_LOG, os.W_OK), reason="writing to the kernel's log needs root")
def test_an_xid_reaches_the_master_at_once_and_only_once_over_two_agents(
    world: World, master: MasterDouble, tmp_path: Path
) -> None:
    settings = SETTINGS + "[collectors.kernel_log]\naccept_user_records = true\n"
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    pid = world.processes[0].pid

    def found() -> list:
        return [record for record in master.log_records() if marker in record.body.string_value]

    agent = start(world, master.url, tmp_path, settings)
    state = world.folder / "kernel_log.json"
    try:
        assert master.wait_for(lambda: any(report for beat in master.heartbeats for report in beat.ranks), 30)
        written = time.monotonic()
        KERNEL_LOG.write_text(f"<4>NVRM: Xid (PCI:0000:3b:00): 31, pid={pid}, name={marker}, MMU Fault\n")
        assert master.wait_for(lambda: found(), 30)
        assert time.monotonic() - written < 20
        sequence = next(
            pair.value.int_value for pair in found()[0].attributes if pair.key == signals.KERNEL_SEQUENCE
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if state.exists() and json.loads(state.read_text())["sequence"] >= sequence:
                break
            time.sleep(0.02)
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(30)
    assert json.loads(state.read_text())["sequence"] >= sequence
    (record,) = found()
    attributes = {pair.key: pair.value for pair in record.attributes}
    assert record.event_name == signals.KERNEL_XID
    assert attributes[signals.XID_CODE].int_value == 31
    assert attributes[signals.XID_ADVICE].string_value == "restart_app"
    if signals.PID in attributes:  # not in a container: the kernel's process ids are others there
        assert attributes[signals.RANK].int_value == 0

    before = len(master.heartbeats)
    agent = start(world, master.url, tmp_path, settings)
    try:
        assert master.wait_for(lambda: len(master.heartbeats) > before + 5, 30)
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(30)
    assert len(found()) == 1
