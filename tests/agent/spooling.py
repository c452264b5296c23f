"""Parcels for tests of the spool, and a process that puts them until it is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from arobust_otel.agent.parcel import Chunk, Lane, Parcel, Receipt, parcel_of
from arobust_otel.agent.spool.spool import Spool
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, LogLine, Point, StackCapture

IDENTITY = JobIdentity("job", 0, "host", 0)
PUT_FOR_EVER = """
import sys
from pathlib import Path
from arobust_otel.agent.parcel import Lane
from arobust_otel.agent.spool.spool import Spool
from tests.agent.spooling import parcel
spool = Spool.open(Path(sys.argv[1]))
number = 0
while True:
    lane = Lane(number % 4)
    made = parcel(lane, number, 5 + number % 50)
    spool.ledger.note_accepted(made.items)
    assert spool.put(made), spool.state
    print(number, made.items, spool.stats().items, flush=True)
    if number % 7 == 6:
        head = spool.head(Lane.LINES)
        print("gone", head.chunks[0].items[0].end_offset, flush=True)
        spool.remove(head.batch_id)
    number += 1
"""


def item(lane: Lane, number: int) -> object:
    if lane is Lane.POINTS:
        return Point("m", number, number)
    if lane is Lane.FACTS:
        return Event("e", number, "body")
    if lane is Lane.LINES:
        return LogLine("line " * 20, number, "/log", number)
    return StackCapture(number, 1, 0, 1, "py-spy", "c", (), "text")


def parcel(lane: Lane, number: int, items: int = 1, acknowledged: Callable[[], None] | None = None) -> Parcel:
    """Items that carry their number; each parcel has one chunk."""
    found = [item(lane, number) for _ in range(items)]
    receipt = Receipt(acknowledged, outstanding=items)
    return parcel_of(lane, [Chunk(lane, found, IDENTITY, receipt, number, 0.0)])


def number_of(found: Parcel | None) -> int | None:
    """Which parcel that is."""
    if found is None:
        return None
    assert found.chunks[0].items
    return found.chunks[0].handed_wall_ns


def drain(spool: Spool, lane: Lane) -> list[int]:
    """Numbers of all parcels of a lane, in their order."""
    numbers = []
    while (found := spool.head(lane)) is not None:
        number = number_of(found)
        assert number is not None
        numbers.append(number)
        spool.remove(found.batch_id)
    return numbers


def start(script: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


def kill(process: subprocess.Popen[bytes]) -> list[bytes]:
    """SIGKILL; what it still had said."""
    process.kill()
    assert process.stdout is not None
    rest = process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    return rest
