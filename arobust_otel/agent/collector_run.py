"""One collector and how it fares: called, timed, contained and judged, whichever thread that happens in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.adapted import ITEM_KINDS, items_of
from arobust_otel.errors import CapabilityError
from arobust_otel.model import signals
from arobust_otel.model.heartbeat import CollectorReport
from arobust_otel.model.samples import INFO, Event
from arobust_otel.plugins import Clock, Item, Node

HUNG_SECONDS = 5.0  # a call that takes longer is named while it does


@dataclass(slots=True)
class CollectorRun:
    """What a collector's last call said. `report` and `age` may be asked from any thread meanwhile.

    `collector` is None where it could not be made; `error` then says why.
    """

    name: str
    collector: Any
    error: str = ""
    seconds: float = 0.0
    _told: set[str] = field(default_factory=set, init=False)
    _began: float | None = field(default=None, init=False)  # of the call that has not come back
    _ended: float = field(default_factory=time.monotonic, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def call(self, now: Clock, node: Node, take: Callable[[Item], None]) -> None:
        """Call it once; each item is taken as it comes, so that a failure or a hang keeps what was before."""
        began = time.monotonic()
        with self._lock:
            self._began = began

        def collect() -> None:
            for value in self.collector.collect(now, node) or ():
                if type(value) in ITEM_KINDS:
                    take(value)
                    continue
                for item in items_of(self.name, value, now.wall_ns):
                    take(item)

        _, error = guard.attempt(f"collector {self.name}", collect)
        ended = time.monotonic()
        with self._lock:
            self._began, self._ended = None, ended
            self.seconds = round(ended - began, 6)
            self.error = "" if error is None else _words(error)
        missing = self._missing(error, now)
        if missing is not None:
            take(missing)

    def report(self) -> CollectorReport:
        """Whether it works, and why not."""
        with self._lock:
            waiting = 0.0 if self._began is None else time.monotonic() - self._began
            error = self.error
        if waiting > HUNG_SECONDS:
            error = f"its last call has not come back for {waiting:.0f} s"
        note = "" if error or self.collector is None else str(getattr(self.collector, "note", "") or "")
        return CollectorReport(self.name, not error, error or note)

    def age(self) -> float:
        """Seconds since its last call came back; since it was made, where none has."""
        with self._lock:
            return time.monotonic() - self._ended

    def _missing(self, error: Exception | None, now: Clock) -> Event | None:
        """The event that names a missing source, once for each."""
        if not isinstance(error, CapabilityError) or error.capability in self._told:
            return None
        self._told.add(error.capability)
        attributes = {signals.CAPABILITY: error.capability, signals.REMEDY: error.remedy}
        return Event(signals.CAPABILITY_MISSING, now.wall_ns, str(error), dict(attributes), INFO)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, CapabilityError) else f"{type(error).__name__}: {error}"
