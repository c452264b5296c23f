"""Stacks of one rank, on command: py-spy from outside; the rank's own watcher where that is refused.

`/proc` is read first: a process that is stopped, traced or has a task in state D is never paused. A rank
that ended answers by its crash file. Blocks for some seconds at worst: the runner calls it from a thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from arobust_otel.collectors import pyspy
from arobust_otel.collectors.activity import process_state
from arobust_otel.collectors.crashes import read_crash
from arobust_otel.collectors.faulttext import parse_faults
from arobust_otel.collectors.procfs import PROC, read_stat, read_tasks, read_text
from arobust_otel.errors import BeaconError, CapabilityError, CaptureError
from arobust_otel.model import beacon as beacons
from arobust_otel.model import signals
from arobust_otel.model.beacon import RankBeacon
from arobust_otel.model.samples import INFO, Event, StackCapture, ThreadStack, format_frames
from arobust_otel.plugins import RankProcess

PY_SPY, PY_SPY_NONBLOCKING = "py-spy", "py-spy-nonblocking"
WATCHER, CRASH_FILE = "watcher", "faulthandler-file"
_MAY_PAUSE = ("running", "sleeping")
_POLL_SECONDS = 0.02
_STACK_BYTES = 256 * 1024

Stacks = tuple[str, tuple[ThreadStack, ...]]  # method, threads


@dataclass(slots=True)
class StackTaker:
    """Takes stacks; remembers which capability it found missing, to say it once.

    Args:
        proc: root of procfs.
        py_spy: the program; None looks for it.
        dump_seconds: hard limit of one py-spy run (tens of milliseconds are normal).
        watcher_seconds: how long the rank's watcher may take to answer.
    """

    proc: Path = PROC
    py_spy: str | None = None
    dump_seconds: float = 5.0
    watcher_seconds: float = 3.0
    _missing: dict[str, CapabilityError] = field(default_factory=dict, init=False)
    _told: set[str] = field(default_factory=set, init=False)

    def capture(self, rank: RankProcess, command_id: str) -> StackCapture:
        """Stacks of all threads of a rank.

        Raises:
            CaptureError: says what was tried, and why it did not work.
        """
        wall_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        method, threads = self._take(rank)
        return StackCapture(
            time_ns=wall_ns,
            duration_ns=time.monotonic_ns() - mono_ns,
            rank=rank.rank,
            pid=rank.pid,
            method=method,
            command_id=command_id,
            threads=threads,
            text=render(threads),
            attributes=rank.event_attributes(),
        )

    def gaps(self) -> Iterator[Event]:
        """Missing capabilities that captures came upon since the last call, each one only once."""
        for capability, error in list(self._missing.items()):
            if capability not in self._told:
                self._told.add(capability)
                attributes = {signals.CAPABILITY: capability, signals.REMEDY: error.remedy}
                yield Event(signals.CAPABILITY_MISSING, time.time_ns(), str(error), dict(attributes), INFO)

    def _take(self, rank: RankProcess) -> Stacks:
        stat = read_stat(self.proc, rank.pid)
        ended = stat is None or rank.start_ticks not in (0, stat.start_ticks)
        state = (
            "gone" if stat is None or ended else process_state(stat.state, read_tasks(self.proc, rank.pid))
        )
        if state in ("gone", "zombie"):
            return from_crash_file(rank)
        try:
            return self._from_outside(rank, state)
        except CapabilityError as error:
            self._missing[error.capability] = error
            reason = error.reason
        except CaptureError as error:
            reason = str(error)
        try:
            return self._from_watcher(rank)
        except CaptureError as error:
            raise CaptureError(f"{reason}; {error}") from None

    def _from_outside(self, rank: RankProcess, state: str) -> Stacks:
        command = self.py_spy or pyspy.find_py_spy()
        if command is None:
            raise pyspy.missing(None)
        watcher_tid = rank.beacon.watcher_tid if rank.beacon is not None else 0
        limit = self.dump_seconds
        if state in _MAY_PAUSE:
            try:
                text = pyspy.dump(command, rank.pid, pauses=True, limit_seconds=limit)
                return PY_SPY, pyspy.parse_dump(text, rank.pid, watcher_tid)
            except pyspy.NotSuspendedError:
                pass
        text = pyspy.dump(command, rank.pid, pauses=False, limit_seconds=limit)
        return PY_SPY_NONBLOCKING, pyspy.parse_dump(text, rank.pid, watcher_tid)

    def _from_watcher(self, rank: RankProcess) -> Stacks:
        if rank.path is None:
            raise CaptureError("rank has no beacon: its watcher cannot be asked")
        try:
            page = beacons.read(rank.path)
            if not isinstance(page, RankBeacon):
                raise CaptureError(f"{rank.path} is no rank's beacon")
            number = max(page.stack_request, page.stack_done) + 1
            beacons.request_stacks(rank.path, number)
            self._await_answer(rank.path, number)
        except BeaconError as error:
            raise CaptureError(f"the rank's watcher cannot be asked: {error}") from error
        answer = rank.path.with_suffix(f".stacks-{number}")
        text = read_text(answer)
        answer.unlink(missing_ok=True)
        threads = watcher_threads(text[:_STACK_BYTES] if text else "")
        if not threads:
            raise CaptureError("the rank's watcher answered without any stack")
        return WATCHER, threads

    def _await_answer(self, path: Path, number: int) -> None:
        deadline = time.monotonic() + self.watcher_seconds
        while time.monotonic() < deadline:
            page = beacons.read(path)
            if isinstance(page, RankBeacon) and page.stack_done >= number:
                return
            time.sleep(_POLL_SECONDS)
        raise CaptureError(
            f"the rank's watcher did not answer within {self.watcher_seconds:g} s: "
            "a rank that is stopped, or that holds the interpreter lock, cannot"
        )


def from_crash_file(rank: RankProcess) -> Stacks:
    """Stacks that faulthandler left behind.

    Raises:
        CaptureError: there are none.
    """
    report = read_crash(rank.path)
    if report is None or not report.threads:
        raise CaptureError(f"process {rank.pid} has ended and left no stack behind")
    return CRASH_FILE, mark_main(report.threads)


def watcher_threads(text: str) -> tuple[ThreadStack, ...]:
    """Threads of the watcher's answer, main thread first, without the watcher: it is the current thread."""
    return mark_main(tuple(thread for thread in parse_faults(text).threads if not thread.is_active))


def mark_main(threads: tuple[ThreadStack, ...]) -> tuple[ThreadStack, ...]:
    """The main thread first, marked as such: faulthandler lists threads from the newest to the oldest."""
    if not threads:
        return ()
    last = threads[-1]
    main = ThreadStack(last.name or "MainThread", last.thread_id, last.frames, is_main=True)
    return (main, *threads[:-1])


def render(threads: tuple[ThreadStack, ...]) -> str:
    """All stacks as text."""
    return "\n\n".join(f"{_heading(thread)}\n{format_frames(thread.frames)}" for thread in threads)


def _heading(thread: ThreadStack) -> str:
    marks = (
        ("main", thread.is_main),
        ("active", thread.is_active),
        ("holds the interpreter lock", thread.holds_interpreter_lock),
    )
    shown = ", ".join(word for word, is_set in marks if is_set)
    name = f'"{thread.name}"' if thread.name else "without a name"
    ident = f" {thread.thread_id}" if thread.thread_id is not None else ""
    return f"Thread{ident} {name}" + (f" ({shown})" if shown else "")
