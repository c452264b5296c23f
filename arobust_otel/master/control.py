"""What every role has in common: it learns when to stop, ends with its supervisor, and says when it is ready.

Standard input is a pipe from the supervisor: its first line holds the orders, its end means that the
supervisor is gone or that nothing more is expected. Standard output carries single words back. SIGINT is
left to the supervisor, which stops the roles in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from typing import BinaryIO

READY = "ready"
DRAINED = "drained"
ORPHAN_SECONDS = 20.0  # a role whose supervisor is gone ends within this, whatever it hangs in

log = logging.getLogger("arobust.master")


class Control:
    """`stop` is set by SIGTERM or by the end of the supervisor; `end` by the latter only."""

    def __init__(self, orders: BinaryIO) -> None:
        """Use inside the role's event loop."""
        self.stop = asyncio.Event()
        self.end = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGTERM, self.stop.set)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._watch, args=(orders,), name="arobust-supervisor", daemon=True).start()

    def say(self, word: str) -> None:
        """Tell the supervisor."""
        try:
            sys.stdout.write(word + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self.end.set()

    def _watch(self, orders: BinaryIO) -> None:
        """Wait for the end of the pipe; then leave the loop some time before ending by force."""
        while orders.read(64):
            pass
        try:
            self._loop.call_soon_threadsafe(self._orphaned)
        except RuntimeError:  # the loop has ended already
            return
        timer = threading.Timer(ORPHAN_SECONDS, os._exit, (1,))
        timer.daemon = True
        timer.start()

    def _orphaned(self) -> None:
        self.end.set()
        self.stop.set()


async def either(*events: asyncio.Event, timeout_seconds: float | None = None) -> bool:
    """Wait until one of the events is set; False where the time ran out first."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    done, rest = await asyncio.wait(waits, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    return bool(done)
