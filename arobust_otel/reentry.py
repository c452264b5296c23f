"""A lock for what any thread may call at any moment, also from within itself.

A signal handler or a finalizer runs between two steps of whatever its thread does, and may call the very
function that it interrupts. A plain lock is held by that thread for ever then, and an `RLock` lets it change
what is half changed. This one lets it in, and tells it.
"""

from __future__ import annotations

import threading


class ReentryLock:
    """``with lock as is_outermost:`` - where that is False, the block interrupts another one: only look.

    >>> lock = ReentryLock()
    >>> with lock as outer, lock as inner:
    ...     (outer, inner)
    (True, False)
    """

    __slots__ = ("_depth", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._depth = 0

    def __enter__(self) -> bool:
        self._lock.acquire()
        self._depth += 1  # an interruption here has ended, and left this as it was
        return self._depth == 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._lock.release()
