"""Rank busy: one rank holds the job, and it is working."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from arobust_otel.model import signals
from arobust_otel.model.beacon import PHASES
from arobust_otel.model.finding import Finding, StacksWanted
from arobust_otel.model.incident import Evidence, Incident
from arobust_otel.state.book import AgentState
from arobust_otel.state.job import INDEX, JobState
from arobust_otel.state.stall import Stall, read_stall
from arobust_otel.state.waiting import Lag, find_waiting
from arobust_otel.state.words import agent_of, last_place, name_rank, others, place, seconds, size_rate


@dataclass(frozen=True, slots=True)
class RankBusyRule:
    """The others wait for a rank that makes progress of its own.

    Sees:
        Waiting ranks as in the rule hang, and a laggard that uses processor time, reads or writes, or sits
        in a disk wait.

    Means:
        rank_busy: a checkpoint, an evaluation, a long native call. Pending: nobody is to blame.

    Do:
        Wait. What it does and for how long is in the summary.

    Silent when:
        Nobody waits, or the laggard does nothing (then it is a hang).
    """

    name: ClassVar[str] = "rank_busy"
    family: ClassVar[str] = "stall"
    priority: ClassVar[int] = 9

    waiting_seconds: float = 5.0
    idle_seconds: float = 5.0
    fresh_ticks: int = 12
    hold_seconds: float = 0.0
    clear_seconds: float = 3.0

    def judge(self, job: JobState, agents: Sequence[AgentState]) -> Iterator[Finding | StacksWanted]:
        """One pending finding for the first laggard that works."""
        waiting = find_waiting(job, self.waiting_seconds, self.fresh_ticks)
        for lag in waiting.holders:
            stall = read_stall(job, lag.rank)
            if not stall.stopped and (stall.idle_seconds < self.idle_seconds or stall.in_disk_wait):
                yield _finding(job, lag, stall)
                return

    def cleared(self, job: JobState, agents: Sequence[AgentState], incident: Incident) -> str | None:
        """Never open, so never resolved."""
        return "the rank made progress"


def _finding(job: JobState, lag: Lag, stall: Stall) -> Finding:
    where = place(last_place(job, lag.rank, stall.since_ns))
    text = f"{name_rank(job, lag.rank)} holds the job" + (f" in {where}" if where else "")
    doing = _doing(job, stall)
    return Finding(
        cause="rank_busy",
        summary=f"{text} and is working: {doing}; {others(lag.waiters)} wait. Nobody is to blame.",
        first_evidence_ns=stall.since_ns,
        victims=lag.waiters,
        grade="one_witness",
        evidence=(Evidence(stall.read_ns, "process", f"rank {lag.rank}: {doing}", agent_of(job, lag.rank)),),
        refuted_by=f"rank {lag.rank} using neither processor nor disk",
        opens=False,
        stacks_of=(lag.rank,),
    )


def _doing(job: JobState, stall: Stall) -> str:
    phase = job.at(signals.PHASE, stall.rank)
    parts = []
    if phase is not None and PHASES[int(phase)] == "checkpoint":
        parts.append("checkpoint")
    rate = job.rings.rate(INDEX[signals.DISK_IO], stall.rank, 5.0)
    if rate is not None and rate > 1e4:
        parts.append(f"reading or writing {size_rate(rate)}")
    if stall.burns:
        parts.append("using processor time")
    if stall.in_disk_wait:
        parts.append("waiting for a disk")
    return (
        f"{', '.join(parts) or 'recent progress'} for {seconds(job.at(signals.EVENT_AGE, stall.rank) or 0.0)}"
    )
