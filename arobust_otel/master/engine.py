"""The brain of the master: records in, incidents and commands out. Pure.

Time is the tick record; the same records with the same configuration give the same outputs, byte for byte.
Hold, clear, duplicates, root over symptom and revisions are decided in `cases`; rules only see and say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from arobust_otel import __version__, guard
from arobust_otel.errors import ConfigurationError, DecodeError
from arobust_otel.journal import Kind, Record
from arobust_otel.master.cases import CaseBook, Change, RuleFacts
from arobust_otel.model.columns import Batch
from arobust_otel.model.finding import Finding, StacksWanted
from arobust_otel.model.heartbeat import CAPTURE_STACKS, Command, decode_heartbeat
from arobust_otel.model.incident import Incident, rfc3339
from arobust_otel.otlp.decode import decode
from arobust_otel.plugins import build, discover
from arobust_otel.state import codec
from arobust_otel.state.book import AgentState, Book
from arobust_otel.state.job import JobState

SNAPSHOT_VERSION = 1
COMMAND_EXPIRES_SECONDS = 20.0


class Rule(RuleFacts, Protocol):
    """What the engine asks of a rule; see `rules/__init__.py`."""

    @property
    def clear_seconds(self) -> float:
        """How long recovery must last before the incident is resolved."""
        ...

    def judge(self, job: JobState, agents: Sequence[AgentState]) -> Iterable[Finding | StacksWanted]:
        """Findings about one job at this tick."""
        ...

    def cleared(self, job: JobState, agents: Sequence[AgentState], incident: Incident) -> str | None:
        """Positive evidence of recovery, in words; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """tick_seconds: what one tick stands for. keep_resolved: how many resolved incidents the API shows."""

    tick_seconds: float = 1.0
    keep_resolved: int = 1000
    revise_seconds: float = 3.0

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> EngineSettings:
        """Settings of a configuration table.

        Raises:
            ConfigurationError: for a key that does not exist.
        """
        known = {item.name for item in fields(cls)}
        for key, value in table.items():
            if key not in known:
                raise ConfigurationError(f"engine.{key}", value, f"the keys are {', '.join(sorted(known))}")
        return cls(**table)


@dataclass(frozen=True, slots=True)
class Output:
    """What the engine wants done: kind ``incident`` or ``command``, body ready for JSON."""

    kind: str
    body: dict[str, Any]


@codec.register
@dataclass(slots=True)
class Memory:
    """Everything the engine remembers; a snapshot is this object."""

    book: Book = field(default_factory=Book)
    cases: CaseBook = field(default_factory=CaseBook)
    asked: dict[str, int] = field(default_factory=dict)
    rule_errors: dict[str, int] = field(default_factory=dict)
    undecodable: int = 0
    records: int = 0


