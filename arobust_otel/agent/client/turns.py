"""Whose turn it is among lanes that have something to send. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from arobust_otel.agent.parcel import Lane

# One lane goes so often while others wait: facts that never end must not hold back points and log lines.
MOST_IN_A_ROW = 4


@dataclass(slots=True)
class Turns:
    """The most urgent lane goes first, but after some turns in a row whoever has waited longest goes once.

    >>> turns = Turns()
    >>> for _ in range(4):
    ...     turns.took(Lane.FACTS)
    >>> turns.choose([Lane.FACTS, Lane.POINTS]).name, turns.choose([Lane.FACTS]).name
    ('POINTS', 'FACTS')
    """

    _taken: int = 0
    _in_a_row: int = 0
    _last: Lane | None = None
    _when: dict[Lane, int] = field(default_factory=dict)

    def choose(self, waiting: Sequence[Lane]) -> Lane:
        """Whose turn it would be.

        Args:
            waiting: at least one, the most urgent first.
        """
        others = [lane for lane in waiting if lane is not self._last]
        if self._in_a_row >= MOST_IN_A_ROW and others:
            return min(others, key=lambda lane: self._when.get(lane, 0))
        return waiting[0]

    def took(self, lane: Lane) -> None:
        """It had its turn."""
        self._taken += 1
        self._in_a_row = self._in_a_row + 1 if lane is self._last else 1
        self._last = lane
        self._when[lane] = self._taken
