from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from arobust_otel.errors import JournalError, JournalLocked
from arobust_otel.journal import Appender, Kind, Reader, Record, Source
from arobust_otel.journal.format import HEADER_BYTES, SEGMENT_BYTES
from arobust_otel.journal.segments import first_offsets, segment_path


def read_all(folder: Path, start: int = 0) -> list[Record]:
    records: list[Record] = []
    with Reader(folder, start) as reader:
        while found := reader.read():
            records += found
    return records


def fill(appender: Appender, count: int, payload: bytes = b"payload") -> None:
    for number in range(count):
        appender.append(Kind.TICK, payload, received_ns=number)


def test_what_is_appended_is_read_with_every_field(tmp_path: Path) -> None:
    with Appender.open(tmp_path / "j") as appender:
        first = appender.append(
            Kind.REQUEST, b"\x00bytes", received_ns=7, source=Source("logs", "node-ä/job")
        )
        second = appender.append(Kind.HEARTBEAT, b"", received_ns=8)
        assert (first, second, appender.next_offset) == (0, 1, 2)
    assert read_all(tmp_path / "j") == [
        Record(0, 7, Kind.REQUEST, "logs", "node-ä/job", b"\x00bytes"),
        Record(1, 8, Kind.HEARTBEAT, "", "", b""),
    ]


def test_folder_and_files_belong_to_the_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "journal"
    with Appender.open(folder) as appender:
        fill(appender, 1)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_receive_time_never_decreases_even_over_a_restart_and_a_rotation(tmp_path: Path) -> None:
    with Appender.open(tmp_path, segment_bytes=1) as appender:
        appender.append(Kind.TICK, b"", received_ns=500)
        appender.append(Kind.TICK, b"", received_ns=400)
    with Appender.open(tmp_path, segment_bytes=1) as appender:
        appender.append(Kind.TICK, b"", received_ns=300)
        appender.append(Kind.TICK, b"", received_ns=600)
    assert [record.received_ns for record in read_all(tmp_path)] == [500, 500, 500, 600]


def test_a_second_appender_is_locked_out_until_the_first_closes(tmp_path: Path) -> None:
    first = Appender.open(tmp_path)
    with pytest.raises(JournalLocked, match="another process"):
        Appender.open(tmp_path)
    first.close()
    Appender.open(tmp_path).close()


def test_folder_that_is_a_file_is_a_journal_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be opened"):
        Appender.open(tmp_path / "file")


def test_closing_twice_is_legal_and_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    appender = Appender.open(tmp_path)
    appender.close()
    appender.close()
    with pytest.raises(JournalError, match="closed"):
        appender.append(Kind.TICK, b"", received_ns=0)
    with pytest.raises(JournalError, match="closed"):
        appender.sync()


def test_segments_are_named_by_their_first_offset_and_offsets_go_on(tmp_path: Path) -> None:
    with Appender.open(tmp_path, segment_bytes=300) as appender:
        fill(appender, 12)
    firsts = first_offsets(tmp_path)
    assert firsts[0] == 0
    assert firsts == [0, 6]
    assert all(segment_path(tmp_path, first).exists() for first in firsts)
    assert [record.offset for record in read_all(tmp_path)] == list(range(12))


def test_reopening_goes_on_where_it_ended(tmp_path: Path) -> None:
    for _ in range(5):
        with Appender.open(tmp_path, segment_bytes=150) as appender:
            assert appender.recovered_bytes == 0
            fill(appender, 3)
    assert [record.offset for record in read_all(tmp_path)] == list(range(15))


@pytest.mark.parametrize("after_sync", [True, False])
def test_torn_tail_is_cut_off_at_every_byte_and_whole_records_stay(tmp_path: Path, after_sync: bool) -> None:
    with Appender.open(tmp_path / "whole") as appender:
        ends = []
        for number in range(4):
            appender.append(Kind.OUTPUT, b"x" * (number * 5), received_ns=number, source=Source("logs", "s"))
            if after_sync:
                appender.sync()
            ends.append(segment_path(tmp_path / "whole", 0).stat().st_size)
    data = segment_path(tmp_path / "whole", 0).read_bytes()
    folder = tmp_path / "torn"
    folder.mkdir()
    for size in range(SEGMENT_BYTES, len(data)):
        segment_path(folder, 0).write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        assert len(read_all(folder)) == whole
        with Appender.open(folder) as appender:
            assert appender.next_offset == whole
            assert appender.recovered_bytes == size - ([SEGMENT_BYTES, *ends][whole])
            appender.append(Kind.TICK, b"next", received_ns=9)
        assert [record.offset for record in read_all(folder)] == list(range(whole + 1))


