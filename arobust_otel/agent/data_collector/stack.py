"""Stacks of the process that asks, or, from outside, of others: what every thread does now."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from arobust_otel.agent.data_collector.base import DataCollector
from arobust_otel.agent.handing import logger, process_attributes
from arobust_otel.collectors import pyspy
from arobust_otel.common.constants import DiagnosisDataType
from arobust_otel.errors import CapabilityError, CaptureError
from arobust_otel.model.identity import resolve_rank
from arobust_otel.model.samples import Frame, StackCapture, ThreadStack

IN_PROCESS, PY_SPY = "in-process", "py-spy"
OWN_THREADS = "arobust-"  # names of our threads begin so: they are never what is looked for
_OWN_FILES = str(Path(__file__).parents[2]) + os.sep
_DUMP_SECONDS = 5.0


class StackCollector(DataCollector):
    """Stacks of all threads, by thread id; our own threads and frames are left out.

    Args:
        pids: processes to look into from outside, with py-spy; None: the process that calls. A process that
            holds its interpreter lock, or hangs in C, can be seen from outside only.
    """

    data_type = DiagnosisDataType.STACK_TRACE

    def __init__(self, pids: int | Iterable[int] | None = None) -> None:
        self.pids = (pids,) if isinstance(pids, int) else None if pids is None else tuple(pids)
        self.last_error = ""
        self._last: dict[int, tuple[Frame, ...]] = {}
        self._captures: tuple[StackCapture, ...] = ()

    def is_enabled(self) -> bool:
        """Always: what cannot be seen is said where it is tried."""
        return True

    def collect_data(self) -> dict[int, dict[str, Any]]:
        """Thread id -> ``{"name": ..., "frames": [...]}``, frames as in a traceback, the innermost last."""
        self._captures = tuple(self._take())
        return {
            thread.thread_id or 0: {
                "name": thread.name,
                "frames": [_line(f) for f in reversed(thread.frames)],
            }
            for capture in self._captures
            for thread in capture.threads
        }

    def store_data(self, data: object) -> None:
        """Report stacks as `collect_data` gives them."""
        if self._refuses(data, dict) or not isinstance(data, dict) or not data:
            return
        text = render(data)
        captures, self._captures = self._captures, ()
        items = captures if len(captures) and sum(len(c.threads) for c in captures) == len(data) else None
        self._hand(self._metric(DiagnosisDataType.STACK_TRACE, text, items))

    def is_worth_reporting(self) -> bool:
        """The first stacks, and those of a process whose main thread stands where it stood last time.

        A stack that moved on is progress and tells nobody anything.
        """
        mains = {c.pid: main.frames for c in self._captures if (main := c.main_thread()) is not None}
        before, self._last = self._last, mains
        return not before or any(before.get(pid) == frames for pid, frames in mains.items())

    def _take(self) -> list[StackCapture]:
        if self.pids is None:
            return [capture_process(os.getpid(), IN_PROCESS, own_threads(), time.time_ns())]
        found = []
        errors = []
        for pid in self.pids:
            started = time.time_ns()
            try:
                found.append(capture_process(pid, PY_SPY, _outside(pid), started))
            except (CaptureError, CapabilityError) as error:
                errors.append(f"process {pid}: {error}")
        self.last_error = "; ".join(errors)
        if errors:
            logger.warning("stacks could not be taken: %s", self.last_error)
        return found


def own_threads() -> tuple[ThreadStack, ...]:
    """Stacks of this process, main thread first, without our own threads and frames."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main = threading.main_thread().ident
    found = [
        ThreadStack(names.get(ident, ""), ident, _frames(frame), is_main=ident == main)
        for ident, frame in sys._current_frames().items()
        if not names.get(ident, "").startswith(OWN_THREADS)
    ]
    return tuple(sorted(found, key=lambda thread: not thread.is_main))


def _frames(frame: FrameType | None) -> tuple[Frame, ...]:
    """Innermost first, beginning where our own code was called."""
    found: list[Frame] = []
    while frame is not None:
        code = frame.f_code
        if found or not code.co_filename.startswith(_OWN_FILES):
            found.append(Frame(code.co_name, code.co_filename, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(found)


def _outside(pid: int) -> tuple[ThreadStack, ...]:
    command = pyspy.find_py_spy()
    if command is None:
        raise pyspy.missing(None)
    try:
        text = pyspy.dump(command, pid, pauses=True, limit_seconds=_DUMP_SECONDS)
    except pyspy.NotSuspendedError:
        text = pyspy.dump(command, pid, pauses=False, limit_seconds=_DUMP_SECONDS)
    return tuple(t for t in pyspy.parse_dump(text, pid) if not t.name.startswith(OWN_THREADS))


def capture_process(
    pid: int, method: str, threads: tuple[ThreadStack, ...], started_ns: int, command_id: str = ""
) -> StackCapture:
    """Stacks of a process as a capture, begun at `started_ns` and finished now."""
    rank = resolve_rank(os.environ) if pid == os.getpid() else None
    stacks = {
        t.thread_id or 0: {"name": t.name, "frames": [_line(f) for f in reversed(t.frames)]} for t in threads
    }
    return StackCapture(
        time_ns=started_ns,
        duration_ns=max(0, time.time_ns() - started_ns),
        rank=rank.rank if rank is not None else None,
        pid=pid,
        method=method,
        command_id=command_id,
        threads=threads,
        text=render(stacks),
        attributes=process_attributes() if pid == os.getpid() else {},
    )


def render(stacks: Mapping[int, Mapping[str, Any]]) -> str:
    """``Thread 140 (MainThread):`` and its frames, for each thread."""
    blocks = []
    for ident, stack in stacks.items():
        frames = stack.get("frames") or ()
        lines = [frames] if isinstance(frames, str) else [str(frame).rstrip() for frame in frames]
        indented = (f"  {line}" if not line.startswith(" ") else line for line in lines)
        blocks.append("\n".join([f"Thread {ident} ({stack.get('name', '')}):", *indented]))
    return "\n\n".join(blocks)


def _line(frame: Frame) -> str:
    return f'File "{frame.file}", line {frame.line}, in {frame.function}'
