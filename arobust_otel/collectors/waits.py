"""What a process waits for, without stopping it: its system call, the descriptor in it, the peer behind it.

`/proc/PID/syscall` of the main thread -> "in recvfrom() of socket 10.0.0.4:41022 -> 10.0.0.7:29500".
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path

from arobust_otel.collectors.procfs import PROC, read_text

# Numbers of system calls: name -> (x86_64, aarch64). Those in _ON_DESCRIPTOR take one as first argument.
_NUMBERS = {
    "read": (0, 63),
    "write": (1, 64),
    "poll": (7, -1),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "select": (23, -1),
    "nanosleep": (35, 101),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "wait4": (61, 260),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_nanosleep": (230, 115),
    "epoll_wait": (232, -1),
    "waitid": (247, 95),
    "openat": (257, 56),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "epoll_pwait": (281, 22),
    "accept4": (288, 242),
}
_ELSEWHERE = frozenset({"poll", "select", "pselect6", "ppoll", "futex", "nanosleep", "clock_nanosleep"})
_ON_DESCRIPTOR = frozenset(_NUMBERS) - _ELSEWHERE - {"restart_syscall", "wait4", "waitid", "openat"}
_PLAIN = {
    "futex": "waiting for a lock or for another thread (futex)",
    "nanosleep": "asleep (nanosleep)",
    "clock_nanosleep": "asleep (clock_nanosleep)",
    "wait4": "waiting for a child process (wait4)",
    "waitid": "waiting for a child process (waitid)",
}


def syscall_names(machine: str) -> dict[int, str]:
    """Number -> name on this architecture; empty where we don't know it."""
    column = {"x86_64": 0, "aarch64": 1}.get(machine)
    if column is None:
        return {}
    return {numbers[column]: name for name, numbers in _NUMBERS.items() if numbers[column] >= 0}


def parse_syscall(text: str) -> tuple[int, int] | None:
    """/proc/PID/syscall -> (number, first argument); None for ``running``, ``-1 ...`` and foreign text."""
    words = text.split()
    try:
        number, first = int(words[0]), int(words[1], 16)
    except (IndexError, ValueError):
        return None
    return (number, first) if number >= 0 else None


def parse_connections(text: str) -> dict[int, str]:
    """/proc/PID/net/tcp or tcp6 -> ``local -> remote`` by socket inode; other lines are left out."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        try:
            found[int(words[9])] = f"{_address(words[1])} -> {_address(words[2])}"
        except (IndexError, ValueError):
            continue
    return found


def describe_wait(pid: int, proc: Path = PROC) -> str:
    """One clause on what the main thread waits for; empty where it runs or we may not look."""
    call = parse_syscall(read_text(proc / str(pid) / "syscall") or "")
    if call is None:
        return _wait_channel(pid, proc)
    name = syscall_names(os.uname().machine).get(call[0])
    if name is None:
        return f"in system call {call[0]}"
    if name not in _ON_DESCRIPTOR:
        return _PLAIN.get(name, f"in {name}()")
    return f"in {name}() of {_describe_descriptor(pid, call[1], proc)}"


def _wait_channel(pid: int, proc: Path) -> str:
    """The kernel function where the main thread sleeps: readable where the system call is not."""
    channel = (read_text(proc / str(pid) / "wchan") or "").strip()
    return f"asleep in the kernel at {channel}" if channel not in ("", "0") else ""


def _describe_descriptor(pid: int, descriptor: int, proc: Path) -> str:
    try:
        target = str((proc / str(pid) / "fd" / str(descriptor)).readlink())
    except OSError:
        return f"descriptor {descriptor}"
    inode = target.removeprefix("socket:[").removesuffix("]")
    if not target.startswith("socket:[") or not inode.isdecimal():
        return target
    for table in ("tcp", "tcp6"):
        ends = parse_connections(read_text(proc / str(pid) / "net" / table) or "").get(int(inode))
        if ends is not None:
            return f"socket {ends}"
    return "a socket"


def _address(text: str) -> str:
    """``0100007F:7355`` -> ``127.0.0.1:29525``; the kernel prints words of the host's byte order."""
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    if sys.byteorder == "little":
        raw = b"".join(raw[index : index + 4][::-1] for index in range(0, len(raw), 4))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    shown = f"[{address}]" if address.version == 6 else str(address)
    return f"{shown}:{int(port, 16)}"
