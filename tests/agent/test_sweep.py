"""Old jobs' folders go; living, young and foreign ones stay."""

from __future__ import annotations

import os
from pathlib import Path

from arobust_otel.agent.lock import AgentLock
from arobust_otel.agent.sweep import sweep

DAY = 24 * 3600.0


def job(root: Path, name: str, age_days: float) -> Path:
    folder = root / name
    lock = AgentLock(folder)
    assert lock.take()
    lock.release()
    (folder / "rank-0-1.beacon").write_bytes(b"x")
    for path in folder.iterdir():
        os.utime(path, (1e9 - age_days * DAY,) * 2)
    return folder


def test_a_job_of_last_month_is_removed_and_yesterdays_is_kept(tmp_path: Path) -> None:
    old, young = job(tmp_path, "old", 30), job(tmp_path, "young", 1)
    assert sweep(tmp_path, 1e9) == ["old"]
    assert not old.exists()
    assert young.exists()


def test_a_job_that_an_agent_holds_is_kept_however_old(tmp_path: Path) -> None:
    folder = job(tmp_path, "long", 30)
    lock = AgentLock(folder)
    assert lock.take()
    os.utime(folder / "agent.lock", (1.0, 1.0))
    assert sweep(tmp_path, 1e9) == []
    lock.release()


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    target = job(tmp_path / "elsewhere", "old", 30)
    (tmp_path / "link").symlink_to(target)
    assert sweep(tmp_path, 1e9) == []
    assert target.exists()
    assert sweep(tmp_path / "missing", 1e9) == []
