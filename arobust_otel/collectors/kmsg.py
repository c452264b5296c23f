"""The kernel's log as structured records (Documentation/ABI/testing/dev-kmsg); not what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KERNEL_LOG = Path("/dev/kmsg")
_RECORD_BYTES = 16 * 1024  # one read gives one record; the kernel refuses buffers that are too small
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_KERN = 0


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """One record: number and microseconds since the machine was started, syslog priority, text."""

    sequence: int
    time_us: int
    priority: int
    text: str

    @property
    def facility(self) -> str:
        """``kern`` for the kernel's own; anything else was written by a process, which must be root's."""
        return "kern" if self.priority >> 3 == _KERN else "user"


class KernelLog:
    """The log, opened for reading from its oldest record on.

    Args:
        path: the device, or a file of the same form.
        read: how a record is read from a descriptor.

    Raises:
        OSError: it is not there, or may not be read.
    """

    def __init__(self, path: Path = KERNEL_LOG, read: Callable[[int, int], bytes] = os.read) -> None:
        self._os_read = read
        self.lost = 0  # records overwritten before they were read
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._next: int | None = None
        self._overrun = False

    def read(self, limit: int) -> Iterator[KernelRecord]:
        """What is new, at most `limit` records; ends where the log does.

        Raises:
            OSError: the log may no longer be read.
        """
        taken = 0
        while taken < limit:
            try:
                content = self._os_read(self._descriptor, _RECORD_BYTES)
            except BlockingIOError:
                return
            except BrokenPipeError:  # the next record is gone; the kernel goes on at the oldest one
                self._overrun = True
                continue
            if not content:
                return
            for record in parse_records(content):
                self._count(record)
                taken += 1
                yield record

    def close(self) -> None:
        """Give the log back."""
        os.close(self._descriptor)

    def _count(self, record: KernelRecord) -> None:
        if self._overrun and self._next is not None:
            self.lost += max(0, record.sequence - self._next)
        self._overrun = False
        self._next = record.sequence + 1


def parse_records(content: bytes) -> Iterator[KernelRecord]:
    """``6,339,5140900,-;text`` and lines of key and value behind it; what has another form is left out."""
    for line in content.decode("utf-8", "replace").splitlines():
        head, semicolon, text = line.partition(";")
        numbers = head.split(",")[:3]
        if line.startswith(" ") or not semicolon or len(numbers) < 3:
            continue
        if all(number.isdecimal() for number in numbers):
            priority, sequence, time_us = (int(number) for number in numbers)
            yield KernelRecord(sequence, time_us, priority, unescape(text))


def unescape(text: str) -> str:
    r"""Bytes that the kernel wrote as ``\x1b``: those of UTF-8 become text again, control characters stay.

    >>> unescape(r"caf\xc3\xa9 \x0a")
    'café \\x0a'
    """
    if "\\x" not in text:
        return text
    raw = _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] > "7f" else found[0], text)
    try:
        return raw.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
