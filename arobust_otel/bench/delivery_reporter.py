"""The process that reports in `bench delivery`: a real client with a spool, and a log file that it follows.

Before each report its numbers go to a file of this process, and a mark behind them once the call came back:
what is true is written here, never taken from the client. Numbers begin at the process's index times ten
million, so that they say who reported them. Lines go to a log file; whatever is in it counts as reported.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.collectors.logs import LogsCollector
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point
from arobust_otel.plugins import Clock, Node

NUMBERS_PER_PROCESS = 10_000_000
POINT, EVENT, LINE = "bench.delivery.point", "bench.delivery.event", "bench.delivery.line"
NUMBER = "number"
_BEAT_SECONDS = 0.1
IDENTITY = JobIdentity("bench-delivery", 0, "bench", 0)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a reporter is told, as JSON; `points`, `events` and `lines` are for a tenth of a second."""

    folder: str
    index: int
    master: str
    call_seconds: float = 1.0
    points: int = 20
    events: int = 1
    lines: int = 5
    drain_seconds: float = 60.0

    def path(self, name: str) -> Path:
        """A file of this process."""
        return Path(self.folder) / f"{name}-{self.index}"


class Reporter:
    """Reports until SIGTERM, then waits until nothing is left to deliver."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._next = orders.index * NUMBERS_PER_PROCESS
        self._truth = os.open(orders.path("truth"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._stats = os.open(orders.path("stats"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._log = os.open(log_file(orders.folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._acknowledged: deque[tuple[str, int]] = deque()
        self._stopped = False
        folder = Path(orders.folder)
        self._logs = LogsCollector(files=(str(log_file(folder)),), state_file=folder / "logs.json")
        settings = ClientSettings(
            call_seconds=orders.call_seconds,
            bulk_seconds=0.5,
            retry_max_seconds=1.0,
            probe_seconds=0.5,
        )
        self._client = MasterClient(orders.master, IDENTITY, settings, spool_dir=folder / "spool", say=_say)
        self._note_stats()

    def stop(self, *_: object) -> None:
        """Report nothing more."""
        self._stopped = True

    def run(self) -> bool:
        """Report, then drain; True where everything was delivered."""
        due = time.monotonic()
        parent = os.getppid()
        while not self._stopped and os.getppid() == parent:  # nobody is left to count: end
            self._beat()
            due += _BEAT_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
        deadline = time.monotonic() + self._orders.drain_seconds
        while not (drained := self._is_drained()) and time.monotonic() < deadline:
            self._follow_log()
            self._client.flush(0.5)
            self._note_stats()
        self._client.close()
        self._note_stats(ended=True)
        self._logs.close()
        return drained

    def _beat(self) -> None:
        now = time.time_ns()
        first = self._take(self._orders.points, "P", now)
        points = [Point(POINT, n, now, {NUMBER: n}) for n in range(first, first + self._orders.points)]
        self._client.report(points, urgent=True)
        self._came_back()
        first = self._take(self._orders.events, "E", now)
        self._client.report(
            [Event(EVENT, now, str(n), {NUMBER: n}) for n in range(first, first + self._orders.events)]
        )
        self._came_back()
        first, self._next = self._next, self._next + self._orders.lines
        text = "".join(f"{LINE} {n} {now}\n" for n in range(first, first + self._orders.lines))
        os.write(self._log, text.encode())
        self._follow_log()
        self._note_stats()

    def _take(self, count: int, kind: str, now: int) -> int:
        """The next numbers, written down before anybody gets them."""
        first, self._next = self._next, self._next + count
        os.write(self._truth, f"{kind} {first} {count} {now}\n".encode())
        return first

    def _came_back(self) -> None:
        os.write(self._truth, b".\n")

    def _follow_log(self) -> None:
        while self._acknowledged:
            self._logs.acknowledge(*self._acknowledged.popleft())
        clock = Clock(time.time_ns(), time.monotonic_ns())
        lines = [item for item in self._logs.collect(clock, Node()) if isinstance(item, LogLine)]
        if lines:
            places = [(line.path, line.end_offset) for line in lines]
            settled = lambda: self._acknowledged.extend(places)  # noqa: E731
            self._client.report(lines, settled, given_up=settled)

    def _is_drained(self) -> bool:
        stats = self._client.stats()
        size = log_file(self._orders.folder).stat().st_size
        followed = [position.offset for position in self._logs.positions().values()]
        return not stats["queue_items"] and not stats.get("spool_items") and followed == [size]

    def _note_stats(self, ended: bool = False) -> None:
        values: dict[str, Any] = {"time_ns": time.time_ns(), "ended": ended, **self._client.stats()}
        os.write(self._stats, json.dumps(values).encode() + b"\n")


def log_file(folder: str | Path) -> Path:
    """The log that all reporters of a run write and follow."""
    return Path(folder) / "train.log"


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main(text: str) -> int:
    """Run as told; exit code 0 where everything was delivered at the end."""
    reporter = Reporter(Orders(**json.loads(text)))
    signal.signal(signal.SIGTERM, reporter.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the bench ends us
    return 0 if reporter.run() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
