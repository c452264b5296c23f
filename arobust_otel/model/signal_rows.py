"""What a row of the dictionary of signals is, and where rows are kept; the rows stand in `signals`."""

from __future__ import annotations

from dataclasses import dataclass

GAUGE = "gauge"
COUNTER = "counter"  # monotonic cumulative sum
UPDOWN = "updowncounter"  # non-monotonic cumulative sum
EVENT = "event"  # log record with event_name
ATTRIBUTE = "attribute"
SPAN = "span"


@dataclass(frozen=True, slots=True)
class Signal:
    """One row of the dictionary."""

    name: str
    kind: str
    unit: str
    meaning: str


rows: dict[str, Signal] = {}


def define(name: str, kind: str, unit: str, meaning: str) -> str:
    """Add a row; returns its name.

    Raises:
        ValueError: the name is taken.
    """
    if name in rows:
        raise ValueError(f"{name} is defined twice")
    rows[name] = Signal(name, kind, unit, meaning)
    return name
