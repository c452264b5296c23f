"""Open files: as many as the system allows, and no more connections than there are files for."""

from __future__ import annotations

import asyncio
import math
import resource
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from arobust_otel.journal.durable import NO_HANDLE
from arobust_otel.receiver.limits import ReceiverLimits

MOST_HANDLES = 65_536  # asked for where the system allows it: gRPC does not count its connections
OWN_HANDLES = 256  # of the process itself: journal, sockets that listen, libraries
SAY_SECONDS = 60.0


def handles_for(limits: ReceiverLimits) -> int:
    """How many open files a receiver with these limits needs."""
    return limits.connections + limits.grpc_calls + OWN_HANDLES


def within_handles(limits: ReceiverLimits) -> ReceiverLimits:
    """Raise the process's own limit of open files; where it stays too low, limits with fewer connections."""
    allowed = _raised()
    if allowed >= handles_for(limits):
        return limits
    both = limits.connections + limits.grpc_calls
    share = max(allowed - OWN_HANDLES, 0) * limits.connections // both
    return replace(limits, connections=max(share, 1))


def _raised() -> int:
    """The limit after it was raised as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    aim = MOST_HANDLES if hard == unlimited else min(hard, MOST_HANDLES)
    if soft == unlimited or soft >= aim:
        return MOST_HANDLES if soft == unlimited else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
    except (OSError, ValueError):  # a system that allows less than it says
        return soft
    return aim


class Shortage:
    """Exception handler of an event loop: says seldom that no file could be opened.

    asyncio speaks, with a traceback, of each connection that it cannot accept: thousands per second.
    """

    def __init__(self, say: Callable[[OSError], None]) -> None:
        self._say = say
        self._said = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What the loop calls; everything else goes to the loop's own handler."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in NO_HANDLE:
            loop.default_exception_handler(context)
        elif loop.time() - self._said >= SAY_SECONDS:
            self._said = loop.time()
            self._say(error)
