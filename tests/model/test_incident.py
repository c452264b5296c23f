"""The incident object: its JSON is the contract of every screen and store."""

from __future__ import annotations

import json

import pytest

from arobust_otel.model.causes import ACTIONS, BY_CODE, CAUSES
from arobust_otel.model.incident import (
    OPEN,
    RESOLVED,
    Action,
    Culprit,
    Evidence,
    Incident,
    Revision,
    incident_id,
    rfc3339,
)

NOON_NS = 1_767_268_800_000_000_000

INCIDENT = Incident(
    id="0123456789abcdef",
    job_id="job",
    incarnation=1,
    rule="hang",
    cause="hang_user_code",
    status=OPEN,
    first_evidence_ns=NOON_NS,
    opened_ns=NOON_NS + 10_500_000_000,
    updated_ns=NOON_NS + 11_000_000_000,
    resolved_ns=None,
    culprits=(Culprit(rank=2, node="gpu-a"),),
    victims=(0, 1, 3),
    grade="two_witnesses",
    summary="Rank 2 stands in read_shard() data.py:88.",
    evidence=(Evidence(NOON_NS, "stack", "the same stack twice", "gpu-a/job"),),
    unseen=("rank 5",),
    action=Action("restart_worker", "rank 2", "it does not come back by itself"),
    refuted_by="step 4183 appears",
    revisions=(Revision(NOON_NS, "rank_busy", (0,), "its stack did not change"),),
)
FIELDS = [
    "id", "job_id", "incarnation", "rule", "cause", "status", "first_evidence_at", "opened_at", "updated_at",
    "resolved_at", "culprits", "victims", "grade", "summary", "evidence", "unseen", "action", "refuted_by",
    "revisions",
]  # fmt: skip


def test_json_has_the_fields_of_the_contract_in_their_order() -> None:
    body = INCIDENT.to_json()
    assert list(body) == FIELDS
    assert body["opened_at"] == "2026-01-01T12:00:10.500000Z"
    assert body["resolved_at"] is None
    assert json.loads(json.dumps(body)) == body


def test_what_is_not_known_of_a_culprit_is_null() -> None:
    assert INCIDENT.to_json()["culprits"] == [
        {
            "rank": 2,
            "local_rank": None,
            "role": None,
            "pid": None,
            "node": "gpu-a",
            "accelerator": None,
            "zone": None,
        }
    ]


def test_a_change_leaves_the_earlier_object_as_it_was() -> None:
    resolved = INCIDENT.changed(status=RESOLVED, resolved_ns=NOON_NS)
    assert (INCIDENT.status, resolved.status, resolved.id) == (OPEN, RESOLVED, INCIDENT.id)


def test_the_same_input_gives_the_same_id_and_another_attempt_another() -> None:
    first = incident_id("job", 0, "hang", "2", NOON_NS)
    assert first == incident_id("job", 0, "hang", "2", NOON_NS)
    assert len(first) == 16
    assert first != incident_id("job", 1, "hang", "2", NOON_NS)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_767_268_800_000_000_999, "2026-01-01T12:00:00.000000Z"),
        (1_767_268_800_999_999_999, "2026-01-01T12:00:00.999999Z"),
        (None, None),
    ],
)
def test_times_are_cut_to_microseconds_never_rounded(time_ns: int | None, text: str | None) -> None:
    assert rfc3339(time_ns) == text


def test_every_cause_has_a_known_default_action_and_stands_once() -> None:
    assert len(BY_CODE) == len(CAUSES)
    assert {cause.action for cause in CAUSES} <= set(ACTIONS)
