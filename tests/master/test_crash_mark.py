"""A record that kills the judge itself is skipped the fourth time."""

from __future__ import annotations

import os
from pathlib import Path

from arobust_otel.master.crash_mark import CrashMark


def die_at(path: Path, *offsets: int) -> None:
    """A process that finishes all records but the last, and is gone in the middle of that one."""
    pid = os.fork()
    if pid == 0:
        mark = CrashMark(path)
        for offset in offsets[:-1]:
            mark.begin(offset)
            mark.end()
        mark.begin(offsets[-1])
        os._exit(1)
    os.waitpid(pid, 0)


def suspect(path: Path) -> int | None:
    mark = CrashMark(path)
    mark.close()
    return mark.suspect


def test_three_deaths_at_one_record_make_it_suspect(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    die_at(path, 0, 1, 7)
    die_at(path, 5, 6, 7)
    die_at(path, 7)
    assert suspect(path) == 7
    assert suspect(path) == 7


def test_deaths_at_different_records_accuse_none(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    for offset in (7, 8, 9, 8):
        die_at(path, offset)
    assert suspect(path) is None
