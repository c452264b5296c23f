"""How and when a process ended that is not our child: pidfd, the kernel's exit record, the zombie's stat.

`ExitWatch` is the one thread of the collectors: at 2 Hz deaths that lie 30 ms apart could not be ordered.
It only notes; who the culprit is and what the launcher says is decided elsewhere.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from arobust_otel.collectors.procfs import PROC, read_stat

LAUNCHER, PIDFD, ZOMBIE, NOBODY = "launcher", "pidfd", "zombie", "none"

# linux/pidfd.h, since 6.13; the exit code since 6.15. 64 bytes is the first published size of the structure.
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 1 << 3
_INFO = struct.Struct("=QQ11Ii")


@dataclass(frozen=True, slots=True)
class Death:
    """A process that ended: when it was noticed, and the zombie's code where it was still to be seen.

    `code` is as Popen gives it: negative is a signal; None where nobody saw it yet. `seen_end` is false where
    the process was gone before it could be watched: then the time is only an upper bound.
    """

    pid: int
    start_ticks: int
    wall_ns: int
    mono_ns: int
    code: int | None
    seen_end: bool = True


class ExitWatch:
    """Holds a pidfd of each watched process and notes its end within a millisecond.

    Args:
        on_exit: called from the watching thread after each noticed end, so that a runner can sample at once.
        proc: root of procfs.
    """

    def __init__(self, on_exit: Callable[[], None] | None = None, proc: Path = PROC) -> None:
        """The thread starts with the first process."""
        self._on_exit = on_exit
        self._proc = proc
        self._lock = threading.Lock()
        self._held: dict[int, tuple[int, int]] = {}  # descriptor -> (pid, start ticks)
        self._by_key: dict[tuple[int, int], int] = {}
        self._deaths: list[Death] = []
        self._thread: threading.Thread | None = None
        self._poller = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poller.register(self._wake_read, select.EPOLLIN)
        self._closing = False

    def watch(self, pid: int, start_ticks: int) -> None:
        """Watch a process once; one that is already gone is noted as a death at this moment."""
        key = (pid, start_ticks)
        with self._lock:
            if key in self._by_key or self._closing:
                return
            self._by_key[key] = -1
            try:
                descriptor = self._open(pid, start_ticks)
            except ProcessLookupError:
                self._deaths.append(Death(pid, start_ticks, time.time_ns(), time.monotonic_ns(), None, False))
                return
            except OSError:  # no pidfd in this kernel, or no descriptor left: `Node` still says who lives
                return
            self._by_key[key] = descriptor
            self._held[descriptor] = key
            self._poller.register(descriptor, select.EPOLLIN | select.EPOLLONESHOT)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="arobust-exit-watch", daemon=True)
                self._thread.start()

    def is_watching(self, pid: int, start_ticks: int) -> bool:
        """Whether the end of this process will be, or was, among the deaths."""
        with self._lock:
            return self._by_key.get((pid, start_ticks), -1) >= 0

    def deaths(self) -> list[Death]:
        """Deaths since the last call, in the order in which they were noticed."""
        with self._lock:
            found, self._deaths = self._deaths, []
        return found

    def exit_code(self, pid: int, start_ticks: int) -> int | None:
        """What the kernel's record behind the held pidfd says; None before the process is reaped."""
        with self._lock:
            descriptor = self._by_key.get((pid, start_ticks), -1)
            return pidfd_exit_code(descriptor) if descriptor >= 0 else None

    def forget(self, pid: int, start_ticks: int) -> None:
        """Give the pidfd back; the process is not watched again."""
        with self._lock:
            descriptor = self._by_key.get((pid, start_ticks), -1)
            self._by_key[pid, start_ticks] = -1
            if self._held.pop(descriptor, None) is not None:
                os.close(descriptor)

    def close(self) -> None:
        """End the thread and give everything back."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        os.write(self._wake_write, b"x")
        if self._thread is not None:
            self._thread.join()
        for descriptor in (*self._held, self._wake_read, self._wake_write):
            os.close(descriptor)
        self._held.clear()
        self._poller.close()

    def _open(self, pid: int, start_ticks: int) -> int:
        """A pidfd of exactly this process: the start time is compared after the descriptor holds the pid."""
        descriptor = os.pidfd_open(pid)
        stat = read_stat(self._proc, pid)
        if stat is None or (start_ticks and stat.start_ticks != start_ticks):
            os.close(descriptor)
            raise ProcessLookupError(pid)
        return descriptor

    def _run(self) -> None:
        while not self._closing:
            ready = self._poller.poll()
            wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
            noticed = False
            for order, (descriptor, _events) in enumerate(ready):  # the kernel keeps the order of the deaths
                noticed = self._note(descriptor, wall_ns + order, mono_ns + order) or noticed
            if noticed and self._on_exit is not None:
                self._on_exit()

    def _note(self, descriptor: int, wall_ns: int, mono_ns: int) -> bool:
        with self._lock:
            key = self._held.get(descriptor)
            if key is None:
                return False
            code = zombie_exit_code(self._proc, key[0])
            self._deaths.append(Death(*key, wall_ns, mono_ns, code))
            return True


def pidfd_exit_code(descriptor: int) -> int | None:
    """Exit code of a reaped process by its pidfd, as Popen gives it; None on kernels before about 6.15."""
    request = bytearray(_INFO.pack(_PIDFD_INFO_EXIT, *([0] * 13)))
    try:
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    answer = _INFO.unpack(request)
    return as_return_code(answer[-1]) if answer[0] & _PIDFD_INFO_EXIT else None


def zombie_exit_code(proc: Path, pid: int) -> int | None:
    """Exit code of a process that nobody has reaped yet, from field 52 of its stat.

    The kernel shows 0 there to those who may not trace the process: 0 counts only for the same user or root.
    """
    stat = read_stat(proc, pid)
    if stat is None or stat.state != "Z" or stat.exit_code is None:
        return None
    if stat.exit_code == 0 and not _may_look(proc, pid):
        return None
    return as_return_code(stat.exit_code)


def as_return_code(wait_status: int) -> int:
    """Wait status -> exit code, or the negative number of the signal; a core-dump bit is dropped."""
    signal = wait_status & 0x7F
    return -signal if signal else (wait_status >> 8) & 0xFF


def _may_look(proc: Path, pid: int) -> bool:
    try:
        owner = (proc / str(pid)).stat().st_uid
    except OSError:
        return False
    return os.geteuid() in (0, owner)
