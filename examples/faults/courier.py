"""Give a running rank its order: a datagram that it polls for, or a signal."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from faults.plan import Plan

SIGNALS = {"stop": signal.SIGSTOP, "kill": signal.SIGKILL}


class Courier:
    """Sends orders over unix datagram sockets in one folder, and hears the answers.

    Args:
        folder: where the ranks bind theirs; short, because such paths may have 107 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "console"))

    def close(self) -> None:
        self._socket.close()

    def send(self, rank: int, order: str) -> None:
        """Hand the order over; the rank looks at its next batch."""
        self._socket.sendto(order.encode(), str(self.folder / str(rank)))

    def answer(self, timeout_seconds: float) -> tuple[int, str] | None:
        """The next answer as (rank, text), or None where none came in time."""
        self._socket.settimeout(max(0.001, timeout_seconds))
        try:
            text, sender = self._socket.recvfrom(64)
        except (TimeoutError, BlockingIOError):
            return None
        return int(Path(sender).name), text.decode()


def carry_out(plan: Plan, rank: int, pid: int, courier: Courier, timeout_seconds: float = 30.0) -> float:
    """Do what the plan says to the rank; returns the moment it happened (seconds since the epoch).

    Raises:
        TimeoutError: the rank did not take its order.
    """
    if not plan.orders:
        moment = time.time()
        os.kill(pid, SIGNALS[plan.fault])
        return moment
    courier.send(rank, plan.orders[0])
    if courier.answer(timeout_seconds) is None:
        raise TimeoutError(f"rank {rank} did not take its order within {timeout_seconds:.0f} s")
    return time.time()
