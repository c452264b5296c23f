"""Parcels on the disk: order, limits, and what a reader of the folder may see."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from arobust_otel.agent.parcel import Lane
from arobust_otel.agent.spool.folder import spool_base, spool_folder
from arobust_otel.agent.spool.spool import Spool, SpoolLimits
from tests.agent.spooling import PUT_FOR_EVER, drain, kill, number_of, parcel, start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return spool_folder(tmp_path / "spool", "host", "job")


def test_first_in_first_out_in_each_lane(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(12):
        assert spool.put(parcel(Lane(number % 4), number, 2))
    assert [spool.pending(lane) for lane in Lane] == [3, 3, 3, 3]
    assert spool.stats().items == 24
    assert [drain(spool, lane) for lane in Lane] == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert (spool.stats().items, spool.stats().bytes, spool.stats().oldest_mono) == (0, 0, None)
    spool.close()


def test_parcel_comes_back_with_its_id_and_its_items_and_stays_until_removed(folder: Path) -> None:
    spool = Spool.open(folder)
    sent = parcel(Lane.LINES, 1, 3, acknowledged=lambda: None)
    spool.put(sent)
    for _ in range(2):
        found = spool.head(Lane.LINES)
        assert found is not None
        assert (found.batch_id, found.lane, found.items) == (sent.batch_id, Lane.LINES, 3)
        assert list(found.chunks[0].items) == list(sent.chunks[0].items)
        assert found.chunks[0].receipt.acknowledged is None
    spool.close()


def test_same_parcel_is_not_kept_twice(folder: Path) -> None:
    spool = Spool.open(folder)
    sent = parcel(Lane.LINES, 1, 3)
    assert spool.put(sent)
    assert spool.put(sent)
    assert (spool.stats().items, spool.pending(Lane.LINES)) == (3, 1)
    assert drain(spool, Lane.LINES) == [1]
    spool.close()


def test_parts_of_a_cut_parcel_take_its_place_in_order(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(3):
        spool.put(parcel(Lane.POINTS, number, 4))
    whole = spool.head(Lane.POINTS)
    assert whole is not None
    first, second = whole.halves()
    spool.replace(whole.batch_id, [first, second])
    quarters = second.halves()
    found = spool.head(Lane.POINTS)
    assert found is not None
    assert found.batch_id == first.batch_id
    spool.remove(first.batch_id)
    spool.replace(second.batch_id, quarters)
    spool.close()
    spool = Spool.open(folder)
    assert spool.stats().items == 2 + 4 + 4
    order = []
    while (found := spool.head(Lane.POINTS)) is not None:
        order.append((number_of(found), found.batch_id))
        spool.remove(found.batch_id)
    assert [number for number, _ in order] == [0, 0, 1, 2]
    assert [batch_id for _, batch_id in order[:2]] == [quarter.batch_id for quarter in quarters]
    spool.close()


def test_over_the_limit_the_oldest_of_the_least_urgent_lane_goes_and_is_counted(folder: Path) -> None:
    spool = Spool.open(folder, SpoolLimits(max_bytes=2000))
    assert spool.put(parcel(Lane.FACTS, 0, 7))
    number = 1
    while not (dropped := spool.take_dropped()):
        assert spool.put(parcel(Lane.LINES, number, 5))
        number += 1
    assert dropped == {"spool_full": 5}
    assert spool.stats().bytes <= 2000
    assert spool.put(parcel(Lane.POINTS, number, 1))
    assert spool.take_dropped() == {"spool_full": 5}
    assert drain(spool, Lane.LINES)[0] == 3
    assert drain(spool, Lane.POINTS) == [number]
    assert drain(spool, Lane.FACTS) == [0]
    spool.close()


def test_facts_never_go_for_lines(folder: Path) -> None:
    spool = Spool.open(folder, SpoolLimits(max_bytes=1000))
    kept = 0
    while spool.put(parcel(Lane.FACTS, kept, 1)) and not spool.take_dropped():
        kept += 1
    assert spool.state == "ok"
    before = spool.pending(Lane.FACTS)
    assert not spool.put(parcel(Lane.LINES, 1, 1))
    assert spool.state == "full"
    assert spool.pending(Lane.FACTS) == before
    assert spool.take_dropped() == {}
    drain(spool, Lane.FACTS)
    assert spool.state == "ok"
    spool.close()


def test_parcel_larger_than_the_spool_is_not_kept_and_drives_nothing_out(folder: Path) -> None:
    spool = Spool.open(folder, SpoolLimits(max_bytes=400))
    assert spool.put(parcel(Lane.LINES, 1, 1))
    large = parcel(Lane.FACTS, 2)
    object.__setattr__(large.chunks[0].items[0], "body", os.urandom(1000).hex())
    assert not spool.put(large)
    assert drain(spool, Lane.LINES) == [1]
    assert spool.take_dropped() == {}
    spool.close()


def test_what_is_too_old_goes_and_is_counted(folder: Path) -> None:
    spool = Spool.open(folder)
    spool.put(parcel(Lane.POINTS, 1, 3))
    spool.put(parcel(Lane.FACTS, 2, 4))
    spool.close()
    spool = Spool.open(folder, SpoolLimits(max_age_seconds=0.0))
    assert spool.head(Lane.FACTS) is None
    assert spool.take_dropped() == {"spool_expired": 7}
    assert spool.stats().items == 0
    spool.close()


def test_a_living_process_adopts_what_its_neighbour_of_the_same_job_left(folder: Path) -> None:
    process = start(PUT_FOR_EVER, folder)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    living = Spool.open(folder)
    assert living.adopt() == 0
    kill(process)
    assert living.adopt() > 0
    assert drain(living, Lane.FACTS)[0] == 0
    living.close()


@pytest.mark.parametrize("days", [-4, 4])
def test_a_clock_that_is_set_makes_nothing_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """A machine whose clock is put right after the boot must not lose what waits."""
    monkeypatch.setattr("arobust_otel.agent.spool.shelf._EXPIRE_SECONDS", 0.0)  # look each time
    spool = Spool.open(folder)
    spool.put(parcel(Lane.POINTS, 1, 3))
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + days * 86_400_000_000_000)
    spool.put(parcel(Lane.POINTS, 2, 3))
    oldest = spool.stats().oldest_mono
    assert oldest is not None
    assert 0 <= time.monotonic() - oldest < 3600
    assert drain(spool, Lane.POINTS) == [1, 2]
    assert spool.take_dropped() == {}
    spool.close()


def test_stored_bytes_are_given_back_to_the_disk(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(50):
        body = os.urandom(20_000).hex()
        made = parcel(Lane.LINES, number)
        object.__setattr__(made.chunks[0].items[0], "body", body)
        assert spool.put(made)
    files = list((folder / "slot-0").iterdir())
    assert sum(path.stat().st_size for path in files) > 1_000_000
    drain(spool, Lane.LINES)
    assert sum(path.stat().st_size for path in files) < 100_000
    spool.close()


def test_clean_end_of_an_empty_spool_leaves_nothing(folder: Path) -> None:
    spool = Spool.open(folder)
    spool.put(parcel(Lane.POINTS, 1))
    drain(spool, Lane.POINTS)
    spool.close()
    assert not folder.exists()
    assert spool.state == "off"
    assert not spool.put(parcel(Lane.POINTS, 1))
    spool.close()


def test_closing_keeps_what_waits(folder: Path) -> None:
    for number in range(3):
        spool = Spool.open(folder)
        assert spool.stats().items == number
        spool.put(parcel(Lane.POINTS, number))
        spool.close()
    spool = Spool.open(folder)
    assert drain(spool, Lane.POINTS) == [0, 1, 2]
    assert spool.take_dropped() == {}
    spool.close()


# --- the folder ---------------------------------------------------------------------------------------------


def test_relative_folder_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spool = Spool.open(Path("spool/host/job-x"))
    monkeypatch.chdir("/")
    spool.put(parcel(Lane.POINTS, 1))
    drain(spool, Lane.POINTS)
    spool.close()
    assert not (tmp_path / "spool" / "host" / "job-x").exists()


def test_everything_is_private(folder: Path) -> None:
    old_mask = os.umask(0)
    try:
        spool = Spool.open(folder)
        spool.put(parcel(Lane.POINTS, 1))
        places = [folder, *folder.rglob("*")]
        modes = {path.name: path.stat().st_mode & 0o777 for path in places}
    finally:
        os.umask(old_mask)
        spool.close()
    assert {"spool.db", "spool.db-wal", "ledger", "lock", "slot-0"} <= modes.keys()
    assert {name: mode for name, mode in modes.items() if mode not in (0o600, 0o700)} == {}
    assert modes["slot-0"] == modes[folder.name] == 0o700


def test_folder_that_was_open_to_others_is_made_private(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    spool = Spool.open(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    spool.close()


@pytest.mark.parametrize("name", [".", "slot-0", "slot-0/spool.db", "slot-0/spool.db-wal", "slot-0/lock"])
def test_link_is_refused_and_its_target_untouched(folder: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    if name in (".", "slot-0"):
        target.mkdir()
    else:
        target.write_bytes(b"")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    spool = Spool.open(folder)
    assert spool.state.startswith("failed: ")
    assert "symbolic link" in spool.state
    assert not spool.put(parcel(Lane.POINTS, 1))
    assert spool.head(Lane.POINTS) is None
    spool.close()
    assert target.is_dir() or target.read_bytes() == b""
    assert not target.is_dir() or not list(target.iterdir())


def test_ledger_that_is_a_link_is_not_written(folder: Path, tmp_path: Path) -> None:
    (folder / "slot-0").mkdir(parents=True)
    (tmp_path / "target").write_bytes(b"precious")
    (folder / "slot-0" / "ledger").symlink_to(tmp_path / "target")
    spool = Spool.open(folder)
    spool.ledger.note_accepted(1)
    assert spool.put(parcel(Lane.POINTS, 1))
    spool.close()
    assert (tmp_path / "target").read_bytes() == b"precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give folders away")
def test_folder_of_another_user_is_refused(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    spool = Spool.open(folder)
    assert spool.state == f"failed: {folder} belongs to another user"
    spool.close()


def test_file_in_the_place_of_the_folder_is_a_state(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("")
    spool = Spool.open(folder)
    assert spool.state == f"failed: {folder} is no folder"
    spool.ledger.note_accepted(1)
    spool.close()


def test_default_folder_follows_the_environment() -> None:
    assert spool_base({"AROBUST_SPOOL_DIR": "/var/spool/a"}) == Path("/var/spool/a")
    assert spool_base({"XDG_STATE_HOME": "/state"}) == Path("/state/arobust/spool")
    assert spool_base({"XDG_STATE_HOME": "relative", "HOME": "/home/u"}) == Path(
        "/home/u/.local/state/arobust/spool"
    )
    assert spool_base({"HOME": "relative"}).name == "spool"
    assert spool_base({"HOME": "relative"}).is_absolute()
    assert spool_folder(Path("/s"), "h/../x", "../job 1") == Path("/s/h_.._x/job-_job_1")
