"""Ports for programs that bind one themselves, later than it was chosen.

They lie below those that the kernel gives out itself: no other program of this machine gets one by asking for
any port, or by connecting, between the choice and the use.
"""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

LOWEST = 10_000
_given: set[int] = set()
_chance = random.SystemRandom()  # not repeated from one run of the tests to the next, which may run beside it


def free_port() -> int:
    """A port where nobody listens, and that was not given before."""
    ours = range(LOWEST, _first_of_the_kernel())
    for port in _chance.sample(ours, len(ours)):
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise AssertionError(f"no port of {ours} is free")


def free_ports(count: int) -> list[int]:
    """Several, all different."""
    return [free_port() for _ in range(count)]


def _first_of_the_kernel() -> int:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    return int(text.split()[0])


def _is_free(port: int) -> bool:
    """At every address, and with no connection of an earlier listener left."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind(("", port))
        return True
    return False
