"""When a verdict counts as right."""

from __future__ import annotations

from typing import Any

from arobust_otel.demo.verdict import Deed, opened, reasons_against

HANG = Deed("hang_user_code", 2, pid=77, function="read_shard", file="data_pipeline.py")


def incident(**changes: Any) -> dict[str, Any]:
    found = {
        "cause": "hang_user_code",
        "status": "open",
        "opened_at": "2026-01-02T03:04:05.000000Z",
        "culprits": [{"rank": 2, "pid": 77}],
        "victims": [0, 1, 3],
        "summary": "Rank 2 (host, pid 77) in read_shard() data_pipeline.py:88 for 12 s",
    }
    return {**found, **changes}


def test_the_right_verdict_has_nothing_against_it() -> None:
    assert reasons_against(HANG, [incident()]) == []


def test_an_incident_that_was_resolved_has_opened_once_and_counts() -> None:
    assert reasons_against(HANG, [incident(status="resolved")]) == []


def test_a_pending_one_beside_it_does_no_harm() -> None:
    pending = incident(cause="rank_busy", status="pending", opened_at=None)
    assert opened([pending]) == []
    assert reasons_against(HANG, [pending, incident()]) == []


def test_no_incident_is_wrong() -> None:
    assert reasons_against(HANG, []) == ["no incident opened"]


def test_a_second_incident_is_wrong_even_if_one_of_them_is_right() -> None:
    second = incident(cause="process_killed", culprits=[{"rank": 0, "pid": 70}])
    assert reasons_against(HANG, [incident(), second]) == [
        "2 incidents opened instead of one: hang_user_code of [2], process_killed of [0]"
    ]


def test_blaming_a_peer_as_well_is_wrong() -> None:
    both = incident(culprits=[{"rank": 1, "pid": 71}, {"rank": 2, "pid": 77}])
    assert "the culprits are [1, 2] instead of [2]" in reasons_against(HANG, [both])[0]


def test_the_wrong_cause_and_the_missing_function_are_both_said() -> None:
    found = reasons_against(HANG, [incident(cause="unknown", summary="Rank 2 does nothing")])
    assert len(found) == 3
    assert found[0] == "the cause is unknown instead of hang_user_code"
    assert found[1].startswith("the summary does not name read_shard")
    assert found[2].startswith("the summary does not name data_pipeline.py")


def test_another_process_of_that_rank_is_not_the_culprit() -> None:
    found = reasons_against(HANG, [incident(culprits=[{"rank": 2, "pid": 5}])])
    assert found == ["the culprit's pid is [5] instead of 77"]


def test_in_a_healthy_job_every_opened_incident_is_wrong() -> None:
    found = reasons_against(Deed(None, 2), [incident(cause="hang_collective")])
    assert found[0].startswith("hang_collective opened in a healthy job")
    assert reasons_against(Deed(None, 2), [incident(status="pending", opened_at=None)]) == []
