"""Starts the three roles, starts again what dies, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from arobust_otel.master.control import DRAINED, READY, log
from arobust_otel.master.roles import DELIVER, JUDGE, RECEIVE
from arobust_otel.master.wire import Orders

START_SECONDS = 60.0
FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 10.0
STEADY_SECONDS = 30.0  # alive for that long, a role is thought to be well again
STOP_SECONDS = {RECEIVE: 8.0, JUDGE: 15.0, DELIVER: 8.0}
KILLED_SECONDS = 5.0  # in which a role that was killed is gone
# First the receiver drains, then all end, each in its time or by force.
LONGEST_STOP_SECONDS = STOP_SECONDS[RECEIVE] + sum(limit + KILLED_SECONDS for limit in STOP_SECONDS.values())


class RoleFailed(Exception):
    """A role did not get ready at the first start; carries its exit code."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with code {code} before it was ready")
        self.code = code


@dataclass(slots=True)
class Role:
    """One supervised process."""

    name: str
    orders: Orders
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        """Process id of the latest process."""
        return self.process.pid if self.process else 0

    async def start(self) -> None:
        """Start the process and hand it its orders."""
        self.ready.clear()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "arobust_otel.master.roles",
            self.name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=tuple(self.orders.handles.values()),
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(self.orders.to_line())
            await self.process.stdin.drain()

    async def listen(self) -> int:
        """Take in what the process says until it ends; returns its exit code."""
        assert self.process is not None
        assert self.process.stdout is not None
        words = {READY: self.ready, DRAINED: self.drained}
        async for line in self.process.stdout:
            event = words.get(line.decode("utf-8", "replace").strip())
            if event is not None:
                event.set()
        return await self.process.wait()

    def terminate(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    def close_orders(self) -> None:
        """Let the process see the end of its orders: nothing more is expected of it."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    async def end(self, task: asyncio.Task[None], timeout_seconds: float) -> None:
        """Wait until it ended; kill it where it does not."""
        _, late = await asyncio.wait([task], timeout=timeout_seconds)
        if late and self.process is not None and self.process.returncode is None:
            log.warning("%s did not end within %.0f s and is killed", self.name, timeout_seconds)
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await asyncio.wait([task], timeout=KILLED_SECONDS)


class Supervisor:
    """Keeps the roles alive. `changed` is called when a role has got ready, again or for the first time."""

    def __init__(self, orders: Orders, changed: Callable[[], None]) -> None:
        self.roles = {name: Role(name, orders) for name in (RECEIVE, JUDGE, DELIVER)}
        self.failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._changed = changed
        self._stopping = False
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Start all at once; returns when every role is ready: each waits for what it needs of the others.

        Raises:
            RoleFailed: a role ended before it was ready, or did not get ready in time.
        """
        self._tasks = {name: asyncio.create_task(self._keep(role)) for name, role in self.roles.items()}
        everyone = asyncio.gather(*(role.ready.wait() for role in self.roles.values()))
        try:
            done, _ = await asyncio.wait(
                [everyone, self.failed], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            everyone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await everyone
        if self.failed.done():
            self.failed.result()
        if not done:
            late = [name for name, role in self.roles.items() if not role.ready.is_set()]
            raise RoleFailed(", ".join(late), 1)

    async def stop(self) -> None:
        """Stop in order: no more requests, then the judge to the end of the journal, then deliveries."""
        self._stopping = True
        receive, judge, deliver = (self.roles[name] for name in (RECEIVE, JUDGE, DELIVER))
        receive.terminate()
        await _first(receive.drained, self._tasks.get(RECEIVE), STOP_SECONDS[RECEIVE])
        for role in (judge, receive, deliver):
            role.terminate()
            if role is receive:
                role.close_orders()
            if role.name in self._tasks:
                await role.end(self._tasks[role.name], STOP_SECONDS[role.name])
        for role in self.roles.values():
            role.close_orders()

    async def _keep(self, role: Role) -> None:
        """Start a role, and again whenever it ends."""
        delay = FIRST_BACKOFF_SECONDS
        while True:
            began = time.monotonic()
            await role.start()
            announce = asyncio.create_task(self._announce(role))
            code = await role.listen()
            announce.cancel()
            if self._stopped() or not self._was_ready(role, code):
                return
            if time.monotonic() - began > STEADY_SECONDS:
                delay = FIRST_BACKOFF_SECONDS
            role.restarts += 1
            log.error("%s ended with code %s and is started again in %.1f s", role.name, code, delay)
            await asyncio.sleep(delay)
            if self._stopped():
                return
            delay = min(delay * 2, MAX_BACKOFF_SECONDS)

    def _was_ready(self, role: Role, code: int) -> bool:
        """Whether the role was ready once: one that never was will not be by trying again."""
        if role.restarts or role.ready.is_set():
            return True
        if not self.failed.done():
            self.failed.set_exception(RoleFailed(role.name, code))
        return False

    def _stopped(self) -> bool:
        return self._stopping

    async def _announce(self, role: Role) -> None:
        await role.ready.wait()
        self._changed()


async def _first(event: asyncio.Event, task: asyncio.Task[None] | None, timeout_seconds: float) -> None:
    """Wait for an event or the end of a task, no longer than the timeout."""
    wait = asyncio.ensure_future(event.wait())
    everything: list[asyncio.Future[Any]] = [wait, *([task] if task else [])]
    await asyncio.wait(everything, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    wait.cancel()
