"""What the user asked the demo for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arobust_otel.errors import ArobustError

RIGHT, WRONG, CANNOT_RUN, INTERRUPTED = 0, 1, 2, 130
TIMEOUT_SECONDS = 300.0
HEALTHY_TIMEOUT_SECONDS = 420.0
HEALTHY_SECONDS = 90.0


class CannotRun(ArobustError):
    """The demo did not come to the point where a verdict can be right or wrong; the message says why."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """One run.

    Attributes:
        ranks: size of the job.
        keep: folder for journal and logs; None for one that is removed at the end.
        timeout_seconds: from the start of the training until giving up.
        seed: decides what is drawn; None draws it too.
    """

    fault: str = "hang"
    rank: int = 2
    ranks: int = 4
    as_json: bool = False
    keep: Path | None = None
    timeout_seconds: float | None = None
    seed: int | None = None

    @property
    def limit_seconds(self) -> float:
        """The time limit, with what the fault needs where the user named none."""
        if self.timeout_seconds is not None:
            return self.timeout_seconds
        return HEALTHY_TIMEOUT_SECONDS if self.fault == "none" else TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened; `reasons` says why it is not right, and is empty where it is."""

    fault: str
    injected_rank: int | None
    injected_at: str | None
    incidents: tuple[dict[str, Any], ...]
    verdict_after_seconds: float | None
    reasons: tuple[str, ...]
    journal: str | None

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "fault": self.fault,
            "injected_rank": self.injected_rank,
            "injected_at": self.injected_at,
            "incidents": list(self.incidents),
            "verdict_after_seconds": self.verdict_after_seconds,
            "ok": not self.reasons,
            "journal": self.journal,
        }
