"""What collectors produce and MasterClient turns into OTLP: points, events, log lines, stacks.

Collectors fill these and know nothing of OTLP; names come from `signals`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

AttributeValue = str | int | float | bool
Attributes = dict[str, AttributeValue]

# Severity numbers of the OTel log data model.
DEBUG, INFO, WARN, ERROR, FATAL = 5, 9, 13, 17, 21


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric. A value that could not be read is no point at all."""

    name: str
    value: float | int
    time_ns: int
    attributes: Attributes = field(default_factory=dict)
    start_time_ns: int | None = None  # for sums: since when the counter counts


@dataclass(frozen=True, slots=True)
class Event:
    """A fact with a name: becomes an OTel log record with `event_name`, sent at once.

    `path` and `end_offset` acknowledge it, as those of a log line, where its source can tell it again.
    """

    name: str
    time_ns: int
    body: str
    attributes: Attributes = field(default_factory=dict)
    severity: int = INFO
    path: str = ""
    end_offset: int = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line, or one traceback, of a training log. `path` and `end_offset` acknowledge it."""

    body: str
    time_ns: int
    path: str
    end_offset: int
    attributes: Attributes = field(default_factory=dict)
    severity: int = INFO
    time_is_observed: bool = True


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stack, innermost first where frames are listed."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        """As people read it: ``read_shard (data.py:88)``."""
        name = self.file.rsplit("/", 1)[-1]
        return f"{self.function} ({name}:{self.line})"


def format_frames(frames: Iterable[Frame]) -> str:
    """One frame a line, innermost first: ``function (/full/path.py:88)``."""
    return "\n".join(f"{frame.function} ({frame.file}:{frame.line})" for frame in frames)


def parse_frames(text: str) -> tuple[Frame, ...]:
    """Frames of a text made by `format_frames`; lines of another form are left out."""
    frames = []
    for line in text.splitlines():
        text = line.rstrip().removesuffix(")")
        function, opening, place = text.partition(" (/")  # brackets may stand in the path,
        if opening:
            place = f"/{place}"
        else:
            function, opening, place = text.rpartition(" (")  # or in a native function's name
        path, colon, number = place.rpartition(":")
        if opening and colon and number.isdigit():
            frames.append(Frame(function.strip(), path, int(number)))
    return tuple(frames)


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """Stack of one thread, innermost frame first. None where the source cannot tell."""

    name: str
    thread_id: int | None
    frames: tuple[Frame, ...]
    is_main: bool = False
    is_active: bool | None = None
    holds_interpreter_lock: bool | None = None


@dataclass(frozen=True, slots=True)
class StackCapture:
    """All threads of one process at one time: becomes a span with one event per thread, and a log body."""

    time_ns: int
    duration_ns: int
    rank: int | None
    pid: int
    method: str  # py-spy, py-spy-nonblocking, watcher, faulthandler-file
    command_id: str
    threads: tuple[ThreadStack, ...]
    text: str
    attributes: Attributes = field(default_factory=dict)

    def main_thread(self) -> ThreadStack | None:
        """The main thread, None where the source did not say which it is."""
        return next((thread for thread in self.threads if thread.is_main), None)
