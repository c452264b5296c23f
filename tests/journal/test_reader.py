from __future__ import annotations

from pathlib import Path

import pytest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Reader, Source
from arobust_otel.journal.format import (
    HEADER_BYTES,
    RECORD_MAGIC,
    SEGMENT_BYTES,
    RecordHeader,
    SegmentHeader,
    Stamp,
    pack_record,
)
from arobust_otel.journal.segments import first_offsets, segment_path


def write(folder: Path, count: int, segment_bytes: int = 300, payload: bytes = b"0123456") -> None:
    with Appender.open(folder, segment_bytes) as appender:
        for number in range(count):
            appender.append(Kind.TICK, payload, received_ns=number)


def offsets(folder: Path, start: int = 0) -> list[int]:
    with Reader(folder, start) as reader:
        return [record.offset for record in reader.read()]


def read_on(folder: Path) -> None:
    with Reader(folder) as reader:
        while reader.read():
            pass


def test_folder_that_does_not_exist_yet_is_an_empty_tail(tmp_path: Path) -> None:
    with Reader(tmp_path / "later") as reader:
        assert reader.read() == []
        write(tmp_path / "later", 2)
        assert len(reader.read()) == 2
        assert reader.offset == 2


@pytest.mark.parametrize("start", [0, 1, 4, 5, 6, 11, 19, 20, 25])
def test_reading_starts_at_any_offset(tmp_path: Path, start: int) -> None:
    write(tmp_path, 20)
    assert len(first_offsets(tmp_path)) > 3
    assert offsets(tmp_path, start) == list(range(start, 20))


def test_reader_follows_the_appender_over_rotations(tmp_path: Path) -> None:
    seen = []
    with Appender.open(tmp_path, segment_bytes=200) as appender, Reader(tmp_path) as reader:
        for number in range(60):
            appender.append(Kind.TICK, b"x" * (number % 90), received_ns=number)
            seen += [record.offset for record in reader.read()]
            assert reader.read() == []
    assert seen == list(range(60))


def test_number_of_records_is_limited_as_asked(tmp_path: Path) -> None:
    write(tmp_path, 10)
    with Reader(tmp_path) as reader:
        assert [len(reader.read(max_records=4)) for _ in range(4)] == [4, 4, 2, 0]


def test_records_larger_than_a_read_are_whole_and_calls_stay_bounded(tmp_path: Path) -> None:
    write(tmp_path, 12, segment_bytes=64 << 20, payload=b"y" * 1_500_000)
    with Reader(tmp_path) as reader:
        first = reader.read()
        assert 1 < len(first) < 12
        assert all(record.payload == b"y" * 1_500_000 for record in first)
        assert len(first + reader.read() + reader.read()) == 12


def test_reader_waits_at_a_half_record_and_takes_it_when_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = segment_path(tmp_path, 0)
    data = path.read_bytes()
    for size in range(len(data) - HEADER_BYTES - 6, len(data)):
        path.write_bytes(data[:size])
        with Reader(tmp_path) as reader:
            assert len(reader.read()) == 2
            assert reader.read() == []
            path.write_bytes(data)
            assert [record.offset for record in reader.read()] == [2]


def test_reader_waits_at_a_half_record_larger_than_a_read(tmp_path: Path) -> None:
    write(tmp_path, 1, payload=b"z" * 400_000)
    path = segment_path(tmp_path, 0)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with Reader(tmp_path) as reader:
        assert reader.read() == []
        path.write_bytes(data)
        assert len(reader.read()) == 1


def test_reader_that_met_a_torn_tail_goes_on_after_the_recovery(tmp_path: Path) -> None:
    write(tmp_path, 2)
    path = segment_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)
    with Reader(tmp_path) as reader:
        assert [record.offset for record in reader.read()] == [0]
        assert reader.read() == []
        with Appender.open(tmp_path) as appender:
            assert appender.append(Kind.OUTPUT, b"after", received_ns=9) == 1
            assert [record.payload for record in reader.read()] == [b"after"]


def test_damage_in_a_finished_segment_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, 20)
    path = segment_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[SEGMENT_BYTES + HEADER_BYTES] ^= 1
    path.write_bytes(data)
    with (
        Reader(tmp_path) as reader,
        pytest.raises(JournalError, match=r"00\.segment at byte 32: a record is dam"),
    ):
        reader.read()


@pytest.mark.parametrize("cut", [1, HEADER_BYTES, HEADER_BYTES + 5, HEADER_BYTES + 60])
def test_finished_segment_that_was_cut_short_is_an_error(tmp_path: Path, cut: int) -> None:
    write(tmp_path, 20)
    path = segment_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(JournalError, match="ends too early"):
        read_on(tmp_path)


