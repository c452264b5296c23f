"""Batches that came before: the same batch a second time is answered with success and kept once.

A sender repeats a batch whose answer it did not hear, under the id of the first try. The window holds the
newest ids; after a start it is filled from the journal's tail (`journal.tail`), so that a batch which was
appended right before the end, and never answered, is recognised too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from arobust_otel.model.wire_names import BATCH_ID_CHARS

WINDOW = 100_000
Key = tuple[str, str]  # signal and batch id: one batch may travel as one request for each signal

_HEX = frozenset("0123456789abcdef")


def batch_id_of(text: str) -> str:
    """The id in its one form, empty where the text is no id."""
    text = text.strip().lower()
    return text if len(text) == BATCH_ID_CHARS and _HEX.issuperset(text) else ""


class Repeats:
    """The last ids that are durable, and those in flight. Used from one event loop."""

    def __init__(self, durable: Iterable[Key] = (), limit: int = WINDOW) -> None:
        """`durable` are keys that the journal holds, the oldest first."""
        self._limit = limit
        self._durable: dict[Key, None] = dict.fromkeys(durable)
        self._running: dict[Key, asyncio.Event] = {}
        self._forget()

    def __len__(self) -> int:
        """How many ids are remembered."""
        return len(self._durable)

    async def begin(self, key: Key) -> bool:
        """Whether this copy is to be kept; then the caller owes `end`.

        Waits while another copy is in flight: False once that one is durable, True where it was not kept.
        """
        while key not in self._durable:
            other = self._running.get(key)
            if other is None:
                self._running[key] = asyncio.Event()
                return True
            await other.wait()
        return False

    def end(self, key: Key, *, durable: bool) -> None:
        """The copy in flight is durable, or was not kept: then the next one is the first."""
        if durable:
            self._durable[key] = None
            self._forget()
        self._running.pop(key).set()

    def _forget(self) -> None:
        while len(self._durable) > self._limit:
            del self._durable[next(iter(self._durable))]
