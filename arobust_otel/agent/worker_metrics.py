"""A WorkerTrainingMetric as what travels: points, log records, stacks. Pure but for the time of the call.

Log text becomes one record per line or traceback; figures become metrics of the dictionary with its units;
stacks become a capture. What is none of these comes back as it is: the client counts it as invalid.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from arobust_otel.collectors.faulttext import parse_faults
from arobust_otel.collectors.logtext import LineSplitter, Record, TracebackJoiner, own_time_ns, severity
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.common.diagnosis_data import ResourceStats, WorkerTrainingMetric
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import (
    Attributes,
    Frame,
    LogLine,
    Point,
    StackCapture,
    ThreadStack,
)

MEBIBYTE = 1024 * 1024
FOREIGN_METHOD = "text"  # stacks that somebody else took and wrote down
_THREAD = re.compile(r"^Thread (?:0x)?([0-9a-fA-F]+)(?: \((.*)\))?:?\s*$")
_FRAME = re.compile(r'^\s*File "(.*)", line (\d+), in (.*)$')
# Keys of a training script's figures, and what they are; others have no name in the dictionary.
_FIGURES: Mapping[str, str] = {
    "step": signals.STEP,
    "global_step": signals.STEP,
    "loss": signals.LOSS,
    "step_duration": signals.STEP_DURATION,
    "elapsed_time_per_step": signals.STEP_DURATION,
}


class CollectedMetric(WorkerTrainingMetric):
    """A metric whose exact items are known: who sends `items` sends what its text can only hint at."""

    items: tuple[Any, ...] = ()


def items_of(metric: object) -> list[Any]:
    """What a metric says, as items for `MasterClient.report`. Never raises.

    Args:
        metric: a WorkerTrainingMetric, its JSON, or a list of items.

    Returns:
        points, log lines and stacks; where the metric cannot be read, the metric itself as the only item.
    """
    try:
        read = _parsed(metric)
        if isinstance(read, CollectedMetric):
            return list(read.items)
        if not isinstance(read, WorkerTrainingMetric) or not isinstance(read.data_content, str):
            return [metric]
        return list(_READERS[read.data_type](read, time_of(read)))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return [metric]


def _parsed(metric: object) -> object:
    """JSON as the metric that it holds, everything else as it is."""
    if isinstance(metric, bytes):
        metric = metric.decode("utf-8")
    return WorkerTrainingMetric.from_json(metric) if isinstance(metric, str) else metric


def identity_of(metric: object, known: JobIdentity) -> JobIdentity:
    """The attempt that a metric belongs to: `known`, with the metric's own node rank where it has one."""
    try:
        rank = getattr(_parsed(metric), "node_rank", -1)
    except (ValueError, TypeError, RecursionError):
        return known
    if not isinstance(rank, int) or rank < 0 or rank == known.node_rank:
        return known
    return JobIdentity(known.job_id, known.incarnation, known.host, rank)


def time_of(metric: WorkerTrainingMetric) -> int:
    """Nanoseconds since the epoch; now where the metric has no time."""
    return int(metric.timestamp * 1e9) if metric.timestamp > 0 else time.time_ns()


def log_items(
    records: Iterable[Record], path: str, time_ns: int, attributes: Attributes | None = None
) -> list[LogLine]:
    """One log line per line or traceback, each with its severity and, where it tells one, its own time."""
    joiner = TracebackJoiner()
    whole = [joined for record in records for joined in joiner.feed(record)] + joiner.flush()
    return [_line(record, path, time_ns, attributes or {}) for record in whole]


def _line(record: Record, path: str, time_ns: int, attributes: Attributes) -> LogLine:
    own_ns = own_time_ns(record.text, time_ns)
    return LogLine(
        record.text,
        time_ns if own_ns is None else own_ns,
        path,
        record.end_offset,
        dict(attributes),
        severity(record.text),
        time_is_observed=own_ns is None,
    )


def _log(metric: WorkerTrainingMetric, time_ns: int) -> list[LogLine]:
    splitter = LineSplitter(0)
    records = splitter.feed(metric.data_content.encode("utf-8", "replace")) + splitter.finish()
    return log_items(records, "", time_ns, _node(metric))


def _xpu_timer(metric: WorkerTrainingMetric, time_ns: int) -> list[Point]:
    from arobust_otel.collectors.xpu_timer import points_of  # its parser is loaded where it is needed

    points = list(points_of(metric.data_content, time_ns))
    if not points and metric.data_content.strip():
        raise ValueError("no figure of xpu_timer")
    return points


def _resources(metric: WorkerTrainingMetric, time_ns: int) -> list[Point]:
    values = json.loads(metric.data_content)
    seconds = values.get("timestamp")
    at_ns = int(seconds * 1e9) if seconds else time_ns
    return resource_points(values, at_ns)


