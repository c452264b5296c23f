"""Cursor, snapshots, retention and stripped copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Cursor, Kind, Reader, snapshots
from arobust_otel.journal.retention import retain, retain_for_readers
from arobust_otel.journal.segments import first_offsets
from arobust_otel.journal.strip import strip


def journal(folder: Path, count: int = 30) -> Path:
    with Appender.open(folder, segment_bytes=300) as appender:
        for number in range(count):
            kind = Kind.OUTPUT if number % 3 == 2 else Kind.TICK
            appender.append(kind, b"0123456789", received_ns=number)
    return folder


def test_cursor_is_zero_before_the_first_store_and_keeps_what_was_stored(tmp_path: Path) -> None:
    cursor = Cursor(tmp_path / "cursors" / "sink")
    assert cursor.load() == 0
    cursor.store(2**40)
    assert Cursor(cursor.path).load() == 2**40
    assert cursor.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in cursor.path.parent.iterdir()] == ["sink"]


@pytest.mark.parametrize("content", [b"", b"-1\n", b"12x", b"\xff\xfe", b"1\n2\n"])
def test_damaged_cursor_stops_instead_of_delivering_everything_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sink"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is not a cursor"):
        Cursor(path).load()


def test_newest_snapshot_is_found_and_three_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    assert snapshots.latest(folder, 1) is None
    for offset in (5, 10, 20, 15):
        snapshots.store(folder, offset, b"state %d" % offset, version=1)
    assert snapshots.offsets(folder) == [10, 15, 20]
    assert snapshots.latest(folder, 1) == (20, b"state 20")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_a_killed_process_left_half_written_goes_with_the_next_snapshot(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000007.snapshot.tmp").write_bytes(b"half")
    snapshots.store(tmp_path, 9, b"state", version=1)
    assert [path.name for path in tmp_path.iterdir()] == ["00000000000000000009.snapshot"]


def test_snapshot_damaged_at_any_byte_is_passed_over_for_an_older_one(tmp_path: Path) -> None:
    snapshots.store(tmp_path, 1, b"older", version=3)
    snapshots.store(tmp_path, 2, b"newer", version=3)
    newest = tmp_path / "00000000000000000002.snapshot"
    data = newest.read_bytes()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        newest.write_bytes(damaged)
        assert snapshots.latest(tmp_path, 3) == (1, b"older")
        newest.write_bytes(data[:position])
        assert snapshots.latest(tmp_path, 3) == (1, b"older")


def test_snapshot_of_another_version_is_not_used(tmp_path: Path) -> None:
    snapshots.store(tmp_path, 1, b"old layout", version=1)
    assert snapshots.latest(tmp_path, 2) is None


def test_snapshot_that_vanished_since_it_was_listed_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000009.snapshot").symlink_to(tmp_path / "gone")
    assert snapshots.latest(tmp_path, 1) is None


def test_retention_deletes_oldest_segments_until_within_the_limit(tmp_path: Path) -> None:
    folder = journal(tmp_path / "j")
    firsts = first_offsets(folder)
    result = retain(folder, limit_bytes=1000, in_use=[30, 29])
    left = first_offsets(folder)
    assert left == firsts[-len(left) :]
    assert result.kept_bytes <= 1000
    assert (result.deleted_segments, result.blocked_bytes) == (len(firsts) - len(left), 0)
    with Reader(folder) as reader:
        assert reader.read()[0].offset == left[0]


def test_retention_never_passes_the_oldest_offset_in_use_and_says_so(tmp_path: Path) -> None:
    folder = journal(tmp_path / "j")
    firsts = first_offsets(folder)
    needed = firsts[2] + 1
    result = retain(folder, limit_bytes=0, in_use=[30, needed])
    assert first_offsets(folder) == firsts[2:]
    assert result.blocked_bytes > 0
    with Reader(folder, needed) as reader:
        assert reader.read()[0].offset == needed
    assert retain(folder, limit_bytes=0, in_use=[0]).deleted_segments == 0


def test_retention_keeps_the_newest_segment_and_takes_an_empty_folder(tmp_path: Path) -> None:
    folder = journal(tmp_path / "j")
    last = first_offsets(folder)[-1]
    result = retain(folder, limit_bytes=0, in_use=[])
    assert first_offsets(folder) == [last]
    assert result.blocked_bytes == 0
    assert retain(tmp_path / "none", 0, []).kept_bytes == 0


def test_readers_that_are_behind_are_waited_for_within_a_bound(tmp_path: Path) -> None:
    """A destination that is away must not fill the disk, and the oldest snapshot is never passed."""
    folder = journal(tmp_path / "j")
    firsts = first_offsets(folder)
    whole = retain_for_readers(folder, limit_bytes=1000, spare_bytes=10**6, readers=[0, 30], snapshot=29)
    assert (whole.deleted_segments, whole.blocked_bytes > 0) == (0, True)
    bounded = retain_for_readers(folder, limit_bytes=1000, spare_bytes=200, readers=[0, 30], snapshot=29)
    assert bounded.kept_bytes <= 1200
    assert first_offsets(folder)[0] > firsts[0]
    snapshot = first_offsets(folder)[1] + 1
    retain_for_readers(folder, limit_bytes=0, spare_bytes=0, readers=[0], snapshot=snapshot)
    with Reader(folder, snapshot) as reader:
        assert reader.read()[0].offset == snapshot


def test_stripped_copy_keeps_offsets_and_lacks_outputs(tmp_path: Path) -> None:
    source = journal(tmp_path / "j")
    copy = tmp_path / "copy"
    assert strip(source, copy) == 10
    with Reader(source) as all_of_it, Reader(copy) as rest:
        wanted = [record for record in all_of_it.read() if record.kind is not Kind.OUTPUT]
        assert rest.read() == wanted
    assert len(first_offsets(copy)) > 3
    assert copy.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("start", range(0, 31, 5))
def test_stripped_copy_is_read_from_any_offset(tmp_path: Path, start: int) -> None:
    copy = tmp_path / "copy"
    strip(journal(tmp_path / "j"), copy, drop={Kind.TICK})
    with Reader(copy, start) as reader:
        assert [record.offset for record in reader.read()] == [
            n for n in range(30) if n % 3 == 2 and n >= start
        ]


def test_strip_refuses_to_write_into_a_journal(tmp_path: Path) -> None:
    source = journal(tmp_path / "j")
    with pytest.raises(JournalError, match="already"):
        strip(source, source)
