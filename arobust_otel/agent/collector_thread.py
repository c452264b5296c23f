"""A collector in a thread of its own: one that is slow, or never comes back, delays nobody."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

from arobust_otel import guard, plugins
from arobust_otel.agent.collector_run import CollectorRun
from arobust_otel.agent.pace import Ticks
from arobust_otel.model.samples import Point
from arobust_otel.plugins import Clock, Item, Node

MAX_POINTS = 50_000  # between two deliveries, which are seconds apart
MAX_FACTS = 10_000


class CollectorThread:
    """Calls one collector every `period_seconds` until it is stopped; what it gave waits to be taken.

    Args:
        run: the collector.
        period_seconds: between the beginnings of two calls.
        wake: called once something came that should not wait; from the collector's thread.
    """

    def __init__(self, run: CollectorRun, period_seconds: float, wake: Callable[[], None]) -> None:
        self.run = run
        self.lost = 0  # items beyond the bounds
        self._ticks = Ticks(max(0.01, period_seconds))
        self._wake = wake
        self._node = Node()
        self._points: collections.deque[Item] = collections.deque()
        self._facts: collections.deque[Item] = collections.deque()
        self._acknowledged: collections.deque[tuple[str, int]] = collections.deque()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def offer(self, node: Node) -> None:
        """The newest ranks of the node; the first call starts the thread."""
        self._node = node
        if self._thread is None and not self._stopped.is_set():
            name = f"arobust-collector-{self.run.name}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()

    def take_facts(self) -> list[Item]:
        """Events, log lines and stacks since the last time."""
        return _drain(self._facts)

    def take_points(self) -> list[Item]:
        """Points since the last time, each of them once, with the times of their reading."""
        return _drain(self._points)

    def acknowledge(self, path: str, end_offset: int) -> None:
        """Passed on before the next call."""
        if callable(getattr(self.run.collector, "acknowledge", None)):
            self._acknowledged.append((path, end_offset))

    def stop(self) -> None:
        """No further call; returns at once."""
        self._stopped.set()

    def join(self, seconds: float) -> bool:
        """Wait for the call that runs; false where it has not come back in time: the thread is a daemon."""
        if self._thread is None:
            self._close()
            return True
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._stopped.is_set():
            self._apply_acknowledgements()
            self.run.call(Clock(time.time_ns(), time.monotonic_ns()), self._node, self._take)
            self._stopped.wait(self._ticks.seconds_until_next(time.monotonic()))
        self._apply_acknowledgements()
        self._close()

    def _take(self, item: Item) -> None:
        is_point = isinstance(item, Point)
        queue, limit = (self._points, MAX_POINTS) if is_point else (self._facts, MAX_FACTS)
        if len(queue) >= limit:
            queue.popleft()
            self.lost += 1
        queue.append(item)
        if not is_point:
            self._wake()

    def _apply_acknowledgements(self) -> None:
        while self._acknowledged:
            path, end_offset = self._acknowledged.popleft()
            contained = guard.contained(f"collector {self.run.name}, acknowledgement")
            contained(self.run.collector.acknowledge)(path, end_offset)

    def _close(self) -> None:
        guard.contained(f"collector {self.run.name}, close")(plugins.close)(self.run.collector)


def _drain(queue: collections.deque[Item]) -> list[Item]:
    """What stands in a queue that another thread goes on filling."""
    found = []
    for _ in range(len(queue)):
        try:
            found.append(queue.popleft())
        except IndexError:  # the other thread dropped one over its bound
            break
    return found
