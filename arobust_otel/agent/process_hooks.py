"""What clients do when their process forks or its interpreter ends; weak references only.

A forked child inherits locks, sockets and queues in whatever state they are, and none of the threads: each
client starts anew there, empty. At the end of the interpreter, clients that nobody closed get a short time.
"""

from __future__ import annotations

import atexit
import os
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

    def start_anew(self) -> None:
        """In a forked child, before anything else runs there."""
        ...

    def close(self, deadline_seconds: float) -> None:
        """Deliver what can be delivered in time."""
        ...


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def watch(client: Client) -> None:
    """Tell this client of forks and of the end."""
    _clients.add(client)


def forget(client: Client) -> None:
    """It is closed."""
    _clients.discard(client)


def _in_child() -> None:
    for client in list(_clients):
        guard.contained("fork of a client")(client.start_anew)()


def _at_exit() -> None:
    """All together have the longest time that one of them asks for."""
    clients = list(_clients)
    deadline = time.monotonic() + max((client.exit_seconds for client in clients), default=0.0)
    for client in clients:
        guard.contained("end of a client")(client.close)(max(0.05, deadline - time.monotonic()))


os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