class Engine:
    """Feeds records into the state and judges at every tick."""

    def __init__(self, settings: EngineSettings, rules: Sequence[Rule], memory: Memory | None = None) -> None:
        """Begin with an empty memory, or go on with that of a snapshot."""
        self.settings = settings
        self.rules = sorted(rules, key=lambda rule: (rule.priority, rule.name))
        self.memory = memory or Memory()

    # -- records in, outputs out -----------------------------------------------------------------------

    def process(self, record: Record) -> list[Output]:
        """Take one record; only ticks have outputs."""
        self.memory.records += 1
        if record.kind == Kind.REQUEST:
            self._request(record)
        elif record.kind == Kind.HEARTBEAT:
            self._heartbeat(record)
        elif record.kind == Kind.TICK:
            self.memory.book.advance(record.received_ns)
            return self._judge(record.offset)
        return []

    def _request(self, record: Record) -> None:
        try:
            batches = decode(record.signal, record.payload, record.received_ns)
        except DecodeError:
            self.memory.undecodable += 1
            return
        self.apply(batches)

    def apply(self, batches: Iterable[Batch]) -> None:
        """Take decoded telemetry."""
        for batch in batches:
            self.memory.book.apply_batch(batch)

    def _heartbeat(self, record: Record) -> None:
        try:
            heartbeat = decode_heartbeat(record.payload)
        except ValueError:
            self.memory.undecodable += 1
            return
        self.memory.book.apply_heartbeat(heartbeat)

    # -- judging ---------------------------------------------------------------------------------------

    def _judge(self, offset: int) -> list[Output]:
        outputs: list[Output] = []
        for key, job in self.memory.book.jobs.items():
            agents = self.memory.book.agents_of(job)
            findings, wanted = self._ask_rules(job, agents)
            changes = self._cases(key, job, agents, findings)
            outputs.extend(Output("incident", _incident_body(job, change)) for change in changes)
            outputs.extend(self._commands(key, job, wanted, offset))
        self.memory.cases.trim(self.settings.keep_resolved)
        return outputs

    def _ask_rules(
        self, job: JobState, agents: Sequence[AgentState]
    ) -> tuple[list[tuple[Rule, Finding]], list[StacksWanted]]:
        findings: list[tuple[Rule, Finding]] = []
        wanted: list[StacksWanted] = []
        for rule in self.rules:
            items, error = guard.attempt(f"rule {rule.name}", _all_of(rule, job, agents))
            if error is not None:
                self.memory.rule_errors[rule.name] = self.memory.rule_errors.get(rule.name, 0) + 1
            for item in items or ():
                if isinstance(item, Finding):
                    findings.append((rule, item))
                else:
                    wanted.append(item)
        return findings, wanted

    def _cases(
        self, key: str, job: JobState, agents: Sequence[AgentState], findings: list[tuple[Rule, Finding]]
    ) -> list[Change]:
        cases = self.memory.cases
        changes = cases.consider(key, job, findings, self.settings)
        by_name = {rule.name: rule for rule in self.rules}
        for case in cases.open_of(key):
            rule = by_name.get(case.incident.rule)
            if rule is None:
                continue
            reason, _ = guard.attempt(f"rule {rule.name}", _clear_of(rule, job, agents, case.incident))
            changes.extend(cases.clear(case, reason, rule.clear_seconds, job, self.settings))
        return changes

    def _commands(self, key: str, job: JobState, wanted: list[StacksWanted], offset: int) -> list[Output]:
        by_agent: dict[str, list[int]] = {}
        for want in wanted:
            for rank in want.ranks:
                life = job.lives.get(rank)
                if life is None or not life.agent or not life.alive or not self._may_ask(key, rank, want):
                    continue
                self.memory.asked[f"{key}/{rank}"] = job.tick
                by_agent.setdefault(life.agent, []).append(rank)
        self._forget_asked(job.tick)
        return [
            Output("command", asdict(_command(job, agent, tuple(sorted(ranks)), offset)))
            for agent, ranks in sorted(by_agent.items())
        ]

    def _may_ask(self, key: str, rank: int, want: StacksWanted) -> bool:
        before = self.memory.asked.get(f"{key}/{rank}")
        tick = self.memory.book.tick
        return before is None or (tick - before) * self.settings.tick_seconds >= want.every_seconds

    def _forget_asked(self, tick: int) -> None:
        if len(self.memory.asked) > 10_000:
            self.memory.asked = {key: at for key, at in self.memory.asked.items() if tick - at < 600}

    # -- reading ---------------------------------------------------------------------------------------

    def incidents(self) -> list[Incident]:
        """Pending, open and recently resolved incidents, newest evidence first."""
        return self.memory.cases.incidents()

    def jobs(self) -> list[dict[str, Any]]:
        """One row per incarnation for the query API."""
        return [_job_row(job, self.incidents()) for job in self.memory.book.jobs.values()]

    def ranks(self, job_id: str | None = None) -> list[dict[str, Any]]:
        """One row per rank of the newest incarnations."""
        return self.memory.book.rank_rows(job_id)

    def agents(self) -> list[dict[str, Any]]:
        """One row per agent, with what it cannot see."""
        return [_agent_row(agent, self.memory.book.tick) for agent in self.memory.book.agents.values()]

    def status(self) -> dict[str, Any]:
        """Counters about the engine itself."""
        memory = self.memory
        return {
            "records": memory.records,
            "ticks": memory.book.tick,
            "undecodable_records": memory.undecodable,
            "batches_without_job": memory.book.strangers,
            "rule_errors": dict(memory.rule_errors),
            "rules": [rule.name for rule in self.rules],
            "version": __version__,
        }

    # -- snapshots -------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole memory, to go on from later."""
        return codec.dumps(self.memory)

    @classmethod
    def restore(cls, data: bytes, settings: EngineSettings, rules: Sequence[Rule]) -> Engine:
        """An engine that goes on where `snapshot` was taken."""
        return cls(settings, rules, codec.loads(data))


