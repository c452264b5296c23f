"""One way of reporting to a master, measured in a process of its own: the worker of ``client.py``.

    python benchmarks/client_ways.py load|away WAY PROTOCOL lines|points RUN ADDRESS
    python benchmarks/client_ways.py loop

A *report* is one log line, or 20 points (8 ranks and some). Its time is what the caller waits; what it hands
over was built before. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil
from client_paced import empty_loop, paced, percentiles

from arobust_otel.agent.client.encode import Part, encode
from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point

LINES, POINTS = "lines", "points"
POINTS_IN_A_REPORT = 20
PACED = {"master_client": 1000, "batch": 1000, "one_call": 300}
BURST, BURST_LINES = {"master_client": 2000, "batch": 2000, "one_call": 200}, 5000
# What an agent hands over for 8 ranks, rounded up (measured: 42 points/s and 19 lines/s), every half second.
AWAY_SECONDS, STEPS_PER_SECOND = 600, 2
LINES_IN_A_STEP, REPORTS_OF_POINTS = 10, 3  # the latter every second step
AWAY_STEPS = AWAY_SECONDS * STEPS_PER_SECOND
AWAY_PACE_SECONDS = 0.0125  # of our time for half a second: 10 minutes in 15 seconds
SETTLE_SECONDS = 60.0
FACTS, FACTS_APART_SECONDS = 20, 0.15


class Way(Protocol):
    """How measurements leave a process."""

    def build(self, kind: str, numbers: Sequence[int]) -> Any:
        """What `report` takes: one log line, or one value for all points, for each number."""
        ...

    def report(self, kind: str, built: Any) -> None:
        """Hand it over."""
        ...

    def finish(self) -> None:
        """Until everything is delivered or given up."""
        ...


def items(kind: str, numbers: Sequence[int]) -> list[Any]:
    """The client's own form; each item carries its number and its time."""
    now = time.time_ns()
    if kind == LINES:
        return [LogLine(f"{number} loss 1.25", now, "/train.log", number) for number in numbers]
    return [
        Point(signals.STEP, number, now, {signals.RANK: rank})
        for number in numbers
        for rank in range(POINTS_IN_A_REPORT)
    ]


@dataclass
class MasterClientWay:
    """`MasterClient.report`."""

    address: str
    job: JobIdentity
    spool: str | None = None
    client: MasterClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = MasterClient(
            self.address, self.job, ClientSettings(), spool_dir=self.spool, say=lambda text: None
        )

    def build(self, kind: str, numbers: Sequence[int]) -> Any:
        """See `Way`."""
        return items(kind, numbers)

    def report(self, kind: str, built: Any) -> None:
        """See `Way`."""
        self.client.report(built)

    def finish(self) -> None:
        """See `Way`."""
        self.client.flush(SETTLE_SECONDS)


class OneCallWay:
    """One synchronous `export` of the bare exporter for each report, as the predecessor's client did."""

    def __init__(self, protocol: str, address: str, job: JobIdentity) -> None:
        self._job = job
        self._exporters = {kind: exporter(protocol, kind, address) for kind in (LINES, POINTS)}

    def build(self, kind: str, numbers: Sequence[int]) -> Any:
        """See `Way`."""
        parts = [Part(item, self._job, time.time_ns()) for item in items(kind, numbers)]
        return encode("logs" if kind == LINES else "metrics", parts).payload

    def report(self, kind: str, built: Any) -> None:
        """See `Way`."""
        self._exporters[kind].export(built)

    def finish(self) -> None:
        """See `Way`."""
        return


class BatchWay:
    """The SDK's batch processor for log records; its gauges and periodic reader for points."""

    def __init__(self, protocol: str, address: str, job: JobIdentity) -> None:
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource

        resource = Resource(job.resource())
        self._logs = LoggerProvider(resource)
        self._logs.add_log_record_processor(BatchLogRecordProcessor(exporter(protocol, LINES, address)))
        self._logger = self._logs.get_logger("bench")
        reader = PeriodicExportingMetricReader(
            exporter(protocol, POINTS, address), export_interval_millis=1000
        )
        self._metrics = MeterProvider([reader], resource)
        self._gauge = self._metrics.get_meter("bench").create_gauge(signals.STEP)
        self._ranks = [{signals.RANK: rank} for rank in range(POINTS_IN_A_REPORT)]

    def build(self, kind: str, numbers: Sequence[int]) -> Any:
        """See `Way`."""
        return list(numbers)

    def report(self, kind: str, built: Any) -> None:
        """See `Way`."""
        for number in built:
            if kind == LINES:
                self._logger.emit(timestamp=time.time_ns(), body=f"{number} loss 1.25")
                continue
            for rank in self._ranks:
                self._gauge.set(number, rank)

    def finish(self) -> None:
        """See `Way`."""
        self._logs.force_flush()
        self._metrics.force_flush()


