"""Limits and times of a MasterClient."""

from __future__ import annotations

from dataclasses import dataclass, field

from arobust_otel.agent.spool.spool import SpoolLimits


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Limits and times; the queue's size is an estimate of memory held, batches wait at most so long."""

    queue_items: int = 50_000
    queue_bytes: int = 16 * 1024 * 1024
    batch_items: int = 1_000
    batch_bytes: int = 1024 * 1024
    urgent_seconds: float = 0.1  # how long a fact waits for others
    bulk_seconds: float = 1.0  # how long points and log lines do
    call_seconds: float = 3.0  # one request
    retry_first_seconds: float = 0.25
    retry_max_seconds: float = 5.0
    circuit_failures: int = 5  # in a row: then only probes go out
    probe_seconds: float = 2.0  # longest time between two probes
    exit_seconds: float = 2.0  # for a client that nobody closed, when the interpreter ends
    spool: SpoolLimits = field(default_factory=SpoolLimits)
