"""Bytes to lines to records."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.collectors.logtext import LineSplitter, Record, TracebackJoiner, decode_line, severity
from arobust_otel.model.samples import ERROR, INFO, WARN


def joined(lines: Iterable[str]) -> list[str]:
    joiner = TracebackJoiner()
    records = [
        record for number, line in enumerate(lines) for record in joiner.feed(Record(line, number + 1))
    ]
    return [record.text for record in records + joiner.flush()]


PLAIN = """\
Traceback (most recent call last):
  File "train.py", line 12, in <module>
    main()
ValueError: bad shard"""
CHAINED = PLAIN + "\n\nDuring handling of the above exception, another exception occurred:\n\n" + PLAIN
TORCH = "\n".join(f"[rank2]: {line}" for line in PLAIN.splitlines())
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "t.py", line 1, in <module>
  | ExceptionGroup: two (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: one
    +------------------------------------"""


@pytest.mark.parametrize(
    "traceback", [PLAIN, CHAINED, TORCH, GROUP], ids=["plain", "chained", "torch", "group"]
)
def test_a_traceback_is_one_record(traceback: str) -> None:
    lines = ["step 1", *traceback.splitlines(), "step 2"]
    assert joined(lines) == ["step 1", traceback, "step 2"]


def test_two_tracebacks_in_a_row_stay_one_record_only_where_they_are_chained() -> None:
    assert joined([*CHAINED.splitlines(), "", "step 2"]) == [CHAINED, "step 2"]


def test_the_line_of_another_rank_ends_a_traceback_with_a_prefix() -> None:
    lines = [*TORCH.splitlines()[:2], "[rank3]: hello", "world"]
    assert joined(lines) == ["\n".join(TORCH.splitlines()[:2]), "[rank3]: hello", "world"]


def of_rank(rank: int, prefix: str = "[rank{}]: ") -> list[str]:
    return [prefix.format(rank) + line for line in PLAIN.replace("shard", f"shard {rank}").splitlines()]


@pytest.mark.parametrize("prefix", ["[rank{}]: ", "[default{}]:", "{}: "])
def test_tracebacks_of_several_ranks_may_be_interleaved(prefix: str) -> None:
    """All of them fail at once, and write to one stream."""
    ranks = [of_rank(rank, prefix) for rank in (1, 10, 2)]
    mixed = [line for lines in zip(*ranks, strict=True) for line in lines]
    mixed.insert(5, "a line of nobody")
    assert joined(["before", *mixed, "after"]) == [
        "before", "a line of nobody", *("\n".join(lines) for lines in ranks), "after",
    ]  # fmt: skip


def test_what_is_interleaved_settles_with_its_last_record() -> None:
    """Until then lines before it may belong to a record that is on its way."""
    first, second = of_rank(1), of_rank(2)
    mixed = [*first[:2], *second, *first[2:]]
    joiner = TracebackJoiner()
    for number, line in enumerate(mixed):
        assert joiner.feed(Record(line, number + 1)) == []
    assert joiner.flush() == [
        Record("\n".join(second), 6, settles=False), Record("\n".join(first), 8, settles=True),
    ]  # fmt: skip


def test_a_traceback_that_never_ends_holds_no_lines_of_others_back_for_long() -> None:
    joiner = TracebackJoiner()
    lines = [*of_rank(1)[:2], *(f"step {number}" for number in range(1000))]
    given = [record.text for n, line in enumerate(lines) for record in joiner.feed(Record(line, n + 1))]
    assert given == ["\n".join(lines[:2]), *lines[2:]]


def test_empty_lines_are_left_out() -> None:
    assert joined(["a", "", "  ", "b"]) == ["a", "b"]


def test_a_traceback_ends_at_its_last_offset() -> None:
    joiner = TracebackJoiner()
    for number, line in enumerate(PLAIN.splitlines()):
        joiner.feed(Record(line, (number + 1) * 10))
    (record,) = joiner.flush()
    assert record.end_offset == 40


def test_only_whole_lines_are_given_and_their_offsets_lie_after_the_line_feed() -> None:
    splitter = LineSplitter(100)
    assert splitter.feed(b"one\ntw") == [Record("one", 104)]
    assert splitter.feed(b"o\n\n") == [Record("two", 108), Record("", 109)]
    splitter.feed(b"end")
    assert splitter.finish() == [Record("end", 112)]
    assert splitter.finish() == []


def test_a_very_long_line_is_cut_and_says_so() -> None:
    splitter = LineSplitter(0, max_bytes=10)
    records = splitter.feed(b"x" * 7) + splitter.feed(b"x" * 20) + splitter.feed(b"x\nnext\n")
    assert records == [Record("xxxxxxxxxx [cut: 18 bytes left out]", 29), Record("next", 34)]


@given(st.lists(st.binary(max_size=40)), st.integers(1, 30))
def test_however_the_bytes_arrive_the_records_are_the_same(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    one = LineSplitter(0, size)
    many = LineSplitter(0, size)
    expected = one.feed(data) + one.finish()
    assert [record for part in parts for record in many.feed(part)] + many.finish() == expected


@given(st.binary())
def test_every_line_is_text_that_can_be_sent(data: bytes) -> None:
    decode_line(data).encode("utf-8")


@given(st.lists(st.text(alphabet="aT []:\n\t", max_size=12) | st.sampled_from(CHAINED.splitlines())))
def test_no_word_gets_lost_and_offsets_never_go_back(lines: list[str]) -> None:
    joiner = TracebackJoiner()
    records = [record for number, line in enumerate(lines) for record in joiner.feed(Record(line, number))]
    records += joiner.flush()
    words = [word for line in lines for word in line.split()]
    assert [word for record in records for word in record.text.split()] == words
    offsets = [record.end_offset for record in records]
    assert offsets == sorted(offsets)


def test_a_progress_bar_is_shown_as_a_terminal_shows_it() -> None:
    assert decode_line(b"\r 10%|# |\r100%|##|\r") == "100%|##|"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("step 7 loss 3.2", INFO),
        ("2026-01-01 ERROR shard 3 is gone", ERROR),
        ("ValueError: bad", ERROR),
        ("[rank2]: Traceback (most recent call last):\n x", ERROR),
        ("/a/b.py:3: UserWarning: slow", WARN),
    ],
)
def test_severity_comes_from_the_first_words(text: str, expected: int) -> None:
    assert severity(text) == expected
