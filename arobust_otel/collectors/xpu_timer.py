"""Kernel and collective times of the ranks, from an `xpu_timer` that runs beside them.

One endpoint per node serves Prometheus text with the ranks as labels. Its gauges keep their last value for up
to 300 s while kernels stand still, so an unchanged value is no sign of health. A hang gauge of 1 says that a
rank waits, not that it is to blame. Labels that are those of a series' first event only are marked in the
dictionary. Reading, parsing and meaning are three functions; `points_of` serves texts from elsewhere too.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from arobust_otel.collectors.procfs import PROC
from arobust_otel.collectors.scrape import scrape
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.samples import Attributes, Point
from arobust_otel.plugins import Clock, Item, Node, RankProcess

DEFAULT_PORT = 18889
PORT_VARIABLES = ("arobust_XPU_TIMER_PORT", "AROBUST_XPU_TIMER_PORT", "XPU_TIMER_PORT")
UNSET = "NOT_SET"
_MICROSECONDS, _GIGABIT, _TERA = 1e-6, 1e9 / 8, 1e12


class Family(NamedTuple):
    """What one family of xpu_timer means here."""

    signal: str
    factor: float = 1.0  # from its unit to ours


_COLLECTIVE, _MATMUL, _COMMON = "XPU_TIMER_COLL_KERNEL_", "XPU_TIMER_MM_KERNEL_", "XPU_TIMER_COMMON_"
FAMILIES: Mapping[str, Family] = {
    _COLLECTIVE + "AVG_LATENCY": Family(signals.XPU_COLLECTIVE_MEAN, _MICROSECONDS),
    _COLLECTIVE + "MAX_LATENCY": Family(signals.XPU_COLLECTIVE_MAX, _MICROSECONDS),
    _COLLECTIVE + "P99_LATENCY": Family(signals.XPU_COLLECTIVE_P99, _MICROSECONDS),
    _COLLECTIVE + "MIN_LATENCY": Family(signals.XPU_COLLECTIVE_MIN, _MICROSECONDS),
    _COLLECTIVE + "BANDWIDTH": Family(signals.XPU_COLLECTIVE_BANDWIDTH, _GIGABIT),
    _MATMUL + "AVG_LATENCY": Family(signals.XPU_MATMUL_MEAN, _MICROSECONDS),
    _MATMUL + "MAX_LATENCY": Family(signals.XPU_MATMUL_MAX, _MICROSECONDS),
    _MATMUL + "P99_LATENCY": Family(signals.XPU_MATMUL_P99, _MICROSECONDS),
    _MATMUL + "MIN_LATENCY": Family(signals.XPU_MATMUL_MIN, _MICROSECONDS),
    _MATMUL + "FLOPS": Family(signals.XPU_MATMUL_FLOPS, _TERA),
    _COMMON + "HANG": Family(signals.XPU_HANG),
    _COMMON + "START_DUMP": Family(signals.XPU_DUMP_STARTED),
    _COMMON + "END_DUMP": Family(signals.XPU_DUMP_DURATION),
    _COMMON + "POOL_QUEUE_SIZE": Family(signals.XPU_POOL_QUEUE),
    _COMMON + "WORK_QUEUE_SIZE": Family(signals.XPU_WORK_QUEUE),
    _COMMON + "GC_COUNT": Family(signals.XPU_GC),
    _COMMON + "DATA_LOADER_COUNT": Family(signals.XPU_DATA_LOADER),
    "XPU_TIMER_MEMORY_COUNTER": Family(signals.XPU_MEMORY_CALLS),
}
# Job and address of the node stand in the resource.
_LABELS = {
    "operation": signals.OPERATION,
    "algorithm": signals.ALGORITHM,
    "dtype": signals.DTYPE,
    "transport": signals.TRANSPORT,
    "kind": signals.COPY_KIND,
    "pod_name": signals.POD_NAME,
}
_NUMBERS = {"rank": signals.RANK, "local_rank": signals.LOCAL_RANK, "level": signals.LEVEL}


class Reading(NamedTuple):
    """A parsed text: its points, how many samples of xpu_timer it had, and how many lines were none."""

    points: list[Point]
    samples: int
    unreadable: int


def points_of(text: str, time_ns: int) -> list[Point]:
    """Points of a text of xpu_timer, with or without its comment lines; what it lacks is no point.

    Args:
        text: Prometheus text format; families of others and lines that cannot be parsed are left out.
        time_ns: when the text was read; xpu_timer writes no times.
    """
    return parse(text, time_ns).points


def parse(text: str, time_ns: int) -> Reading:
    """As `points_of`, with what could not be used."""
    wanted = "\n".join(line for line in text.splitlines() if line.startswith("XPU_TIMER_"))
    foreign = [line for line in text.splitlines() if line.strip() and not _is_expected(line)]
    try:
        samples = list(_samples(wanted))
        broken = 0
    except ValueError:
        samples, broken = _one_by_one(wanted.splitlines())
    points = [point for sample in samples if (point := _point(sample, time_ns)) is not None]
    return Reading(points, len(samples), broken + len(foreign))


def _is_expected(line: str) -> bool:
    """A comment, or a sample of any family: a web page has neither."""
    return line[0] == "#" or line[0].isalpha()


def _samples(text: str) -> Iterator[Any]:
    from prometheus_client.parser import text_string_to_metric_families  # 30 ms: where there is an xpu_timer

    for family in text_string_to_metric_families(text + "\n"):
        yield from family.samples


def _one_by_one(lines: Iterable[str]) -> tuple[list[Any], int]:
    """A line that was cut hides no other."""
    samples, broken = [], 0
    for line in lines:
        try:
            samples += list(_samples(line))
        except ValueError:
            broken += 1
    return samples, broken


def _point(sample: Any, time_ns: int) -> Point | None:
    family = FAMILIES.get(sample.name)
    if family is None or not math.isfinite(sample.value):
        return None
    return Point(family.signal, sample.value * family.factor, time_ns, _attributes(sample.labels))


def _attributes(labels: Mapping[str, str]) -> Attributes:
    found: Attributes = {}
    for label, value in labels.items():
        if value in (UNSET, ""):
            continue
        if label in _NUMBERS and value.isdecimal():
            found[_NUMBERS[label]] = int(value)
        elif label in _LABELS:
            found[_LABELS[label]] = value
        elif label == "small":
            found[signals.SMALL] = value == "1"
    return found


@dataclass(slots=True)
class XpuTimerCollector:
    """Durations and throughput of kernels and collectives, and hangs, as `xpu_timer` sees them."""

    name: ClassVar[str] = "xpu_timer"
    port: int = 0  # 0: what the environment of the agent or of a rank says, else 18889 where it listens
    period_seconds: float = field(
        default=10.0, metadata={"minimum": 0.1}
    )  # xpu_timer itself renews every 10 s
    timeout_seconds: float = field(default=5.0, metadata={"minimum": 0.1})
    proc: Path = PROC
    _answered: set[int] = field(default_factory=set, init=False)
    _rank_ports: dict[tuple[int, int], int | None] = field(default_factory=dict, init=False)

    def collect(self, now: Clock, node: Node) -> Iterator[Item]:
        """Points of all ranks of this node.

        Raises:
            CapabilityError: nothing listens where the configuration says that xpu_timer does.
            ConnectionError: it answered before and does no longer, or answers with an error.
        """
        port, origin = self._port(node)
        text = self._read(port, origin)
        if text is None:
            return
        self._answered.add(port)
        reading = parse(text, now.wall_ns)
        roles = {rank.rank: rank.role for rank in node.ranks}
        for point in reading.points:
            role = roles.get(int(point.attributes.get(signals.RANK, -1)))
            yield (
                point if role is None else replace(point, attributes={**point.attributes, signals.ROLE: role})
            )
        if reading.unreadable:
            raise ConnectionError(
                f"{reading.unreadable} lines of what 127.0.0.1:{port} answered are no metrics"
            )

    def _port(self, node: Node) -> tuple[int, str]:
        """The port, and who named it; asked anew each time, since xpu_timer may start late."""
        if self.port:
            return self.port, "the configuration"
        for name in PORT_VARIABLES:
            port = parse_port(os.environ.get(name))
            if port is not None:
                return port, name
        for rank in node.ranks:
            if rank.alive:
                port = self._rank_port(rank)
                if port is not None:
                    return port, f"the environment of rank {rank.rank}"
        return DEFAULT_PORT, ""

    def _rank_port(self, rank: RankProcess) -> int | None:
        """What a rank's own environment says; it does not change, so it is read once."""
        if rank.key not in self._rank_ports:
            environ = environ_of(self.proc, rank.pid)
            ports = (parse_port(environ.get(name)) for name in PORT_VARIABLES)
            self._rank_ports[rank.key] = next((port for port in ports if port is not None), None)
        return self._rank_ports[rank.key]

    def _read(self, port: int, origin: str) -> str | None:
        """The text; None where nobody said that there is an xpu_timer and nothing listens."""
        place = f"127.0.0.1:{port}"
        if not origin and port not in self._answered and not listens(port):
            return None
        try:
            return scrape(port, self.timeout_seconds)
        except ConnectionRefusedError:
            if port in self._answered:
                raise ConnectionError(f"xpu_timer at {place} answered before and is gone") from None
            raise CapabilityError(
                self.name, f"nothing listens at {place}, which {origin} names", "start xpu_timer, or unset it"
            ) from None
        except OSError as error:
            raise ConnectionError(f"xpu_timer at {place}: {str(error) or type(error).__name__}") from None


def parse_port(text: str | None) -> int | None:
    """A port number; None for anything else.

    >>> parse_port("18889"), parse_port("x"), parse_port("0"), parse_port(None)
    (18889, None, None, None)
    """
    if text is None or not text.strip().isdecimal():
        return None
    number = int(text)
    return number if 0 < number < 65536 else None


def listens(port: int) -> bool:
    """Whether anybody does; a hundredth of what a request costs."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environ_of(proc: Path, pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it may not be read."""
    try:
        content = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (item.decode("utf-8", "replace").partition("=") for item in content.split(b"\0") if item)
    return {name: value for name, _, value in pairs}
