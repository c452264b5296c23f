"""Silent: what cannot be seen is said, and never looks healthy."""

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
from arobust_otel.state.waiting import find_waiting
from arobust_otel.state.words import name_ranks, seconds


@dataclass(frozen=True, slots=True)
class SilentRule:
    """An agent, or the view into a rank, fell silent.

    Sees:
        Ticks of the master since an agent's last heartbeat, against `silent_seconds` and three of its own
        intervals; ranks that an agent calls alive without a report for as long; a watcher thread that has
        been dead for `silent_seconds` while the rank's steps go on.

    Means:
        node_lost where living ranks on other nodes wait for ranks of the silent node; else agent_lost: the
        ranks may be well, and cannot be seen. telemetry_gap: the rank lives, its beacon does not speak.

    Do:
        Look at the node, then at the agent's own log in the beacon folder.

    Silent when:
        The agent said goodbye, the job is over, or the master itself was away: only ticks age anybody.
    """

    name: ClassVar[str] = "silent"
    family: ClassVar[str] = "sight"
    priority: ClassVar[int] = 3

    silent_seconds: float = 30.0
    tick_seconds: float = 1.0
    hold_seconds: float = 0.0
    clear_seconds: float = 5.0

    def judge(self, job: JobState, agents: Sequence[AgentState]) -> Iterator[Finding | StacksWanted]:
        """Silent agents first; else ranks that a living agent cannot see."""
        if job.superseded or job.ended():
            return
        lost = [agent for agent in agents if not agent.final and self._is_silent(job, agent)]
        if lost:
            yield self._lost(job, lost)
            return
        gaps = self._gaps(job, agents)
        if gaps:
            yield _telemetry_gap(job, gaps)

    def _is_silent(self, job: JobState, agent: AgentState) -> bool:
        silent_for = (job.tick - agent.heard_tick) * self.tick_seconds
        return silent_for >= max(self.silent_seconds, 3 * agent.interval_seconds)

    def _lost(self, job: JobState, lost: list[AgentState]) -> Finding:
        ranks = tuple(sorted({report.rank for agent in lost for report in agent.ranks}))
        waiting = find_waiting(job, 10.0, 12)
        missed = set(waiting.unseen) & set(ranks)
        hosts = ", ".join(sorted({agent.host for agent in lost}))
        age = seconds((job.tick - min(agent.heard_tick for agent in lost)) * self.tick_seconds)
        text = f"No word from the agent on {hosts} for {age}: {name_ranks(ranks)} cannot be seen"
        if missed:
            text += f", and living ranks wait for {name_ranks(missed)}: the node is lost"
        return Finding(
            cause="node_lost" if missed else "agent_lost",
            summary=text + ".",
            first_evidence_ns=min(agent.heard_ns for agent in lost),
            culprits=ranks if missed else (),
            victims=waiting.waiters if missed else (),
            grade="two_witnesses" if missed else "cannot_see",
            evidence=tuple(
                Evidence(
                    agent.heard_ns, "metric", f"last heartbeat {agent.sequence} of {agent.agent}", "master"
                )
                for agent in lost[:8]
            ),
            unseen=tuple(f"rank {rank}" for rank in ranks[:32]),
            refuted_by="a heartbeat of the agent",
            action_why="look at the node, then at the agent's log",
        )

    def _gaps(self, job: JobState, agents: Sequence[AgentState]) -> tuple[int, ...]:
        ticks, events = job.value(signals.TICK_AGE), job.value(signals.EVENT_AGE)
        dead_watcher = job.alive() & job.fresh(12) & (ticks >= self.silent_seconds) & (events < 5.0)
        gaps = {int(rank) for rank in np.flatnonzero(dead_watcher)}
        limit = self.silent_seconds / self.tick_seconds
        for agent in agents:
            for report in agent.ranks:
                known = report.rank < job.ranks and job.heard_tick[report.rank] >= 0
                if agent.final or report.state == "X" or not known or not job.alive()[report.rank]:
                    continue
                if job.tick - job.heard_tick[report.rank] >= limit:
                    gaps.add(report.rank)
        return tuple(sorted(gaps))

    def cleared(self, job: JobState, agents: Sequence[AgentState], incident: Incident) -> str | None:
        """Every agent speaks again, or said goodbye."""
        if job.superseded or job.ended():
            return "the job ended"
        if any(self._is_silent(job, agent) and not agent.final for agent in agents) or not agents:
            return None
        return None if self._gaps(job, agents) else "the reports are back"


def _telemetry_gap(job: JobState, ranks: tuple[int, ...]) -> Finding:
    return Finding(
        cause="telemetry_gap",
        summary=f"{name_ranks(ranks).capitalize()}: alive, but the beacon fell silent; it cannot be judged.",
        first_evidence_ns=int(min(job.point_ns[rank] for rank in ranks)),
        grade="cannot_see",
        evidence=tuple(
            Evidence(int(job.point_ns[rank]), "beacon", f"rank {rank}: last report", "agent")
            for rank in ranks[:8]
        ),
        unseen=tuple(f"rank {rank}" for rank in ranks[:32]),
        refuted_by="a new report of the rank",
        action_why="the agent's log and the rank's standard error say what failed",
    )
