"""What only the memory of a process has is a number after that process was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from arobust_otel.agent.spool.ledger import Account, Ledger, read_account

COUNT_FOR_EVER = """
import sys
from pathlib import Path
from arobust_otel.agent.spool.ledger import Ledger
ledger = Ledger(7)
ledger.move_to(Path(sys.argv[1]))
for number in range(1, 10**9):
    ledger.note_accepted(3)
    if number % 2 == 0:
        ledger.note_settled(5)
    print(number, flush=True)
"""


def test_counts_of_a_killed_process_are_found(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    process = subprocess.Popen([sys.executable, "-c", COUNT_FOR_EVER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(500):
        process.stdout.readline()
    process.kill()
    said = max(int(line) for line in [b"500", *process.stdout.read().splitlines()] if line)
    process.wait()
    process.stdout.close()
    found = read_account(path)
    assert found.is_open
    assert found.epoch == 7
    assert found.accepted in (3 * said, 3 * (said + 1))
    assert found.settled in (said // 2 * 5, (said + 1) // 2 * 5)
    assert found.lost() == found.accepted - found.settled


def test_clean_end_lost_nothing(tmp_path: Path) -> None:
    ledger = Ledger(1)
    ledger.move_to(tmp_path / "ledger")
    ledger.note_accepted(10)
    assert ledger.account().lost() == 10
    ledger.close()
    assert read_account(tmp_path / "ledger").lost() == 0
    ledger.note_accepted(1)  # whoever comes too late harms nobody


def test_what_went_to_the_spool_is_not_lost(tmp_path: Path) -> None:
    account = Account(1, True, accepted=100, settled=30, spooled=50, held=20)
    assert account.lost() == 20
    assert account.lost(spooled=60) == 10
    assert account.lost(spooled=90) == 0


def test_next_process_finds_what_was_left_and_counts_anew(tmp_path: Path) -> None:
    first = Ledger(1)
    assert first.move_to(tmp_path / "ledger") == Account()
    first.note_accepted(4)
    first.note_spool(2, 1)
    second = Ledger(2)
    second.note_accepted(9)  # before there was a file
    assert second.move_to(tmp_path / "ledger") == Account(1, True, 4, 0, 2, 1)
    second.note_settled(3)
    assert read_account(tmp_path / "ledger") == second.account() == Account(2, True, 9, 3, 0, 1)
    second.close()


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"\0" * 8000, b"y" * 4096])
def test_foreign_content_is_an_empty_account(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger"
    path.write_bytes(content)
    assert read_account(path) == Account()
    ledger = Ledger(3)
    assert ledger.move_to(path) == Account()
    assert read_account(path) == Account(3, True)
    ledger.close()
    assert path.stat().st_size >= 4096


def test_link_is_refused_and_counting_goes_on_in_memory(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "ledger").symlink_to(tmp_path / "target")
    ledger = Ledger(1)
    assert ledger.move_to(tmp_path / "ledger") == Account()
    ledger.note_accepted(2)
    assert ledger.account().accepted == 2
    assert read_account(tmp_path / "ledger") == Account()
    ledger.close()
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_threads_lose_no_count(tmp_path: Path) -> None:
    ledger = Ledger(1)
    ledger.move_to(tmp_path / "ledger")
    threads = [
        threading.Thread(target=lambda: [ledger.note_accepted(1) for _ in range(20_000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.account().accepted == 80_000
    ledger.close()


def test_forked_child_counts_nothing_in_its_parents_file(tmp_path: Path) -> None:
    ledger = Ledger(1)
    ledger.move_to(tmp_path / "ledger")
    pid = os.fork()
    if pid == 0:
        ledger.leave()
        ledger.note_accepted(5)
        ledger.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert ledger.account() == Account(1, True)
    ledger.close()


def test_a_call_costs_less_than_two_microseconds_on_a_quiet_machine(tmp_path: Path) -> None:
    ledger = Ledger(1)
    ledger.move_to(tmp_path / "ledger")
    fastest = 1.0
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(1000):
            ledger.note_accepted(3)
        fastest = min(fastest, (time.perf_counter() - started) / 1000)
    ledger.close()
    assert fastest < 20e-6
