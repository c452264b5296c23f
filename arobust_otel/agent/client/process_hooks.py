"""What clients do when their process forks or its interpreter ends; weak references only.

A forked child inherits locks, sockets and queues in whatever state they are, and none of the threads: each
client starts anew there, empty. After a fork in the middle of a call gRPC could make none in the child, and a
module might stay half imported: so a fork waits a moment for the call to end. At the end of the interpreter,
clients that nobody closed get a short time.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from typing import Protocol

from arobust_otel import guard


class Client(Protocol):
    """What wants to hear of it."""

    @property
    def exit_seconds(self) -> float:
        """Longest time at the end of the interpreter."""
        ...

    def hold_still(self, seconds: float) -> bool:
        """Start no call until `go_on`; False where one goes on for longer than this."""
        ...

    def go_on(self) -> None:
        """Calls may start again."""
        ...

    def start_anew(self) -> None:
        """In a forked child, before anything else runs there."""
        ...

    def close(self, deadline_seconds: float) -> None:
        """Deliver what can be delivered in time."""
        ...


# A fork waits at most so long for calls to end; most take five milliseconds.
HOLD_SECONDS = 0.2

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_still: list[Client] = []
_registered: set[str] = set()
_process = [os.getpid()]


def watch(client: Client) -> None:
    """Tell this client of forks and of the end."""
    _clients.add(client)
    stage = "with grpc" if "grpc" in sys.modules else "alone"
    if stage not in _registered:  # the last that registers is the first to hear: before gRPC does
        _registered.add(stage)
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def forget(client: Client) -> None:
    """It is closed."""
    _clients.discard(client)


def _before() -> None:
    if _still:
        return
    deadline = time.monotonic() + HOLD_SECONDS
    for client in list(_clients):
        left = max(0.0, deadline - time.monotonic())
        if guard.contained("fork of a client")(client.hold_still)(left):
            _still.append(client)


def _in_parent() -> None:
    while _still:
        guard.contained("fork of a client")(_still.pop().go_on)()


def _in_child() -> None:
    if os.getpid() == _process[0]:
        return
    _process[0] = os.getpid()
    _still.clear()
    for client in list(_clients):
        guard.contained("fork of a client")(client.start_anew)()


def _at_exit() -> None:
    """All together have the longest time that one of them asks for."""
    clients = list(_clients)
    deadline = time.monotonic() + max((client.exit_seconds for client in clients), default=0.0)
    for client in clients:
        guard.contained("end of a client")(client.close)(max(0.05, deadline - time.monotonic()))


atexit.register(_at_exit)
