"""What a rule returns: findings, and evidence that it wants to see.

The engine makes incidents of findings; a rule knows nothing of hold, clear, duplicates or ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from arobust_otel.model.incident import Evidence


@dataclass(frozen=True, slots=True)
class Finding:
    """One judgement about one incarnation of one job at one tick.

    `opens` is False for what is worth showing but blames nobody ("rank 0 holds the job, and is working"): it
    stays pending. `action` None means the default of the cause.
    """

    cause: str
    summary: str
    first_evidence_ns: int
    culprits: tuple[int, ...] = ()
    victims: tuple[int, ...] = ()
    grade: str = "one_witness"
    evidence: tuple[Evidence, ...] = ()
    unseen: tuple[str, ...] = ()
    refuted_by: str = ""
    action: str | None = None
    action_why: str = ""
    opens: bool = True
    stacks_of: tuple[int, ...] = field(default=())  # ranks whose last stack belongs to the incident


@dataclass(frozen=True, slots=True)
class StacksWanted:
    """Stacks of these ranks would decide the case; not asked again within `every_seconds`."""

    ranks: tuple[int, ...]
    every_seconds: float = 3.0
    why: str = ""
