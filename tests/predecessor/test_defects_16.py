"""The predecessor's defects 16 to 28, one test per number: logs, stacks, figures, values, package."""

from __future__ import annotations

import gzip
import inspect
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

import arobust_otel
from arobust_otel.agent.data_collector import LogCollector, MetricCollector, StackCollector
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.agent.monitor import (
    ResourceMonitor,
    TrainingMonitor,
    get_process_cpu_percent,
    get_used_memory,
    write_training_metrics,
)
from arobust_otel.agent.monitor.container import read_memory, read_processors
from arobust_otel.common import diagnosis_data
from arobust_otel.common.constants import DiagnosisActionType, DiagnosisDataType, EnvConfigKey
from arobust_otel.common.diagnosis_data import (
    DiagnosisAction,
    NoAction,
    NodeAction,
    WorkerTrainingMetric,
)
from arobust_otel.common.utils import is_port_in_use
from arobust_otel.config import tomllib
from arobust_otel.controller.data_manager import DiagnosisDataManager
from arobust_otel.model import signals
from tests.agent.server import running
from tests.collectors.fake_nvml.library import Control, build
from tests.predecessor.support import IDENTITY, XPU_TEXT, UserClient, our_threads, serving, until

ROOT = Path(__file__).parents[2]
LOG = DiagnosisDataType.TRAINING_LOG


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "train.log"


def drain(collector: LogCollector, client: UserClient) -> str:
    """Everything there is now, as it was reported."""
    client.metrics.clear()
    collector.set_client(client)
    while text := collector.collect_data():
        collector.store_data(text)
    return client.text()


def test_defect_16_a_rotated_or_truncated_log_is_read_from_its_beginning(log: Path) -> None:
    collector, client = LogCollector(str(log)), UserClient()
    log.write_text("".join(f"old {i}\n" for i in range(20)))
    assert drain(collector, client).endswith("old 19\n")
    with log.open("a") as file:
        file.write("last of the old\n")
    log.rename(log.with_suffix(".log.1"))
    log.write_text("first of the new\n")
    assert drain(collector, client) == "last of the old\nfirst of the new\n"
    log.write_text("cut and written anew\n" + "x" * 500 + "\n")  # the same file, longer than before
    assert drain(collector, client) == "cut and written anew\n" + "x" * 500 + "\n"


def test_defect_16_backups_are_read_compressed_or_not(log: Path) -> None:
    """Two rotations between two calls: nobody had the second file open."""
    collector, client = LogCollector(str(log)), UserClient()
    log.write_text("one\n" * 20)
    assert drain(collector, client) == "one\n" * 20
    log.rename(log.with_suffix(".log.2"))
    with gzip.open(log.with_suffix(".log.1.gz"), "wb") as packed:
        packed.write("损失 0.5\n".encode())
    log.write_text("three\n")
    assert drain(collector, client) == "损失 0.5\nthree\n"


def test_defect_17_a_large_log_is_read_in_parts_and_no_line_is_dropped(log: Path) -> None:
    collector, client = LogCollector(str(log), max_lines=100), UserClient()
    lines = [f"line {i}" for i in range(1234)]
    log.write_text("\n".join(lines) + "\n")
    assert drain(collector, client).splitlines() == lines
    assert {metric.data_content.count("\n") for metric in client.metrics} == {100, 34}
    assert all(metric.data_content.endswith("\n") for metric in client.metrics)


def test_defect_17_the_first_call_does_not_hold_the_whole_file_in_memory(log: Path) -> None:
    with log.open("w") as file:
        for i in range(600_000):
            file.write(f"line {i} of a log that was there before us\n")
    collector = LogCollector(str(log))
    tracemalloc.start()
    text = collector.collect_data()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < text.count("\n") <= 1000
    assert log.stat().st_size > 20_000_000
    assert peak < 8_000_000