def test_garbage_after_the_last_sync_is_a_torn_tail(tmp_path: Path) -> None:
    """A power cut writes pages in any order: unsynced records may survive behind a hole."""
    with Appender.open(tmp_path) as appender:
        fill(appender, 3)
        appender.sync()
        position = segment_path(tmp_path, 0).stat().st_size
        fill(appender, 3)
    path = segment_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[position + HEADER_BYTES] ^= 0xFF
    path.write_bytes(data)
    assert len(read_all(tmp_path)) == 3
    with Appender.open(tmp_path) as appender:
        assert appender.recovered_bytes == 3 * (HEADER_BYTES + 7)
        assert appender.next_offset == 3


def test_damage_in_what_was_durable_is_an_error_that_names_segment_and_byte(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        fill(appender, 3)
        appender.sync()
        fill(appender, 1)
    path = segment_path(tmp_path, 0)
    position = SEGMENT_BYTES + HEADER_BYTES + 7
    data = bytearray(path.read_bytes())
    data[position + HEADER_BYTES] ^= 0xFF
    path.write_bytes(data)
    wanted = f"00000000000000000000.segment at byte {position}: "
    with pytest.raises(JournalError, match=wanted):
        Appender.open(tmp_path)
    with Reader(tmp_path) as reader:
        assert [record.offset for record in reader.read()] == [0]  # what stands before the damage is good
        with pytest.raises(JournalError, match=wanted):
            reader.read()


def test_damaged_length_cannot_hide_what_follows(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        fill(appender, 2)
        appender.sync()
        fill(appender, 1)
    path = segment_path(tmp_path, 0)
    data = bytearray(path.read_bytes())
    data[SEGMENT_BYTES + 12 : SEGMENT_BYTES + 16] = b"\xff\xff\xff\x0f"
    path.write_bytes(data)
    with pytest.raises(JournalError, match="at byte 32"):
        Appender.open(tmp_path)


def test_payload_that_holds_a_journal_is_no_record(tmp_path: Path) -> None:
    with Appender.open(tmp_path / "inner") as appender:
        fill(appender, 3)
        appender.sync()
        fill(appender, 3)
    inner = segment_path(tmp_path / "inner", 0).read_bytes()
    with Appender.open(tmp_path / "outer") as appender:
        appender.append(Kind.REQUEST, inner, received_ns=0)
    path = segment_path(tmp_path / "outer", 0)
    path.write_bytes(path.read_bytes()[:-1])
    with Appender.open(tmp_path / "outer") as appender:
        assert appender.next_offset == 0


def test_at_least_keeps_a_number_that_a_reader_has_seen_from_coming_back(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        fill(appender, 2)
    with Appender.open(tmp_path, at_least=10) as appender:
        assert appender.append(Kind.TICK, b"", received_ns=0) == 10
        assert appender.append(Kind.TICK, b"", received_ns=0) == 11
    path = segment_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[: -HEADER_BYTES - 1])
    with Appender.open(tmp_path, at_least=1) as appender:
        assert appender.next_offset == 2
    assert [record.offset for record in read_all(tmp_path)] == [0, 1]


def test_leftover_temporary_segment_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / "00000000000000000007.segment.tmp"
    leftover.write_bytes(b"half")
    Appender.open(tmp_path).close()
    assert not leftover.exists()


def test_crash_between_seal_and_next_segment_is_recovered(tmp_path: Path) -> None:
    with Appender.open(tmp_path, segment_bytes=200) as appender:
        fill(appender, 5)
    last = first_offsets(tmp_path)[-1]
    assert last == 4
    segment_path(tmp_path, last).unlink()
    assert len(read_all(tmp_path)) == last
    with Appender.open(tmp_path, segment_bytes=200) as appender:
        assert (appender.next_offset, appender.recovered_bytes) == (last, 0)
        fill(appender, 1)
    assert [record.offset for record in read_all(tmp_path)] == list(range(last + 1))


def test_bytes_behind_a_seal_are_damage(tmp_path: Path) -> None:
    with Appender.open(tmp_path, segment_bytes=1) as appender:
        fill(appender, 2)
    segment_path(tmp_path, 1).unlink()
    with segment_path(tmp_path, 0).open("ab") as file:
        file.write(b"more")
    with pytest.raises(JournalError, match="damaged"):
        Appender.open(tmp_path)


def test_segment_with_a_foreign_header_is_refused_and_the_lock_released(tmp_path: Path) -> None:
    segment_path(tmp_path, 0).write_bytes(b"\x00" * 64)
    for _ in range(2):
        with pytest.raises(JournalError, match="header of the segment"):
            Appender.open(tmp_path)


def test_too_long_records_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        with pytest.raises(JournalError, match="too long"):
            appender.append(Kind.REQUEST, b"", received_ns=0, source=Source(sender="s" * 70_000))
        with pytest.raises(JournalError, match="too long"):
            appender.append(Kind.REQUEST, b"", received_ns=0, source=Source("s" * 256))
        fill(appender, 1)
    assert len(read_all(tmp_path)) == 1


@contextmanager
def small_files() -> Iterator[None]:
    """Files of at most 4 KiB, as on a full disk; for a moment only, since it holds for test reports too."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_full_disk_leaves_no_half_record_and_smaller_ones_still_fit(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        fill(appender, 1)
        with pytest.raises(JournalError, match=os.strerror(errno.EFBIG)), small_files():
            appender.append(Kind.REQUEST, b"x" * 5000, received_ns=0)
        fill(appender, 1)
    assert [record.offset for record in read_all(tmp_path)] == [0, 1]


def test_folder_that_vanished_breaks_the_journal_loudly(tmp_path: Path) -> None:
    folder = tmp_path / "j"
    with Appender.open(folder, segment_bytes=1) as appender:
        fill(appender, 1)
        folder.rename(tmp_path / "away")
        with pytest.raises(JournalError, match="no new segment"):
            fill(appender, 1)
        with pytest.raises(JournalError, match="takes no more"):
            fill(appender, 1)


def test_disk_failure_at_sync_breaks_the_journal(tmp_path: Path) -> None:
    """Nobody knows what is durable after a failed fdatasync: a file that cannot be synchronised shows it."""
    appender = Appender.open(tmp_path)
    reading, writing = os.pipe()
    os.dup2(writing, appender._handle)  # a pipe refuses fdatasync with EINVAL
    with pytest.raises(JournalError, match="fdatasync failed"):
        appender.sync()
    with pytest.raises(JournalError, match="takes no more"):
        appender.append(Kind.TICK, b"", received_ns=0)
    appender.close()
    os.close(reading)
    os.close(writing)


def test_failed_write_that_cannot_be_taken_back_breaks_the_journal(tmp_path: Path) -> None:
    appender = Appender.open(tmp_path)
    reading = os.open(segment_path(tmp_path, 0), os.O_RDONLY)
    os.dup2(reading, appender._handle)
    with pytest.raises(JournalError, match="nothing appended"):
        appender.append(Kind.TICK, b"", received_ns=0)
    with pytest.raises(JournalError, match="half record"):
        appender.sync()
    appender.close()
    os.close(reading)


def test_threads_append_and_sync_together(tmp_path: Path) -> None:
    with Appender.open(tmp_path, segment_bytes=2000) as appender:
        seen: list[int] = []

        def work() -> None:
            for _ in range(50):
                offset = appender.append(Kind.TICK, b"x" * 20, received_ns=1)
                assert appender.sync() > offset
                seen.append(offset)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seen) == list(range(200))
    assert [record.offset for record in read_all(tmp_path)] == list(range(200))
