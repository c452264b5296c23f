"""Processes that are killed, forked or meet each other; disks that are full; files that are damaged."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from arobust_otel.agent.parcel import Lane, Parcel
from arobust_otel.agent.spool.folder import spool_folder
from arobust_otel.agent.spool.item_codec import encode_chunks
from arobust_otel.agent.spool.spool import Spool, SpoolLimits
from tests import disk
from tests.agent.spooling import PUT_FOR_EVER, drain, kill, number_of, parcel, start

ACCEPT_AND_DIE = """
import os, sys
from pathlib import Path
from arobust_otel.agent.spool.spool import Spool
spool = Spool.open(Path(sys.argv[1]))
spool.ledger.note_accepted(40)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return spool_folder(tmp_path / "spool", "host", "job")


def test_what_was_put_survives_a_kill_in_the_middle_of_a_write(folder: Path) -> None:
    """Several times over the same folder, at a random place each time."""
    for rounds in range(5):
        process = start(PUT_FOR_EVER, folder)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5 + 13 * rounds)]
        lines += kill(process)
        said = [line.split() for line in lines]
        put = [int(number) for number, *rest in said if number != b"gone"]
        gone = {int(words[1]) for words in said if words[0] == b"gone"}
        spool = Spool.open(folder)
        assert spool.state == "ok"
        found = {number for lane in Lane for number in drain(spool, lane)}
        assert set(put) - gone <= found
        extra = found - set(put)
        assert len(extra) <= 1  # the one that was put, and not said any more
        assert extra <= {len(put)}
        assert spool.take_dropped().get("spool_damaged", 0) == 0
        spool.close()


