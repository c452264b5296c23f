"""Resources of this node, or of the container that limits it, and a monitor that reports them."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from dataclasses import asdict
from typing import Any

import psutil

from arobust_otel.agent.handing import hand_over, is_master_client, logger, worker_metric
from arobust_otel.agent.monitor.container import read_memory, read_processors
from arobust_otel.agent.monitor.gpu import accelerator_points, get_gpu_stats
from arobust_otel.agent.monitor.own_client import OwnClient
from arobust_otel.agent.neighbour import RESOURCES, Neighbour
from arobust_otel.agent.periodic import Periodic, stop_all
from arobust_otel.agent.worker_metrics import MEBIBYTE, resource_points
from arobust_otel.collectors.host import HostCollector
from arobust_otel.common.constants import Accelerators, DiagnosisDataType
from arobust_otel.common.diagnosis_data import ResourceStats, WorkerTrainingMetric
from arobust_otel.common.utils import Singleton
from arobust_otel.model import signals
from arobust_otel.model.samples import Point
from arobust_otel.plugins import Clock, Node

REPORT_SECONDS = 15.0
_STOP_SECONDS = 1.0
_FIRST_SECONDS = 0.1  # how long the first reading of the processors looks

Busy = tuple[float, float]  # processor seconds used, and those there were


class _Processors:
    """Busy share of the processors since the last question."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: Busy | None = None

    def share(self) -> float:
        """0 to 1; the first question takes `_FIRST_SECONDS`, since a share needs two readings."""
        with self._lock:
            before = self._before
            if before is None:
                before = _busy()
                time.sleep(_FIRST_SECONDS)
            now = _busy()
            self._before = now
        there = now[1] - before[1]
        return min(1.0, max(0.0, (now[0] - before[0]) / there)) if there > 0 else 0.0


def _busy() -> Busy:
    """Of the container where it is limited, else of the host."""
    limited = read_processors()
    if limited is not None:
        return limited[0], time.monotonic() * limited[1]
    times = psutil.cpu_times()
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return every - times.idle - getattr(times, "iowait", 0.0), every


_processors = _Processors()
_host = HostCollector(interval_seconds=0.0)
_host_lock = threading.Lock()
_OF_CONTAINER = {signals.HOST_CPU, signals.HOST_MEMORY_USAGE}


def get_process_cpu_percent() -> float:
    """Busy share, 0 to 1, of the processors that this container may use, or of the host's without a limit."""
    return _processors.share()


def get_used_memory() -> int:
    """Memory in use in MiB: of this container where it is limited, else of the host."""
    limited = read_memory()
    if limited is not None:
        return limited.used_bytes // MEBIBYTE
    memory = psutil.virtual_memory()
    return int((memory.total - memory.available) // MEBIBYTE)


def metric_of_reading(stats: ResourceStats) -> WorkerTrainingMetric:
    """A reading as a metric of this node: its JSON for any client, and our dictionary's points for ours."""
    return worker_metric(DiagnosisDataType.RESOURCE_STATS, *content_of(stats))


def content_of(stats: ResourceStats) -> tuple[str, list[Point]]:
    """A reading as JSON, in which what is unknown is null, and as points of the dictionary."""
    values = asdict(stats)
    for gpu in values["gpu_stats"]:
        gpu.update({k: None for k, v in gpu.items() if isinstance(v, float) and not math.isfinite(v)})
    return json.dumps(values), points_of(values)


def points_of(values: dict[str, Any]) -> list[Point]:
    """Host, container and accelerators. A reading of a limited container says nothing about the host."""
    now = Clock(time.time_ns(), time.monotonic_ns())
    with _host_lock:
        host = [item for item in _host.collect(now, Node()) if isinstance(item, Point)]
    limited = read_memory()
    known = {point.name for point in host} | (_OF_CONTAINER if limited is not None else set())
    devices = accelerator_points([gpu["index"] for gpu in values["gpu_stats"]])
    read = resource_points({**values, "gpu_stats": []}, now.wall_ns)
    found = [*host, *devices, *(point for point in read if point.name not in known)]
    if limited is not None:
        found.append(Point(signals.CONTAINER_MEMORY_USAGE, limited.used_bytes, now.wall_ns))
        found.append(Point(signals.CONTAINER_MEMORY_LIMIT, limited.limit_bytes, now.wall_ns))
    return found


class ResourceMonitor(Singleton):
    """Reads the node's resources, and reports them every 15 s where it is started.

    Args:
        gpu_type: kind of accelerator; only NVIDIA's can be read.
    """

    def __init__(self, gpu_type: str = Accelerators.NVIDIA_GPU) -> None:
        self.gpu_type = gpu_type
        self._client = OwnClient()
        self._holders: set[int] = set()
        self._lock = threading.Lock()
        self._neighbour = Neighbour(os.environ)
        self._loop = Periodic("resource-monitor", REPORT_SECONDS, self._round)
        if gpu_type != Accelerators.NVIDIA_GPU:
            logger.warning("accelerators of kind %s cannot be read; processors and memory are", gpu_type)

    def reconfigure(self, gpu_type: str = Accelerators.NVIDIA_GPU) -> None:
        """Another kind of accelerator from now on."""
        self.gpu_type = gpu_type

    def set_client(self, client: Any) -> None:
        """What takes the readings."""
        self._client.set(client)

    def start(self, holder: object | None = None) -> None:
        """Report now and every 15 s; nothing happens where neither a client nor a master is known.

        Args:
            holder: on whose behalf; it runs until everybody who started it has stopped it.
        """
        with self._lock:
            if not self._client.is_to_be_had():
                logger.info("ResourceMonitor stays off: no client, and no master in the environment")
                return
            self._holders.add(id(holder))
            if not self._loop.is_running:
                self._neighbour = Neighbour(os.environ)
                self._loop.start()

    def stop(self, holder: object | None = None) -> None:
        """End the reports of this holder; the thread ends within about a second after the last one."""
        with self._lock:
            self._holders.discard(id(holder))
            if self._holders:
                return
            stop_all([self._loop], _STOP_SECONDS)
            self._client.close()
            self._neighbour.release()

    def read(self) -> ResourceStats:
        """One reading; an accelerator that cannot be read hides no other."""
        gpus = get_gpu_stats() if self.gpu_type == Accelerators.NVIDIA_GPU else []
        return ResourceStats(get_process_cpu_percent(), get_used_memory(), gpus, int(time.time()))

    def report_resource(self) -> ResourceStats:
        """One reading, sent where there is a client; a warning where there is none."""
        stats = self.read()
        client = self._client.get()
        if client is None:
            logger.warning("ResourceMonitor has no client: nothing is sent; call set_client()")
        else:
            hand_over(client, metric_of_reading(stats))
        return stats

    def _round(self, ended: threading.Event) -> None:
        if ended.is_set():
            return
        client = self._client.get()
        if client is None or not self._is_needed(client):
            return
        stats = self.read()
        if not ended.is_set():  # a driver may take its time: after the stop nothing is reported
            hand_over(client, metric_of_reading(stats))

    def _is_needed(self, client: Any) -> bool:
        """Whether nobody else on the node reports the same to our master."""
        if not is_master_client(client):
            return True
        return not self._neighbour.has_agent() and self._neighbour.claim([RESOURCES])
