"""Cases: findings over time become incidents. Hold, clear, duplicates, root over symptom, revision.

One case per rule, job and incarnation. Inside a family of rules the root (smallest priority) silences its
symptoms; what happens after an incident opened, because of it, is a note in its evidence and no new incident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from arobust_otel.model.causes import BY_CODE
from arobust_otel.model.finding import Finding
from arobust_otel.model.incident import (
    GRADES,
    OPEN,
    PENDING,
    RESOLVED,
    Action,
    Culprit,
    Evidence,
    Incident,
    Revision,
    incident_id,
)
from arobust_otel.state import codec
from arobust_otel.state.job import JobState

GAP_TICKS = 3  # a pending finding may be absent that long
MAX_EVIDENCE = 40
SAME_TIME_NS = 2_000_000_000


class RuleFacts(Protocol):
    """What a case needs to know of its rule."""

    @property
    def name(self) -> str:
        """Name of the rule."""
        ...

    @property
    def family(self) -> str:
        """Rules that explain the same trouble."""
        ...

    @property
    def priority(self) -> int:
        """Small for roots."""
        ...

    @property
    def hold_seconds(self) -> float:
        """How long a finding must last before it opens."""
        ...


class Settings(Protocol):
    """What a case needs to know of the engine's settings."""

    @property
    def tick_seconds(self) -> float:
        """What one tick stands for."""
        ...

    @property
    def revise_seconds(self) -> float:
        """How long another verdict must last before an open incident is revised."""
        ...


@codec.register
@dataclass(slots=True)
class Case:
    """An incident in the making, and since when its finding holds, differs or is cleared (in ticks)."""

    job: str
    family: str
    priority: int
    incident: Incident
    first_tick: int
    last_tick: int
    stacks_of: tuple[int, ...] = ()
    differs_since: int | None = None
    cleared_since: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Change:
    """An incident that opened, changed or was resolved."""

    incident: Incident
    stacks_of: tuple[int, ...]


@codec.register
@dataclass(slots=True)
class CaseBook:
    """active: by ``job/rule``. resolved: newest last.

    explained: ``job/family`` whose findings are consequences, or leftovers, of the incident with this id;
    until nothing of that family is found any more.
    """

    active: dict[str, Case] = field(default_factory=dict)
    resolved: list[Incident] = field(default_factory=list)
    explained: dict[str, str] = field(default_factory=dict)

    def incidents(self) -> list[Incident]:
        """All of them, newest evidence first."""
        everything = [case.incident for case in self.active.values()] + self.resolved
        return sorted(everything, key=lambda item: (-item.first_evidence_ns, item.id))

    def open_of(self, job_key: str) -> list[Case]:
        """Open cases of one incarnation."""
        return [c for c in self.active.values() if c.job == job_key and c.incident.status == OPEN]

    def trim(self, keep: int) -> None:
        """Forget the oldest resolved incidents."""
        del self.resolved[: max(0, len(self.resolved) - keep)]

    # -- findings of one tick --------------------------------------------------------------------------

    def consider(
        self, key: str, job: JobState, findings: Sequence[tuple[RuleFacts, Finding]], settings: Settings
    ) -> list[Change]:
        """Take the findings of one job at one tick, roots first."""
        changes: list[Change] = []
        for rule, finding in findings:
            family = [case for case in self.open_of(key) if case.family == rule.family]
            if family:
                changes.extend(self._beside(family[0], rule, finding, job, settings))
            elif f"{key}/{rule.family}" not in self.explained:
                changes.extend(self._track(key, rule, finding, job, settings))
        self._drop_pending(key, job.tick)
        self._forget_explained(key, findings)
        return changes

    def _track(
        self, key: str, rule: RuleFacts, finding: Finding, job: JobState, settings: Settings
    ) -> list[Change]:
        name = f"{key}/{rule.name}"
        case = self.active.get(name)
        if case is None:
            incident = _incident(job, rule.name, finding)
            case = Case(key, rule.family, rule.priority, incident, job.tick, job.tick)
            self.active[name] = case
        elif _verdict(case.incident) != (finding.cause, finding.culprits):
            case.first_tick = job.tick  # another verdict must hold on its own
        case.last_tick = job.tick
        case.stacks_of = finding.stacks_of
        case.incident = _incident(job, rule.name, finding)
        held = (job.tick - case.first_tick) * settings.tick_seconds
        if not finding.opens or held < rule.hold_seconds:
            return []
        case.incident = case.incident.changed(status=OPEN, opened_ns=job.now_ns)
        self._silence_symptoms(case)
        return [Change(case.incident, case.stacks_of)]

    def _silence_symptoms(self, root: Case) -> None:
        for name, case in list(self.active.items()):
            same = case.job == root.job and case.family == root.family
            if same and case is not root and case.incident.status == PENDING:
                del self.active[name]

    def _beside(
        self, case: Case, rule: RuleFacts, finding: Finding, job: JobState, settings: Settings
    ) -> list[Change]:
        """A finding while an incident of its family is open: the same, its root, or its consequence."""
        if not finding.opens:
            return []
        if rule.name == case.incident.rule:
            return self._again(case, finding, job, settings)
        if rule.priority > case.priority:
            return []
        if finding.first_evidence_ns <= case.incident.first_evidence_ns + SAME_TIME_NS:
            return self._revise(case, rule, finding, job, settings)
        return self._consequence(case, rule, finding, job)

    def _again(self, case: Case, finding: Finding, job: JobState, settings: Settings) -> list[Change]:
        case.last_tick = job.tick
        if _verdict(case.incident) == (finding.cause, finding.culprits):
            case.differs_since = None
            better = GRADES.index(finding.grade) < GRADES.index(case.incident.grade)
            if not better:
                return []
            case.incident = _updated(case.incident, finding, job)
            case.stacks_of = finding.stacks_of
            return [Change(case.incident, case.stacks_of)]
        return self._revise(case, None, finding, job, settings)

    def _revise(
        self, case: Case, rule: RuleFacts | None, finding: Finding, job: JobState, settings: Settings
    ) -> list[Change]:
        case.differs_since = job.tick if case.differs_since is None else case.differs_since
        if (job.tick - case.differs_since) * settings.tick_seconds < settings.revise_seconds:
            return []
        old = case.incident
        ranks = tuple(c.rank for c in old.culprits if c.rank is not None)
        revision = Revision(job.now_ns, old.cause, ranks, f"newer evidence: {finding.summary}")
        case.incident = _updated(old, finding, job).changed(revisions=(*old.revisions, revision))
        if rule is not None:
            del self.active[f"{case.job}/{old.rule}"]
            case.incident = case.incident.changed(rule=rule.name)
            case.priority = rule.priority
            self.active[f"{case.job}/{rule.name}"] = case
        case.stacks_of = finding.stacks_of
        case.differs_since = None
        return [Change(case.incident, case.stacks_of)]

    def _consequence(self, case: Case, rule: RuleFacts, finding: Finding, job: JobState) -> list[Change]:
        """The rank ended because somebody acted on the incident, or could not live with it."""
        self.explained[f"{case.job}/{case.family}"] = case.incident.id
        note = f"{rule.name}/{finding.cause}/{finding.culprits}"
        if case.notes or len(case.incident.evidence) >= MAX_EVIDENCE:
            return []
        case.notes.append(note)
        evidence = Evidence(finding.first_evidence_ns, "process", f"afterwards: {finding.summary}", "master")
        case.incident = case.incident.changed(
            evidence=(*case.incident.evidence, evidence), updated_ns=job.now_ns
        )
        return [Change(case.incident, case.stacks_of)]

    def _drop_pending(self, key: str, tick: int) -> None:
        for name, case in list(self.active.items()):
            if case.job == key and case.incident.status == PENDING and tick - case.last_tick > GAP_TICKS:
                del self.active[name]

    def _forget_explained(self, key: str, findings: Sequence[tuple[RuleFacts, Finding]]) -> None:
        """Once nothing is found any more, the next trouble is a new one."""
        families = {rule.family for rule, finding in findings if finding.opens}
        families |= {case.family for case in self.open_of(key)}
        for name in [n for n in self.explained if n.rpartition("/")[0] == key]:
            if name.rpartition("/")[2] not in families:
                del self.explained[name]

    # -- recovery --------------------------------------------------------------------------------------

    def clear(
        self, case: Case, reason: str | None, clear_seconds: float, job: JobState, settings: Settings
    ) -> list[Change]:
        """Resolve a case whose positive evidence of recovery has held long enough."""
        if reason is None:
            case.cleared_since = None
            return []
        case.cleared_since = job.tick if case.cleared_since is None else case.cleared_since
        if (job.tick - case.cleared_since) * settings.tick_seconds < clear_seconds:
            return []
        evidence = Evidence(job.now_ns, "history", f"resolved: {reason}", "master", supports=False)
        done = case.incident.changed(
            status=RESOLVED,
            resolved_ns=job.now_ns,
            updated_ns=job.now_ns,
            evidence=(*case.incident.evidence[:MAX_EVIDENCE], evidence),
        )
        del self.active[f"{case.job}/{case.incident.rule}"]
        self.resolved.append(done)
        self.explained[f"{case.job}/{case.family}"] = done.id
        return [Change(done, case.stacks_of)]