def test_items_that_only_the_memory_of_a_killed_process_had_are_counted(folder: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from arobust_otel.agent.parcel import Lane
from arobust_otel.agent.spool.spool import Spool
from tests import disk
from tests.agent.spooling import parcel
spool = Spool.open(Path(sys.argv[1]))
spool.ledger.note_accepted(100)
spool.ledger.note_settled(10)
spool.put(parcel(Lane.POINTS, 1, 20))
spool.put(parcel(Lane.LINES, 2, 5, acknowledged=lambda: None))  # its file has them, too
spool.remove(spool.head(Lane.POINTS).batch_id)
print("ready", flush=True)
sys.stdin.read()
"""
    process = start(script, folder)
    assert process.stdout is not None
    process.stdout.readline()
    kill(process)
    spool = Spool.open(folder)
    assert spool.ledger.lost_before == 70
    assert spool.take_dropped() == {"killed": 70}
    assert spool.take_dropped() == {}
    assert spool.stats().items == 5
    spool.close()
    spool = Spool.open(folder)
    assert spool.ledger.lost_before == 0
    spool.close()


def test_two_clients_of_one_job_have_a_slot_each(folder: Path) -> None:
    first, second = Spool.open(folder), Spool.open(folder)
    for number in range(4):
        first.put(parcel(Lane.POINTS, number))
        second.put(parcel(Lane.POINTS, 10 + number))
    assert drain(first, Lane.POINTS) == [0, 1, 2, 3]
    assert drain(second, Lane.POINTS) == [10, 11, 12, 13]
    first.close()
    second.close()
    assert not folder.exists()


def test_slot_of_a_living_process_is_left_alone_and_taken_over_once_it_is_dead(folder: Path) -> None:
    process = start(PUT_FOR_EVER, folder)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    other = Spool.open(folder)
    assert other.stats().items == 0
    other.put(parcel(Lane.FACTS, 12345, 3))
    other.close()
    assert [path.name for path in sorted(folder.iterdir())] == ["slot-0", "slot-1"]
    kill(process)
    heir = Spool.open(folder)
    assert [path.name for path in sorted(folder.iterdir())] == ["slot-0"]
    facts = drain(heir, Lane.FACTS)
    assert facts[0] == 0
    assert facts[-1] == 12345  # behind those that were there
    heir.close()


def test_leftovers_of_other_jobs_come_one_job_at_a_time_with_their_identity(tmp_path: Path) -> None:
    base = tmp_path / "spool"
    for job in ("a", "b"):
        ended = Spool.open(spool_folder(base, "host", job))
        ended.put(parcel(Lane.FACTS, ord(job), 2))
        ended.close()
    elsewhere = Spool.open(spool_folder(base, "otherhost", "a"))
    elsewhere.put(parcel(Lane.FACTS, 1))
    elsewhere.close()
    spool = Spool.open(spool_folder(base, "host", "mine"))
    assert spool.stats().items == 0
    assert [spool.adopt() for _ in range(3)] == [2, 2, 0]
    assert sorted(path.name for path in (base / "host").iterdir()) == ["job-mine"]
    found = spool.head(Lane.FACTS)
    assert found is not None
    assert found.chunks[0].identity.job_id == "job"
    assert drain(spool, Lane.FACTS) == [ord("a"), ord("b")]
    spool.close()
    assert (base / "otherhost" / "job-a").exists()


def test_leftovers_that_do_not_fit_stay_where_they_are(tmp_path: Path) -> None:
    ended = Spool.open(spool_folder(tmp_path, "host", "a"))
    for number in range(10):
        ended.put(parcel(Lane.POINTS, number))
    ended.close()
    spool = Spool.open(spool_folder(tmp_path, "host", "mine"), SpoolLimits(max_bytes=300))
    assert spool.adopt() == 0
    assert spool.take_dropped() == {}
    spool.close()
    assert drain(Spool.open(spool_folder(tmp_path, "host", "a")), Lane.POINTS) == list(range(10))


def test_adoption_that_was_cut_short_brings_nothing_twice(folder: Path) -> None:
    """The parcels were copied, and the old file was still there."""
    first, second = Spool.open(folder), Spool.open(folder)
    twin = parcel(Lane.POINTS, 1)
    first.put(twin)
    second.put(twin)
    first.close()
    second.close()
    spool = Spool.open(folder)
    assert drain(spool, Lane.POINTS) == [1]
    spool.close()


# --- fork ---------------------------------------------------------------------------------------------------


def _use_in_child(spool: Spool, answers: multiprocessing.connection.Connection) -> None:
    spool.ledger.note_accepted(1000)
    answers.send((spool.put(parcel(Lane.POINTS, 99)), spool.head(Lane.POINTS), spool.state))
    spool.close()


def test_forked_child_leaves_its_parents_spool_alone(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(3):
        spool.put(parcel(Lane.POINTS, number))
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_use_in_child, args=(spool, theirs))
    child.start()
    child.join()
    assert child.exitcode == 0
    child.close()
    assert ours.recv() == (False, None, "failed: the spool is its parent's")
    ours.close()
    theirs.close()
    spool.put(parcel(Lane.POINTS, 3))
    assert spool.ledger.account().accepted == 0
    assert drain(spool, Lane.POINTS) == [0, 1, 2, 3]
    spool.close()


def test_child_that_ends_like_an_interpreter_does_not_close_the_database(folder: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from arobust_otel.agent.parcel import Lane
from arobust_otel.agent.spool.spool import Spool
from tests import disk
from tests.agent.spooling import drain, parcel
spool = Spool.open(Path(sys.argv[1]))
spool.put(parcel(Lane.POINTS, 0))
pid = os.fork()
if pid == 0:
    sys.exit(0)  # all modules are torn down: a connection would be closed now
assert os.waitpid(pid, 0)[1] == 0
for number in range(1, 50):
    assert spool.put(parcel(Lane.POINTS, number)), spool.state
assert (Path(sys.argv[1]) / "slot-0" / "spool.db-wal").exists()
print(drain(spool, Lane.POINTS) == list(range(50)), flush=True)
"""
    process = start(script, folder)
    assert process.stdout is not None
    assert process.stdout.read() == b"True\n"
    assert process.wait() == 0
    process.stdout.close()


def test_child_that_outlives_its_parent_does_not_keep_the_slot(folder: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from arobust_otel.agent.parcel import Lane
from arobust_otel.agent.spool.spool import Spool
from tests import disk
from tests.agent.spooling import parcel
spool = Spool.open(Path(sys.argv[1]))
spool.put(parcel(Lane.POINTS, 7))
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""
    process = start(script, folder)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    spool = Spool.open(folder)
    assert drain(spool, Lane.POINTS) == [7]
    spool.close()
    os.kill(child, 9)


# --- full disks ---------------------------------------------------------------------------------------------


def fill_pages(spool: Spool) -> None:
    """From now on the database may not grow: SQLite says that the disk is full."""
    assert spool._shelf is not None
    run = spool._shelf.store.connection.execute
    pages = run("PRAGMA page_count").fetchone()[0]
    run(f"PRAGMA max_page_count={pages}").fetchall()


def fat(lane: Lane, number: int) -> Parcel:
    made = parcel(lane, number)
    field = "body" if lane in (Lane.FACTS, Lane.LINES) else "attributes"
    value: object = os.urandom(8000).hex()
    object.__setattr__(made.chunks[0].items[0], field, value if field == "body" else {"k": value})
    return made


def test_full_disk_is_a_state_and_facts_take_the_place_of_lines(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(10):
        assert spool.put(fat(Lane.LINES, number))
    fill_pages(spool)
    assert spool.put(fat(Lane.FACTS, 100))
    lost = spool.take_dropped().pop("spool_full")
    assert lost in (2, 3)
    assert spool.state == "ok"
    assert drain(spool, Lane.LINES) == list(range(lost, 10))
    assert drain(spool, Lane.FACTS) == [100]
    spool.close()


def test_full_disk_with_nothing_less_urgent_refuses_and_recovers(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(3):
        assert spool.put(fat(Lane.FACTS, number))
    fill_pages(spool)
    assert not spool.put(fat(Lane.LINES, 9))
    assert spool.state == "full"
    assert spool.take_dropped() == {}
    found = spool.head(Lane.FACTS)
    assert number_of(found) == 0
    assert spool.state == "full"
    assert drain(spool, Lane.FACTS) == [0, 1, 2]
    assert spool.put(fat(Lane.LINES, 9))
    assert spool.state == "ok"
    spool.close()


@pytest.mark.parametrize("is_full", [False, True])
def test_what_was_delivered_while_the_disk_was_too_full_to_forget_it_is_not_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_full: bool
) -> None:
    size = len(encode_chunks(parcel(Lane.LINES, 1, 5).chunks))
    spool = Spool.open(folder, SpoolLimits(max_bytes=1000 * size if is_full else 3 * size + size // 2))
    for number in range(1, 4):
        assert spool.put(parcel(Lane.LINES, number, 5))
    assert spool._shelf is not None
    store = spool._shelf.store
    real = store.insert

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def refuse_once(*arguments: object) -> None:
        monkeypatch.setattr(store, "insert", real)
        refuse()

    monkeypatch.setattr(store, "delete", refuse)
    delivered = spool.head(Lane.LINES)
    assert delivered is not None
    spool.remove(delivered.batch_id)
    assert (spool.stats().items, spool.pending(Lane.LINES)) == (10, 2)
    if is_full:
        monkeypatch.setattr(store, "insert", refuse_once)
    else:
        assert spool.put(parcel(Lane.LINES, 4, 5))
        assert spool.take_dropped() == {}
    assert spool.put(parcel(Lane.LINES, 5, 5))
    assert spool.take_dropped() == {"spool_full": 5}
    kept = [3, 5] if is_full else [3, 4, 5]
    assert (spool.stats().items, spool.pending(Lane.LINES)) == (5 * len(kept), len(kept))
    assert spool.stats().bytes >= size * len(kept) * 0.9
    monkeypatch.undo()
    assert drain(spool, Lane.LINES) == kept
    assert (spool.stats().items, spool.stats().bytes) == (0, 0)
    spool.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with disk.tiny_disk(tmp_path / "tiny", 1024) as place:
        yield place


def test_disk_that_is_really_full_harms_nobody(tiny_disk: Path) -> None:
    spool = Spool.open(spool_folder(tiny_disk, "host", "job"))
    put = [number for number in range(300) if spool.put(fat(Lane.LINES, number))]
    evicted = spool.take_dropped().get("spool_full", 0)
    held = spool.stats().items
    assert 5 < held < 100
    assert len(put) == held + evicted
    assert drain(spool, Lane.LINES) == put[-held:]
    assert spool.put(fat(Lane.LINES, 1000))
    assert spool.state == "ok"
    spool.close()


def test_disk_that_others_filled_is_a_state_and_what_waits_is_delivered_once(tiny_disk: Path) -> None:
    spool = Spool.open(spool_folder(tiny_disk, "host", "job"))
    for number in range(5):
        assert spool.put(fat(Lane.FACTS, number))
    disk.fill(tiny_disk)
    taken = drain(spool, Lane.FACTS)
    assert taken == [0, 1, 2, 3, 4]
    assert spool.stats().items == 0
    spool.put(fat(Lane.FACTS, 5))
    disk.make_room(tiny_disk)
    assert spool.put(fat(Lane.FACTS, 6))
    assert drain(spool, Lane.FACTS)[-1] == 6
    spool.close()


def test_no_room_even_for_the_files(tiny_disk: Path) -> None:
    (tiny_disk / "filler").write_bytes(b"x" * (1024 * 1024))
    spool = Spool.open(spool_folder(tiny_disk, "host", "job"))
    assert spool.state.startswith("failed: ")
    spool.ledger.note_accepted(3)
    assert not spool.put(parcel(Lane.POINTS, 1))
    spool.close()


def test_spool_that_had_no_room_at_the_start_works_once_there_is_some(
    tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arobust_otel.agent.spool.spool._AGAIN_SECONDS", 0.0)
    folder = spool_folder(tiny_disk, "host", "job")
    killed = subprocess.run([sys.executable, "-c", ACCEPT_AND_DIE, str(folder)], check=False)
    assert killed.returncode == -9
    disk.fill(tiny_disk)
    spool = Spool.open(folder)
    spool.ledger.note_accepted(5)
    assert not spool.put(fat(Lane.POINTS, 1))
    disk.make_room(tiny_disk)
    spool.ledger.note_accepted(7)
    assert spool.put(parcel(Lane.POINTS, 1, 3))
    assert spool.state == "ok"
    assert spool.take_dropped() == {"killed": 40}, "what this process has is not lost"
    assert spool.ledger.account().accepted == 12
    assert spool.ledger.account().spooled == 3
    spool.close()


# --- damage ------------------------------------------------------------------------------------------------


def test_file_that_is_no_database_is_set_aside_and_counted(folder: Path) -> None:
    spool = Spool.open(folder)
    spool.put(parcel(Lane.POINTS, 1, 30))
    spool.ledger.note_accepted(30)
    spool.close()
    path = folder / "slot-0" / "spool.db"
    path.write_bytes(b"no database" * 1000)
    spool = Spool.open(folder)
    assert spool.state == "ok"
    assert spool.take_dropped() == {"spool_damaged": 30}
    assert [p.read_bytes()[:11] for p in path.parent.glob("damaged-*-spool.db")] == [b"no database"]
    spool.put(parcel(Lane.POINTS, 2))
    assert drain(spool, Lane.POINTS) == [2]
    spool.close()
    assert list(path.parent.glob("damaged-*"))  # for people to look at


def test_damage_after_a_kill_counts_each_item_once(folder: Path) -> None:
    process = start(PUT_FOR_EVER, folder)
    assert process.stdout is not None
    for _ in range(40):
        process.stdout.readline()
    kill(process)
    account_held = int.from_bytes((folder / "slot-0" / "ledger").read_bytes()[48:56], "little")
    (folder / "slot-0" / "spool.db").write_bytes(b"x" * 9000)
    (folder / "slot-0" / "spool.db-wal").unlink(missing_ok=True)
    spool = Spool.open(folder)
    dropped = spool.take_dropped()
    assert dropped["spool_damaged"] == account_held > 0
    assert dropped.get("killed", 0) <= 54  # the one parcel that was on its way
    spool.close()


def test_parcel_whose_bytes_are_damaged_goes_alone(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(3):
        spool.put(parcel(Lane.POINTS, number, 4))
    spool.close()
    with sqlite3.connect(folder / "slot-0" / "spool.db") as connection:
        connection.execute("UPDATE parcels SET body = x'00ff' WHERE place = 2")
    connection.close()
    spool = Spool.open(folder)
    assert drain(spool, Lane.POINTS) == [0, 2]
    assert spool.take_dropped() == {"spool_damaged": 4}
    spool.close()


def test_file_damaged_while_it_is_used(folder: Path) -> None:
    spool = Spool.open(folder)
    for number in range(60):
        spool.put(fat(Lane.POINTS if number % 2 else Lane.LINES, number))
    assert spool._shelf is not None
    spool._shelf.store.checkpoint()
    size = (folder / "slot-0" / "spool.db").stat().st_size
    with (folder / "slot-0" / "spool.db").open("r+b") as handle:
        handle.write(b"\x55" * size)
    spool._shelf.store.connection.execute("PRAGMA shrink_memory")
    drain(spool, Lane.POINTS)
    assert spool.take_dropped()["spool_damaged"] > 0
    assert spool.put(parcel(Lane.POINTS, 1)) or spool.put(parcel(Lane.POINTS, 1))
    assert spool.state == "ok"
    spool.close()


def test_file_of_a_later_version_is_left_alone(folder: Path) -> None:
    spool = Spool.open(folder)
    spool.put(parcel(Lane.POINTS, 1))
    spool.close()
    with sqlite3.connect(folder / "slot-0" / "spool.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    spool = Spool.open(folder)
    assert "another version (99)" in spool.state
    assert not spool.put(parcel(Lane.POINTS, 2))
    spool.close()
    with sqlite3.connect(folder / "slot-0" / "spool.db") as connection:
        assert connection.execute("SELECT COUNT(*) FROM parcels").fetchone() == (1,)
    connection.close()


def test_neighbour_of_a_later_version_is_left_alone(folder: Path) -> None:
    first, second = Spool.open(folder), Spool.open(folder)
    second.put(parcel(Lane.POINTS, 1))
    second.close()
    first.put(parcel(Lane.POINTS, 2))
    first.close()
    with sqlite3.connect(folder / "slot-1" / "spool.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    spool = Spool.open(folder)
    assert spool.state == "ok"
    assert drain(spool, Lane.POINTS) == [2]
    spool.close()
    assert (folder / "slot-1" / "spool.db").exists()
