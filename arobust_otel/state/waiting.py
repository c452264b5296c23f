"""Who waits for whom: the lag of enqueued collectives, joined over overlapping groups to the wavefront.

A *waiter* has entered the newest collective of a group, has not left it, and nothing else happens in it. A
*laggard* of that group has not entered it. A laggard that is itself a waiter elsewhere is a victim: whoever
is left holds the job.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arobust_otel.model import signals
from arobust_otel.state.groups import GroupState
from arobust_otel.state.job import JobState
from arobust_otel.state.rings import Bools, Ints

STALE_TICK_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Lag:
    """A rank that has not entered a collective that others wait in. Counts are of one group."""

    rank: int
    group: str
    entered: int
    front: int
    waiters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """holders: lags of ranks that wait nowhere themselves. absent: dead or unseen members others wait for.

    cyclic: everybody who lags waits elsewhere, so that groups wait for each other.
    """

    holders: tuple[Lag, ...] = ()
    waiters: tuple[int, ...] = ()
    dead: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    cyclic: bool = False


def seen_ranks(job: JobState, fresh_ticks: int) -> Bools:
    """Ranks that live, report, and have a beacon."""
    seen: Bools = job.alive() & job.fresh(fresh_ticks) & ~np.isnan(job.value(signals.EVENT_AGE))
    return seen


def find_waiting(job: JobState, seconds: float, fresh_ticks: int) -> Waiting:
    """Look for ranks that have been waiting for others for at least `seconds`.

    Seconds count from the last event of the waiting rank and of the lagging rank. A healthy job costs one
    comparison per rank.
    """
    seen = seen_ranks(job, fresh_ticks)
    quiet = seen & (job.value(signals.EVENT_AGE) >= seconds)
    if not quiet.any():
        return Waiting()
    lags: list[Lag] = []
    waiters: set[int] = set()
    dead: set[int] = set()
    unseen: set[int] = set()
    alive = job.alive()
    for group in job.groups.values():
        here = _waiters(job, group, quiet)
        if not len(here):
            continue
        waiters.update(int(rank) for rank in here)
        lags.extend(_lags(group, quiet, here))
        gone = [int(rank) for rank in group.members if rank >= job.ranks or not alive[rank]]
        dead.update(rank for rank in gone if rank < job.ranks)
        unseen.update(int(r) for r in group.members if r >= job.ranks or (alive[r] and not seen[r]))
    holders = tuple(lag for lag in lags if lag.rank not in waiters)
    return Waiting(
        holders=_one_per_rank(holders),
        waiters=tuple(sorted(waiters)),
        dead=tuple(sorted(dead)),
        unseen=tuple(sorted(unseen)),
        cyclic=bool(lags) and not holders,
    )


def _known(group: GroupState, ranks: Bools) -> Bools:
    inside = group.members < len(ranks)
    known = np.zeros(len(group.members), dtype=bool)
    known[inside] = ranks[group.members[inside]]
    return known & (group.enqueued >= 0)


def _waiters(job: JobState, group: GroupState, quiet: Bools) -> Ints:
    known = _known(group, quiet)
    if not known.any():
        return group.members[:0]
    front = group.enqueued[group.enqueued >= 0].max()
    ticks = job.value(signals.TICK_AGE)
    inside = np.minimum(group.members, job.ranks - 1)
    current = ~(ticks[inside] >= STALE_TICK_SECONDS)  # counters of a blocked watcher say nothing of now
    waiting = known & current & (group.enqueued == front) & (group.completed < group.enqueued)
    chosen: Ints = group.members[waiting]
    return chosen


def _lags(group: GroupState, quiet: Bools, waiters: Ints) -> list[Lag]:
    front = int(group.enqueued.max())
    behind = _known(group, quiet) & (group.enqueued < front) & group.steady()
    names = tuple(int(rank) for rank in waiters)
    return [
        Lag(int(group.members[at]), group.name, int(group.enqueued[at]), front, names)
        for at in np.flatnonzero(behind)
    ]


def _one_per_rank(lags: tuple[Lag, ...]) -> tuple[Lag, ...]:
    best: dict[int, Lag] = {}
    for lag in lags:
        if lag.rank not in best or len(lag.waiters) > len(best[lag.rank].waiters):
            best[lag.rank] = lag
    return tuple(best[rank] for rank in sorted(best))
