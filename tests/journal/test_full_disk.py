"""A disk that is full is a state of the journal: refused whole, taken again as soon as there is room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Reader, snapshots
from arobust_otel.journal.retention import limit_for, retain
from arobust_otel.journal.segments import first_offsets
from tests.disk import fill, make_room, tiny_disk

SEGMENT = 8 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "tiny", 512) as place:
        yield place


def append_until_full(appender: Appender, size_bytes: int) -> int:
    """How many records were taken before one was refused."""
    taken = 0
    while True:
        try:
            appender.append(Kind.REQUEST, b"x" * size_bytes, received_ns=taken)
        except JournalError as error:
            if "No space left" not in str(error):
                raise
            return taken
        taken += 1


def offsets(folder: Path) -> list[int]:
    with Reader(folder) as reader:
        found, part = [], reader.read()
        while part:
            found += [record.offset for record in part]
            part = reader.read()
    return found


@pytest.mark.parametrize("size_bytes", [1, 50, 997, 4000, 4096, 9000])
def test_nothing_half_written_and_recovery_by_itself(disk: Path, size_bytes: int) -> None:
    """The sizes make it fail at all places: within a record, at the seal, at the next segment's header."""
    folder = disk / "journal"
    with Appender.open(folder, SEGMENT) as appender, Reader(folder) as reader:
        appender.append(Kind.TICK, b"first", received_ns=0)
        fill(disk)
        taken = append_until_full(appender, size_bytes)
        assert "No space left" in appender.full
        assert appender.sync() <= 1 + taken
        assert offsets(folder) == list(range(1 + taken))
        for _ in range(3):
            assert append_until_full(appender, size_bytes) == 0
        make_room(disk)
        assert appender.append(Kind.TICK, b"again", received_ns=0) == 1 + taken
        assert appender.full == ""
        assert [record.offset for _ in range(9) for record in reader.read()] == list(range(2 + taken))
    assert offsets(folder) == list(range(2 + taken))


@pytest.mark.parametrize("size_bytes", [50, 997, 4096])
def test_a_start_on_a_full_disk_works_and_writes_later(disk: Path, size_bytes: int) -> None:
    folder = disk / "journal"
    with Appender.open(folder, SEGMENT) as appender:
        fill(disk)
        taken = append_until_full(appender, size_bytes)
    with Appender.open(folder, SEGMENT, at_least=taken + 5) as appender:
        assert append_until_full(appender, size_bytes) == 0
        make_room(disk)
        assert appender.append(Kind.TICK, b"", received_ns=0) == taken + 5
    assert offsets(folder) == [*range(taken), taken + 5]


def test_a_new_journal_on_a_full_disk_begins_when_there_is_room(disk: Path) -> None:
    fill(disk)
    with Appender.open(disk / "journal") as appender:
        assert append_until_full(appender, 1) == 0
        assert offsets(disk / "journal") == []
        make_room(disk)
        assert appender.append(Kind.TICK, b"", received_ns=0) == 0
    assert offsets(disk / "journal") == [0]


def test_old_journal_makes_room_on_a_short_disk(disk: Path) -> None:
    folder = disk / "journal"
    reserve = 64 * 1024
    with Appender.open(folder, SEGMENT) as appender:
        for number in range(100):
            appender.append(Kind.REQUEST, b"x" * 1000, received_ns=number)
        assert limit_for(folder, 10**9, reserve) == 10**9
        fill(disk)
        assert append_until_full(appender, 1000) < 8
        limit = limit_for(folder, 10**9, reserve)
        retained = retain(folder, limit, [appender.next_offset])
        assert retained.deleted_segments > 5
        assert os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= reserve
        last = appender.append(Kind.TICK, b"", received_ns=0)
        assert offsets(folder) == list(range(first_offsets(folder)[0], last + 1))


def test_snapshots_that_find_no_room_leave_nothing(disk: Path) -> None:
    """An empty file needs no block of its own here, so that only the write fails."""
    folder = disk / "snapshots"
    snapshots.store(folder, 1, b"x" * 4096, version=1)
    fill(disk)
    for offset in range(2, 5):
        with pytest.raises(OSError, match="No space left"):
            snapshots.store(folder, offset, b"x" * 8192, version=1)
    assert [path.name for path in folder.iterdir()] == ["00000000000000000001.snapshot"]
    make_room(disk)
    snapshots.store(folder, 5, b"x" * 8192, version=1)
    assert snapshots.offsets(folder) == [1, 5]


def test_what_is_still_needed_is_not_deleted_for_room(disk: Path) -> None:
    folder = disk / "journal"
    with Appender.open(folder, SEGMENT) as appender:
        for number in range(100):
            appender.append(Kind.REQUEST, b"x" * 1000, received_ns=number)
    fill(disk)
    before = first_offsets(folder)
    retained = retain(folder, limit_for(folder, 10**9, 10**9), [before[1]])
    assert first_offsets(folder) == before[1:]
    assert retained.blocked_bytes > 0
