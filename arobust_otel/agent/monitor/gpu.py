"""NVIDIA's accelerators in one reading: a device or a query that fails hides no other.

What is asked, and what an answer means, is `collectors.nvml`'s.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arobust_otel.agent.handing import logger
from arobust_otel.agent.worker_metrics import MEBIBYTE
from arobust_otel.collectors import nvml as queries
from arobust_otel.collectors.nvidia import library_exists, seems_to_have_devices
from arobust_otel.collectors.procfs import PROC
from arobust_otel.common.diagnosis_data import GPUStats
from arobust_otel.model import signals
from arobust_otel.model.samples import Point

_lock = threading.Lock()
_told: set[str] = set()
_points: dict[int, list[Point]] = {}  # of each device's newest reading


def get_gpu_stats(gpus: Sequence[int] | None = None) -> list[GPUStats]:
    """One reading of each device; no entry where the device cannot be read at all, which is said once.

    Args:
        gpus: numbers of the devices; all by default.

    Returns:
        in the order of the numbers; a figure that a device does not tell is NaN, never 0. An empty list
        where there is no device, or none that can be asked.
    """
    if not library_exists():
        if seems_to_have_devices(PROC, Path("/sys"), Path("/dev")):
            _tell("accelerators seem to be here, but the driver's library libnvidia-ml.so.1 is not")
        return []
    import pynvml  # not before there is a driver to ask

    with _lock:  # the library counts its users: one pair of calls at a time
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            _tell(f"the driver of accelerators does not answer: {error}")
            return []
        try:
            numbers = range(pynvml.nvmlDeviceGetCount()) if gpus is None else gpus
            found = [_device(pynvml, number) for number in numbers]
        except pynvml.NVMLError as error:
            _tell(f"accelerators cannot be read: {error}")
            return []
        finally:
            pynvml.nvmlShutdown()
    return [stats for stats in found if stats is not None]


def accelerator_points(gpus: Sequence[int]) -> list[Point]:
    """Everything that the newest reading of these devices gave: temperature, power, clocks, errors, links."""
    with _lock:
        return [point for number in gpus for point in _points.get(number, ())]


def _device(nvml: Any, number: int) -> GPUStats | None:
    _points.pop(number, None)
    try:
        sweep = queries.sweep(nvml, queries.name_device(nvml, number), time.time_ns())
    except nvml.NVMLError as error:
        _tell(f"accelerator {number} cannot be read: {error}")
        return None
    for problem in sweep.problems:
        _tell(f"accelerator {number}: {problem}")
    if sweep.is_lost:
        _tell(f"accelerator {number} is lost")
        return None
    _points[number] = sweep.points
    values = {point.name: point.value for point in sweep.points}
    return GPUStats(
        number,
        values.get(signals.HW_MEMORY_LIMIT, math.nan) / MEBIBYTE,
        values.get(signals.HW_MEMORY_USAGE, math.nan) / MEBIBYTE,
        values.get(signals.HW_UTILIZATION, math.nan) * 100,
    )


def _tell(text: str) -> None:
    """Say something once."""
    if text not in _told and len(_told) < 100:
        _told.add(text)
        logger.warning(text)
