"""NVIDIA devices: the real pynvml over a library of our own in C, which a control file steers."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pynvml
import pytest

from arobust_otel.agent.sampler import Sampler
from arobust_otel.collectors.nvidia import NvidiaCollector, seems_to_have_devices
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.samples import ERROR, Event, Point
from arobust_otel.plugins import Clock, Node, discover
from tests.collectors.fake_nvml.library import Control, build

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the library that stands in")
SECOND = 10**9
FIRST, SECOND_DEVICE = "GPU-0", "GPU-1"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loaded under its own name, so that pynvml finds it; without a control file it has no driver."""
    path = build(tmp_path_factory.mktemp("nvml"))
    ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    return path


@pytest.fixture
def control(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Control:
    made = Control(tmp_path / "control")
    monkeypatch.setenv("FAKE_NVML", str(made.path))
    return made


class Looks:
    """A collector that is asked every five seconds of its own time."""

    def __init__(self, tmp_path: Path, **options: object) -> None:
        chosen = {"sys": tmp_path / "sys", "dev": tmp_path / "dev", "host_pids": True, **options}
        self.collector = NvidiaCollector(**chosen)
        self.error: Exception | None = None
        self.now = 1000 * SECOND

    def __call__(self, node: Node = Node(), seconds: float = 5) -> list[Point | Event]:  # noqa: B008
        self.now += int(seconds * SECOND)
        found, self.error = [], None
        try:
            for item in self.collector.collect(Clock(self.now, self.now), node):
                found.append(item)  # noqa: PERF402
        except (RuntimeError, CapabilityError) as error:
            self.error = error
        return found


@pytest.fixture
def look(tmp_path: Path):
    made = Looks(tmp_path)
    yield made
    made.collector.close()


def value(items: list[Point | Event], name: str, device: str = FIRST, **attributes: object) -> list[float]:
    """Values of a signal of one device, where the attributes (by the constants' names) are these."""
    wanted = {signals.HW_ID: device, **{getattr(signals, key): text for key, text in attributes.items()}}
    return [
        item.value
        for item in items
        if isinstance(item, Point) and item.name == name and wanted.items() <= item.attributes.items()
    ]


def facts(items: list[Point | Event]) -> list[tuple[str, object]]:
    return [(item.name, item.attributes.get(signals.HW_ID)) for item in items if isinstance(item, Event)]


@needs_gcc
def test_everything_that_a_device_says(control: Control, look: Looks) -> None:
    items = look()
    assert look.error is None
    assert value(items, signals.HW_UTILIZATION) == [0.97]
    assert value(items, signals.HW_MEMORY_USAGE) == [60 * 2**30]
    assert value(items, signals.HW_MEMORY_LIMIT) == [80 * 2**30]
    assert value(items, signals.HW_TEMPERATURE, HW_SENSOR="gpu") == [55]
    assert value(items, signals.HW_TEMPERATURE, HW_SENSOR="memory") == [61]
    assert value(items, signals.HW_TEMPERATURE_LIMIT, HW_LIMIT_TYPE="throttled") == [87]
    assert value(items, signals.HW_TEMPERATURE_LIMIT, HW_LIMIT_TYPE="critical") == [92]
    assert value(items, signals.HW_POWER) == [pytest.approx(645.123)]
    assert value(items, signals.ACCELERATOR_POWER_LIMIT) == [700]
    assert value(items, signals.HW_ENERGY) == [5]
    assert value(items, signals.ACCELERATOR_CLOCK, CLOCK_NAME="sm") == [1980e6]
    assert value(items, signals.ACCELERATOR_CLOCK_LIMIT, CLOCK_NAME="memory") == [2619e6]
    assert value(items, signals.HW_ERRORS, ERROR_TYPE="corrected") == [3]
    assert value(items, signals.HW_ERRORS, ERROR_TYPE="uncorrected") == [0]
    assert value(items, signals.ACCELERATOR_ERRORS_LIFETIME, ERROR_TYPE="uncorrected") == [1]
    assert value(items, signals.ACCELERATOR_REMAPPED_ROWS, ERROR_TYPE="corrected") == [2]
    assert value(items, signals.ACCELERATOR_REPAIR_PENDING) == [0]
    assert value(items, signals.PCIE_GENERATION) == value(items, signals.PCIE_GENERATION_LIMIT) == [5]
    assert value(items, signals.PCIE_WIDTH) == value(items, signals.PCIE_WIDTH_LIMIT) == [16]
    assert value(items, signals.PCIE_REPLAYS) == [4]
    assert value(items, signals.NVLINK_LINKS, HW_STATE="active") == [18]
    assert value(items, signals.NVLINK_LINKS, HW_STATE="inactive") == [0]
    assert value(items, signals.HW_STATUS, HW_STATE="ok") == [1]
    assert value(items, signals.HW_STATUS, HW_STATE="failed") == [0]
    info = next(item for item in items if item.name == signals.ACCELERATOR_INFO)
    assert info.attributes == {
        signals.HW_ID: FIRST, signals.HW_TYPE: "gpu", signals.HW_NAME: "NVIDIA H100 80GB HBM3",
        signals.HW_VENDOR: "NVIDIA", signals.HW_DRIVER_VERSION: "550.54.15", signals.ACCELERATOR_INDEX: 0,
        signals.ACCELERATOR_PCI: "0000:3b:00.0",
    }  # fmt: skip
    assert {item.name for item in items} <= set(signals.DICTIONARY)
    series = [(item.name, tuple(sorted(item.attributes.items()))) for item in items]
    assert len(series) == len(set(series))


@needs_gcc
def test_clocks_that_are_lowered_say_why(control: Control, look: Looks) -> None:
    control.set("1.throttle", 0x04 | 0x40 | 0x01)
    items = look()
    reasons = {
        item.attributes[signals.THROTTLE_REASON]: item.value
        for item in items
        if item.name == signals.ACCELERATOR_THROTTLE and item.attributes[signals.HW_ID] == SECOND_DEVICE
    }
    assert {reason for reason, holds in reasons.items() if holds} == {"power_cap", "hw_thermal"}
    assert len(reasons) == 6
    assert set(value(items, signals.ACCELERATOR_THROTTLE)) == {0}


@needs_gcc
def test_not_available_is_no_point_zero_is_zero_and_a_failure_is_a_sentence(
    control: Control, look: Looks
) -> None:
    control.set("0.utilization", 0)
    for key in ("utilization", "temperature.memory", "nvlink.links", "rows.corrected", "processes"):
        control.unset(f"1.{key}")  # not supported, as with MIG
    control.set("1.power.error", 999)
    items = look()
    assert value(items, signals.HW_UTILIZATION) == [0]
    assert value(items, signals.HW_UTILIZATION, SECOND_DEVICE) == []
    assert value(items, signals.HW_TEMPERATURE, SECOND_DEVICE) == [55]
    assert value(items, signals.NVLINK_LINKS, SECOND_DEVICE) == []
    assert value(items, signals.HW_POWER) == [pytest.approx(645.123)]
    assert value(items, signals.HW_POWER, SECOND_DEVICE) == []
    assert value(items, signals.PCIE_WIDTH, SECOND_DEVICE) == [16]
    assert str(look.error) == "GPU-1: power: Unknown Error"
    look(seconds=1)
    assert str(look.error) == "GPU-1: power: Unknown Error"  # until it is asked again
    control.unset("1.power.error")
    assert value(look(), signals.HW_POWER, SECOND_DEVICE) == [pytest.approx(645.123)]
    assert look.error is None


@needs_gcc
def test_an_older_pynvml_gives_bytes_and_a_newer_one_may_lack_a_function(
    control: Control, look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pynvml` 11.0 to 11.4, which the predecessor asked for, hide the one that we ask for."""
    for name in ("nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlSystemGetDriverVersion"):
        ask = getattr(pynvml, name)
        monkeypatch.setattr(pynvml, name, lambda *handle, ask=ask: ask(*handle).encode())
    monkeypatch.delattr(pynvml, "nvmlDeviceGetPowerUsage")
    items = look()
    info = next(item for item in items if item.name == signals.ACCELERATOR_INFO)
    assert info.attributes[signals.HW_ID] == FIRST
    assert info.attributes[signals.HW_NAME] == "NVIDIA H100 80GB HBM3"
    assert info.attributes[signals.HW_DRIVER_VERSION] == "550.54.15"
    assert value(items, signals.HW_POWER) == []
    assert value(items, signals.PCIE_WIDTH, SECOND_DEVICE) == [16]
    assert "power: module 'pynvml' has no attribute" in str(look.error)


@needs_gcc
def test_a_lost_device_is_told_at_once_and_once_and_hides_no_other(control: Control, look: Looks) -> None:
    look()
    control.set("1.error", 15)
    items = look(seconds=1)  # long before everything is read again
    (event,) = items
    assert (event.name, event.severity) == (signals.ACCELERATOR_LOST, ERROR)
    assert event.body == "accelerator 1 is lost: NVIDIA H100 80GB HBM3 GPU-1 (0000:3c:00.0)"
    assert event.attributes == {
        signals.HW_ID: SECOND_DEVICE, signals.HW_NAME: "NVIDIA H100 80GB HBM3",
        signals.ACCELERATOR_INDEX: 1, signals.ACCELERATOR_PCI: "0000:3c:00.0", signals.SOURCE: "nvml",
    }  # fmt: skip
    items = look()
    assert facts(items) == []
    assert value(items, signals.HW_UTILIZATION) == [0.97]
    assert value(items, signals.HW_UTILIZATION, SECOND_DEVICE) == []
    assert value(items, signals.HW_STATUS, SECOND_DEVICE, HW_STATE="failed") == [1]
    control.unset("1.error")
    assert facts(look()) == [(signals.ACCELERATOR_BACK, SECOND_DEVICE)]


@needs_gcc
def test_a_device_that_was_lost_before_the_agent_came_is_told_by_its_number(
    control: Control, look: Looks
) -> None:
    control.set("1.error", 15)
    items = look()
    events = [item for item in items if isinstance(item, Event)]
    assert [event.attributes for event in events] == [{signals.ACCELERATOR_INDEX: 1, signals.SOURCE: "nvml"}]
    assert value(items, signals.HW_UTILIZATION) == [0.97]
    assert str(look.error) == "device 1: GPU is lost"
    assert facts(look()) == []
    control.unset("1.error")
    assert facts(look()) == [(signals.ACCELERATOR_BACK, SECOND_DEVICE)]
    assert look.error is None


@needs_gcc
def test_a_driver_that_was_reloaded_is_asked_anew(control: Control, look: Looks) -> None:
    look()
    control.set("error", 1)
    assert facts(look()) == []
    assert "asked anew" in str(look.error)
    control.unset("error")
    control.set("driver", "560.1")
    items = look()
    info = next(item for item in items if item.name == signals.ACCELERATOR_INFO)
    assert info.attributes[signals.HW_DRIVER_VERSION] == "560.1"
    control.set("devices", 1)  # after the next reload one is missing
    control.set("error", 9)
    look()
    control.unset("error")
    assert facts(look()) == [(signals.ACCELERATOR_LOST, SECOND_DEVICE)]


@needs_gcc
def test_processes_are_mapped_to_ranks_by_their_pid(control: Control, look: Looks, world) -> None:
    world.rank(os.getpid())
    control.set("1.processes", f"{os.getpid()}:1048576 1:77")
    items = look(world.node())
    (event,) = [item for item in items if isinstance(item, Event)]
    assert event.name == signals.RANK_ACCELERATOR
    assert (event.attributes[signals.RANK], event.attributes[signals.HW_ID]) == (0, SECOND_DEVICE)
    assert event.attributes[signals.PID] == os.getpid()
    held = [item for item in items if item.name == signals.ACCELERATOR_RANK_MEMORY]
    assert [(item.value, item.attributes[signals.RANK]) for item in held] == [(1048576, 0)]
    assert value(items, signals.ACCELERATOR_PROCESSES, SECOND_DEVICE, PROCESS_OWNER="rank") == [1]
    assert value(items, signals.ACCELERATOR_PROCESSES, SECOND_DEVICE, PROCESS_OWNER="other") == [1]
    assert value(items, signals.ACCELERATOR_PROCESSES, PROCESS_OWNER="rank") == [0]
    assert facts(look(world.node())) == []


@needs_gcc
def test_in_a_container_no_pid_is_taken_for_a_rank(control: Control, world, tmp_path: Path) -> None:
    world.rank(os.getpid())
    control.set("0.processes", f"{os.getpid()}:1048576 1:77")
    look = Looks(tmp_path, host_pids=False)
    items = look(world.node())
    assert facts(items) == []
    assert value(items, signals.ACCELERATOR_PROCESSES) == [2]
    assert all(signals.RANK not in item.attributes for item in items)
    look.collector.close()


@needs_gcc
def test_a_query_that_hangs_is_named_and_what_came_before_is_kept(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arobust_otel.agent.collector_run.HUNG_SECONDS", 0.2)
    sampler = Sampler({name: {"enabled": name == "nvidia"} for name in discover("collectors")})
    control.set("1.temperature.hang", 1)
    sampler.collect(Clock(0, 0), Node())
    points = []
    deadline = time.monotonic() + 20
    # The first device's figures may come after the gap is named.
    while not (sampler.gaps() and value(points, signals.HW_UTILIZATION)) and time.monotonic() < deadline:
        time.sleep(0.01)
        points += sampler.take_points()
    assert sampler.gaps()[0].startswith("nvidia: its last call has not come back for")
    assert value(points, signals.HW_UTILIZATION) == [0.97]
    assert value(points, signals.HW_UTILIZATION, SECOND_DEVICE) == []
    control.unset("1.temperature.hang")
    deadline = time.monotonic() + 20
    while sampler.gaps() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert value(sampler.take_points(), signals.HW_UTILIZATION, SECOND_DEVICE) == [0.97]
    sampler.close()


@needs_gcc
@pytest.mark.parametrize(
    ("code", "remedy"),
    [(9, "load the driver"), (18, "restart the machine"), (4, "open /dev/nvidiactl"), (999, "nvidia-smi")],
)
def test_a_device_that_cannot_be_asked_is_a_gap_with_its_remedy(
    control: Control, look: Looks, tmp_path: Path, code: int, remedy: str
) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    control.set("init.error", code)
    assert look() == []
    assert isinstance(look.error, CapabilityError)
    assert remedy in look.error.remedy
    look(seconds=1)
    assert isinstance(look.error, CapabilityError)  # it stays said until it is asked anew
    control.unset("init.error")
    assert value(look(seconds=31), signals.HW_UTILIZATION) == [0.97]
    assert look.error is None


def test_a_machine_without_devices_says_nothing_but_a_note(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("FAKE_NVML", raising=False)
    look = Looks(tmp_path)
    assert look() == []
    assert (look.error, look.collector.note) == (None, "no NVIDIA device here")
    look.collector.close()


def test_devices_are_seen_in_proc_dev_and_on_the_bus(tree) -> None:
    assert not seems_to_have_devices(tree({}), tree({}), tree({"nvidiactl": ""}))
    assert seems_to_have_devices(tree({"driver/nvidia/version": "x"}), tree({}), tree({}))
    assert seems_to_have_devices(tree({}), tree({}), tree({"nvidia3": ""}))
    card = {"bus/pci/devices/a/vendor": "0x10de\n", "bus/pci/devices/a/class": "0x030200\n"}
    assert seems_to_have_devices(tree({}), tree(card), tree({}))
    audio = {"bus/pci/devices/a/vendor": "0x10de\n", "bus/pci/devices/a/class": "0x040300\n"}
    assert not seems_to_have_devices(tree({}), tree(audio), tree({}))


SCRIPT = """
import json, sys
from arobust_otel.collectors.nvidia import NvidiaCollector
from arobust_otel.plugins import Clock, Node
collector = NvidiaCollector(host_pids=True)
items = list(collector.collect(Clock(1, 1), Node()))
collector.close()
print(json.dumps([[item.name, item.attributes.get("hw.id")] for item in items]))
"""


@needs_gcc
def test_an_old_driver_without_some_functions_loaded_as_in_production(tmp_path: Path) -> None:
    control = Control(tmp_path / "control", devices=1)
    build(
        tmp_path,
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    )
    environ = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "FAKE_NVML": str(control.path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environ, capture_output=True, text=True, check=True
    )
    names = {name for name, _ in json.loads(done.stdout)}
    assert {signals.HW_UTILIZATION, signals.HW_POWER, signals.HW_ERRORS} <= names
    assert not {signals.ACCELERATOR_REMAPPED_ROWS, signals.ACCELERATOR_THROTTLE} & names
