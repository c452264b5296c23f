"""Real processes: readers beside an appender, and an appender that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from arobust_otel.journal import Appender, Kind, Reader

APPEND_FOR_EVER = """
import sys
from arobust_otel.journal import Appender, Kind
with Appender.open(sys.argv[1], segment_bytes=20_000) as appender:
    number = appender.next_offset
    while True:
        for _ in range(5):
            payload = b"%d:" % number + b"x" * (number % 700)
            assert appender.append(Kind.REQUEST, payload, received_ns=number) == number
            number += 1
        print(appender.sync(), flush=True)
"""
APPEND_SOME = """
import sys
from arobust_otel.journal import Appender, Kind
with Appender.open(sys.argv[1], segment_bytes=5_000) as appender:
    for number in range(3000):
        appender.append(Kind.TICK, b"%d:" % number + b"y" * (number % 400), received_ns=number)
"""


def start(script: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


def test_killed_appender_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    synced = 0
    for round_number in range(6):
        process = start(APPEND_FOR_EVER, tmp_path)
        assert process.stdout is not None
        for _ in range(3 + 7 * round_number):
            synced = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        synced = max([synced, *(int(line) for line in rest if line)])
        with Reader(tmp_path) as reader:
            records = []
            while found := reader.read():
                records += found
        assert len(records) >= synced
        assert [int(record.payload.split(b":")[0]) for record in records] == list(range(len(records)))


def test_reader_in_another_process_sees_only_whole_records_in_order(tmp_path: Path) -> None:
    seen: list[int] = []
    process = start(APPEND_SOME, tmp_path)
    with Reader(tmp_path) as reader:
        ended = False
        while True:
            records = reader.read(max_records=50)
            for record in records:
                number, _, rest = record.payload.partition(b":")
                assert rest == b"y" * (int(number) % 400)
                seen.append(int(number))
            if ended and not records:
                break
            ended = process.poll() is not None
    assert process.stdout is not None
    process.stdout.close()
    assert process.returncode == 0
    assert seen == list(range(3000))


def test_lock_of_a_killed_appender_is_free(tmp_path: Path) -> None:
    process = start(APPEND_FOR_EVER, tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Appender.open(tmp_path) as appender:
        appender.append(Kind.TICK, b"", received_ns=0)
