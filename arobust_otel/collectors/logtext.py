"""Bytes of a log -> lines -> records: one record a line, but one for a whole traceback. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from arobust_otel.model.samples import ERROR, INFO, WARN

MAX_RECORD_BYTES = 64 * 1024
_MAX_BETWEEN = 200  # lines of others that wait until an interleaved traceback has ended

_TRACEBACK = re.compile(
    r"^(?P<prefix>\S{0,40}\s?)(?P<group>\s*\+ Exception Group )?Traceback \(most recent call last\):"
)
_CHAINS = ("During handling of the above exception", "The above exception was the direct cause")
_SEVERE = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL|Fatal)\b|^\S*(?:Error|Exception): |\bTraceback \(most recent"
)
_WARNING = re.compile(r"\b(?:WARN|WARNING)\b|Warning: ")
_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[ T](?P<time>\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,9}))?"
    r"\s?(?P<zone>Z|[+-]\d\d:?\d\d)?"
)
_TIME_WITHIN_CHARS = 80  # of a line's beginning: after that a time is part of the message
_BELIEVED_NS = (
    24 * 3600 * 10**9
)  # a line that claims to be older than this, or from the future, is not believed
_FUTURE_NS = 60 * 10**9


@dataclass(frozen=True, slots=True)
class Record:
    """One record and the offset in the file just after it.

    `settles` is false where lines before that offset belong to a record that comes later.
    """

    text: str
    end_offset: int
    settles: bool = True


def severity(text: str) -> int:
    """Severity number that the first words of a record suggest."""
    head = text[:300]
    if _SEVERE.search(head):
        return ERROR
    return WARN if _WARNING.search(head) else INFO


def own_time_ns(text: str, observed_ns: int) -> int | None:
    """The time that a line says it was written, in nanoseconds since the epoch; None where it says none.

    A time without a zone is this machine's: training and agent share it. One that is more than a day before
    `observed_ns`, or after it, is part of the message or from a broken clock, and is not believed.
    """
    found = _TIME.search(text[:_TIME_WITHIN_CHARS])
    if found is None:
        return None
    zone = "+00:00" if found["zone"] == "Z" else found["zone"] or ""
    if zone and ":" not in zone:
        zone = f"{zone[:3]}:{zone[3:]}"
    try:
        seconds = int(datetime.fromisoformat(f"{found['day']}T{found['time']}{zone}").timestamp())
    except (ValueError, OverflowError, OSError):
        return None
    time_ns = seconds * 10**9 + int((found["part"] or "").ljust(9, "0"))
    return time_ns if -_FUTURE_NS <= observed_ns - time_ns <= _BELIEVED_NS else None


def decode_line(line: bytes, cut_bytes: int = 0) -> str:
    """Text of one line as a terminal would show it at the end: what a carriage return overwrote is dropped.

    Undecodable bytes become U+FFFD; `cut_bytes` that were left out are said at the end.
    """
    text = line.decode("utf-8", "replace").rstrip("\r")
    parts = [part for part in text.split("\r") if part.strip()]
    shown = parts[-1] if parts else ""
    return f"{shown} [cut: {cut_bytes} bytes left out]" if cut_bytes else shown


@dataclass(slots=True)
class LineSplitter:
    """Cuts a stream of bytes into whole lines; holds at most one unfinished line of bounded length."""

    offset: int  # in the file, just after the last byte that was fed
    max_bytes: int = MAX_RECORD_BYTES
    _unfinished: bytes = b""
    _left_out: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether no unfinished line is held."""
        return not self._unfinished and not self._left_out

    def feed(self, data: bytes) -> list[Record]:
        """Lines that `data` completes."""
        records = []
        at = self.offset
        self.offset += len(data)
        *whole, rest = data.split(b"\n")
        for line in whole:
            at += len(line) + 1
            self._take(line)
            records.append(self._give(at))
        self._take(rest)
        return records

    def finish(self) -> list[Record]:
        """The unfinished line, where the file will not grow any more."""
        return [] if self.is_clean else [self._give(self.offset)]

    def _take(self, part: bytes) -> None:
        room = self.max_bytes - len(self._unfinished)
        self._unfinished += part[:room]
        self._left_out += max(0, len(part) - room)

    def _give(self, end: int) -> Record:
        record = Record(decode_line(self._unfinished, self._left_out), end)
        self._unfinished, self._left_out = b"", 0
        return record


