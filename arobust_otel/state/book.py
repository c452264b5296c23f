"""All jobs and agents that the master knows: routes batches and heartbeats to their job.

Counts ticks; forgets jobs that ended or fell silent long ago, so that memory stays bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from arobust_otel.model import signals
from arobust_otel.model.beacon import PHASES, PROCESS_STATES, STATES
from arobust_otel.model.columns import Batch
from arobust_otel.model.heartbeat import CollectorReport, Heartbeat, RankReport
from arobust_otel.state.job import MAX_RANKS, JobState

MAX_JOBS = 1000
KEEP_TICKS = 24 * 3600


@dataclass(slots=True)
class AgentState:
    """The newest heartbeat of one agent, and the tick at which it came."""

    agent: str
    job_id: str
    incarnation: int
    host: str
    node_rank: int | None
    heard_tick: int
    heard_ns: int
    interval_seconds: float
    sequence: int
    final: bool
    ranks: tuple[RankReport, ...] = ()
    collectors: tuple[CollectorReport, ...] = ()
    gaps: tuple[str, ...] = ()
    stats: dict[str, float] = field(default_factory=dict)
    missed: int = 0


@dataclass(slots=True)
class Book:
    """jobs: by ``job id/incarnation``. agents: by agent id. tick: ticks since the journal began."""

    tick: int = 0
    now_ns: int = 0
    jobs: dict[str, JobState] = field(default_factory=dict)
    agents: dict[str, AgentState] = field(default_factory=dict)
    last_active: dict[str, int] = field(default_factory=dict)
    strangers: int = 0

    def job(self, job_id: str, incarnation: int) -> JobState:
        """State of one incarnation, begun where it is not known yet."""
        key = f"{job_id}/{incarnation}"
        if key not in self.jobs:
            self._make_room()
            self.jobs[key] = JobState(
                job_id, incarnation, tick=self.tick, now_ns=self.now_ns, first_tick=self.tick
            )
            self._supersede(job_id)
        self.last_active[key] = self.tick
        return self.jobs[key]

    def _supersede(self, job_id: str) -> None:
        attempts = [job for job in self.jobs.values() if job.job_id == job_id]
        newest = max(job.incarnation for job in attempts)
        for job in attempts:
            job.superseded = job.incarnation < newest

    def _follow_successors(self) -> None:
        stepping = {
            job.job_id
            for job in self.jobs.values()
            if not job.superseded and job.ranks and (job.value(signals.STEP) >= 1).any()
        }
        for job in self.jobs.values():
            job.successor_runs = job.superseded and job.job_id in stepping

    def _make_room(self) -> None:
        while len(self.jobs) >= MAX_JOBS:
            oldest = min(self.jobs, key=lambda key: (self.last_active.get(key, 0), key))
            del self.jobs[oldest]
            self.last_active.pop(oldest, None)

    def apply_batch(self, batch: Batch) -> None:
        """Take one resource's telemetry. What names no job is counted, not diagnosed."""
        resource = batch.resource
        if not resource.job_id:
            self.strangers += 1
            return
        job = self.job(resource.job_id, resource.incarnation)
        for fact in batch.facts:
            job.apply_fact(fact, resource.host, resource.agent)
        if batch.metrics is not None:
            job.apply_metrics(batch.metrics)
        for capture in batch.stacks:
            job.apply_stack(capture)

    def apply_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Take one heartbeat; a gap in its sequence is counted."""
        before = self.agents.get(heartbeat.agent)
        missed = before.missed if before else 0
        if before and heartbeat.sequence > before.sequence + 1:
            missed += heartbeat.sequence - before.sequence - 1
        self.agents[heartbeat.agent] = AgentState(
            agent=heartbeat.agent,
            job_id=heartbeat.job_id,
            incarnation=heartbeat.incarnation,
            host=heartbeat.host,
            node_rank=heartbeat.node_rank,
            heard_tick=self.tick,
            heard_ns=self.now_ns,
            interval_seconds=heartbeat.interval_seconds,
            sequence=heartbeat.sequence,
            final=heartbeat.final,
            ranks=heartbeat.ranks,
            collectors=heartbeat.collectors,
            gaps=heartbeat.gaps,
            stats=dict(heartbeat.stats),
            missed=missed,
        )
        job = self.job(heartbeat.job_id, heartbeat.incarnation)
        if 0 < heartbeat.world_size <= MAX_RANKS:
            job.world_size = max(job.world_size, heartbeat.world_size)
        for report in heartbeat.ranks:
            if 0 <= report.rank < MAX_RANKS:
                self._apply_report(job, report, heartbeat)

    def _apply_report(self, job: JobState, report: RankReport, heartbeat: Heartbeat) -> None:
        life = job.life(report.rank)
        if life.born is not None and life.pid not in (None, report.pid):
            return  # the facts know a newer process
        life.pid = report.pid or life.pid
        life.local_rank, life.role = report.local_rank, report.role
        life.node, life.agent = heartbeat.host, heartbeat.agent

    def agents_of(self, job: JobState) -> list[AgentState]:
        """Agents whose newest heartbeat was for this incarnation."""
        return [
            agent
            for agent in self.agents.values()
            if agent.job_id == job.job_id and agent.incarnation == job.incarnation
        ]

    def advance(self, now_ns: int) -> None:
        """One tick passed."""
        self.tick += 1
        self.now_ns = now_ns
        for job in self.jobs.values():
            job.tick, job.now_ns = self.tick, now_ns
        self._follow_successors()
        for key in [key for key, tick in self.last_active.items() if self.tick - tick > KEEP_TICKS]:
            self.jobs.pop(key, None)
            del self.last_active[key]
        for name in [a.agent for a in self.agents.values() if self.tick - a.heard_tick > KEEP_TICKS]:
            del self.agents[name]

    def rank_rows(self, job_id: str | None = None) -> list[dict[str, object]]:
        """One row per rank for the query API; None where a value is absent."""
        rows: list[dict[str, object]] = []
        for job in self.jobs.values():
            if job.superseded or (job_id is not None and job.job_id != job_id):
                continue
            rows.extend(_rank_row(job, rank) for rank in range(max(job.ranks, job.world_size)))
        return rows


def _rank_row(job: JobState, rank: int) -> dict[str, object]:
    life = job.lives.get(rank)
    heard = int(job.heard_tick[rank]) if rank < job.ranks else -1

    def named(signal: str, names: tuple[str, ...]) -> str | None:
        code = job.at(signal, rank)
        return names[int(code)] if code is not None and 0 <= int(code) < len(names) else None

    step = job.at(signals.STEP, rank)
    exited = life.exited if life else None
    return {
        "job_id": job.job_id,
        "incarnation": job.incarnation,
        "rank": rank,
        "local_rank": life.local_rank if life else None,
        "role": life.role if life else None,
        "node": life.node if life else None,
        "pid": life.pid if life else None,
        "state": named(signals.STATE, STATES),
        "step": None if step is None else int(step),
        "phase": named(signals.PHASE, PHASES),
        "step_duration_seconds": job.at(signals.STEP_DURATION, rank),
        "event_age_seconds": job.at(signals.EVENT_AGE, rank),
        "cpu_utilization": job.at(signals.CPU_UTILIZATION, rank),
        "memory_bytes": job.at(signals.MEMORY_USAGE, rank),
        "process_state": "gone" if exited else named(signals.PROCESS_STATE, PROCESS_STATES),
        "exit_code": exited.attributes.get(signals.EXIT_CODE) if exited else None,
        "exit_signal": exited.attributes.get(signals.EXIT_SIGNAL) if exited else None,
        "report_age_ticks": None if heard < 0 else job.tick - heard,
    }
