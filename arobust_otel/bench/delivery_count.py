"""What was reported against what the journal holds: the honest part of `bench delivery`.

A number counts as reported once the reporter's call came back, or its line is in the log file. One whose call
was cut short by a kill is asked of nobody; it is shown. A loss is excused only by a count: items that clients
said they dropped, and those that a ledger found to be lost with a killed process.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from arobust_otel.bench.delivery_reporter import EVENT, LINE, NUMBER, NUMBERS_PER_PROCESS, POINT, log_file
from arobust_otel.journal import Kind, Reader, Record

_SUMMED = (
    "reported",
    "delivered",
    "lost",
    "dropped",
    "killed",
    "repeated",
    "read_again",
    "retries",
    "cut_short",
)
Item = tuple[str, int]  # P, E or L, and its number


@dataclass(slots=True)
class Row:
    """Items by what became of them, of those reported between the begin of a fault and that of the next."""

    fault: str
    reported: int = 0
    delivered: int = 0
    lost: int = 0
    dropped: int = 0  # counted by the client when it happened, in this time
    killed: int = 0  # counted by a ledger, in this time
    uncounted: int = 0
    repeated: int = 0  # arrived twice, though nobody was killed who could have forgotten it
    read_again: int = 0  # log lines whose acknowledgement a killed reporter could not keep
    retries: int = 0  # requests that were tried again: the fault was felt
    cut_short: int = 0  # handed over while the reporter was killed: nobody can say whether they were

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


@dataclass(slots=True)
class Truth:
    """What reporters wrote down."""

    reported: dict[Item, int] = field(default_factory=dict)  # when, in nanoseconds
    cut_short: dict[Item, int] = field(default_factory=dict)
    dropped: list[tuple[int, int]] = field(default_factory=list)  # when, how many
    retries: list[tuple[int, int]] = field(default_factory=list)  # when, how many
    killed: dict[int, tuple[int, int]] = field(default_factory=dict)  # index of who found it: when, how many
    waiting: int = 0  # what the last reporter said it still had
    ended: bool = False

    @property
    def kills(self) -> int:
        """How often a reporter was killed."""
        return max(0, len(self.killed) - 1)


def read_truth(folder: Path, processes: int) -> Truth:
    """Everything that reporters 0 to `processes` - 1 said."""
    truth = Truth()
    for index in range(processes):
        _read_reports(folder / f"truth-{index}", truth)
        _read_stats(folder / f"stats-{index}", index, truth)
    for line in log_file(folder).read_text().splitlines():
        name, number, time_ns = line.split()
        if name == LINE:
            truth.reported["L", int(number)] = int(time_ns)
    return truth


def _read_reports(path: Path, truth: Truth) -> None:
    waiting: dict[Item, int] = {}
    for line in path.read_text().splitlines():
        if line == ".":
            truth.reported |= waiting
            waiting = {}
            continue
        kind, first, count, time_ns = line.split()
        waiting = {(kind, number): int(time_ns) for number in range(int(first), int(first) + int(count))}
    truth.cut_short |= waiting


def _read_stats(path: Path, index: int, truth: Truth) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    killed = [int(stats.get("dropped.killed", 0)) for stats in lines]
    dropped = [int(stats["dropped"]) - count for stats, count in zip(lines, killed, strict=True)]
    times = [int(stats["time_ns"]) for stats in lines]
    truth.dropped += _steps(times, dropped)
    truth.retries += _steps(times, [int(stats["retries"]) for stats in lines])
    truth.killed[index] = (times[0], killed[-1])
    truth.waiting = int(lines[-1]["queue_items"] + lines[-1].get("spool_items", 0))
    truth.ended = bool(lines[-1]["ended"])


def _steps(times: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
    """When a count grew, and by how much."""
    before = [0, *counts]
    return [(at, now - then) for at, now, then in zip(times, counts, before, strict=False) if now > then]


def read_journal(folder: Path) -> tuple[Counter[Item], int]:
    """How often each item is in the journal, and how many batches are in it twice under one id."""
    found: Counter[Item] = Counter()
    batches: Counter[tuple[str, str]] = Counter()
    with Reader(folder) as reader:
        while records := reader.read():
            for record in records:
                if record.kind is Kind.REQUEST:
                    items = list(_items(record))
                    found.update(items)
                    if items and record.batch:
                        batches[record.signal, record.batch] += 1
    return found, sum(count - 1 for count in batches.values())


def _items(record: Record) -> Iterator[Item]:
    if record.signal == "metrics":
        metrics = ExportMetricsServiceRequest.FromString(record.payload)
        for entry in metrics.resource_metrics:
            for scope in entry.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == POINT:
                        yield from (("P", _number(point.attributes)) for point in metric.gauge.data_points)
    elif record.signal == "logs":
        logs = ExportLogsServiceRequest.FromString(record.payload)
        for log_entry in logs.resource_logs:
            for log_scope in log_entry.scope_logs:
                for line in log_scope.log_records:
                    if line.event_name == EVENT:
                        yield "E", _number(line.attributes)
                    elif line.body.string_value.startswith(f"{LINE} "):
                        yield "L", int(line.body.string_value.split()[1])


def _number(attributes: Iterable[Any]) -> int:
    return next(int(pair.value.int_value) for pair in attributes if pair.key == NUMBER)


def compare(truth: Truth, found: Counter[Item], phases: Sequence[tuple[int, str]]) -> list[Row]:
    """One row for each fault, and the total as the last one.

    Args:
        truth: what was reported.
        found: what the journal holds.
        phases: begin in nanoseconds and name of each fault, in order; the first begins before all reports.
    """
    rows = [Row(name) for _, name in phases]
    begins = [begin for begin, _ in phases]

    def row_of(time_ns: int) -> Row:
        return rows[max(0, bisect_right(begins, time_ns) - 1)]

    for item, time_ns in truth.reported.items():
        row, times = row_of(time_ns), found.get(item, 0)
        row.reported += 1
        row.delivered += times > 0
        row.lost += times == 0
        _count_again(row, item, times - 1, truth)
    for item, time_ns in truth.cut_short.items():
        row_of(time_ns).cut_short += 1
        _count_again(row_of(time_ns), item, found.get(item, 0) - 1, truth)
    for time_ns, count in truth.dropped:
        row_of(time_ns).dropped += count
    for time_ns, count in truth.retries:
        row_of(time_ns).retries += count
    for time_ns, count in truth.killed.values():
        row_of(time_ns).killed += count
    for row in rows:
        row.uncounted = max(0, row.lost - row.dropped - row.killed)
    return [*rows, _total(rows, truth, found)]


def _count_again(row: Row, item: Item, more: int, truth: Truth) -> None:
    """A line may come again where its reporter was killed: the file is read from the last kept position."""
    if more <= 0:
        return
    if item[0] == "L" and more <= truth.kills:
        row.read_again += more
    else:
        row.repeated += more


def _total(rows: Sequence[Row], truth: Truth, found: Counter[Item]) -> Row:
    """The sum; what a killed process lost is excused by its own successor's count and by no other."""
    total = Row("total")
    for name in _SUMMED:
        setattr(total, name, sum(getattr(row, name) for row in rows))
    lost = Counter(
        (kind == "L", number // NUMBERS_PER_PROCESS)
        for kind, number in truth.reported
        if not found.get((kind, number))
    )
    open_losses = 0
    for (is_line, index), count in lost.items():
        _, excused = (0, 0) if is_line else truth.killed.get(index + 1, (0, 0))
        open_losses += max(0, count - excused)
    total.uncounted = max(0, open_losses - total.dropped)
    return total