@dataclass(slots=True)
class _Traceback:
    """The lines of one traceback, chained ones included, as far as they have come."""

    prefix: str  # of every line, as torchrun and others put it before those of a rank
    is_group: bool = False  # an exception group's lines are framed by ``|`` and ``+``
    message_seen: bool = False
    end: int = 0
    lines: list[str] = field(default_factory=list)

    def hold(self, line: Record) -> None:
        """One line more."""
        self.lines.append(line.text)
        self.end = line.end_offset

    def record(self, settles: bool) -> Record:
        """All of it."""
        return Record("\n".join(self.lines).rstrip()[:MAX_RECORD_BYTES], self.end, settles)

    def continues(self, text: str, starts: bool) -> bool:
        """Whether a line continues this traceback; notes when the exception's own line came."""
        if self.is_group:
            return text.lstrip().startswith(("|", "+"))
        if not text.startswith(self.prefix) and text.strip():
            return False
        rest = text[len(self.prefix) :] if text.startswith(self.prefix) else ""
        rest = rest.removeprefix(" ") if self.prefix else rest
        if starts or rest.startswith(_CHAINS):
            self.message_seen = False
            return True
        if not rest.strip():
            return True
        if self.message_seen:
            return False
        if not rest[0].isspace():
            self.message_seen = True
        return True


@dataclass(slots=True)
class TracebackJoiner:
    """Joins the lines of a traceback, chained ones included, into one record; leaves out empty lines.

    Tracebacks of several ranks in one file may be interleaved: they are told apart by the prefix of their
    lines. One is complete only when a line after it is seen: `flush` gives what is held, by its end.
    """

    _open: dict[str, _Traceback] = field(default_factory=dict)  # by prefix
    _between: list[Record] = field(default_factory=list)  # lines of nobody, while one of these goes on
    _size: int = 0

    @property
    def is_holding(self) -> bool:
        """Whether part of a traceback is held."""
        return bool(self._open)

    def feed(self, line: Record) -> list[Record]:
        """Records that this line completes."""
        start = _TRACEBACK.match(line.text)
        owner = next((t for t in self._open.values() if t.continues(line.text, start is not None)), None)
        if owner is not None:
            return self._hold(owner, line)
        if start is not None:
            prefix = "" if start["group"] is not None else start["prefix"].rstrip()
            records = [] if prefix and all(self._open) else self.flush()
            self._open[prefix] = _Traceback(prefix, is_group=start["group"] is not None)
            return records + self._hold(self._open[prefix], line)
        if all(self._open) and not all(t.message_seen for t in self._open.values()):
            self._between += [line] if line.text.strip() else []
            return self.flush() if len(self._between) > _MAX_BETWEEN else []
        records = self.flush()
        return [*records, line] if line.text.strip() else records

    def flush(self) -> list[Record]:
        """What is held, as one record for each traceback."""
        found = [traceback.record(settles=False) for traceback in self._open.values()] + self._between
        self._open, self._between, self._size = {}, [], 0
        found.sort(key=lambda record: record.end_offset)
        return [Record(r.text, r.end_offset, settles=r is found[-1]) for r in found]

    def _hold(self, owner: _Traceback, line: Record) -> list[Record]:
        owner.hold(line)
        self._size += len(line.text) + 1
        return self.flush() if self._size > MAX_RECORD_BYTES else []


class LineByLine:
    """In the place of a TracebackJoiner where every line, empty ones too, is a record of its own."""

    is_holding = False

    def feed(self, line: Record) -> list[Record]:
        """The line."""
        return [line]

    def flush(self) -> list[Record]:
        """Nothing is ever held."""
        return []
