"""A journal of an older format is read as it is, and continued in the format of today."""

from __future__ import annotations

from pathlib import Path

import pytest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Reader, Record, Source
from arobust_otel.journal.format import SEGMENT_BYTES, SegmentHeader, Stamp, pack_record
from arobust_otel.journal.segments import Segment, first_offsets, segment_path
from arobust_otel.journal.strip import strip
from arobust_otel.journal.tail import recent_batches

SALT = 77
BATCH = "ab" * 16


def format_1(folder: Path, records: int, *, first: int = 0, sealed: bool = False) -> None:
    """A segment as version 1 wrote it: the same records, another magic, no batch ids."""
    folder.mkdir(exist_ok=True)
    data = SegmentHeader(first, 0, SALT, 1).pack()
    assert data.startswith(b"AROBJRN1")
    for offset in range(first, first + records):
        data += b"".join(
            pack_record(Stamp(offset, 0, offset, 1), Source("logs", "old"), b"%d" % offset, SALT)
        )
    if sealed:
        data += b"".join(pack_record(Stamp(first + records, 0, 0, 0), Source(), b"", SALT))
    segment_path(folder, first).write_bytes(data)


def old(offset: int) -> Record:
    return Record(offset, offset, Kind.REQUEST, "logs", "old", b"%d" % offset)


def read(folder: Path) -> list[Record]:
    with Reader(folder) as reader:
        return [record for _ in range(4) for record in reader.read()]


def versions(folder: Path) -> list[int]:
    found = []
    for first in first_offsets(folder):
        segment = Segment(segment_path(folder, first))
        found.append(segment.header.version)
        segment.close()
    return found


@pytest.mark.parametrize("sealed", [False, True])
def test_format_1_is_read_and_continued_in_a_segment_of_its_own(tmp_path: Path, sealed: bool) -> None:
    format_1(tmp_path, 3, sealed=sealed)
    assert read(tmp_path) == [old(0), old(1), old(2)]
    with Reader(tmp_path) as reader, Appender.open(tmp_path) as appender:
        assert len(reader.read()) == 3
        offset = appender.append(Kind.REQUEST, b"new", received_ns=9, source=Source("logs", "n", BATCH))
        assert reader.read() == [Record(offset, 9, Kind.REQUEST, "logs", "n", b"new", BATCH)]
    assert [record.offset for record in read(tmp_path)] == [0, 1, 2, 3]
    assert versions(tmp_path) == [1, 2]
    assert recent_batches(tmp_path, 10) == [("logs", BATCH)]


def test_an_empty_segment_of_format_1_is_followed_by_readers_that_have_it_open(tmp_path: Path) -> None:
    format_1(tmp_path, 0)
    with Reader(tmp_path) as reader:
        assert reader.read() == []
        with Appender.open(tmp_path) as appender:
            offset = appender.append(Kind.TICK, b"", received_ns=1)
            assert [record.offset for record in reader.read()] == [offset]
    assert versions(tmp_path) == [1, 2]


def test_a_torn_tail_of_format_1_is_cut_off_first(tmp_path: Path) -> None:
    format_1(tmp_path, 2)
    with segment_path(tmp_path, 0).open("ab") as file:
        file.write(b"ARJ1 half")
    with Appender.open(tmp_path, at_least=7) as appender:
        assert appender.recovered_bytes == 9
        assert appender.append(Kind.TICK, b"", received_ns=1) == 7
    assert [record.offset for record in read(tmp_path)] == [0, 1, 7]


def test_a_stripped_copy_keeps_formats_and_batches(tmp_path: Path) -> None:
    format_1(tmp_path / "j", 2)
    with Appender.open(tmp_path / "j") as appender:
        appender.append(Kind.REQUEST, b"new", received_ns=9, source=Source("logs", "n", BATCH))
        appender.append(Kind.OUTPUT, b"new", received_ns=9, source=Source(sender="n", batch=BATCH))
    assert strip(tmp_path / "j", tmp_path / "copy") == 1
    assert read(tmp_path / "copy") == read(tmp_path / "j")[:3]
    assert versions(tmp_path / "copy") == [1, 2]


@pytest.mark.parametrize("batch", ["ab", "zz" * 16, "ab" * 17, "ab " * 11 + "a", " " + "ab" * 16])
def test_what_is_no_batch_id_is_not_written(tmp_path: Path, batch: str) -> None:
    with Appender.open(tmp_path) as appender:
        with pytest.raises(JournalError, match="not a batch id"):
            appender.append(Kind.TICK, b"", received_ns=1, source=Source(batch=batch))
        assert appender.append(Kind.TICK, b"", received_ns=1) == 0
    assert segment_path(tmp_path, 0).stat().st_size == SEGMENT_BYTES + 44


def test_a_later_format_is_named_damage(tmp_path: Path) -> None:
    format_1(tmp_path, 0)
    path = segment_path(tmp_path, 0)
    path.write_bytes(b"AROBJRN3" + path.read_bytes()[8:])
    with pytest.raises(JournalError, match="the header of the segment is damaged"):
        Appender.open(tmp_path)
