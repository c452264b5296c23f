"""Which collectors an agent has: registered ones, and the predecessor's own where none replaces them."""

from __future__ import annotations

import os
from typing import Any

from arobust_otel.agent.data_collector import (
    LogCollector,
    MetricCollector,
    ResourceCollector,
    StackCollector,
)
from arobust_otel.agent.periodic import bounded
from arobust_otel.controller.rounds import Registered

# The predecessor's own collectors and how often it asked them, in seconds.
DEFAULTS = ((ResourceCollector, 30), (MetricCollector, 60), (StackCollector, 120))
LOG_SECONDS = 60


class Registry:
    """The collectors of one agent. Not safe for several threads: the agent has a lock.

    Attributes:
        entries: in the order of their registration.
        client: what each of them hands over to.
        node_rank: what each of them says of the node; negative: what the environment says.
    """

    def __init__(self, node_rank: int) -> None:
        self.entries: list[Registered] = []
        self.client: Any = None
        self.node_rank = node_rank
        self._log: LogCollector | None = None
        self._has_defaults = False

    def set_client(self, client: Any) -> None:
        """For all there are and will be."""
        self.client = client
        for entry in self.entries:
            entry.set_client(client)

    def set_node_rank(self, node_rank: int) -> None:
        """For all there are and will be."""
        self.node_rank = node_rank
        for entry in self.entries:
            entry.set_node_rank(node_rank)

    def add(self, collector: Any, seconds: float) -> None:
        """One more; of one that is there already only the interval changes."""
        for entry in self.entries:
            if entry.given is collector:
                entry.loop.seconds = bounded(seconds)
                entry.loop.wake()
                return
        entry = Registered(collector, seconds)
        entry.set_node_rank(self.node_rank)
        if self.client is not None:
            entry.set_client(self.client)
        self.entries.append(entry)

    def begin_anew(self) -> None:
        """In a forked child."""
        for log in self._logs():
            log.begin_anew()

    def add_defaults(self, training_log_file: str) -> None:
        """Once, and only what nobody has registered."""
        if self._has_defaults:
            return
        self._has_defaults = True
        kinds = {type(entry.given) for entry in self.entries}
        for kind, seconds in DEFAULTS:
            if kind not in kinds:
                self.add(kind(), seconds)
        path = os.path.abspath(training_log_file)
        if training_log_file and not any(path in log.paths for log in self._logs()):
            self._add_log(training_log_file)

    def follow(self, training_log_file: str) -> None:
        """Point the collector of the training log to another file: our own, or the only one there is.

        Nothing happens before the first start, which `add_defaults` decides about.
        """
        logs = self._logs()
        if self._log is not None:
            self._log.set_log_file(training_log_file)
        elif self._has_defaults and len(logs) == 1:
            logs[0].set_log_file(training_log_file)
        elif self._has_defaults:
            self._add_log(training_log_file)

    def _add_log(self, training_log_file: str) -> None:
        self._log = LogCollector(training_log_file)
        self.add(self._log, LOG_SECONDS)

    def _logs(self) -> list[LogCollector]:
        return [entry.collector for entry in self.entries if isinstance(entry.collector, LogCollector)]
