"""What tests of the client share: items, quick settings, and a client that is closed in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from arobust_otel.agent.client.settings import ClientSettings
from arobust_otel.agent.master_client import MasterClient
from arobust_otel.model import signals
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import LogLine, Point

JOB = JobIdentity("job-1", 0, "host-a")
QUICK = ClientSettings(
    urgent_seconds=0.01,
    bulk_seconds=0.05,
    call_seconds=10.0,
    retry_first_seconds=0.02,
    retry_max_seconds=0.1,
    probe_seconds=0.2,
)


def points(first: int, count: int) -> list[Point]:
    return [Point(signals.STEP, number, number, {signals.RANK: 0}) for number in range(first, first + count)]


def line(number: int) -> LogLine:
    return LogLine(f"line {number}", 1, "/var/log/train.log", number)


@contextmanager
def client(url: str, settings: ClientSettings = QUICK, **others: Any) -> Iterator[MasterClient]:
    made = MasterClient(url, JOB, settings, **{"say": lambda text: None, **others})
    try:
        yield made
    finally:
        made.close(2.0)
