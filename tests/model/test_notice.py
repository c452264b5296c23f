"""What happened to an incident since it was told last."""

from __future__ import annotations

from typing import Any

import pytest

from arobust_otel.model.causes import CAUSES, SEVERITIES
from arobust_otel.model.notice import change_of, host_of, severity_of


def told(status: str = "open", cause: str = "hang_device", ranks: tuple[int, ...] = (2,)) -> dict[str, Any]:
    culprits = [{"rank": rank, "node": "gpu-a"} for rank in ranks]
    return {"job_id": "j", "rule": "hang", "cause": cause, "status": status, "culprits": culprits}


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (None, told("pending"), "incident.pending"),
        (None, told(), "incident.opened"),
        (told("pending"), told(), "incident.opened"),
        (told(), told(), "incident.updated"),
        (told(), told(cause="deadlock"), "incident.revised"),
        (told(), told(ranks=(3,)), "incident.revised"),
        (told(), told("resolved"), "incident.resolved"),
        (None, told("resolved"), "incident.resolved"),
    ],
)
def test_a_change_is_named_by_what_was_told_before(before: Any, now: Any, change: str) -> None:
    assert change_of(before, now) == change


def test_the_host_is_named_where_it_is_one() -> None:
    both = told(ranks=(1, 2))
    assert host_of(both) == "gpu-a"
    both["culprits"][0]["node"] = "gpu-b"
    assert host_of(both) is None
    assert host_of(told(ranks=())) is None


def test_every_cause_has_a_severity_and_an_unheard_of_one_is_critical() -> None:
    assert {cause.severity for cause in CAUSES} == set(SEVERITIES)
    assert severity_of(told(cause="rank_busy")) == "info"
    assert severity_of(told(cause="of a later version")) == "critical"