def build_engine(configuration: Mapping[str, Any], snapshot: bytes | None = None) -> Engine:
    """An engine of a CONFIGURATION record's JSON, optionally with a snapshot's memory.

    Raises:
        ConfigurationError: names a rule or a key that does not exist.
    """
    settings = EngineSettings.from_table(configuration.get("engine", {}))
    rules = build_rules(configuration.get("rules", {}))
    if snapshot is not None:
        return Engine.restore(snapshot, settings, rules)
    return Engine(settings, rules)


def build_rules(tables: Mapping[str, Mapping[str, Any]]) -> list[Rule]:
    """All rules that were found, with their settings; ``enabled = false`` turns one off.

    Raises:
        ConfigurationError: names a rule or a key that does not exist.
    """
    parts = discover("rules")
    for name in tables:
        if name not in parts:
            raise ConfigurationError(f"rules.{name}", tables[name], f"the rules are {', '.join(parts)}")
    rules: list[Rule] = []
    for name, part in parts.items():
        table = dict(tables.get(name, {}))
        if not table.pop("enabled", True):
            continue
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ConfigurationError(f"rules.{name}.{key}", value, "a number")
        rules.append(build(part, table))
    return rules


def _all_of(
    rule: Rule, job: JobState, agents: Sequence[AgentState]
) -> Callable[[], list[Finding | StacksWanted]]:
    return lambda: list(rule.judge(job, agents))


def _clear_of(
    rule: Rule, job: JobState, agents: Sequence[AgentState], incident: Incident
) -> Callable[[], str | None]:
    return lambda: rule.cleared(job, agents, incident)


def _command(job: JobState, agent: str, ranks: tuple[int, ...], offset: int) -> Command:
    text = f"{job.job_id}/{job.incarnation}/{agent}/{ranks}/{offset}"
    return Command(
        id=hashlib.sha256(text.encode()).hexdigest()[:16],
        kind=CAPTURE_STACKS,
        agent=agent,
        job_id=job.job_id,
        incarnation=job.incarnation,
        expires_in_seconds=COMMAND_EXPIRES_SECONDS,
        ranks=ranks,
    )


def _incident_body(job: JobState, change: Change) -> dict[str, Any]:
    stacks = []
    for rank in change.stacks_of:
        life = job.lives.get(rank)
        if life is None or not life.stacks:
            continue
        capture = life.stacks[-1]
        stacks.append(
            {
                "rank": rank,
                "pid": capture.pid,
                "at": rfc3339(capture.time_ns),
                "time_ns": capture.time_ns,
                "method": capture.method,
                "text": capture.text,
            }
        )
    return {"incident": change.incident.to_json(), "stacks": stacks}


def _job_row(job: JobState, incidents: list[Incident]) -> dict[str, Any]:
    alive = int(sum(life.alive for life in job.lives.values()))
    return {
        "job_id": job.job_id,
        "incarnation": job.incarnation,
        "superseded": job.superseded,
        "world_size": job.world_size,
        "ranks_seen": len(job.lives),
        "ranks_alive": alive,
        "open_incidents": sum(
            item.status == "open" and item.job_id == job.job_id and item.incarnation == job.incarnation
            for item in incidents
        ),
        "late_points": job.late_points,
    }


def _agent_row(agent: AgentState, tick: int) -> dict[str, Any]:
    return {
        "agent": agent.agent,
        "job_id": agent.job_id,
        "incarnation": agent.incarnation,
        "host": agent.host,
        "last_heartbeat_at": rfc3339(agent.heard_ns),
        "silent_ticks": tick - agent.heard_tick,
        "ended": agent.final,
        "ranks": [asdict(report) for report in agent.ranks],
        "collectors": [asdict(report) for report in agent.collectors],
        "gaps": list(agent.gaps),
        "stats": dict(agent.stats),
        "missed_heartbeats": agent.missed,
    }