def test_defect_18_an_unfinished_line_waits_for_its_end(log: Path) -> None:
    collector, client = LogCollector(str(log)), UserClient()
    log.write_text("step 1\nRuntimeError: CUDA er")
    assert drain(collector, client) == "step 1\n"
    with log.open("a") as file:
        file.write("ror: out of memory\n")
    assert drain(collector, client) == "RuntimeError: CUDA error: out of memory\n"


def test_defect_19_a_character_over_two_reads_is_whole(log: Path) -> None:
    collector, client = LogCollector(str(log)), UserClient()
    line = "损失 0.5 — 训练完成\n".encode()
    for cut in range(1, len(line)):
        log.unlink(missing_ok=True)
        log.write_bytes(line[:cut])
        first = drain(collector, client)
        with log.open("ab") as file:
            file.write(line[cut:])
        assert first + drain(collector, client) == line.decode()


def test_defect_20_one_record_per_line_with_severity_time_rank_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several files, patterns included, through our own client."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 60))
    traceback = 'Traceback (most recent call last):\n  File "t.py", line 1, in f\nValueError: no\n'
    (tmp_path / "rank-0.log").write_text(f"{stamp},250 INFO step 1\n{traceback}WARNING: slow\n")
    (tmp_path / "rank-1.log").write_text("step 2\n")
    with running() as master:
        client = MasterClient(master.url, IDENTITY)
        collector = LogCollector([str(tmp_path / "rank-*.log")])
        collector.set_client(client)
        collector.store_data(collector.collect_data())
        assert client.flush(10)
        client.close()
        records = master.log_records()
        records.sort(key=lambda record: record.body.string_value == "step 2")
    assert [record.body.string_value for record in records] == [
        f"{stamp},250 INFO step 1",
        traceback.strip(),
        "WARNING: slow",
        "step 2",
    ]
    assert [record.severity_number for record in records] == [9, 17, 13, 9]
    age = time.time() - records[0].time_unix_nano / 1e9
    assert 55 < age < 120
    assert records[0].time_unix_nano % 1_000_000_000 == 250_000_000
    assert records[3].time_unix_nano == 0  # says none of its own: observed only
    attributes = {item.key: item.value for item in records[3].attributes}
    assert attributes[signals.LOG_PATH].string_value.endswith("rank-1.log")
    assert attributes[signals.LOG_OFFSET].int_value == 7
    assert attributes[signals.RANK].int_value == 3


CHILD = """
import sys, time

def read_shard():
    sys.stdout.write("x"), sys.stdout.flush(), time.sleep(600)  # one line: a stack that does not move

read_shard()
"""


@pytest.fixture
def child() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"
    yield process.pid
    process.kill()
    process.wait()
    process.stdout.close()


def test_defect_21_stacks_are_those_of_the_trainer(child: int) -> None:
    """From outside, with py-spy on a real process; and of the own process without our own frames."""
    client = UserClient()
    collector = StackCollector(child)
    collector.set_client(client)
    collector.store_data(collector.collect_data())
    text = client.text(DiagnosisDataType.STACK_TRACE)
    assert "read_shard" in text
    assert "arobust_otel" not in text

    own = StackCollector()
    threads = own.collect_data()
    main = threads[threading.main_thread().ident or 0]
    assert main["name"] == "MainThread"
    assert "test_defect_21" in main["frames"][-1]
    assert not any("arobust_otel" in frame for thread in threads.values() for frame in thread["frames"])


def test_defect_21_a_stack_that_moves_on_is_no_news(child: int) -> None:
    stuck, moving = StackCollector(child), StackCollector()
    assert stuck.collect_data()
    assert stuck.is_worth_reporting()  # the first one
    assert stuck.collect_data()
    assert stuck.is_worth_reporting()  # stands where it stood
    assert moving.collect_data()
    assert moving.is_worth_reporting()
    assert moving.collect_data()
    assert not moving.is_worth_reporting()


