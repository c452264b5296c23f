"""A registered collector and its thread: asks it, hands over what it found, and remembers how that went."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.data_collector import (
    DataCollector,
    LogCollector,
    MetricCollector,
    ResourceCollector,
    StackCollector,
)
from arobust_otel.agent.handing import logger
from arobust_otel.agent.handover import real_names
from arobust_otel.agent.neighbour import RESOURCES, XPU_TIMER, Neighbour
from arobust_otel.agent.periodic import Periodic
from arobust_otel.model.heartbeat import CollectorReport

# What the node's agent does as well, and better, where there is one.
BUILT_IN = (LogCollector, MetricCollector, ResourceCollector, StackCollector)
_OF_THE_NODE: dict[type, tuple[str, ...]] = {
    MetricCollector: (XPU_TIMER,),
    ResourceCollector: (RESOURCES,),
}
_LOOKS_ALONE = 5  # a file that has just appeared is claimed at the next look
_SOON_SECONDS = 0.2  # a log that is behind, or whose last batch is on its way


class _Adapted(DataCollector):
    """An object with `collect_data` and, where it has one, `is_enabled`, as a collector."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def collect_data(self) -> object:
        """What the object says."""
        return self.part.collect_data()

    def is_enabled(self) -> bool:
        """What the object says; on where it does not."""
        return bool(self.part.is_enabled()) if hasattr(self.part, "is_enabled") else True


class Registered:
    """One collector that `DiagnosisAgent` asks periodically.

    Args:
        collector: a DataCollector, or an object with `collect_data`.
        seconds: between two rounds, as given.
    """

    def __init__(self, collector: Any, seconds: float) -> None:
        self.given = collector
        is_whole = isinstance(collector, DataCollector) or hasattr(collector, "store_data")
        self.collector = collector if is_whole else _Adapted(collector)
        self.name = type(collector).__name__
        self.error = ""
        self.cpu_seconds = 0.0
        self.rounds = 0
        self.looks_alone = 0  # how often in a row files of it were found that nobody delivers
        self.loop = Periodic(f"collect-{self.name}", seconds, self.round, self.last)

    @property
    def is_built_in(self) -> bool:
        """Whether the node's agent can do this instead; a user's subclass is the user's own."""
        return type(self.given) in BUILT_IN

    @property
    def sources(self) -> tuple[str, ...]:
        """What this collector alone should report on a node: its logs, or figures of the node."""
        if self.is_built_in and isinstance(self.collector, LogCollector):
            return real_names(self.collector.paths)
        return _OF_THE_NODE.get(type(self.given), ())

    @property
    def is_settled(self) -> bool:
        """Whether it has ended, and nothing of it is on its way any more."""
        if not self.loop.join(0.0):
            return False
        return not (isinstance(self.collector, LogCollector) and self.collector.is_sending)

    def set_client(self, client: Any) -> None:
        """Tell the collector its client, where it wants to know; what it raises is an error in the log."""
        if not callable(getattr(self.collector, "set_client", None)):
            return
        _, error = guard.attempt(f"collector {self.name}", lambda: self.collector.set_client(client))
        if error is not None:
            logger.error("collector %s took no client: %s: %s", self.name, type(error).__name__, error)

    def set_node_rank(self, node_rank: int) -> None:
        """Tell one of our kind the rank of the node."""
        if isinstance(self.collector, DataCollector):
            self.collector.set_node_rank(node_rank)

    def report(self) -> CollectorReport:
        """For the heartbeat."""
        return CollectorReport(self.name, not self.error, self.error)

    def round(self, ended: threading.Event) -> float | None:
        """Collect once and hand over; nothing is collected or handed over once `ended` is set."""
        started = time.thread_time()
        _, error = guard.attempt(f"collector {self.name}", lambda: self._once(ended))
        self.cpu_seconds += time.thread_time() - started
        self.rounds += 1
        text = "" if error is None else f"{type(error).__name__}: {error}"
        if text and text != self.error:
            logger.error("collector %s failed: %s", self.name, text)
        self.error = text or str(getattr(self.collector, "last_error", "") or "")
        collector = self.collector
        behind = isinstance(collector, LogCollector) and (collector.has_more or collector.is_sending)
        return _SOON_SECONDS if behind else None

    def last(self) -> None:
        """At the end, from the same thread: lines that were written since the last round."""
        if isinstance(self.collector, LogCollector):
            _, error = guard.attempt(f"collector {self.name}", lambda: self._once(threading.Event()))
            if error is not None:
                logger.error("collector %s failed: %s: %s", self.name, type(error).__name__, error)

    def _once(self, ended: threading.Event) -> None:
        if ended.is_set() or not self._is_enabled():
            return
        data = self.collector.collect_data()
        if ended.is_set() or data is None:
            return
        if isinstance(self.collector, StackCollector) and not self.collector.is_worth_reporting():
            return
        self.collector.store_data(data)

    def _is_enabled(self) -> bool:
        return bool(self.collector.is_enabled()) if hasattr(self.collector, "is_enabled") else True


def say_left_alone(entry: Registered, neighbour: Neighbour) -> None:
    """Claims are for all files of a collector: files beside those of another rank may have nobody."""
    alone = [name for name in neighbour.unclaimed(entry.sources) if os.path.isfile(name)]
    entry.looks_alone = entry.looks_alone + 1 if alone else 0
    if entry.looks_alone == _LOOKS_ALONE:
        logger.warning(
            "nobody delivers %s: another rank of this node follows other files of the same collector; "
            "give all ranks the same files, or each its own",
            ", ".join(alone[:5]),
        )


def say_cost(registered: Sequence[Registered], shares: bool) -> None:
    """What it costs to collect inside the training process, by the rounds that have been.

    Args:
        registered: the collectors that the node's agent could be instead.
        shares: whether that agent would do: whoever brings a client of his own gets everything here.
    """
    why, remedy = (
        "no agent works for this job on this node",
        "start it under opentelemetry-instrument, or run `arobust agent`",
    )
    if not shares:
        why, remedy = "the client is not MasterClient", "the node's agent reports to a master only"
    logger.warning(
        "%s, so %d collectors run as threads of this process: %d rounds took %.0f ms of processor time, "
        "during which training may wait for the interpreter; %s",
        why,
        len(registered),
        sum(entry.rounds for entry in registered),
        sum(entry.cpu_seconds for entry in registered) * 1000,
        remedy,
    )
