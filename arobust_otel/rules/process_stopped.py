"""Process stopped: a signal stopped a rank, and nobody continued it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from arobust_otel.model import signals
from arobust_otel.model.finding import Finding, StacksWanted
from arobust_otel.model.incident import Evidence, Incident
from arobust_otel.state.book import AgentState
from arobust_otel.state.job import JobState
from arobust_otel.state.words import agent_of, last_place, name_rank, name_ranks, others, place


@dataclass(frozen=True, slots=True)
class ProcessStoppedRule:
    """Every task of a rank is in state T.

    Sees:
        /proc/PID/task/*/stat: all tasks stopped for `stopped_seconds` (our own look from outside shows as
        another state and does not count).

    Means:
        process_stopped: somebody sent SIGSTOP, a debugger holds it, or the terminal did. All ranks stopped at
        once is a suspended job: shown, and nobody is to blame.

    Do:
        Continue it (`kill -CONT PID`), or restart the worker.

    Silent when:
        The process is traced only for a moment, or runs again.
    """

    name: ClassVar[str] = "process_stopped"
    family: ClassVar[str] = "stall"
    priority: ClassVar[int] = 1

    stopped_seconds: float = 3.0
    fresh_ticks: int = 12
    hold_seconds: float = 2.0
    clear_seconds: float = 3.0

    def judge(self, job: JobState, agents: Sequence[AgentState]) -> Iterator[Finding | StacksWanted]:
        """One finding for all stopped ranks."""
        alive = job.alive() & job.fresh(self.fresh_ticks)
        stopped_for = job.value(signals.STOPPED_FOR)
        stopped = alive & (stopped_for >= self.stopped_seconds)
        if not stopped.any():
            return
        ranks = tuple(int(rank) for rank in np.flatnonzero(stopped))
        yield StacksWanted(ranks[:8], every_seconds=5.0, why="where the process stands")
        suspended = len(ranks) > 1 and int(np.count_nonzero(alive & (stopped_for > 0))) == int(
            np.count_nonzero(alive)
        )
        yield self._finding(job, ranks, suspended)

    def _finding(self, job: JobState, ranks: tuple[int, ...], suspended: bool) -> Finding:
        since = {
            rank: job.point_ns[rank] - int((job.at(signals.STOPPED_FOR, rank) or 0) * 1e9) for rank in ranks
        }
        victims = tuple(rank for rank in sorted(job.lives) if rank not in ranks and job.lives[rank].alive)
        return Finding(
            cause="process_stopped",
            summary=_suspended(ranks) if suspended else _summary(job, ranks, victims),
            first_evidence_ns=int(min(since.values())),
            culprits=() if suspended else ranks,
            victims=victims,
            grade="hard_fact",
            evidence=tuple(
                Evidence(
                    int(since[rank]),
                    "process",
                    f"rank {rank}: every task of the process is in state T",
                    agent_of(job, rank),
                )
                for rank in ranks[:8]
            ),
            refuted_by=f"{name_ranks(ranks)} leaving state T",
            action_why="continue it with SIGCONT; restart the worker where that does not help",
            opens=not suspended,
            stacks_of=ranks[:8],
        )

    def cleared(self, job: JobState, agents: Sequence[AgentState], incident: Incident) -> str | None:
        """All of them run again, or the job ended."""
        if job.ended() or job.superseded:
            return "the job ended"
        ranks = [c.rank for c in incident.culprits if c.rank is not None]
        fresh = job.fresh(self.fresh_ticks)
        for rank in ranks:
            stopped_for = job.at(signals.STOPPED_FOR, rank)
            if stopped_for is None or stopped_for > 0 or not fresh[rank]:
                return None
        return f"{name_ranks(ranks)} runs again" if ranks else None


def _suspended(ranks: tuple[int, ...]) -> str:
    return f"All {len(ranks):,} ranks are stopped: the job was suspended, nobody is to blame."


def _summary(job: JobState, ranks: tuple[int, ...], victims: tuple[int, ...]) -> str:
    where = place(last_place(job, ranks[0]))
    text = f"{name_rank(job, ranks[0])} is stopped (state T, SIGSTOP or a debugger)"
    text += f" in {where}" if where else ""
    if len(ranks) > 1:
        text += f", and so is {name_ranks(ranks[1:])}"
    return text + (f"; {others(victims)} cannot go on without it." if victims else ".")
