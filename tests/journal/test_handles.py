"""The journal goes on where no file can be opened, and closes none that is in use."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from arobust_otel.errors import JournalError
from arobust_otel.journal import Appender, Kind, Reader
from tests.handles import no_handles, too_many_files


def offsets(folder: Path) -> list[int]:
    with Reader(folder) as reader:
        found: list[int] = []
        while part := reader.read():
            found += [record.offset for record in part]
    return found


def open_files(folder: Path) -> list[str]:
    """Files of this folder that the process has open; others come and go with its other threads."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(str(folder))]


def test_a_sync_needs_no_further_file(tmp_path: Path) -> None:
    with Appender.open(tmp_path) as appender:
        appender.append(Kind.TICK, b"", received_ns=0)
        with no_handles():
            assert appender.sync() == 1


def test_the_next_segment_needs_no_further_file(tmp_path: Path) -> None:
    with Appender.open(tmp_path, segment_bytes=1) as appender:
        appender.append(Kind.TICK, b"first", received_ns=0)
        with no_handles():
            appender.append(Kind.TICK, b"second", received_ns=0)
    assert offsets(tmp_path) == [0, 1]


def test_a_segment_that_cannot_be_begun_now_is_begun_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(_path: Path, _data: bytes) -> None:
        raise too_many_files()  # another thread was faster

    with Appender.open(tmp_path, segment_bytes=1) as appender:
        appender.append(Kind.TICK, b"first", received_ns=0)
        with monkeypatch.context() as patched:
            patched.setattr("arobust_otel.journal.appender.write_atomically", taken)
            for _ in range(2):
                with pytest.raises(JournalError, match="nothing appended: no new segment"):
                    appender.append(Kind.TICK, b"second", received_ns=0)
                assert appender.sync() == 1
        assert appender.append(Kind.TICK, b"second", received_ns=0) == 1
        assert (appender.sync(), appender.full) == (2, "")
    assert offsets(tmp_path) == [0, 1]


def rotate(appender: Appender) -> None:
    appender.append(Kind.TICK, b"second", received_ns=0)


@pytest.mark.parametrize("meanwhile", [rotate, Appender.close])
def test_a_segment_is_left_open_for_the_sync_that_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Appender], object]
) -> None:
    fdatasync, begun, go_on = os.fdatasync, threading.Event(), threading.Event()
    synchronised: list[str] = []

    def slow(handle: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(20)
            synchronised.append(os.readlink(f"/proc/self/fd/{handle}"))
        fdatasync(handle)

    monkeypatch.setattr(os, "fdatasync", slow)
    appender = Appender.open(tmp_path, segment_bytes=1)
    appender.append(Kind.TICK, b"first", received_ns=0)
    threads = [threading.Thread(target=appender.sync) for _ in range(2)]
    threads[0].start()
    assert begun.wait(20)
    begun.clear()
    threads[1].start()
    assert begun.wait(20)
    meanwhile(appender)
    go_on.set()
    for thread in threads:
        thread.join()
    assert synchronised == [str(tmp_path / f"{0:020d}.segment")] * 2
    appender.close()
    assert open_files(tmp_path) == []
