"""Sets of ranks as short text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.model.ranks import format_ranks, parse_ranks


@given(st.sets(st.integers(0, 2000)))
def test_what_is_written_reads_back(ranks: set[int]) -> None:
    assert parse_ranks(format_ranks(ranks)) == tuple(sorted(ranks))


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([], ""),
        ([3], "3"),
        ([3, 4], "3-4"),
        ([3, 5], "3,5"),
        ([0, 1, 2, 3], "0-3"),
        (range(0, 1024, 2), "0-1022:2"),
        ([5, 0, 7, 5], "0,5,7"),
        ([0, 1, 2, 3, 8, 16, 24], "0-3,8-24:8"),
    ],
)
def test_regular_groups_are_short(ranks: list[int], text: str) -> None:
    assert format_ranks(ranks) == text


def test_a_group_of_a_hundred_thousand_stays_a_few_characters() -> None:
    assert len(format_ranks(range(0, 100_000, 8))) < 12


@pytest.mark.parametrize("text", ["a", "1-", "-1", "1-2:x", "1:2", "1:2:3"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_ranks(text)
