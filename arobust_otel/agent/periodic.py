"""A thread that does something at once and then again and again, and that ends when it is told to."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from arobust_otel import guard

logger = logging.getLogger(__name__)

MIN_SECONDS = 0.05

# Gets the event that ends it; returns seconds until the next time where that is not the usual interval.
Work = Callable[[threading.Event], float | None]


class Periodic:
    """Does one piece of work periodically. Starts and stops as often as one likes.

    Args:
        name: of the thread, behind ``arobust-``.
        seconds: between the beginnings of two rounds.
        work: what is done; an error of it is contained and does not end the thread.
        last: what is done once when the thread ends.
    """

    def __init__(
        self, name: str, seconds: float, work: Work, last: Callable[[], None] = lambda: None
    ) -> None:
        self.name = name
        self.seconds = bounded(seconds)
        self._work = work
        self._last = last
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether its thread lives and has not been told to end."""
        return self._thread is not None and self._thread.is_alive() and not self._ended.is_set()

    def start(self) -> None:
        """Begin with the first round; nothing where it runs already, or where no thread can be had now."""
        if self.is_running:
            return
        # Each run has events of its own: an older thread that is late cannot take them for its own.
        self._ended, self._wake = threading.Event(), threading.Event()
        thread = threading.Thread(
            target=self._run, args=(self._ended, self._wake), name=f"arobust-{self.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the limit of threads; training goes on, and so may we, later
            logger.warning("%s cannot begin: %s", thread.name, error)
            return
        self._thread = thread

    def wake(self) -> None:
        """Begin the next round now."""
        self._wake.set()

    def tell_to_end(self) -> None:
        """No round begins any more; returns at once."""
        self._ended.set()
        self._wake.set()

    def join(self, deadline_seconds: float) -> bool:
        """Wait for the thread; False where it still lives."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline_seconds))
            return not self._thread.is_alive()
        return True

    def _run(self, ended: threading.Event, wake: threading.Event) -> None:
        work = guard.contained(f"thread {self.name}")(self._work)
        while not ended.is_set():
            started = time.monotonic()
            sooner = work(ended)
            wake.wait(max(0.0, (self.seconds if sooner is None else sooner) - (time.monotonic() - started)))
            wake.clear()
        guard.contained(f"thread {self.name}")(self._last)()


def bounded(seconds: float) -> float:
    """An interval that a thread can wait for: infinity, too, is one that somebody may give for never."""
    return min(max(MIN_SECONDS, float(seconds)), threading.TIMEOUT_MAX)


def stop_all(running: Iterable[Periodic], deadline_seconds: float) -> list[str]:
    """End several at once; returns the names of those that did not end in time."""
    all_of_them = list(running)
    for periodic in all_of_them:
        periodic.tell_to_end()
    deadline = time.monotonic() + deadline_seconds
    return [p.name for p in all_of_them if not p.join(deadline - time.monotonic())]
