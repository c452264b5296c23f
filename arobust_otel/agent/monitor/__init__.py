"""The predecessor's monitors: resources of the node, and progress that a training script writes down."""

from __future__ import annotations

from arobust_otel.agent.monitor.gpu import get_gpu_stats
from arobust_otel.agent.monitor.resource import (
    ResourceMonitor,
    get_process_cpu_percent,
    get_used_memory,
)
from arobust_otel.agent.monitor.training import TrainingMonitor, write_training_metrics

__all__ = [
    "ResourceMonitor",
    "TrainingMonitor",
    "get_gpu_stats",
    "get_process_cpu_percent",
    "get_used_memory",
    "write_training_metrics",
]
