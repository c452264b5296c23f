"""One change of an incident, as people and their tools are told of it.

An incident itself (`model/incident.py`) has a status; what happened to it since it was told last is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arobust_otel.model import signals
from arobust_otel.model.causes import BY_CODE, CRITICAL
from arobust_otel.model.incident import OPEN, PENDING, RESOLVED

SUSPECTED = "incident.pending"
OPENED = "incident.opened"
UPDATED = "incident.updated"
REVISED = "incident.revised"  # another cause, rule or culprit than was told before
ENDED = "incident.resolved"
CHANGES = (SUSPECTED, OPENED, UPDATED, REVISED, ENDED)

Told = Mapping[str, Any]  # Incident.to_json()


@dataclass(frozen=True, slots=True)
class Notice:
    """A change. `id` is the same whenever it is told again; `at_ns` is when the master wrote it down."""

    id: str
    change: str
    at_ns: int
    incident: Told


def change_of(before: Told | None, incident: Told) -> str:
    """What happened to an incident; `before` is its open form as it was told last."""
    if incident["status"] == PENDING:
        return SUSPECTED
    if incident["status"] == RESOLVED:
        return ENDED
    if before is None or before["status"] != OPEN:
        return OPENED
    return UPDATED if verdict_of(before) == verdict_of(incident) else REVISED


def verdict_of(incident: Told) -> tuple[Any, ...]:
    """What an alert or a series is about: it stays the same until the verdict is another."""
    ranks = tuple(culprit["rank"] for culprit in incident["culprits"])
    return incident["job_id"], incident["rule"], incident["cause"], ranks, host_of(incident)


def labels_of(incident: Told) -> dict[str, str | int]:
    """Attributes of the incident's gauge and alert: few, and the same until the verdict is another.

    Rank and host only where there is exactly one; an incident id is never among them.
    """
    labels: dict[str, str | int] = {
        signals.RULE: incident["rule"],
        signals.CAUSE: incident["cause"],
        signals.SEVERITY: severity_of(incident),
    }
    culprits = incident["culprits"]
    if len(culprits) == 1 and culprits[0]["rank"] is not None:
        labels[signals.RANK] = culprits[0]["rank"]
    host = host_of(incident)
    if host is not None:
        labels[signals.HOST_NAME] = host
    return labels


def series_of(incident: Told) -> str:
    """Text that two incidents share where their gauges or alerts are the same one."""
    labels = labels_of(incident)
    return "|".join([incident["job_id"], *(f"{key}={labels[key]}" for key in sorted(labels))])


def host_of(incident: Told) -> str | None:
    """The host of all culprits, None where there is no single one."""
    hosts = {culprit["node"] for culprit in incident["culprits"]}
    return hosts.pop() if len(hosts) == 1 else None


def severity_of(incident: Told) -> str:
    """Severity of the incident's cause; critical for one that this version does not know."""
    cause = BY_CODE.get(incident["cause"])
    return cause.severity if cause else CRITICAL
