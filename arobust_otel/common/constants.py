"""Names and numbers of the package `arobust`; values are part of the contract and never change."""

from __future__ import annotations

from enum import Enum, auto


class DiagnosisConstant:
    """Intervals that are used where none is given, in seconds; shorter ones are honoured."""

    MIN_DIAGNOSIS_INTERVAL = 30
    AGENT_PERIODICALLY_REPORT_INTERVAL_SECS = 30
    MIN_DATA_COLLECT_INTERVAL = 30
    LOCAL_INSTANCE = "local"


class DiagnosisErrorConstant:
    """Kinds of failure that `DiagnosisAgent.diagnose_training_failure` knows by name."""

    NODE_FAILED = "NODE_FAILED"
    RESOURCE_COLLECT_ERROR = "RESOURCE_COLLECT_ERROR"
    TRAINING_HANG = "TRAINING_HANG"
    GPU_ERROR = "GPU_ERROR"
    NETWORK_ERROR = "NETWORK_ERROR"
    OOM_ERROR = "OOM_ERROR"


class DiagnosisDataType(Enum):
    """What a WorkerTrainingMetric holds; travels by name."""

    RESOURCE_STATS = auto()
    XPU_TIMER_METRIC = auto()
    TRAINING_LOG = auto()
    STACK_TRACE = auto()
    TRAINING_METRIC = auto()


class DiagnosisActionType(Enum):
    """What to do about a failure; travels by name."""

    NO_ACTION = auto()
    RESTART_WORKER = auto()
    RELAUNCH_WORKER = auto()
    RESTART_NODE = auto()
    STOP_JOB = auto()


class EnvConfigKey:
    """Environment variables; `common.utils.get_env` also takes them with an upper-case prefix."""

    XPU_TIMER_PORT = "arobust_XPU_TIMER_PORT"
    MASTER_ADDR = "arobust_MASTER_ADDR"
    NODE_ID = "arobust_NODE_ID"
    NODE_TYPE = "arobust_NODE_TYPE"
    NODE_RANK = "arobust_NODE_RANK"
    NODE_IP = "NODE_IP"
    MONITOR_ENABLED = "arobust_MONITOR_ENABLED"
    LOCAL_RANK = "LOCAL_RANK"
    WORLD_SIZE = "WORLD_SIZE"
    RANK = "RANK"


class Accelerators:
    """Kinds of accelerator."""

    NVIDIA_GPU = "NVIDIA_GPU"
    ASCEND_NPU = "ASCEND_NPU"
    AMD_GPU = "AMD_GPU"


class TrainingExceptionLevel(Enum):
    """How far a failure reaches."""

    PROCESS_ERROR = auto()
    NODE_ERROR = auto()
    JOB_ERROR = auto()
