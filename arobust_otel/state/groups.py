"""Counters of one process group, joined over its members by group name and member ranks.

Only *enqueued* is compared across members: *completed* lags it in healthy jobs. A lag counts after two equal
reads at least a second apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arobust_otel.state.rings import Bools, Floats, Ints

STEADY_NS = 1_000_000_000


@dataclass(slots=True)
class GroupState:
    """members: (n,) ranks ascending. enqueued, completed: (n,) counts, -1 where never seen.

    changed_ns, read_ns: (n,) when the enqueued count last changed and when it was last reported, agent's
    clock. read_age: (n,) seconds between the rank's own read of the counters and the report.
    """

    name: str
    members: Ints
    enqueued: Ints
    completed: Ints
    changed_ns: Ints
    read_ns: Ints
    read_age: Floats

    @classmethod
    def empty(cls, name: str, members: tuple[int, ...]) -> GroupState:
        """A group of which no counter is known yet."""
        size = len(members)
        return cls(
            name=name,
            members=np.array(members, dtype=np.int64),
            enqueued=np.full(size, -1, dtype=np.int64),
            completed=np.full(size, -1, dtype=np.int64),
            changed_ns=np.zeros(size, dtype=np.int64),
            read_ns=np.zeros(size, dtype=np.int64),
            read_age=np.full(size, np.nan),
        )

    def positions(self, ranks: Ints) -> tuple[Ints, Bools]:
        """Positions of ranks among the members, and which of them are members at all."""
        found = np.searchsorted(self.members, ranks)
        found = np.minimum(found, len(self.members) - 1)
        return found, self.members[found] == ranks

    def enter(self, ranks: Ints, times: Ints, counts: Floats) -> None:
        """New enqueued counts, in the order of time."""
        where, member = self.positions(ranks)
        where, times, counts = where[member], times[member], counts[member].astype(np.int64)
        newer = times >= self.read_ns[where]
        where, times, counts = where[newer], times[newer], counts[newer]
        changed = self.enqueued[where] != counts
        self.changed_ns[where[changed]] = times[changed]
        self.enqueued[where] = counts
        self.read_ns[where] = times

    def complete(self, ranks: Ints, counts: Floats) -> None:
        """New completed counts."""
        where, member = self.positions(ranks)
        self.completed[where[member]] = counts[member].astype(np.int64)

    def age(self, ranks: Ints, seconds: Floats) -> None:
        """How old the counters were when they were reported."""
        where, member = self.positions(ranks)
        self.read_age[where[member]] = seconds[member]

    def steady(self) -> Bools:
        """Which members have reported the same count for at least a second."""
        steady: Bools = (self.enqueued >= 0) & (self.read_ns - self.changed_ns >= STEADY_NS)
        return steady

    def forget(self, rank: int) -> None:
        """A new process took this rank: its old counters say nothing."""
        where, member = self.positions(np.array([rank], dtype=np.int64))
        if member[0]:
            at = where[0]
            self.enqueued[at] = self.completed[at] = -1
            self.changed_ns[at] = self.read_ns[at] = 0
            self.read_age[at] = np.nan