def _verdict(incident: Incident) -> tuple[str, tuple[int, ...]]:
    return incident.cause, tuple(c.rank for c in incident.culprits if c.rank is not None)


def _incident(job: JobState, rule: str, finding: Finding) -> Incident:
    return Incident(
        id=incident_id(job.job_id, job.incarnation, rule, finding.cause, finding.first_evidence_ns),
        job_id=job.job_id,
        incarnation=job.incarnation,
        rule=rule,
        cause=finding.cause,
        status=PENDING,
        first_evidence_ns=finding.first_evidence_ns,
        opened_ns=None,
        updated_ns=job.now_ns,
        resolved_ns=None,
        culprits=tuple(_culprit(job, rank) for rank in finding.culprits),
        victims=finding.victims,
        grade=finding.grade,
        summary=finding.summary,
        evidence=finding.evidence,
        unseen=finding.unseen,
        action=_action(job, finding),
        refuted_by=finding.refuted_by,
    )


def _updated(old: Incident, finding: Finding, job: JobState) -> Incident:
    new = _incident(job, old.rule, finding)
    return new.changed(
        id=old.id,
        status=old.status,
        opened_ns=old.opened_ns,
        first_evidence_ns=min(old.first_evidence_ns, finding.first_evidence_ns),
        revisions=old.revisions,
    )


def _culprit(job: JobState, rank: int) -> Culprit:
    life = job.lives.get(rank)
    if life is None:
        return Culprit(rank=rank)
    return Culprit(
        rank=rank, local_rank=life.local_rank, role=life.role, pid=life.pid, node=life.node or None
    )


def _action(job: JobState, finding: Finding) -> Action:
    cause = BY_CODE[finding.cause]
    kind = finding.action or cause.action
    nodes = sorted({job.lives[r].node or "" for r in finding.culprits if r in job.lives} - {""})
    ranks = ", ".join(f"rank {rank}" for rank in finding.culprits)
    target = f"{ranks} on {', '.join(nodes)}" if ranks and nodes else (ranks or None)
    return Action(kind, target, finding.action_why or cause.meaning)
