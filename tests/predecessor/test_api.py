"""Everything that users of the predecessor import, call and compare with, under its old names."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arobust_otel.common import constants
from arobust_otel.common.utils import find_free_port, get_env, get_local_rank, get_node_rank, get_node_type

NAMES = {
    "arobust_otel": "DiagnosisAgent MasterClient ResourceMonitor TrainingMonitor DataCollector LogCollector "
    "MetricCollector StackCollector ResourceCollector __version__",
    "arobust_otel.agent.data_collector": "DataCollector LogCollector MetricCollector StackCollector "
    "ResourceCollector",
    "arobust_otel.agent.monitor": "ResourceMonitor TrainingMonitor get_gpu_stats get_used_memory "
    "get_process_cpu_percent write_training_metrics",
    "arobust_otel.agent.monitor.resource": "ResourceMonitor get_gpu_stats get_used_memory "
    "get_process_cpu_percent",
    "arobust_otel.agent.monitor.training": "TrainingMonitor write_training_metrics",
    "arobust_otel.controller.diagnosis": "DiagnosisAgent",
    "arobust_otel.controller.data_manager": "DiagnosisDataManager",
    "arobust_otel.common.constants": "DiagnosisConstant DiagnosisErrorConstant DiagnosisDataType "
    "DiagnosisActionType EnvConfigKey Accelerators TrainingExceptionLevel",
    "arobust_otel.common.diagnosis_data": "GPUStats ResourceStats WorkerTrainingMetric DiagnosisObservation "
    "DiagnosisAction NoAction NodeAction ProcessError",
    "arobust_otel.common.utils": "get_env get_node_id get_node_type get_node_rank get_local_rank "
    "is_port_in_use find_free_port Singleton",
}
# What may be given, with its default: the predecessor's signatures. More may follow by keyword.
SIGNATURES = {
    "agent.data_collector:LogCollector": "log_file_path=None, max_lines=1000",
    "agent.data_collector:MetricCollector": "",
    "agent.data_collector:ResourceCollector": "",
    "agent.monitor:get_gpu_stats": "gpus=None",
    "agent.monitor:ResourceMonitor": "gpu_type='NVIDIA_GPU'",
    "agent.monitor:TrainingMonitor": "metrics_path, device_type='NVIDIA_GPU'",
    "agent.monitor:write_training_metrics": "metrics_path, step, timestamp=None",
    "common.diagnosis_data:GPUStats": "index, total_memory_mb, used_memory_mb, gpu_utilization",
    "common.diagnosis_data:ResourceStats": "cpu_percent, memory_mb, gpu_stats=<factory>, timestamp=0",
    "common.diagnosis_data:WorkerTrainingMetric": "data_type, data_content, node_id=-1, node_type='', "
    "node_rank=-1, timestamp=0",
    "common.diagnosis_data:DiagnosisObservation": "observation='', is_anomaly=False, details=<factory>",
    "common.diagnosis_data:DiagnosisAction": "action_type, node_id=None, node_type=None, instance='', "
    "reason='', details=<factory>",
    "common.diagnosis_data:NoAction": "",
    "common.diagnosis_data:NodeAction": "node_id, node_type, instance, action_type, reason=''",
    "common.diagnosis_data:ProcessError": "local_rank, exitcode, message, timestamp",
    "common.utils:get_env": "key, default=None",
    "common.utils:is_port_in_use": "port",
    "controller.data_manager:DiagnosisDataManager": "data_retention_time=600",
    "controller.data_manager:DiagnosisDataManager.get_data": "data_type, node_id=None, limit=100",
    "controller.data_manager:DiagnosisDataManager.get_latest_data": "data_type, node_id=None",
    "controller.data_manager:DiagnosisDataManager.clear_data": "data_type=None",
    "controller.data_manager:DiagnosisDataManager.get_data_count": "data_type",
    "controller.diagnosis:DiagnosisAgent": "training_log_file='', errors='', node_rank=-1, "
    "local_world_size=0",
    "controller.diagnosis:DiagnosisAgent.set_client": "client",
    "controller.diagnosis:DiagnosisAgent.register_periodical_data_collector": "collector, time_interval",
    "controller.diagnosis:DiagnosisAgent.diagnose_training_failure": "failures=None, restart_count=0",
    "controller.diagnosis:DiagnosisAgent.update_config": "training_log_file='', errors='', node_rank=-1",
    "controller.diagnosis:DiagnosisAgent.send_heartbeat": "",
}
VALUES = {
    "DiagnosisConstant": {
        "MIN_DIAGNOSIS_INTERVAL": 30,
        "AGENT_PERIODICALLY_REPORT_INTERVAL_SECS": 30,
        "MIN_DATA_COLLECT_INTERVAL": 30,
        "LOCAL_INSTANCE": "local",
    },
    "EnvConfigKey": {
        "XPU_TIMER_PORT": "arobust_XPU_TIMER_PORT",
        "MASTER_ADDR": "arobust_MASTER_ADDR",
        "NODE_ID": "arobust_NODE_ID",
        "NODE_TYPE": "arobust_NODE_TYPE",
        "NODE_RANK": "arobust_NODE_RANK",
        "NODE_IP": "NODE_IP",
        "MONITOR_ENABLED": "arobust_MONITOR_ENABLED",
        "LOCAL_RANK": "LOCAL_RANK",
        "WORLD_SIZE": "WORLD_SIZE",
        "RANK": "RANK",
    },
}
NUMBERED = {
    "DiagnosisDataType": "RESOURCE_STATS XPU_TIMER_METRIC TRAINING_LOG STACK_TRACE TRAINING_METRIC",
    "DiagnosisActionType": "NO_ACTION RESTART_WORKER RELAUNCH_WORKER RESTART_NODE STOP_JOB",
    "TrainingExceptionLevel": "PROCESS_ERROR NODE_ERROR JOB_ERROR",
}
NAMED = {
    "DiagnosisErrorConstant": "NODE_FAILED RESOURCE_COLLECT_ERROR TRAINING_HANG GPU_ERROR NETWORK_ERROR "
    "OOM_ERROR",
    "Accelerators": "NVIDIA_GPU ASCEND_NPU AMD_GPU",
}


@pytest.mark.parametrize("module", NAMES)
def test_every_name_can_be_imported(module: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("module", NAMES)
def test_each_module_can_be_the_first_that_is_imported(module: str) -> None:
    """No circle between packages, whichever comes first."""
    first = NAMES[module].split()[0]
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import {first}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr


def target_of(path: str) -> Any:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(f"arobust_otel.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_signatures_are_the_predecessors(path: str) -> None:
    parameters = inspect.signature(target_of(path)).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"]
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in positional]
    assert ", ".join(shown) == SIGNATURES[path]
    assert all(p.default is not p.empty for p in parameters if p.kind is p.KEYWORD_ONLY)


@pytest.mark.parametrize("name", VALUES)
def test_constants_have_the_predecessors_values(name: str) -> None:
    kind = getattr(constants, name)
    for member, value in VALUES[name].items():
        assert getattr(kind, member) == value


@pytest.mark.parametrize("name", NUMBERED)
def test_enumerations_count_from_one(name: str) -> None:
    members = {member.name: member.value for member in getattr(constants, name)}
    assert members == {member: number for number, member in enumerate(NUMBERED[name].split(), 1)}


@pytest.mark.parametrize("name", NAMED)
def test_names_that_are_their_own_value(name: str) -> None:
    for member in NAMED[name].split():
        assert getattr(getattr(constants, name), member) == member


def test_our_variables_are_read_in_lower_and_upper_case(monkeypatch: pytest.MonkeyPatch) -> None:
    key = constants.EnvConfigKey.NODE_TYPE
    assert get_env(key) is None
    assert get_env(key, "x") == "x"
    assert get_node_type() == "worker"
    monkeypatch.setenv("AROBUST_NODE_TYPE", "upper")
    assert get_node_type() == "upper"
    monkeypatch.setenv(key, "lower")
    assert get_env(key) == "lower"


def test_numbers_that_are_none_count_as_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (get_node_rank(), get_local_rank()) == (-1, 0)
    monkeypatch.setenv(constants.EnvConfigKey.NODE_RANK, "first")
    monkeypatch.setenv("NODE_RANK", "2")
    assert get_node_rank() == 2


def test_a_free_port_is_free() -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", find_free_port()))