def test_defect_22_xpu_timer_may_start_later_and_its_absence_is_not_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    collector, client = MetricCollector(), UserClient()
    collector.set_client(client)
    assert not collector.is_enabled()
    answers = [(200, XPU_TEXT), (500, "broken"), (200, "")]
    with serving(lambda: answers.pop(0)) as port:
        monkeypatch.setenv("XPU_TIMER_PORT", str(port))  # as xpu_timer itself is told
        assert collector.is_enabled()
        text = collector.collect_data()
        assert "exposer" not in text
        assert "#" not in text
        collector.store_data(text)
        assert collector.collect_data() == ""
        assert "500" in collector.last_error
        assert "500" in caplog.text
        assert collector.collect_data() == ""  # no figures, and no error
        assert collector.last_error == ""
    assert not collector.is_enabled()
    monkeypatch.setenv(EnvConfigKey.XPU_TIMER_PORT, "many")
    assert not collector.is_enabled()
    assert "many" in collector.last_error


def test_defect_22_the_text_becomes_figures_of_each_rank() -> None:
    with running() as master:
        client = MasterClient(master.url, IDENTITY)
        client.report_diagnosis_agent_metrics(
            WorkerTrainingMetric(DiagnosisDataType.XPU_TIMER_METRIC, XPU_TEXT, timestamp=int(time.time()))
        )
        assert client.flush(10)
        client.close()
        points = {(name, round(value, 9)) for name, value, _ in master.points()}
    assert {(signals.XPU_HANG, 0), (signals.XPU_HANG, 1)} <= points
    assert (signals.XPU_COLLECTIVE_P99, 0.000772) in points


@pytest.mark.parametrize("port", ["", "many", "70000", "-1"])
def test_defect_23_a_port_that_is_none_is_an_error(port: str) -> None:
    with pytest.raises(ValueError):
        is_port_in_use(port)


def test_defect_23_a_port_is_in_use_while_somebody_listens() -> None:
    with serving(lambda: (200, "")) as port:
        assert is_port_in_use(str(port))
    assert not is_port_in_use(str(port))


