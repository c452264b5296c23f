"""Sticky facts of a rank, written at once by the hook that sees them: exceptions, fatal signals, the exit.

Nothing here changes what the process does: the hooks that were there before are called as before.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from arobust_otel import guard
from arobust_otel.model import beacon_layout as at
from arobust_otel.model.user_code import is_user_code
from arobust_otel.training.folder import create_file
from arobust_otel.training.rank import DONE, TEARDOWN, RankWriter

_NO_FACT = (SystemExit, KeyboardInterrupt)
_OURS = str(Path(__file__).parent.parent)


class Facts:
    """Hooks of one rank's process; `stem` is its beacon's path without suffix.

    `last_look` is called when the exit begins: what the watcher would have seen at its next tick.
    """

    def __init__(self, writer: RankWriter, stem: Path | None, last_look: Callable[[], None]) -> None:
        self._writer = writer
        self._last_look = last_look
        self._stem = stem
        self._crash_file: Any = None
        self._main_seen = False

    def install(self) -> None:
        """Hook exceptions, fatal signals and the exit."""
        self._hook_exceptions()
        self._hook_exit()
        if self._stem is None or faulthandler.is_enabled():
            self._writer.miss("crash_file")
            return
        _, error = guard.attempt("crash file", self._open_crash_file)
        if error is not None:
            self._writer.miss("crash_file")

    def forget(self) -> None:
        """In a forked child: its fatal signals are not the rank's."""
        self._stem = None
        if self._crash_file is not None:
            faulthandler.disable()
            self._crash_file.close()
            self._crash_file = None

    def _open_crash_file(self) -> None:
        descriptor = create_file(Path(f"{self._stem}.crash"))
        self._crash_file = os.fdopen(descriptor, "wb", buffering=0)
        faulthandler.enable(file=self._crash_file, all_threads=True)
        self._writer.can("crash_file")

    def _hook_exceptions(self) -> None:
        previous, previous_thread = sys.excepthook, threading.excepthook
        saw = guard.contained("exception hook")(self.saw)

        def in_main(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
            saw(value, trace, threading.current_thread().name)
            previous(kind, value, trace)

        def in_thread(args: threading.ExceptHookArgs) -> None:
            if args.exc_value is not None:
                saw(args.exc_value, args.exc_traceback, args.thread.name if args.thread else "")
            previous_thread(args)

        sys.excepthook = in_main
        threading.excepthook = in_thread
        self._writer.can("exceptions")

    def _hook_exit(self) -> None:
        # Before the interpreter waits for other threads where that can be had, else after.
        early: Callable[[Callable[[], None]], object] = getattr(
            threading, "_register_atexit", atexit.register
        )
        early(guard.contained("exit hook")(self.exit_begun))
        atexit.register(guard.contained("exit hook")(self.exit_done))

    def exit_begun(self) -> None:
        """The interpreter begins to end; an exception that another hook swallowed is still known."""
        value = getattr(sys, "last_value", None)
        if value is not None and not self._main_seen:
            self.saw(value, value.__traceback__, threading.main_thread().name)
        slots = self._writer.page.slots
        if not slots[at.EXIT_BEGUN_NS]:
            slots[at.EXIT_BEGUN_NS] = time.time_ns()
            self._writer.enter_state(TEARDOWN)
            self._last_look()

    def exit_done(self) -> None:
        """Other threads have ended, Python's last words are spoken."""
        self._writer.enter_state(DONE)

    def saw(self, value: BaseException, trace: TracebackType | None, thread: str) -> None:
        """An exception that nobody caught. The first is kept, but the main thread's replaces another's."""
        is_main = threading.current_thread() is threading.main_thread()
        slots = self._writer.page.slots
        if isinstance(value, _NO_FACT) or (slots[at.EXCEPTION_NS] and not (is_main and not self._main_seen)):
            return
        self._main_seen = self._main_seen or is_main
        function, file, line = innermost_user_frame(trace)
        message, _ = guard.attempt("exception text", lambda: str(value))
        page = self._writer.page
        inside = page.begin(at.FACTS_SEQUENCE)
        page.put_text(at.EXCEPTION_TYPE, _type_name(type(value)))
        page.put_text(at.EXCEPTION_MESSAGE, message or "")
        page.put_text(at.EXCEPTION_FUNCTION, function)
        page.put_text(at.EXCEPTION_FILE, _tail(file, at.EXCEPTION_FILE[1]))
        page.put_text(at.EXCEPTION_THREAD, thread)
        slots[at.EXCEPTION_LINE] = line
        slots[at.EXCEPTION_STEP] = slots[at.STEP]
        slots[at.EXCEPTION_NS] = time.time_ns()
        page.end(at.FACTS_SEQUENCE, inside)
        self._write_text(value, trace)

    def _write_text(self, value: BaseException, trace: TracebackType | None) -> None:
        if self._stem is None:
            return
        import traceback

        text = "".join(traceback.format_exception(type(value), value, trace))
        with os.fdopen(create_file(Path(f"{self._stem}.exception")), "wb") as file:
            file.write(text.encode("utf-8", "replace"))


def _type_name(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _tail(path: str, size: int) -> str:
    """The end of a path that is too long says more than its beginning."""
    return path if len(path.encode("utf-8", "replace")) <= size else f"...{path[-(size // 4) :]}"


def library_folders() -> tuple[str, ...]:
    """Where code is that the user did not write: standard library, torch and its neighbours, us."""
    folders = [os.path.dirname(os.__file__), _OURS]
    torch = getattr(sys.modules.get("torch"), "__file__", None)
    if torch:
        folders.append(os.path.dirname(os.path.dirname(torch)))
    return tuple(folder + os.sep for folder in folders)


def innermost_user_frame(trace: TracebackType | None) -> tuple[str, str, int]:
    """Function, file and line of the innermost frame of user code, else of the innermost frame."""
    frames = []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append((code.co_name, code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    libraries = library_folders()
    users = [frame for frame in frames if is_user_code(frame[1], libraries)]
    return (users or frames or [("", "", 0)])[-1]
