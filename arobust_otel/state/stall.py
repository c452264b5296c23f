"""What a rank that makes no step does instead: nothing, burn processor time, or something slow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from arobust_otel.model import signals
from arobust_otel.model.beacon import PROCESS_STATES
from arobust_otel.state.job import INDEX, JobState

BURNING_SECONDS = 3.0
LOCK_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Stall:
    """since_ns: last event of the rank. read_ns: time of the report, both on the agent's clock.

    quiet_seconds: without event and I/O. idle_seconds: without processor time either; equal to the former
    where processor time and I/O could not be read (`blind`).

    burned_seconds: processor time spent since, by the mean share of the last samples; on a crowded host much
    less than wall time. Wall time where the share is not reported.
    """

    rank: int
    since_ns: int
    read_ns: int
    quiet_seconds: float
    idle_seconds: float
    tick_seconds: float
    burned_seconds: float
    burns: bool
    blind: bool
    stopped: bool
    in_disk_wait: bool

    @property
    def lock_held(self) -> bool:
        """The watcher thread does not run: something keeps the interpreter lock."""
        return self.tick_seconds >= LOCK_SECONDS and not self.stopped


def _mean_share(job: JobState, rank: int, seconds: float) -> float:
    times, shares = job.rings.history(INDEX[signals.CPU_UTILIZATION], rank)
    known = shares[(times >= times[-1] - seconds) & ~np.isnan(shares)] if len(times) else shares
    return min(1.0, float(known.mean())) if len(known) else 1.0


def read_stall(job: JobState, rank: int) -> Stall:
    """The stall of one rank; it must have reported its last event."""
    event = job.at(signals.EVENT_AGE, rank) or 0.0
    cpu, disk = job.at(signals.CPU_AGE, rank), job.at(signals.IO_AGE, rank)
    quiet = min(event, event if disk is None else disk)
    state = job.at(signals.PROCESS_STATE, rank)
    read_ns = int(job.point_ns[rank])
    return Stall(
        rank=rank,
        since_ns=read_ns - int(event * 1e9),
        read_ns=read_ns,
        quiet_seconds=quiet,
        idle_seconds=min(quiet, quiet if cpu is None else cpu),
        tick_seconds=job.at(signals.TICK_AGE, rank) or 0.0,
        burned_seconds=quiet * _mean_share(job, rank, quiet),
        burns=cpu is not None and cpu < BURNING_SECONDS,
        blind=cpu is None or disk is None,
        stopped=(job.at(signals.STOPPED_FOR, rank) or 0.0) > 0.0,
        in_disk_wait=state is not None and int(state) == PROCESS_STATES.index("disk"),
    )
