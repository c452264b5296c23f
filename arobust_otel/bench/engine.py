"""What one export and one tick cost the master: decoder, state and rules, on serialized requests.

A synthetic job of nodes with eight ranks: groups along the node, across nodes, and the world. One node
changes the layout of its requests in the middle; in the last third one rank hangs, so that rules have work.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.journal import Kind, Record
from arobust_otel.master.engine import Engine, build_engine
from arobust_otel.model import signals
from arobust_otel.model.beacon import PHASES, STATES
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.ranks import format_ranks
from arobust_otel.otlp.decode import decode

RANKS_PER_NODE = 8
START_NS = 1_800_000_000_000_000_000
SECOND = 1_000_000_000


@dataclass(slots=True)
class Costs:
    """Seconds of each call, by part."""

    decode: list[float] = field(default_factory=list)
    state: list[float] = field(default_factory=list)
    healthy_tick: list[float] = field(default_factory=list)
    stalled_tick: list[float] = field(default_factory=list)
    points: int = 0
    bytes: int = 0

    def row(self, ranks: int, verdict: str) -> dict[str, Any]:
        """Figures for one size; microseconds per request, milliseconds per tick."""
        return {
            "ranks": ranks,
            "requests": len(self.decode),
            "points_per_request": self.points // max(1, len(self.decode)),
            "bytes_per_request": self.bytes // max(1, len(self.decode)),
            "decode_us_p50": _quantile(self.decode, 0.5, 1e6),
            "decode_us_p99": _quantile(self.decode, 0.99, 1e6),
            "state_us_p50": _quantile(self.state, 0.5, 1e6),
            "state_us_p99": _quantile(self.state, 0.99, 1e6),
            "healthy_tick_ms_p50": _quantile(self.healthy_tick, 0.5, 1e3),
            "healthy_tick_ms_max": _quantile(self.healthy_tick, 1.0, 1e3),
            "stalled_tick_ms_p50": _quantile(self.stalled_tick, 0.5, 1e3),
            "stalled_tick_ms_max": _quantile(self.stalled_tick, 1.0, 1e3),
            "verdict": verdict,
        }


def bench_engine(
    sizes: Sequence[int], rounds: int = 18, say: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Run every size and return one row for each.

    Args:
        sizes: numbers of ranks, multiples of eight.
        rounds: exports per node; one tick follows each round. The last third has one hanging rank.
        say: is told what is being measured.
    """
    rows = []
    for ranks in sizes:
        say(f"{ranks:,} ranks, {rounds} exports of {ranks // RANKS_PER_NODE:,} nodes")
        rows.append(_one_size(ranks, rounds))
    return rows


def _one_size(ranks: int, rounds: int) -> dict[str, Any]:
    engine = build_engine({})
    costs = Costs()
    groups = _groups(ranks)
    for round_number in range(rounds):
        hangs = round_number >= rounds * 2 // 3
        now_ns = START_NS + round_number * 5 * SECOND
        for body in _exports(ranks, groups, round_number, rounds, now_ns):
            _feed(engine, body, costs)
        started = time.perf_counter()
        engine.process(Record(round_number, now_ns, Kind.TICK, "", "", b""))
        (costs.stalled_tick if hangs else costs.healthy_tick).append(time.perf_counter() - started)
    found = [f"{item.status}: {item.cause}" for item in engine.incidents()]
    failed = [f"rule {name} failed {count} times" for name, count in engine.status()["rule_errors"].items()]
    return costs.row(ranks, ", ".join(found + failed) or "none")


def _feed(engine: Engine, body: bytes, costs: Costs) -> None:
    started = time.perf_counter()
    batches = decode("metrics", body)
    decoded = time.perf_counter()
    engine.apply(batches)
    costs.state.append(time.perf_counter() - decoded)
    costs.decode.append(decoded - started)
    costs.points += sum(len(batch.metrics) for batch in batches if batch.metrics is not None)
    costs.bytes += len(body)


def _groups(ranks: int) -> list[list[tuple[str, str]]]:
    """Groups of every rank: its node, its column across nodes, the world."""
    world = ("world", format_ranks(range(ranks)))
    columns = [(f"dp{i}", format_ranks(range(i, ranks, RANKS_PER_NODE))) for i in range(RANKS_PER_NODE)]
    result = []
    for rank in range(ranks):
        first = rank - rank % RANKS_PER_NODE
        node = (f"tp{first}", format_ranks(range(first, first + RANKS_PER_NODE)))
        result.append([node, columns[rank % RANKS_PER_NODE], world])
    return result


def _exports(
    ranks: int, groups: list[list[tuple[str, str]]], round_number: int, rounds: int, now_ns: int
) -> Iterator[bytes]:
    stalled = max(0, round_number - rounds * 2 // 3 + 1) if round_number >= rounds * 2 // 3 else 0
    frozen = round_number - max(0, stalled - 1)  # nobody enters a further collective
    for node in range(ranks // RANKS_PER_NODE):
        turned = node == 1 and round_number >= rounds // 2  # the one that changes its layout
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        _attributes(resource.resource.attributes, JobIdentity("bench", 0, f"n{node}", node).resource())
        metrics = resource.scope_metrics.add().metrics
        members = range(node * RANKS_PER_NODE, (node + 1) * RANKS_PER_NODE)
        values = {rank: _values(rank, round_number, stalled) for rank in members}
        names = list(values[members[0]])
        for name in reversed(names) if turned else names:
            _metric(metrics, name, now_ns, [(values[r][name], {signals.RANK: r}) for r in members])
        for name, offset in ((signals.ENQUEUED, 0), (signals.COMPLETED, 1 if stalled else 0)):
            points = [
                (
                    float(frozen * 50 - (stalled > 0 and rank == 3) - offset),
                    {signals.RANK: rank, signals.GROUP_NAME: group, signals.GROUP_RANKS: text},
                )
                for rank in members
                for group, text in groups[rank]
            ]
            _metric(metrics, name, now_ns, points)
        yield request.SerializeToString()


def _values(rank: int, round_number: int, stalled: int) -> dict[str, float]:
    age = 5.0 * stalled if stalled else 0.01
    return {
        signals.STEP: float(round_number * 50),
        signals.STATE: float(STATES.index("running")),
        signals.PHASE: float(PHASES.index("backward")),
        signals.PHASE_AGE: age,
        signals.STEP_DURATION: 0.1,
        signals.EVENT_AGE: age,
        signals.CPU_AGE: age,
        signals.IO_AGE: age,
        signals.TICK_AGE: 0.3,
        signals.PROCESS_STATE: 2.0,
        signals.STOPPED_FOR: 0.0,
        signals.CPU_UTILIZATION: 0.9,
        signals.MEMORY_USAGE: 2e9,
        signals.DISK_IO: 1e6 * round_number + rank,
    }


def _metric(metrics: Any, name: str, now_ns: int, points: list[tuple[float, dict[str, Any]]]) -> None:
    metric = metrics.add()
    metric.name = name
    for value, attributes in points:
        point = metric.gauge.data_points.add()
        point.time_unix_nano = now_ns
        point.as_double = value
        _attributes(point.attributes, attributes)


def _attributes(target: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        item = target.add()
        item.key = key
        if isinstance(value, int):
            item.value.int_value = value
        else:
            item.value.string_value = value


def _quantile(values: list[float], quantile: float, scale: float) -> float:
    if not values:
        return 0.0
    if quantile >= 1.0 or len(values) < 2:
        return round((max(values) if quantile > 0.5 else statistics.median(values)) * scale, 1)
    return round(statistics.quantiles(values, n=100)[int(quantile * 100) - 1] * scale, 1)
