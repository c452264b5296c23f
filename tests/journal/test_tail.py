"""The newest batches of a journal, read from heads of records alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from arobust_otel.journal import Appender, Kind, Source
from arobust_otel.journal.segments import first_offsets, segment_path
from arobust_otel.journal.tail import recent_batches


def key(number: int) -> tuple[str, str]:
    return ("logs" if number % 2 else "metrics", f"{number:032x}")


def fill(folder: Path, count: int, segment_bytes: int = 700) -> None:
    """Requests with a batch, between them requests without one, ticks and outputs."""
    with Appender.open(folder, segment_bytes) as appender:
        for number in range(count):
            signal, batch = key(number)
            appender.append(Kind.REQUEST, b"x" * number, received_ns=1, source=Source(signal, "nöde", batch))
            appender.append(Kind.REQUEST, b"y", received_ns=1, source=Source(signal, "nöde"))
            appender.append(Kind.OUTPUT, b"z", received_ns=1, source=Source(sender="judge", batch=batch))
            appender.append(Kind.TICK, b"", received_ns=1)


@pytest.mark.parametrize("limit", [1, 3, 39, 40, 1000])
def test_the_newest_are_found_over_all_segments_the_oldest_first(tmp_path: Path, limit: int) -> None:
    fill(tmp_path, 40)
    assert len(first_offsets(tmp_path)) > 5
    assert recent_batches(tmp_path, limit) == [key(number) for number in range(40)][-limit:]


def test_time_is_bounded_by_segments(tmp_path: Path) -> None:
    fill(tmp_path, 40)
    newest = recent_batches(tmp_path, 1000, max_seconds=0)
    assert newest in ([], [key(number) for number in range(40)][-len(newest) :])
    assert len(newest) < 10


def test_an_empty_journal_has_none(tmp_path: Path) -> None:
    assert recent_batches(tmp_path / "none", 10) == []
    Appender.open(tmp_path).close()
    assert recent_batches(tmp_path, 10) == []


def test_damage_in_an_old_segment_is_left_to_its_readers(tmp_path: Path) -> None:
    fill(tmp_path, 40)
    oldest = segment_path(tmp_path, 0)
    oldest.write_bytes(b"?" + oldest.read_bytes()[1:])
    found = recent_batches(tmp_path, 1000)
    assert 20 < len(found) < 40
    assert found == [key(number) for number in range(40)][-len(found) :]


def test_a_torn_tail_is_left_to_the_appender(tmp_path: Path) -> None:
    fill(tmp_path, 3, 1_000_000)
    with segment_path(tmp_path, 0).open("ab") as file:
        file.write(b"ARJ1 and half a record")
    assert recent_batches(tmp_path, 10) == [key(0), key(1), key(2)]