def resource_points(stats: ResourceStats | Mapping[str, Any], time_ns: int) -> list[Point]:
    """Processors, memory and accelerators. A figure that is missing is no point.

    Raises:
        ValueError: there is no figure at all.
    """
    values = asdict(stats) if isinstance(stats, ResourceStats) else dict(stats)
    points = []
    if (cpu := values.get("cpu_percent")) is not None:
        points.append(Point(signals.HOST_CPU, share(float(cpu)), time_ns))
    if (memory := values.get("memory_mb")) is not None:
        points.append(Point(signals.HOST_MEMORY_USAGE, int(memory * MEBIBYTE), time_ns))
    for gpu in values.get("gpu_stats") or ():
        points += _accelerator(gpu if isinstance(gpu, dict) else asdict(gpu), time_ns)
    if not points:
        raise ValueError("no figure at all")
    return points


def _accelerator(values: Mapping[str, Any], time_ns: int) -> list[Point]:
    """Points of one accelerator; its number on the node stands for its UUID, which nobody told."""
    attributes: Attributes = {signals.HW_ID: str(int(values["index"])), signals.HW_TYPE: "gpu"}
    figures = (
        (signals.HW_UTILIZATION, "gpu_utilization", 0.01),
        (signals.HW_MEMORY_USAGE, "used_memory_mb", MEBIBYTE),
        (signals.HW_MEMORY_LIMIT, "total_memory_mb", MEBIBYTE),
    )
    points = []
    for name, key, factor in figures:
        value = values.get(key)
        if value is not None and math.isfinite(value):
            scaled = value * factor
            points.append(
                Point(name, int(scaled) if factor == MEBIBYTE else scaled, time_ns, dict(attributes))
            )
    return points


def share(cpu_percent: float) -> float:
    """`cpu_percent` of ResourceStats as a share: 0 to 1 is one already, more is percent."""
    return cpu_percent if cpu_percent <= 1.0 else cpu_percent / 100


def _training(metric: WorkerTrainingMetric, time_ns: int) -> list[Point]:
    values = json.loads(metric.data_content)
    seconds = values.get("timestamp")
    return training_points(values, int(seconds * 1e9) if seconds else time_ns, _ranked(values))


def training_points(
    values: Mapping[str, Any], time_ns: int, attributes: Attributes | None = None
) -> list[Point]:
    """Figures of a training script that have a name in the dictionary.

    Raises:
        ValueError: there is none.
    """
    points = []
    for key, name in _FIGURES.items():
        value = values.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            points.append(Point(name, value, time_ns, dict(attributes or {})))
    if not points:
        raise ValueError(f"none of {', '.join(_FIGURES)}")
    return points


def _ranked(values: Mapping[str, Any]) -> Attributes:
    """Rank attributes that the figures themselves bring."""
    names = (("rank", signals.RANK), ("local_rank", signals.LOCAL_RANK), ("role", signals.ROLE))
    return {name: values[key] for key, name in names if key in values}


def _stacks(metric: WorkerTrainingMetric, time_ns: int) -> list[StackCapture]:
    threads = parse_stacks(metric.data_content)
    if not threads and not metric.data_content.strip():
        raise ValueError("no stack at all")
    return [
        StackCapture(
            time_ns=time_ns,
            duration_ns=0,
            rank=None,
            pid=0,
            method=FOREIGN_METHOD,
            command_id="",
            threads=threads,
            text=metric.data_content,
            attributes=_node(metric),
        )
    ]


def parse_stacks(text: str) -> tuple[ThreadStack, ...]:
    """Threads of ``Thread 140 (MainThread):`` texts, and of faulthandler's; innermost frame first."""
    if "(most recent call first)" in text:
        return parse_faults(text).threads
    threads: list[tuple[int, str]] = []
    frames: list[list[Frame]] = []
    for line in text.splitlines():
        if header := _THREAD.match(line):
            base = 10 if header[1].isdecimal() else 16
            threads.append((int(header[1], base), header[2] or ""))
            frames.append([])
        elif frames and (frame := _FRAME.match(line)):
            frames[-1].append(Frame(frame[3], frame[1], int(frame[2])))
    return tuple(
        ThreadStack(name, ident, tuple(reversed(found)), is_main=name == "MainThread")
        for (ident, name), found in zip(threads, frames, strict=True)
    )


def _node(metric: WorkerTrainingMetric) -> Attributes:
    return {signals.NODE_ID: metric.node_id} if metric.node_id >= 0 else {}


_READERS: Mapping[DiagnosisDataType, Callable[[WorkerTrainingMetric, int], Iterable[Any]]] = {
    DiagnosisDataType.TRAINING_LOG: _log,
    DiagnosisDataType.XPU_TIMER_METRIC: _xpu_timer,
    DiagnosisDataType.RESOURCE_STATS: _resources,
    DiagnosisDataType.TRAINING_METRIC: _training,
    DiagnosisDataType.STACK_TRACE: _stacks,
}
