"""Progress that a training script writes into a small file, read and reported beside it."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.handing import hand_over, is_master_client, logger, process_attributes, worker_metric
from arobust_otel.agent.monitor.own_client import OwnClient
from arobust_otel.agent.monitor.resource import REPORT_SECONDS, ResourceMonitor
from arobust_otel.agent.neighbour import Neighbour
from arobust_otel.agent.periodic import Periodic, stop_all
from arobust_otel.agent.worker_metrics import training_points
from arobust_otel.common.constants import Accelerators, DiagnosisDataType, EnvConfigKey
from arobust_otel.common.utils import get_env, get_node_rank
from arobust_otel.model import signals

_STOP_SECONDS = 1.0
_unwritten: dict[str, int | None] = {}  # files that could not be written, and why


def write_training_metrics(
    metrics_path: str | os.PathLike[str], step: int, timestamp: float | None = None
) -> None:
    """Write down the newest step, as a whole: a reader sees the old file or the new one.

    A disk that is full, or a folder that cannot be written, is a warning: training goes on.

    Args:
        metrics_path: where `TrainingMonitor` reads it; its folder is made.
        step: steps finished.
        timestamp: seconds since the epoch; now by default.
    """
    values = {"step": int(step), "timestamp": time.time() if timestamp is None else timestamp}
    try:
        _replace(Path(metrics_path), json.dumps(values))
    except OSError as error:
        if _unwritten.get(os.fspath(metrics_path)) != error.errno:  # once, not at every step
            logger.warning("step %d is not written down: %s", step, error)
        _unwritten[os.fspath(metrics_path)] = error.errno
    else:
        _unwritten.pop(os.fspath(metrics_path), None)


def _replace(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(target)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


class TrainingMonitor:
    """Reads what `write_training_metrics` wrote and reports each new step; starts ResourceMonitor, too.

    Args:
        metrics_path: the file; it may appear later and is never deleted.
        device_type: kind of accelerator.
    """

    def __init__(
        self, metrics_path: str | os.PathLike[str], device_type: str = Accelerators.NVIDIA_GPU
    ) -> None:
        self.metrics_path = Path(metrics_path)
        self._resources = ResourceMonitor.singleton_instance()
        if device_type != self._resources.gpu_type:
            self._resources.reconfigure(device_type)
        self._client = OwnClient()
        self._last: tuple[int, float] = (0, 0.0)  # step and time of what was reported
        self._lock = threading.Lock()
        self._loop = Periodic("training-monitor", REPORT_SECONDS, self._round)

    def set_client(self, client: Any) -> None:
        """What takes the steps."""
        self._client.set(client)

    def start(self) -> None:
        """Report now and every 15 s. Nothing happens unless ``arobust_MONITOR_ENABLED`` is ``true``."""
        if (get_env(EnvConfigKey.MONITOR_ENABLED) or "").lower() != "true":
            logger.info("TrainingMonitor stays off: %s is not true", EnvConfigKey.MONITOR_ENABLED)
            return
        self._resources.start(self)
        self._loop.start()

    def stop(self) -> None:
        """End within about a second; ResourceMonitor goes on where somebody else started it, too."""
        stop_all([self._loop], _STOP_SECONDS)
        self._resources.stop(self)
        self._client.close()

    def report_step(self) -> bool:
        """Report the newest step where it is new; True where a client was given it.

        One process of a job speaks: the one of rank 0, on a job that numbers nodes the node of rank 0.
        """
        if not speaks_for_the_job():
            return False
        client = self._client.get()
        with self._lock:  # the caller's thread and ours: a step is reported once
            return self._report_newest(client)

    def _report_newest(self, client: Any) -> bool:
        values, error = guard.attempt("metrics file", self._read)
        if values is None:
            if error is not None:
                logger.warning("%s cannot be read: %s", self.metrics_path, error)
            return False
        step, at = values
        if step <= 0 or (step, at) == self._last:
            return False
        if client is None:
            logger.warning("TrainingMonitor has no client: nothing is sent; call set_client()")
            return False
        self._last = (step, at)
        own = process_attributes()
        own.pop(signals.PID)
        points = training_points({"step": step}, int(at * 1e9), own)
        content = json.dumps({"step": step, "timestamp": at})
        hand_over(client, worker_metric(DiagnosisDataType.TRAINING_METRIC, content, points))
        return True

    def _read(self) -> tuple[int, float] | None:
        """Step and time of the file; None where there is no file yet."""
        try:
            values = json.loads(self.metrics_path.read_bytes())
        except FileNotFoundError:
            return None
        return int(values["step"]), float(values.get("timestamp") or time.time())

    def _round(self, ended: threading.Event) -> None:
        if ended.is_set() or not speaks_for_the_job():
            return
        client = self._client.get()
        shares = client is None or is_master_client(client)
        if ended.is_set() or (shares and Neighbour(os.environ).has_beacons()):
            return  # the node's agent reports the steps, from where they happen
        with self._lock:
            self._report_newest(client)


def speaks_for_the_job() -> bool:
    """Whether this process is rank 0, or may be: where nothing says a rank it is the only one."""
    rank = os.environ.get("RANK", "")
    if "LOCAL_RANK" in os.environ and rank.isdecimal():
        return int(rank) == 0
    return get_node_rank() in (0, -1)
