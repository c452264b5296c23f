"""What a tired person reads."""

from __future__ import annotations

from typing import Any

from arobust_otel.screen import render_incident, render_ranks
from arobust_otel.testing import Story


def hang() -> Story:
    story = Story(ranks=4)
    story.run(10)
    story.rank(2).hangs_in("read_shard", "/job/data.py", 88)
    story.run(25)
    return story


def test_a_verdict_says_who_why_what_to_do_and_what_would_refute_it() -> None:
    text = render_incident(hang().engine.incidents()[0].to_json())
    first, second, *rest = text.splitlines()
    assert first.startswith("OPEN  hang_user_code")
    assert "Rank 2" in second
    assert "read_shard() data.py:88" in second
    labels = [line[2:14].strip() for line in rest if line.startswith("  ") and line[2:14].strip()]
    assert labels == ["To blame", "Victims", "Because", "Do", "Refuted by", "When"]
    assert "ranks 0-1,3: only waiting" in text
    assert "opened 10.0 s later" in text


def test_no_line_is_wider_than_the_screen() -> None:
    text = render_incident(hang().engine.incidents()[0].to_json(), width=60)
    assert max(len(line) for line in text.splitlines()[1:]) <= 60


def test_nobody_is_blamed_where_there_is_no_culprit() -> None:
    text = render_incident(
        {"status": "pending", "cause": "rank_busy", "job_id": "j", "id": "1", "culprits": []}
    )
    assert "To blame    nobody" in text


def test_evidence_against_what_was_not_seen_and_revisions_are_shown() -> None:
    incident: dict[str, Any] = {
        "status": "resolved",
        "cause": "hang_user_code",
        "evidence": [
            {
                "at": "2026-01-01T12:00:00.000000Z",
                "kind": "metric",
                "says": "0 retransmits",
                "supports": False,
            }
        ],
        "unseen": ["rank 512"],
        "revisions": [
            {"at": None, "cause": "rank_busy", "culprits": [0], "because": "its stack did not change"}
        ],
        "resolved_at": "2026-01-01T12:01:00.000000Z",
    }
    text = render_incident(incident)
    assert "Against     12:00:00.000 0 retransmits" in text
    assert "Not seen    rank 512" in text
    assert "before: rank_busy, rank 0; because its stack did not change" in text


def test_the_table_of_ranks_shows_how_a_rank_ended_and_leaves_empty_columns_out() -> None:
    text = render_ranks(
        [
            {"rank": 1, "step": 7, "process_state": "gone", "exit_signal": 9},
            {"rank": 0, "step": 8, "process_state": "running"},
            {"rank": 2, "step": 8, "process_state": "gone", "exit_code": None, "exit_signal": None},
        ]
    )
    assert text.splitlines() == [
        "rank  step  process",
        "   0     8  running",
        "   1     7  gone, signal 9",
        "   2     8  gone, exit code unknown",
    ]


def test_of_many_ranks_those_without_progress_for_longest_are_shown() -> None:
    rows = [{"rank": rank, "event_age_seconds": 30.0 if rank == 77 else 0.1} for rank in range(1000)]
    lines = render_ranks(rows, limit=3).splitlines()
    assert lines[1].split() == ["77", "30", "s"]
    assert lines[-1] == "... and 997 ranks that made progress more recently"


def test_no_rank_is_said_in_words() -> None:
    assert render_ranks([]) == "No rank has been seen."
