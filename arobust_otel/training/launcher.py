"""The launcher's side: its beacon with the children's ends, the signals it got, the agent's last flush.

Runs in the launcher process only. `subprocess.Popen` is watched through its public methods.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from arobust_otel import guard
from arobust_otel.model import beacon_layout as at
from arobust_otel.model.identity import RankIdentity, resolve_rank
from arobust_otel.training.page import Page, start_ticks

LAST_FLUSH_SECONDS = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class LauncherWriter:
    """Writes the launcher's beacon."""

    def __init__(self, page: Page, job_id: str, host: str, argv: str) -> None:
        self.page = page
        self._indexes: dict[int, int] = {}
        slots = page.slots
        slots[at.LAYOUT_VERSION] = at.VERSION
        slots[at.PID] = os.getpid()
        slots[at.START_TICKS] = start_ticks(os.getpid())
        slots[at.BORN_NS] = time.time_ns()
        page.put_text(at.HOST, host)
        page.put_text(at.JOB_ID, job_id)
        page.put_text(at.SCRIPT, argv)
        slots[at.MAGIC] = at.LAUNCHER_MAGIC

    def child_started(self, pid: int, identity: RankIdentity | None) -> None:
        """A child was started; without identity it is a process whose rank is not known."""
        slots = self.page.slots
        index = self._free_index()
        if index is None:
            return
        values = (
            pid,
            start_ticks(pid),
            0 if identity is None else identity.rank + 1,
            0 if identity is None else identity.local_rank + 1,
            time.time_ns(),
            0,
            0,
        )
        inside = self.page.begin(at.FACTS_SEQUENCE)
        base = at.CHILDREN_OFFSET // 8 + index * at.CHILD_SLOTS
        for number, value in enumerate(values):
            slots[base + number] = value
        slots[at.CHILDREN_COUNT] = max(slots[at.CHILDREN_COUNT], index + 1)
        if identity is not None:
            slots[at.INCARNATION] = identity.incarnation
        self.page.end(at.FACTS_SEQUENCE, inside)
        self._indexes[pid] = index

    def child_ended(self, pid: int, status: int) -> None:
        """`poll` or `wait` has seen the end of a child: the first time is kept."""
        index = self._indexes.pop(pid, None)
        if index is None:
            return
        slots = self.page.slots
        base = at.CHILDREN_OFFSET // 8 + index * at.CHILD_SLOTS
        inside = self.page.begin(at.FACTS_SEQUENCE)
        slots[base + at.CHILD_ENDED_NS] = time.time_ns()
        slots[base + at.CHILD_STATUS] = status + at.STATUS_BIAS
        self.page.end(at.FACTS_SEQUENCE, inside)

    def _free_index(self) -> int | None:
        """The next free entry; when all are taken, the one of a child that ended first."""
        slots = self.page.slots
        count = slots[at.CHILDREN_COUNT]
        if count < at.MAX_CHILDREN:
            return int(count)
        base = at.CHILDREN_OFFSET // 8 + at.CHILD_ENDED_NS
        ended = [(slots[base + index * at.CHILD_SLOTS], index) for index in range(count)]
        return min(((when, index) for when, index in ended if when), default=(0, None))[1]


def watch_children(writer: LauncherWriter) -> None:
    """Record what this process starts through `subprocess.Popen`, and how it ends."""
    kind: Any = subprocess.Popen

    def started(token: Any, failed: bool) -> None:
        process, environ, args = token
        identity = resolve_rank(environ)
        if not failed and (identity is not None or _is_python(args)):
            writer.child_started(process.pid, identity)

    def look(args: tuple[object, ...]) -> object:
        return args[0]

    def ended(process: Any, _failed: bool) -> None:
        if process.returncode is not None:
            writer.child_ended(process.pid, process.returncode)

    original = kind.__init__

    def begin(self: Any, args: Any, *rest: Any, **options: Any) -> None:
        environ = options.get("env", rest[9] if len(rest) > 9 else None)
        token = (self, os.environ if environ is None else environ, args)
        run = guard.around("launcher hook", original, lambda _args: token, started)
        run(self, args, *rest, **options)

    kind.__init__ = begin
    for name in ("poll", "wait"):
        setattr(kind, name, guard.around("launcher hook", getattr(kind, name), look, ended))


def _is_python(args: Any) -> bool:
    first = args if isinstance(args, (str, bytes, os.PathLike)) else next(iter(args), "")
    return "python" in os.path.basename(os.fsdecode(first).split(" ")[0])


def watch_signals(writer: LauncherWriter) -> None:
    """Record the first signal that tells the launcher to end; what the signal does stays as it was."""
    original = signal.signal

    def note(number: int) -> None:
        if not writer.page.slots[at.SIGNAL_RECEIVED]:
            writer.page.slots[at.SIGNAL_RECEIVED] = number

    def noting(handler: Callable[[int, FrameType | None], Any]) -> Any:
        def run(number: int, frame: FrameType | None) -> Any:
            note(number)
            return handler(number, frame)

        run.__wrapped__ = handler  # type: ignore[attr-defined]
        return run

    def by_default(number: int, _frame: FrameType | None) -> None:
        note(number)
        original(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def register(number: int, handler: Any) -> Any:
        if number not in _SIGNALS or handler == signal.SIG_IGN:
            return original(number, handler)
        return original(number, by_default if handler == signal.SIG_DFL else noting(handler))

    signal.signal = register  # type: ignore[assignment]
    for number in _SIGNALS:
        present = signal.getsignal(number)
        if present is not None:
            register(number, present)


def watch_exit(writer: LauncherWriter, folder: Path, agent: subprocess.Popen[bytes] | None) -> None:
    """At exit: say so in the beacon, and give the agent some seconds for its last flush."""

    def leave() -> None:
        writer.page.slots[at.EXIT_BEGUN_NS] = time.time_ns()
        pid = _agent_pid(folder, agent)
        if pid is not None:
            _wait_for(pid, LAST_FLUSH_SECONDS)

    atexit.register(guard.contained("launcher exit")(leave))


def _agent_pid(folder: Path, agent: subprocess.Popen[bytes] | None) -> int | None:
    """The agent that works for this job: the announced one, else the one that we started."""
    import json

    try:
        return int(json.loads((folder / "agent.json").read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return agent.pid if agent is not None else None


def _wait_for(pid: int, seconds: float) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        return
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll(seconds * 1000)
    finally:
        os.close(descriptor)