def exporter(protocol: str, kind: str, address: str) -> Any:
    """A bare exporter, compressed as ours is."""
    if protocol == "grpc":
        import grpc
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics

        make = GrpcLogs if kind == LINES else GrpcMetrics
        return make(f"http://{address}", compression=grpc.Compression.Gzip)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    if kind == LINES:
        return OTLPLogExporter(f"{address}/v1/logs", compression=Compression.Gzip)
    return OTLPMetricExporter(f"{address}/v1/metrics", compression=Compression.Gzip)


def load(way: Way, name: str, kind: str) -> dict[str, Any]:
    """A paced phase for latency and processor time, then as many as it takes for throughput."""
    way.report(kind, way.build(kind, [0]))
    way.finish()
    count = PACED[name]
    found = paced(
        count, lambda number: way.build(kind, [number]), lambda built: way.report(kind, built), way.finish
    )
    rate, burst = throughput(way, name, kind, count + 1)
    facts_ns = facts(way, 1 + count + burst) if isinstance(way, MasterClientWay) and kind == LINES else {}
    return {
        **found.figures(),
        "reports_per_second": round(rate),
        "reports": 1 + count + burst + len(facts_ns),
        "items_in_a_report": 1 if kind == LINES else POINTS_IN_A_REPORT,
        "times_ns": dict(enumerate(found.times_ns, 1)),
        "facts_ns": facts_ns,
    }


def facts(way: MasterClientWay, first: int) -> dict[int, int]:
    """Single events, some time apart: when each was reported, in ns, by its number."""
    times_ns = {}
    for number in range(first, first + FACTS):
        times_ns[number] = time.time_ns()
        way.client.report([Event(signals.RANK_STALLED, times_ns[number], f"{number} stalled")])
        time.sleep(FACTS_APART_SECONDS)
    way.finish()
    return times_ns


def throughput(way: Way, name: str, kind: str, first: int) -> tuple[float, int]:
    """Reports per second until the last is delivered, and how many there were."""
    count = BURST_LINES if kind == LINES and name != "one_call" else BURST[name]
    started = time.monotonic()
    for number in range(first, first + count):
        way.report(kind, way.build(kind, [number]))
    way.finish()
    return count / (time.monotonic() - started), count


def away(way: Way, name: str) -> dict[str, Any]:
    """Ten minutes of an agent's load without a master, then a line on standard input says that it is back."""
    process = psutil.Process()
    before = process.memory_info().rss
    peak, taken, lines, points = before, [], 0, 0
    steps = 1 if name == "one_call" else AWAY_STEPS
    started = time.monotonic()
    for step in range(steps):
        built = way.build(LINES, range(step * LINES_IN_A_STEP, (step + 1) * LINES_IN_A_STEP))
        at = time.perf_counter()
        way.report(LINES, built)
        taken.append(time.perf_counter() - at)
        lines += LINES_IN_A_STEP
        if name == "one_call":
            break
        if step % STEPS_PER_SECOND == 0:
            way.report(POINTS, way.build(POINTS, range(points, points + REPORTS_OF_POINTS)))
            points += REPORTS_OF_POINTS
        peak = max(peak, process.memory_info().rss)
        time.sleep(max(0.0, started + (step + 1) * AWAY_PACE_SECONDS - time.monotonic()))
    say("away")
    sys.stdin.readline()
    back = time.monotonic()
    if name != "one_call":
        way.finish()
    return {
        **percentiles("report", taken),
        "memory_before_mib": round(before / 2**20, 1),
        "memory_mib": round(peak / 2**20, 1),
        "memory_grown_mib": round((peak - before) / 2**20, 1),
        "lines_reports": lines,
        "points_reports": points,
        "seconds_to_deliver": round(time.monotonic() - back, 2),
    }


def say(line: str) -> None:
    """A line for the driver."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def make(name: str, protocol: str, address: str, job: JobIdentity, spool: str | None) -> Way:
    """A way by its name."""
    if name == "master_client":
        return MasterClientWay(address, job, spool)
    ways: dict[str, Callable[[str, str, JobIdentity], Way]] = {"batch": BatchWay, "one_call": OneCallWay}
    return ways[name](protocol, address, job)


def main() -> None:
    """Measure one way and print what was found."""
    if sys.argv[1:] == ["loop"]:
        say(json.dumps(empty_loop(max(PACED.values()))))
        return
    mode, name, protocol, kind, run, address = sys.argv[1:7]
    with tempfile.TemporaryDirectory() as spool:
        way = make(name, protocol, address, JobIdentity(run, 0, "bench"), spool if mode == "away" else None)
        found = load(way, name, kind) if mode == "load" else away(way, name)
        say(json.dumps(found))
        if isinstance(way, MasterClientWay):
            way.client.close(1.0)
    os._exit(0)  # the bare exporters would go on retrying


if __name__ == "__main__":
    main()
