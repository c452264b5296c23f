"""The incident: the one object that every command, store and screen shows.

Field names are the JSON keys. Times are nanoseconds since the epoch here and RFC 3339, UTC, in JSON.
Nothing here decides: rules make findings, the engine makes incidents of them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

PENDING = "pending"
OPEN = "open"
RESOLVED = "resolved"
STATUSES = (PENDING, OPEN, RESOLVED)

GRADES = ("hard_fact", "two_witnesses", "one_witness", "cannot_see")

EVIDENCE_KINDS = (
    "beacon",
    "process",
    "stack",
    "metric",
    "log",
    "kernel",
    "xpu_timer",
    "flight_recorder",
    "history",
)


def rfc3339(time_ns: int | None) -> str | None:
    """RFC 3339 text in UTC with microseconds of a time in nanoseconds; None stays None."""
    if time_ns is None:
        return None
    seconds, rest = divmod(time_ns, 1_000_000_000)
    stamp = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{rest // 1000:06d}Z"


@dataclass(frozen=True, slots=True)
class Culprit:
    """Who is to blame; None where it is not known."""

    rank: int | None = None
    local_rank: int | None = None
    role: str | None = None
    pid: int | None = None
    node: str | None = None
    accelerator: str | None = None
    zone: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As in the API."""
        return {
            "rank": self.rank,
            "local_rank": self.local_rank,
            "role": self.role,
            "pid": self.pid,
            "node": self.node,
            "accelerator": self.accelerator,
            "zone": self.zone,
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation; `supports` is False for evidence against the verdict."""

    at_ns: int
    kind: str
    says: str
    source: str
    supports: bool = True

    def to_json(self) -> dict[str, Any]:
        """As in the API."""
        return {
            "at": rfc3339(self.at_ns),
            "kind": self.kind,
            "says": self.says,
            "supports": self.supports,
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Action:
    """What is recommended: never executed by the master itself."""

    kind: str
    target: str | None
    why: str

    def to_json(self) -> dict[str, Any]:
        """As in the API."""
        return {"kind": self.kind, "target": self.target, "why": self.why}


@dataclass(frozen=True, slots=True)
class Revision:
    """An earlier verdict of the same incident, and why it was changed."""

    at_ns: int
    cause: str
    culprits: tuple[int, ...]
    because: str

    def to_json(self) -> dict[str, Any]:
        """As in the API."""
        return {
            "at": rfc3339(self.at_ns),
            "cause": self.cause,
            "culprits": list(self.culprits),
            "because": self.because,
        }


@dataclass(frozen=True, slots=True)
class Incident:
    """A verdict with its history. Equal inputs give equal objects, ids included."""

    id: str
    job_id: str
    incarnation: int
    rule: str
    cause: str
    status: str
    first_evidence_ns: int
    opened_ns: int | None
    updated_ns: int
    resolved_ns: int | None
    culprits: tuple[Culprit, ...]
    victims: tuple[int, ...]
    grade: str
    summary: str
    evidence: tuple[Evidence, ...]
    unseen: tuple[str, ...]
    action: Action
    refuted_by: str
    revisions: tuple[Revision, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As in the API, in the order of the design's table."""
        return {
            "id": self.id,
            "job_id": self.job_id,
            "incarnation": self.incarnation,
            "rule": self.rule,
            "cause": self.cause,
            "status": self.status,
            "first_evidence_at": rfc3339(self.first_evidence_ns),
            "opened_at": rfc3339(self.opened_ns),
            "updated_at": rfc3339(self.updated_ns),
            "resolved_at": rfc3339(self.resolved_ns),
            "culprits": [culprit.to_json() for culprit in self.culprits],
            "victims": list(self.victims),
            "grade": self.grade,
            "summary": self.summary,
            "evidence": [item.to_json() for item in self.evidence],
            "unseen": list(self.unseen),
            "action": self.action.to_json(),
            "refuted_by": self.refuted_by,
            "revisions": [revision.to_json() for revision in self.revisions],
        }

    def changed(self, **fields: Any) -> Incident:
        """The same incident with other fields."""
        return replace(self, **fields)


def incident_id(job_id: str, incarnation: int, rule: str, key: str, first_evidence_ns: int) -> str:
    """Sixteen hex digits that the same input always gives."""
    text = json.dumps([job_id, incarnation, rule, key, first_evidence_ns])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
