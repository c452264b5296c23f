"""What a sender knows of its destination: counters, how much goes at once, what waits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from arobust_otel.errors import DecodeError
from arobust_otel.otlp.envelope import halves

FIRST_BYTES = 64 * 1024  # of a request at the start and after trouble
MOST_BYTES = 2 * 1024 * 1024  # below the 4 MiB that many destinations take


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


@dataclass(slots=True, eq=False)
class Piece:
    """A request, or a part of one, that was not delivered yet.

    Args:
        offset: of the first record that it was made of; the cursor must not pass it.
        received_ns: when that was received, None where that is not known.
        is_part: it was cut out of what the destination failed at: no patience is needed to cut it again.

    `since` is when the destination failed at it first. `aside`: others are sent before it; `taken` is how
    much the destination had taken then. `is_single`: it cannot be cut. `checks`: how often it failed again.
    """

    signal: str
    body: bytes
    offset: int = 0
    received_ns: int | None = None
    is_part: bool = False
    overloads: int = 0
    since: float | None = None
    aside: bool = False
    is_single: bool = False
    taken: int = 0
    checks: int = 0

    def seconds(self) -> float:
        """For how long it has made the destination fail."""
        return time.monotonic() - self.since if self.since is not None else 0.0

    def cut(self, *, suspected: bool = False) -> list[Piece]:
        """Two halves, none for a single item."""
        try:
            found = halves(self.signal, self.body)
        except DecodeError:  # it was validated on entry: only another version could have journaled it
            found = None
        is_part = self.is_part or suspected
        return [Piece(self.signal, body, self.offset, self.received_ns, is_part) for body in found or ()]
