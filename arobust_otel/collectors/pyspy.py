"""py-spy as a subprocess with a hard time limit, and its JSON as values."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from arobust_otel.errors import CapabilityError, CaptureError
from arobust_otel.model.samples import Frame, ThreadStack

_REFUSED = ("permission denied", "operation not permitted", "eperm")
_NOT_SUSPENDED = ("failed to suspend",)


class NotSuspendedError(CaptureError):
    """The process cannot be paused (stopped already, or traced by another); `--nonblocking` can read it."""


def find_py_spy(search_path: str | None = None) -> str | None:
    """py-spy beside this interpreter (a virtual environment that is not active), else on the search path."""
    beside = Path(sys.executable).with_name("py-spy")
    if search_path is None and os.access(beside, os.X_OK):
        return str(beside)
    return shutil.which("py-spy", path=search_path)


def dump(command: str, pid: int, *, pauses: bool, limit_seconds: float) -> str:
    """JSON of `py-spy dump`.

    Raises:
        CapabilityError: py-spy is missing, or the kernel refuses to let it look.
        NotSuspendedError: only `pauses=False` can work.
        CaptureError: anything else, the time limit included.
    """
    words = [command, "dump", "--json", "--pid", str(pid), *([] if pauses else ["--nonblocking"])]
    try:
        done = subprocess.run(words, capture_output=True, timeout=limit_seconds, check=False)
    except FileNotFoundError:
        raise missing(command) from None
    except subprocess.TimeoutExpired:
        raise CaptureError(f"py-spy did not finish within {limit_seconds:g} s") from None
    except OSError as error:
        raise CaptureError(f"py-spy cannot be started: {error}") from error
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    raise explain(done.stderr.decode("utf-8", "replace"))


def missing(command: str | None) -> CapabilityError:
    """py-spy is not installed."""
    where = f" at {command}" if command else ""
    return CapabilityError(
        "py_spy",
        f"py-spy is not installed{where}: stacks come from the ranks' own watchers",
        "pip install py-spy",
    )


def explain(error_text: str) -> CaptureError | CapabilityError:
    """py-spy's standard error as the error that it means; its own stack trace is dropped."""
    lower = error_text.lower()
    if any(word in lower for word in _REFUSED):
        return CapabilityError(
            "ptrace",
            "the kernel refuses py-spy to look into the ranks: stacks come from the ranks' own watchers",
            "run the agent as the ranks' user, and give it CAP_SYS_PTRACE or set kernel.yama.ptrace_scope=0",
        )
    words = error_text.partition("Stack backtrace:")[0].split()
    reason = " ".join(words).removeprefix("Error: ") or "no reason given"
    kind = NotSuspendedError if any(word in lower for word in _NOT_SUSPENDED) else CaptureError
    return kind(f"py-spy: {reason[:300]}")


def parse_dump(text: str, pid: int, watcher_tid: int = 0) -> tuple[ThreadStack, ...]:
    """Threads of a dump, innermost frame first, main thread first; our own watcher is left out.

    Raises:
        CaptureError: the text is not what `py-spy dump --json` prints.
    """
    try:
        values = json.loads(text)
        threads = [
            _thread(value, pid)
            for value in values
            if not watcher_tid or value.get("os_thread_id") != watcher_tid
        ]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CaptureError(f"py-spy printed something else than stacks: {str(error)[:200]}") from error
    return tuple(sorted(threads, key=lambda thread: not thread.is_main))


def _thread(value: dict[str, Any], pid: int) -> ThreadStack:
    tid = value.get("os_thread_id")
    frames = (
        Frame(str(frame["name"]), str(frame["filename"]), int(frame.get("line") or 0))
        for frame in value["frames"]
    )
    name = value.get("thread_name")
    return ThreadStack(
        name=str(name) if name else "",
        thread_id=int(tid) if tid is not None else None,
        # Python 3.12 and later run calls from C through a trampoline that is nobody's code.
        frames=tuple(frame for frame in frames if not frame.file.startswith("<shim")),
        is_main=tid == pid or (tid is None and name == "MainThread"),
        is_active=_truth(value.get("active")),
        holds_interpreter_lock=_truth(value.get("owns_gil")),
    )


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None