def test_defect_24_the_first_reading_of_the_processors_is_one() -> None:
    code = (
        "import threading, time\n"
        "from arobust_otel.agent.monitor import get_process_cpu_percent, get_used_memory\n"
        "burn = lambda: [x * x for x in range(10**8)]\n"
        "threading.Thread(target=burn, daemon=True).start()\n"
        "print(get_process_cpu_percent(), get_used_memory())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    share, memory = map(float, done.stdout.split())
    assert 0.0 < share <= 1.0
    assert memory > 0
    assert 0.0 <= get_process_cpu_percent() <= 1.0
    assert get_used_memory() > 0


def test_defect_24_a_container_is_measured_against_its_own_limits(tmp_path: Path) -> None:
    proc, group = tmp_path / "proc", tmp_path / "cgroup" / "pod"
    (proc / "self").mkdir(parents=True)
    group.mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/pod\n")
    for name, text in (
        ("memory.current", "900000000\n"),
        ("memory.max", "1000000000\n"),
        ("memory.stat", "anon 600000000\ninactive_file 200000000\n"),
        ("cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
        ("cpu.max", "150000 100000\n"),
    ):
        (group / name).write_text(text)
    memory = read_memory(tmp_path / "cgroup", proc)
    assert memory is not None
    assert (memory.used_bytes, memory.limit_bytes) == (700_000_000, 1_000_000_000)
    assert read_processors(tmp_path / "cgroup", proc) == (2.5, 1.5)
    (group / "memory.max").write_text("max\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert read_memory(tmp_path / "cgroup", proc) is None
    assert read_processors(tmp_path / "cgroup", proc) is None


GPUS = """
import ctypes, json, sys
ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
from arobust_otel.agent.monitor import get_gpu_stats
from arobust_otel.agent.monitor.resource import ResourceMonitor, metric_of_reading
print(json.dumps([vars(stats) for stats in get_gpu_stats()]))
print([stats.index for stats in get_gpu_stats([1])])
metric = metric_of_reading(ResourceMonitor().read())
print(json.dumps([json.loads(metric.data_content)["gpu_stats"], [item.name for item in metric.items]]))
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the library that stands in")
def test_defect_24_a_lost_device_and_a_query_that_is_not_supported_hide_no_other(tmp_path: Path) -> None:
    """The real pynvml over a library of our own: a healthy device, one in MIG mode, and one that is lost."""
    control = Control(tmp_path / "control", devices=3)
    control.unset("1.utilization")
    control.set("2.error", 15)
    environ = {**os.environ, "FAKE_NVML": str(control.path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", GPUS, str(build(tmp_path))]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    read, chosen, reported = done.stdout.splitlines()
    first, second = json.loads(read)
    assert first == {
        "index": 0,
        "total_memory_mb": 81920.0,
        "used_memory_mb": 61440.0,
        "gpu_utilization": 97.0,
    }
    assert second["used_memory_mb"] == 61440.0
    assert math.isnan(second["gpu_utilization"])  # not told, which is not 0
    assert chosen == "[1]"
    assert "accelerator 2" in done.stderr
    stats, names = json.loads(reported)
    assert stats[1]["gpu_utilization"] is None  # JSON has no NaN
    assert {signals.HW_UTILIZATION, signals.HW_TEMPERATURE, signals.HW_POWER} <= set(names)


def metric(at: int, node: int = 0, text: str = "x") -> WorkerTrainingMetric:
    return WorkerTrainingMetric(LOG, text, node_id=node, timestamp=at)


def test_defect_25_old_data_goes_whatever_the_order_it_came_in() -> None:
    now = [1000.0]
    manager = DiagnosisDataManager(600, clock=lambda: now[0])
    for at in (990, 100, 995, 200):
        manager.store_data(metric(at))
    assert [found.timestamp for found in manager.get_data("TRAINING_LOG")] == [990, 995]
    now[0] = 1592.0
    assert [found.timestamp for found in manager.get_data(LOG)] == [995]  # also when nothing is stored
    now[0] = 1600.0
    assert manager.get_data_count(LOG) == 0
    assert manager.get_latest_data(LOG) is None


def test_defect_25_limits_keys_and_input() -> None:
    manager = DiagnosisDataManager(600, max_items=5, max_bytes=5000, clock=lambda: 1000.0)
    given = metric(0, node=1)
    manager.store_data(given)
    assert given.timestamp == 0
    for at in range(900, 920):
        manager.store_data(metric(at, node=at % 2))
    assert manager.get_data_count("TRAINING_LOG") == manager.get_data_count(LOG) == 5
    assert [found.timestamp for found in manager.get_data(LOG, limit=2)] == [919, 0]
    assert manager.get_data(LOG, limit=0) == []
    assert {found.node_id for found in manager.get_data(LOG, node_id=1)} == {1}
    assert manager.get_latest_data(LOG, node_id=0).timestamp == 918  # type: ignore[union-attr]
    manager.store_data(metric(950, text="y" * 4000))
    assert sum(len(found.data_content) for found in manager.get_data(LOG)) <= 5000
    manager.clear_data(LOG)
    assert manager.get_data(LOG) == []


@pytest.mark.parametrize(
    "action",
    [
        NoAction(),
        NodeAction(3, "worker", "local", DiagnosisActionType.RELAUNCH_WORKER, "ECC"),
        DiagnosisAction(DiagnosisActionType.STOP_JOB, reason="all failed", details={"ranks": [1, 2]}),
    ],
)
def test_defect_26_every_action_comes_back_from_its_json(action: DiagnosisAction) -> None:
    text = action.to_json()
    assert json.loads(text)["action_type"] == action.action_type.name
    same = type(action).from_json(text)
    assert type(same) is type(action)
    assert same == action
    assert DiagnosisAction.from_json(text).to_json() == text


def test_defect_26_a_metric_comes_back_from_ours_and_from_dlrovers_json() -> None:
    given = WorkerTrainingMetric(LOG, "损失", 1, "worker", 2, 3)
    assert WorkerTrainingMetric.from_json(given.to_json()) == given
    foreign = {"data_type": "TRAINING_LOG", "data_content": "x", "node_id": 1, "is_final_result": False}
    assert WorkerTrainingMetric.from_json(json.dumps(foreign)).data_type is LOG
    with pytest.raises(ValueError, match="RESOURCE_STATS, XPU_TIMER_METRIC"):
        WorkerTrainingMetric.from_json('{"data_type": "NEWS", "data_content": "x"}')


def test_defect_27_only_the_package_itself_is_installed() -> None:
    """What the builder is told; no torch, no top-level `agent` or `common`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["arobust_otel"]
    assert {target.partition("/")[0] for target in wheel.get("force-include", {}).values()} <= {
        "arobust_otel"
    }
    assert not {"include", "sources", "only-include"} & set(wheel)
    project = settings["project"]
    assert project["requires-python"] == ">=3.10"
    assert not any(name.startswith("torch") for name in project["dependencies"])


def test_defect_27_an_import_loads_nothing_else() -> None:
    code = "import sys; known = set(sys.modules); import arobust_otel; print(*set(sys.modules) - known)"
    command, environ = [sys.executable, "-S", "-c", code], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"arobust_otel", "__future__"}
    assert set(arobust_otel.__all__) <= set(dir(arobust_otel))
    for name in arobust_otel.__all__:
        assert getattr(arobust_otel, name) is not None
    with pytest.raises(AttributeError, match="CheckpointManager"):
        _ = arobust_otel.CheckpointManager  # type: ignore[attr-defined]


def test_defect_28_a_reader_of_the_metrics_file_never_sees_half_of_it(tmp_path: Path) -> None:
    path, ended, errors = tmp_path / "deep" / "metrics.json", threading.Event(), []
    write_training_metrics(path, 1)

    def read() -> None:
        while not ended.is_set():
            try:
                json.loads(path.read_text())
            except (ValueError, OSError) as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(2, 500):
        write_training_metrics(path, step)
    ended.set()
    reader.join()
    assert errors == []
    assert os.listdir(path.parent) == ["metrics.json"]


def test_defect_28_monitors_end_themselves_only_and_delete_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EnvConfigKey.MONITOR_ENABLED, "true")
    path = tmp_path / "metrics.json"
    write_training_metrics(path, 7)
    client = UserClient()
    resources = ResourceMonitor.singleton_instance()
    resources.set_client(client)
    resources.start()
    training = TrainingMonitor(path)
    training.set_client(client)
    training.start()
    assert client.wait_for(lambda: bool(client.of(DiagnosisDataType.TRAINING_METRIC)))
    training.stop()
    assert path.exists()
    until("one thread", lambda: our_threads() == ["arobust-resource-monitor"])
    resources.stop()
    until("no thread left", lambda: not our_threads())


def test_defect_28_what_the_manual_says_is_what_the_code_does() -> None:
    """Signatures in the manual's tables: `tests/predecessor/test_manual.py` reads them all."""
    names = {
        "WorkerTrainingMetric": "data_type, data_content, node_id, node_type, node_rank, timestamp",
        "ResourceStats": "cpu_percent, memory_mb, gpu_stats, timestamp",
        "GPUStats": "index, total_memory_mb, used_memory_mb, gpu_utilization",
        "ProcessError": "local_rank, exitcode, message, timestamp",
    }
    for name, parameters in names.items():
        signature = inspect.signature(getattr(diagnosis_data, name))
        assert ", ".join(signature.parameters) == parameters
