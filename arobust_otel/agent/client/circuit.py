"""After failures: which lanes wait and how long, and when only probes go out. Pure but for the jitter.

Waits are tenacity's: full jitter up to a limit; a server's own hint is followed as it is. A lane that fails
alone (a master that takes metrics and refuses logs for now) waits alone. After several failures in a row of
whatever lane the circuit is open: one request at a time, a probe every few seconds, until one succeeds. The
time between probes is bounded, so a master that comes back is used within seconds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tenacity import Future, RetryCallState, Retrying, wait_random_exponential

from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.parcel import Lane
from arobust_otel.errors import RetryableDelivery


@dataclass(frozen=True, slots=True)
class Waits:
    """How long to wait after a failure.

    Args:
        first_seconds: the range of the first wait.
        max_seconds: the widest range.
        probe_seconds: longest time between two probes.
        threshold: so many failures in a row open the circuit.
    """

    first_seconds: float
    max_seconds: float
    probe_seconds: float
    threshold: int

    @classmethod
    def of(cls, settings: ClientSettings) -> Waits:
        """The part of the settings that says when to try again."""
        return cls(
            settings.retry_first_seconds,
            settings.retry_max_seconds,
            settings.probe_seconds,
            settings.circuit_failures,
        )

    def after(self, failures: int, error: RetryableDelivery) -> float:
        """Seconds until a lane's next try; a hint is not cut short, only spread over another quarter."""
        hint = self.hint(error)
        if hint is not None:
            return hint * random.uniform(1.0, 1.25)  # noqa: S311 - spreads load, protects nothing
        state = RetryCallState(Retrying(), None, (), {})
        state.attempt_number = failures
        state.outcome = Future.construct(failures, error, has_exception=True)
        return wait_random_exponential(multiplier=self.first_seconds, max=self.max_seconds)(state)

    def between_probes(self, error: RetryableDelivery) -> float:
        """Seconds until the next probe."""
        if self.hint(error) is not None:
            return self.after(1, error)
        return self.probe_seconds * random.uniform(0.5, 1.0)  # noqa: S311

    def hint(self, error: RetryableDelivery) -> float | None:
        """What the server asks for; None where that is less than the first wait: 0 would mean a storm."""
        hint = error.retry_after_seconds
        return hint if hint is not None and hint >= self.first_seconds else None


@dataclass(slots=True)
class _Hold:
    failures: int = 0
    failed_at: float = 0.0
    until: float = 0.0
    hinted: bool = False


@dataclass(slots=True)
class Circuit:
    """What failed lately. Times are monotonic seconds.

    >>> circuit = Circuit(Waits(0.25, 5.0, 2.0, threshold=2))
    >>> circuit.failed(Lane.POINTS, RetryableDelivery("503", 3.0), now=100.0)
    >>> circuit.free(100.0) == [Lane.FACTS, Lane.STACKS, Lane.LINES], circuit.is_open
    (True, False)
    >>> circuit.failed(Lane.FACTS, RetryableDelivery("503"), now=101.0)
    >>> circuit.free(101.5), circuit.is_open
    ([], True)
    """

    waits: Waits
    failures: int = 0
    _holds: dict[Lane, _Hold] = field(default_factory=dict)
    _last: Lane | None = None

    @property
    def is_open(self) -> bool:
        """Whether only probes go out."""
        return self.failures >= self.waits.threshold

    @property
    def is_failing(self) -> bool:
        """Whether some lane failed and has not succeeded since."""
        return bool(self._holds)

    def fails(self, lane: Lane) -> bool:
        """Whether what follows in this lane has to wait."""
        return self.is_open or lane in self._holds

    def failed(self, lane: Lane, error: RetryableDelivery, now: float) -> None:
        """A try failed in a way that the next one may not."""
        self.failures += 1
        self._last = lane
        hold = self._holds.setdefault(lane, _Hold())
        hold.failures += 1
        hinted = self.waits.hint(error) is not None
        if self.is_open:
            until = now + self.waits.between_probes(error)
            for other in Lane:
                failures = self._holds[other].failures if other in self._holds else 0
                self._holds[other] = _Hold(failures, now, until, hinted)
        else:
            hold.failed_at, hold.hinted = now, hinted
            hold.until = now + self.waits.after(hold.failures, error)

    def succeeded(self, lane: Lane) -> None:
        """The master took something: what was held for the sake of others may go again."""
        if self.is_open:
            self._holds.clear()
        self._holds.pop(lane, None)
        self.failures = 0
        self.hurry()

    def free(self, now: float) -> list[Lane]:
        """Lanes that may be tried, by urgency; probes take turns, so that no lane hides another."""
        lanes = [lane for lane in Lane if lane not in self._holds or self._holds[lane].until <= now]
        if self.is_open and self._last in lanes:
            place = lanes.index(self._last) + 1
            return lanes[place:] + lanes[:place]
        return lanes

    def until(self, lane: Lane) -> float:
        """When a lane may be tried."""
        return self._holds[lane].until if lane in self._holds else 0.0

    def hurry(self) -> None:
        """Somebody waits: shorten what no server asked for, never below the first wait."""
        for hold in self._holds.values():
            if not hold.hinted:
                hold.until = min(hold.until, hold.failed_at + self.waits.first_seconds)
