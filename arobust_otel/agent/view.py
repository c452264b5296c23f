"""What the agent knows of its node, as values for heartbeat and telemetry. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from arobust_otel.model.beacon import GAPS
from arobust_otel.model.heartbeat import RankReport
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.ranks import format_ranks
from arobust_otel.plugins import Node, RankProcess


@dataclass(frozen=True, slots=True)
class View:
    """One sample: who lives, in which attempt, in which state."""

    identity: JobIdentity
    node: Node = field(default_factory=Node)
    states: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def ranks(self) -> tuple[RankProcess, ...]:
        """One process per rank of the current attempt: the living one, else the one born last."""
        found: dict[int, RankProcess] = {}
        for process in self.node.ranks:
            if process.incarnation != self.identity.incarnation:
                continue
            other = found.get(process.rank)
            if other is None or (process.alive, process.start_ticks) >= (other.alive, other.start_ticks):
                found[process.rank] = process
        return tuple(found[rank] for rank in sorted(found))

    def reports(self) -> tuple[RankReport, ...]:
        """The ranks, for the heartbeat."""
        return tuple(
            RankReport(
                rank=process.rank,
                local_rank=process.local_rank,
                pid=process.pid,
                state=self.states.get(process.key, "?") if process.alive else "X",
                role=process.role,
                beacon=process.beacon is not None,
            )
            for process in self.ranks()
        )

    def world_size(self) -> int:
        """Ranks of the job as its members say; 0 where nobody has said it."""
        return max((process.world_size for process in self.ranks()), default=0)

    def identity_of(self, pid: object) -> JobIdentity:
        """The attempt that a process belongs to; the current one where the process is not a rank of ours."""
        for process in self.node.ranks:
            if process.pid == pid and process.incarnation != self.identity.incarnation:
                return with_incarnation(self.identity, process.incarnation)
        return self.identity

    def gaps(self) -> tuple[str, ...]:
        """What ranks cannot tell, each with its ranks and the remedy."""
        who: dict[str, list[int]] = {}
        for process in self.ranks():
            codes = process.beacon.gaps if process.beacon is not None else ("",)
            for code in codes:
                who.setdefault(code, []).append(process.rank)
        return (*(_sentence(code, ranks) for code, ranks in who.items()), *self.node.unreadable[:10])


def next_identity(identity: JobIdentity, node: Node) -> JobIdentity:
    """The attempt that the node is at now: it only grows, and a node rank once known stays."""
    attempts = [process.incarnation for process in node.ranks]
    if not attempts:
        attempts = [launcher.beacon.incarnation for launcher in node.launchers]
    newest = max([identity.incarnation, *attempts])
    ranks = (process.beacon.node_rank for process in node.ranks if process.beacon is not None)
    known = next((rank for rank in ranks if rank is not None), identity.node_rank)
    if newest == identity.incarnation and known == identity.node_rank:
        return identity
    return JobIdentity(identity.job_id, newest, identity.host, known)


def with_incarnation(identity: JobIdentity, incarnation: int) -> JobIdentity:
    """The same job and node, another attempt."""
    return JobIdentity(identity.job_id, incarnation, identity.host, identity.node_rank)


def _sentence(code: str, ranks: Iterable[int]) -> str:
    text, remedy = GAPS.get(code, (code, "use the same version of arobust_otel everywhere"))
    if not code:
        text, remedy = "no beacon, so only its process can be seen", "start it under opentelemetry-instrument"
    return f"rank {format_ranks(ranks)}: {text}; {remedy}"
