"""What a sender knows of its destination: counters, how much goes at once, when to give up on bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from arobust_otel.errors import DecodeError, OverloadedDelivery, UncertainDelivery
from arobust_otel.otlp.envelope import halves

FIRST_BYTES = 64 * 1024  # of a request at the start and after trouble
MOST_BYTES = 2 * 1024 * 1024  # below the 4 MiB that many destinations take
OVERLOADS = 3  # refusals of this kind in a row after which less is sent at once


@dataclass(slots=True)
class Counts:
    """What became of deliveries. `state` is ``ok``, or why the destination does not take anything now.

    `dropped` counts points, log records, spans or notices by reason; ``expired`` are journal records.
    `waiting_ns` is when the oldest record that is not delivered was received, None where none waits.
    """

    state: str = "ok"
    sent_requests: int = 0
    sent_bytes: int = 0
    retries: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    next_offset: int = 0
    waiting_ns: int | None = None


class Pace:
    """How much goes into one request: little at first and after trouble, twice as much after a success."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self.bytes = min(FIRST_BYTES, most_bytes)

    def grow(self, sent_bytes: int) -> None:
        """A request of this size was taken: only one that came near the limit says anything."""
        if sent_bytes * 2 >= self.bytes:
            self.bytes = min(self.bytes * 2, self.most_bytes)

    def shrink(self) -> None:
        """A request was too much, or was refused: the next one that is refused costs fewer cuts."""
        self.bytes = max(min(FIRST_BYTES, self.most_bytes), self.bytes // 4)


@dataclass(slots=True)
class Try:
    """Bytes on their way, and when to stop trying the same ones again.

    Args:
        uncertain_seconds: how long a failure that may be due to these bytes is tolerated.
        single_seconds: the same where they are one item, which would be dropped.
    """

    signal: str
    body: bytes
    uncertain_seconds: float
    single_seconds: float
    since: float | None = None
    overloads: int = 0

    def is_over(self, error: BaseException | None) -> bool:
        """Whether this failure was one too many."""
        if isinstance(error, OverloadedDelivery):
            self.overloads += 1
            return self.overloads >= OVERLOADS and self.cut() is not None
        self.overloads = 0
        if not isinstance(error, UncertainDelivery):
            self.since = None
            return False
        self.since = self.since or time.monotonic()
        patience = self.uncertain_seconds
        if self.single_seconds > patience and self.cut() is None:
            patience = self.single_seconds
        return time.monotonic() - self.since >= patience

    def cut(self) -> tuple[bytes, bytes] | None:
        """Two halves, None for a single item."""
        try:
            return halves(self.signal, self.body) if self.signal else None
        except DecodeError:  # it was validated on entry: only another version could have journaled it
            return None
