"""The few words of a client: the beginning and the end of an outage, and each complaint once."""

from __future__ import annotations

import time
from collections.abc import Callable

MAX_COMPLAINTS = 20


class Words:
    """Says what people should know, and remembers what it said.

    Args:
        say: takes a sentence.
        master: what to call the master.
        queue_items: how many items memory keeps.
    """

    def __init__(self, say: Callable[[str], None], master: str, queue_items: int) -> None:
        self._say = say
        self._master = master
        self._queue_items = queue_items
        self._outage_since: float | None = None
        self._complaints: set[str] = set()
        self._waits_for_thread = False

    @property
    def in_outage(self) -> bool:
        """Whether an outage has begun and not ended."""
        return self._outage_since is not None

    def failed(self, why: object, on_disk: bool) -> None:
        """A try failed."""
        if self._outage_since is not None:
            return
        self._outage_since = time.monotonic()
        where = "on the disk" if on_disk else f"in memory, up to {self._queue_items} items,"
        self._say(
            f"the master at {self._master} does not take data ({why}); "
            f"it is kept {where} until it does, training is not affected"
        )

    def recovered(self, dropped: int) -> None:
        """Everything is taken again."""
        if self._outage_since is not None:
            seconds, self._outage_since = time.monotonic() - self._outage_since, None
            self._say(f"the master takes data again after {seconds:.1f} s; {dropped} items dropped so far")

    def has_no_thread(self, why: object) -> None:
        """No thread could be started."""
        if not self._waits_for_thread:
            self._waits_for_thread = True
            self._say(f"no thread for deliveries could be started ({why}); later reports try again")

    def complain(self, why: str) -> None:
        """Items were given up."""
        if why not in self._complaints and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.add(why)
            self._say(f"items were given up and counted: {why}")
