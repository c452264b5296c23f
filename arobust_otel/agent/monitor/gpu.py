"""Memory and utilization of NVIDIA's accelerators: a device or a query that fails hides no other."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from arobust_otel.agent.handing import logger
from arobust_otel.agent.worker_metrics import MEBIBYTE
from arobust_otel.common.diagnosis_data import GPUStats

_lock = threading.Lock()
_told: set[str] = set()
_ids: dict[int, str] = {}


def accelerator_ids() -> dict[int, str]:
    """Number on the node -> UUID, of the devices that were read."""
    return dict(_ids)


def get_gpu_stats(gpus: Sequence[int] | None = None) -> list[GPUStats]:
    """One reading of each device; no entry where the device cannot be read at all, which is said once.

    Args:
        gpus: numbers of the devices; all by default.

    Returns:
        in the order of the numbers; a figure that a device does not tell is NaN, never 0. An empty list
        where there is no driver or no device.
    """
    try:
        import pynvml
    except ImportError:
        _tell("pynvml is not installed: accelerators cannot be read")
        return []
    return read(pynvml, gpus)


def read(nvml: Any, gpus: Sequence[int] | None = None) -> list[GPUStats]:
    """`get_gpu_stats` with the library as an argument."""
    with _lock:  # NVML counts its users: one pair of calls at a time
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            _tell(f"the driver of accelerators does not answer: {error}")
            return []
        try:
            numbers = range(nvml.nvmlDeviceGetCount()) if gpus is None else gpus
            found = [_device(nvml, number) for number in numbers]
        except nvml.NVMLError as error:
            _tell(f"accelerators cannot be counted: {error}")
            return []
        finally:
            nvml.nvmlShutdown()
    return [stats for stats in found if stats is not None]


def _device(nvml: Any, number: int) -> GPUStats | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
    except nvml.NVMLError as error:
        _tell(f"accelerator {number} cannot be read: {error}")
        return None
    if number not in _ids and (uuid := _query(nvml, number, "UUID", lambda: nvml.nvmlDeviceGetUUID(handle))):
        _ids[number] = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
    memory = _query(nvml, number, "memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    rates = _query(nvml, number, "utilization", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    if memory is None and rates is None:
        return None
    return GPUStats(
        number,
        math.nan if memory is None else memory.total / MEBIBYTE,
        math.nan if memory is None else memory.used / MEBIBYTE,
        math.nan if rates is None else float(rates.gpu),
    )


def _query(nvml: Any, number: int, what: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except nvml.NVMLError as error:
        _tell(f"accelerator {number} does not tell its {what}: {error}")
        return None


def _tell(text: str) -> None:
    """Say something once."""
    if text not in _told and len(_told) < 100:
        _told.add(text)
        logger.warning(text)