def test_missing_segment_in_the_middle_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, 20)
    missing = first_offsets(tmp_path)[1]
    segment_path(tmp_path, missing).unlink()
    with pytest.raises(JournalError, match=f"{missing:020d}.segment is missing"):
        read_on(tmp_path)


def test_start_before_the_oldest_kept_record_is_an_error_unless_it_is_zero(tmp_path: Path) -> None:
    write(tmp_path, 20)
    firsts = first_offsets(tmp_path)
    segment_path(tmp_path, firsts[0]).unlink()
    assert offsets(tmp_path)[0] == firsts[1]
    with Reader(tmp_path, 1) as reader, pytest.raises(JournalError, match="are gone"):
        reader.read()


def test_damage_before_the_start_is_seen_while_scanning_to_it(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        for _ in range(5):
            appender.append(Kind.TICK, b"x", received_ns=0)
            appender.sync()
    path = segment_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[SEGMENT_BYTES + HEADER_BYTES] ^= 1
    path.write_bytes(data)
    with Reader(tmp_path, 4) as reader, pytest.raises(JournalError, match="byte 32"):
        reader.read()


def test_segment_deleted_behind_a_reader_does_not_disturb_it(tmp_path: Path) -> None:
    write(tmp_path, 20)
    with Reader(tmp_path) as reader:
        assert len(reader.read(max_records=2)) == 2
        segment_path(tmp_path, 0).unlink()
        assert len(reader.read()) == 18


def test_records_before_a_gap_are_given_before_the_gap_is_told(tmp_path: Path) -> None:
    """The segment that is open is deleted, and those after it: what it holds is still read."""
    write(tmp_path, 60)
    firsts = first_offsets(tmp_path)
    with Reader(tmp_path) as reader:
        assert len(reader.read(max_records=1)) == 1
        for first in firsts[:-1]:
            segment_path(tmp_path, first).unlink()
        assert [record.offset for record in reader.read()] == list(range(1, firsts[1]))
        for _ in range(2):
            with pytest.raises(JournalError, match="is missing"):
                reader.read()


def test_records_before_damage_are_given_before_the_damage_is_told(tmp_path: Path) -> None:
    write(tmp_path, 20)
    path = segment_path(tmp_path, first_offsets(tmp_path)[1])
    data = bytearray(path.read_bytes())
    data[SEGMENT_BYTES + HEADER_BYTES] ^= 1
    path.write_bytes(data)
    with Reader(tmp_path) as reader:
        assert len(reader.read()) == first_offsets(tmp_path)[1]
        with pytest.raises(JournalError, match="byte 32: a record is damaged"):
            reader.read()


def test_reading_after_close_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 10)
    reader = Reader(tmp_path)
    reader.close()
    assert len(reader.read(max_records=3)) == 3
    reader.close()
    assert [record.offset for record in reader.read()] == list(range(3, 10))
    reader.close()


def raw(folder: Path, kind: int, names: tuple[bytes, bytes], salt: int = 5) -> None:
    """A whole record that our appender would not write."""
    header = SegmentHeader(0, 0, salt)
    head, body = pack_record(Stamp(0, 0, 1, kind), Source("aa", "bb"), b"payload", salt)
    data = head.replace(b"aabb", b"".join(names)) + body
    parsed = RecordHeader.parse(data, salt)
    assert parsed is not None
    segment_path(folder, 0).write_bytes(header.pack() + data)


def test_kind_of_a_later_version_is_named(tmp_path: Path) -> None:
    raw(tmp_path, 77, (b"aa", b"bb"))
    with Reader(tmp_path) as reader, pytest.raises(JournalError, match="kind 77"):
        reader.read()


def test_text_that_is_not_utf8_is_a_journal_error() -> None:
    header = RecordHeader(0, 4, 3, 0, 0, Kind.TICK, 2, 2)
    with pytest.raises(JournalError, match="record 3"):
        header.record(b"\xff\xffbb")


def test_header_whose_lengths_contradict_each_other_is_no_header() -> None:
    head, _ = pack_record(Stamp(0, 0, 0, 1), Source("metrics"), b"", 0)
    assert RecordHeader.parse(head, 0) is not None
    assert RecordHeader.parse(RECORD_MAGIC + bytes(40), 0) is None
    assert SegmentHeader.parse(b"short") is None
    assert SegmentHeader.parse(SegmentHeader(1, 2, 3).pack()) == SegmentHeader(1, 2, 3)
