"""The watcher: a daemon thread that ticks, runs its tasks, and writes stacks when asked.

It never keeps the process alive, imports nothing heavy, and survives its tasks: one that fails is a gap.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from arobust_otel import guard
from arobust_otel.model import beacon_layout as at
from arobust_otel.training.folder import create_file
from arobust_otel.training.rank import RankWriter

PERIOD_SECONDS = 0.5
NAME = "arobust-watcher"
Task = Callable[[], None]


class Watcher:
    """Runs `tasks` twice a second beside the training."""

    def __init__(self, writer: RankWriter, tasks: dict[str, Task]) -> None:
        self._writer = writer
        self._tasks = tasks
        self._pid = os.getpid()

    def start(self) -> None:
        """Start the thread; a process that cannot have one goes on without, with a gap."""
        thread = threading.Thread(target=self._run, name=NAME, daemon=True)
        _, error = guard.attempt("watcher start", thread.start)
        if error is not None:
            self._writer.miss("watcher")

    def _run(self) -> None:
        # Signals belong to the training's own threads.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._writer.page.slots[at.WATCHER_TID] = threading.get_native_id()
        while True:
            self.tick()
            time.sleep(PERIOD_SECONDS)

    def tick(self) -> None:
        """One round: the tick first, so that a stuck task shows as a stale tick."""
        slots = self._writer.page.slots
        slots[at.TICK_COUNT] += 1
        slots[at.TICK_NS] = time.monotonic_ns()
        for name, task in self._tasks.items():
            _, error = guard.attempt(f"watcher {name}", task)
            if error is not None:
                self._writer.miss("watcher")


class StackTask:
    """Answers requests for stacks: `.stacks-<n>` beside the beacon, as faulthandler writes them."""

    def __init__(self, writer: RankWriter, stem: Path) -> None:
        self._writer = writer
        self._stem = stem
        writer.can("watcher_stacks")

    def __call__(self) -> None:
        """Write the stacks if a request is open."""
        slots = self._writer.page.slots
        number = slots[at.STACK_REQUEST]
        if number == slots[at.STACK_DONE]:
            return
        path = Path(f"{self._stem}.stacks-{number}")
        part = Path(f"{path}.part")
        with open(create_file(part), "wb", closefd=True) as file:
            faulthandler.dump_traceback(file=file, all_threads=True)
        part.rename(path)
        slots[at.STACK_DONE] = number


class TracerTask:
    """Lets exactly the agent trace this process, where Yama forbids it to all but parents."""

    SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
    _PR_SET_PTRACER = 0x59616D61

    def __init__(self, writer: RankWriter, folder: Path) -> None:
        self._writer = writer
        self._announced = folder / "agent.json"
        self._changed_ns = 0

    @classmethod
    def is_needed(cls) -> bool:
        """True where the kernel has Yama at all."""
        return cls.SCOPE.exists()

    def __call__(self) -> None:
        """Tell the kernel when another agent has announced itself."""
        try:
            changed_ns = self._announced.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed_ns == self._changed_ns:
            return
        self._changed_ns = changed_ns
        import ctypes
        import json

        pid = int(json.loads(self._announced.read_text(encoding="utf-8"))["pid"])
        library = ctypes.CDLL(None, use_errno=True)
        if library.prctl(self._PR_SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0) == 0:
            self._writer.can("tracer_allowed")
