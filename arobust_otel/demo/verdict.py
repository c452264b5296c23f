"""Whether a verdict is right. Pure: incidents as the query API gives them, and what was done, go in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Deed:
    """What was done to whom.

    Attributes:
        cause: the right cause; None where nothing was done and no incident may open.
        function, file: what the summary has to name; None where no stack belongs to the fault.
    """

    cause: str | None
    rank: int
    pid: int | None = None
    function: str | None = None
    file: str | None = None


def opened(incidents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that ever opened; one that was pending only has opened nothing."""
    return [incident for incident in incidents if incident.get("opened_at") is not None]


def reasons_against(deed: Deed, incidents: Sequence[dict[str, Any]]) -> list[str]:
    """Why the verdict is wrong, one sentence each; empty where it is right."""
    found = opened(incidents)
    if deed.cause is None:
        return [f"{item['cause']} opened in a healthy job: {item['summary']}" for item in found]
    if not found:
        return ["no incident opened"]
    if len(found) > 1:
        causes = ", ".join(f"{item['cause']} of {_ranks(item)}" for item in found)
        return [f"{len(found)} incidents opened instead of one: {causes}"]
    return _against_one(deed, found[0])


def _against_one(deed: Deed, incident: dict[str, Any]) -> list[str]:
    reasons = []
    if incident["cause"] != deed.cause:
        reasons.append(f"the cause is {incident['cause']} instead of {deed.cause}")
    if _ranks(incident) != [deed.rank]:
        reasons.append(f"the culprits are {_ranks(incident)} instead of [{deed.rank}]")
    pids = [culprit.get("pid") for culprit in incident["culprits"]]
    if deed.pid is not None and any(pid not in (None, deed.pid) for pid in pids):
        reasons.append(f"the culprit's pid is {pids} instead of {deed.pid}")
    if deed.rank in incident["victims"]:
        reasons.append(f"rank {deed.rank} is called a victim too")
    reasons += [
        f"the summary does not name {name}: {incident['summary']}"
        for name in (deed.function, deed.file)
        if name is not None and name not in incident["summary"]
    ]
    return reasons


def _ranks(incident: dict[str, Any]) -> list[Any]:
    return sorted((culprit.get("rank") for culprit in incident["culprits"]), key=str)
