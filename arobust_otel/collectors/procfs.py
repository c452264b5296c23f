"""The kernel's texts under /proc: pure parsers, and readers that return None for what is not there.

No judgement lives here. The root is an argument, so that tests bring a tree of files.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
MAX_DESCENDANTS = 64

_STAT_FIELDS_AFTER_NAME = 50  # through field 52, exit_code
_STAT_FIELDS_NEEDED = 22  # through field 24, rss
_CHUNK_BYTES = 16_384


@dataclass(frozen=True, slots=True)
class Stat:
    """What we use of /proc/PID/stat. Ticks are USER_HZ; `exit_code` is a wait status, None where hidden."""

    pid: int
    name: str
    state: str
    parent: int
    user_ticks: int
    system_ticks: int
    start_ticks: int
    resident_pages: int
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """What we use of /proc/PID/io, in bytes: all reads and writes, and those that reached a disk."""

    read_chars: int
    written_chars: int
    read_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a process at one time; `cpu_ns` is None where the kernel keeps no schedstat."""

    tid: int
    state: str
    cpu_ns: int | None


def parse_stat(text: str) -> Stat | None:
    """Parse /proc/PID/stat; the name may hold spaces and brackets. None where it is another text."""
    opening, closing = text.find("("), text.rfind(")")
    if opening < 1 or closing < opening:
        return None
    rest = text[closing + 1 :].split()
    if len(rest) < _STAT_FIELDS_NEEDED or len(rest[0]) != 1:
        return None
    try:
        return Stat(
            pid=int(text[:opening]),
            name=text[opening + 1 : closing],
            state=rest[0],
            parent=int(rest[1]),
            user_ticks=int(rest[11]),
            system_ticks=int(rest[12]),
            start_ticks=int(rest[19]),
            resident_pages=int(rest[21]),
            exit_code=int(rest[49]) if len(rest) >= _STAT_FIELDS_AFTER_NAME else None,
        )
    except ValueError:
        return None


def parse_state(text: str) -> str:
    """State letter alone of /proc/PID/stat; empty where the text is not of that form."""
    rest = text[text.rfind(")") + 1 :].split(maxsplit=1)
    return rest[0] if ")" in text and rest and len(rest[0]) == 1 else ""


def parse_schedstat(text: str) -> int | None:
    """Nanoseconds on a processor: the first of the three numbers of /proc/PID/schedstat."""
    numbers = _numbers(text.split()[:1])
    return numbers[0] if numbers else None


def parse_pairs(text: str) -> dict[str, str]:
    """Lines ``key: value`` or ``key value`` as in status, io, memory.events, vmstat; others are left out."""
    pairs = {}
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if not separator:
            key, separator, value = line.partition(" ")
        if separator and key:
            pairs[key] = value.strip()
    return pairs


def parse_io(text: str) -> Transfer | None:
    """Parse /proc/PID/io; None where a number is missing."""
    words = text.split()
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    numbers = _numbers([pairs.get(key, "") for key in ("rchar:", "wchar:", "read_bytes:", "write_bytes:")])
    return Transfer(*numbers) if numbers else None


def read_text(path: str | Path) -> str | None:
    """Content of a small file; None where it cannot be read. Bare system calls: dozens of times a second."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = chunk = os.read(descriptor, _CHUNK_BYTES)
        while chunk:
            chunk = os.read(descriptor, _CHUNK_BYTES)
            content += chunk
        return content.decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_stat(proc: Path, pid: int) -> Stat | None:
    """Stat of a process; None where there is none."""
    text = read_text(f"{proc}/{pid}/stat")
    return parse_stat(text) if text is not None else None


def read_tasks(proc: Path, pid: int) -> tuple[Task, ...]:
    """All tasks of a process; tasks that end meanwhile are left out."""
    folder = f"{proc}/{pid}/task"
    try:
        names = [name for name in os.listdir(folder) if name.isdigit()]
    except OSError:
        return ()
    tasks = []
    for name in sorted(names, key=int):
        state = parse_state(_read_line(f"{folder}/{name}/stat"))
        if state:
            schedule = _read_line(f"{folder}/{name}/schedstat")
            tasks.append(Task(int(name), state, parse_schedstat(schedule) if schedule else None))
    return tuple(tasks)


def read_children_ticks(proc: Path, pid: int) -> int | None:
    """Processor time, in ticks, of the living descendants of a process; None where they cannot be listed.

    At most `MAX_DESCENDANTS` are looked at.
    """
    total, waiting, looked = 0, [pid], 0
    while waiting and looked <= MAX_DESCENDANTS:
        parent = waiting.pop()
        text = read_text(f"{proc}/{parent}/task/{parent}/children")
        if text is None and parent == pid:
            return None
        for child in _numbers((text or "").split()) or []:
            stat = read_stat(proc, child)
            looked += 1
            if stat is not None:
                total += stat.user_ticks + stat.system_ticks
                waiting.append(child)
    return total


def _read_line(path: str) -> str:
    """One short text, empty where it cannot be read. Bare system calls: hundreds of times a second."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 1024).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def read_io(proc: Path, pid: int, tid: int | None = None) -> Transfer | None:
    """Bytes of a process, or of one of its tasks; None where we may not look."""
    text = read_text(f"{proc}/{pid}/io" if tid is None else f"{proc}/{pid}/task/{tid}/io")
    return parse_io(text) if text is not None else None


def descriptors(proc: Path, pid: int) -> dict[int, str]:
    """Open descriptors of a process and what they lead to; empty where we may not look."""
    found = {}
    try:
        entries = list((proc / str(pid) / "fd").iterdir())
    except OSError:
        return {}
    for entry in entries:
        try:
            found[int(entry.name)] = str(entry.readlink())
        except (OSError, ValueError):
            continue
    return found


def open_flags(proc: Path, pid: int, descriptor: int) -> int | None:
    """Flags with which a descriptor was opened (O_WRONLY, ...); None where unknown."""
    text = read_text(proc / str(pid) / "fdinfo" / str(descriptor))
    try:
        return int(parse_pairs(text or "")["flags"], 8)
    except (KeyError, ValueError):
        return None


def _numbers(words: list[str]) -> list[int] | None:
    try:
        return [int(word) for word in words]
    except ValueError:
        return None
