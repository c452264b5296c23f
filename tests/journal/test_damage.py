"""Going on behind damage: what is whole is read, and how much is left out is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Reader
from arobust_otel.journal.format import HEADER_BYTES, SEGMENT_BYTES
from arobust_otel.journal.segments import first_offsets, segment_path

COUNT = 40


def spoil(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def a_byte_of_a_payload(folder: Path) -> None:
    spoil(segment_path(folder, first_offsets(folder)[1]), SEGMENT_BYTES + HEADER_BYTES)


def a_byte_of_a_head(folder: Path) -> None:
    spoil(segment_path(folder, first_offsets(folder)[1]), SEGMENT_BYTES + 13)


def the_head_of_a_segment(folder: Path) -> None:
    spoil(segment_path(folder, first_offsets(folder)[1]), 9)


def the_heads_of_two_segments(folder: Path) -> None:
    for first in first_offsets(folder)[1:3]:
        spoil(segment_path(folder, first), 9)


def the_head_of_the_first_segment(folder: Path) -> None:
    spoil(segment_path(folder, 0), 9)


def a_segment_that_is_gone(folder: Path) -> None:
    segment_path(folder, first_offsets(folder)[1]).unlink()


def a_segment_that_was_cut(folder: Path) -> None:
    path = segment_path(folder, first_offsets(folder)[1])
    path.write_bytes(path.read_bytes()[: SEGMENT_BYTES + HEADER_BYTES + 3])


DAMAGES = (
    a_byte_of_a_payload,
    a_byte_of_a_head,
    the_head_of_a_segment,
    the_heads_of_two_segments,
    the_head_of_the_first_segment,
    a_segment_that_is_gone,
    a_segment_that_was_cut,
)


def write(folder: Path) -> None:
    with Appender.open(folder, segment_bytes=300) as appender:
        for number in range(COUNT):
            appender.append(Kind.TICK, b"%07d" % number, received_ns=number)


def read_past(reader: Reader) -> tuple[list[int], int]:
    """Offsets of everything that is whole, and how many were passed over."""
    found, passed = [], 0
    while True:
        try:
            records = reader.read()
        except JournalError:
            left_out = reader.pass_damage()
            assert left_out is not None
            passed += left_out
            continue
        if not records:
            return found, passed
        found += [record.offset for record in records]


@pytest.mark.parametrize("damage", DAMAGES)
def test_everything_whole_is_read_and_the_rest_is_counted(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    write(tmp_path)
    firsts = first_offsets(tmp_path)
    damage(tmp_path)
    with Reader(tmp_path) as reader:
        found, passed = read_past(reader)
    assert found == sorted(set(found))
    assert len(found) + passed == COUNT
    assert 1 <= passed <= firsts[3] - firsts[1]
    assert found[-1] == COUNT - 1


def test_damage_before_the_start_costs_nothing(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        for number in range(COUNT):
            appender.append(Kind.TICK, b"x", received_ns=number)
            appender.sync()
    spoil(segment_path(tmp_path, 0), SEGMENT_BYTES + HEADER_BYTES)
    with Reader(tmp_path, start=30) as reader:
        assert read_past(reader) == (list(range(30, COUNT)), 0)


def test_a_reader_that_passed_damage_follows_the_appender(tmp_path: Path) -> None:
    write(tmp_path)
    a_byte_of_a_payload(tmp_path)
    with Reader(tmp_path) as reader:
        read_past(reader)
        with Appender.open(tmp_path, segment_bytes=300) as appender:
            for number in range(10):
                appender.append(Kind.TICK, b"later", received_ns=COUNT + number)
        assert read_past(reader) == (list(range(COUNT, COUNT + 10)), 0)


def test_where_nothing_follows_it_says_so(tmp_path: Path) -> None:
    write(tmp_path)
    last = first_offsets(tmp_path)[-1]
    spoil(segment_path(tmp_path, last), 9)
    with Reader(tmp_path, last) as reader:
        with pytest.raises(JournalError, match="header"):
            reader.read()
        assert reader.pass_damage() is None
