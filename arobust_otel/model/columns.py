"""What state and rules see of a request: columns, facts and stacks, never messages.

`otlp` makes these from bytes and `state` takes them; neither knows the other. Arrays are numpy arrays; the
type is an alias here so that nothing of this package imports numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from arobust_otel.model.samples import Attributes, StackCapture

Array = Any  # numpy.ndarray


@dataclass(frozen=True, slots=True)
class ResourceKey:
    """Whose telemetry this is. Text is empty and `node_rank` None where the sender did not say."""

    job_id: str
    incarnation: int
    host: str
    agent: str
    node_rank: int | None = None
    service_name: str = ""


@dataclass(frozen=True, slots=True)
class MetricColumns:
    """Data points of one resource: equally long arrays.

    signal: int32, index into `names`. rank: int32, -1 where the point has no rank. time_ns: int64.
    value: float64, NaN where the sender sent NaN. group: int32, index into `groups`, -1 where none.
    Points flagged "no recorded value" and points without a number are left out and counted in `skipped`.
    """

    names: tuple[str, ...]
    signal: Array
    rank: Array
    time_ns: Array
    value: Array
    group: Array
    groups: tuple[tuple[str, str], ...]  # (group name, members as text)
    skipped: int = 0

    def __len__(self) -> int:
        """Number of points."""
        return len(self.value)


@dataclass(frozen=True, slots=True)
class Fact:
    """A log record with an event name of ours."""

    name: str
    time_ns: int
    rank: int | None
    body: str
    attributes: Attributes = field(default_factory=dict)
    severity: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything of one resource in one request."""

    resource: ResourceKey
    metrics: MetricColumns | None = None
    facts: tuple[Fact, ...] = ()
    stacks: tuple[StackCapture, ...] = ()
    log_lines: int = 0
    other: int = 0
