"""The role `receive`: sockets to journal, ticks, and the socket by which outputs enter."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import socket
import time
from typing import TYPE_CHECKING, Any

from arobust_otel import __version__
from arobust_otel.checked import Address
from arobust_otel.config import MasterSettings
from arobust_otel.errors import JournalError, JournalLocked
from arobust_otel.journal import Appender, Cursor, Kind, snapshots
from arobust_otel.master.control import DRAINED, READY, Control, either, log
from arobust_otel.master.layout import Layout
from arobust_otel.master.outputs import OutputsServer
from arobust_otel.master.receptions import store_receptions
from arobust_otel.master.wire import Orders
from arobust_otel.receiver.answers import Refusal
from arobust_otel.receiver.commit import GroupCommit
from arobust_otel.receiver.handles import Shortage, handles_for, within_handles
from arobust_otel.receiver.http import ReceiverApp
from arobust_otel.receiver.intake import Intake
from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.server import HttpServer, Tls

if TYPE_CHECKING:
    from arobust_otel.receiver.grpc_server import GrpcServer

LOCK_SECONDS = 15.0  # how long the receiver before this one may take to end
DRAIN_SECONDS = 5.0
BIND_SECONDS = 1.0  # between two attempts to get the port of gRPC
REPORT_SECONDS = 1.0
JUDGE_SECONDS = 15.0  # how long the judge may go on handing in outputs after the drain


def configuration(settings: MasterSettings) -> dict[str, Any]:
    """What the CONFIGURATION record holds: all that a replay needs, and by which versions it was written."""
    return {
        "engine": {"tick_seconds": settings.tick_seconds, **settings.engine},
        "rules": settings.rules,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions that a replay must share to promise the same incidents."""
    return {"arobust_otel": __version__, "python": platform.python_version()}


class ReceiveRole:
    """Everything that the process `receive` holds."""

    def __init__(self, orders: Orders, appender: Appender) -> None:
        """Use inside the event loop."""
        settings = orders.settings
        layout = Layout(settings.data_dir)
        self.settings = settings
        self.appender = appender
        self.limits = _limits(settings)
        self.commit = GroupCommit(appender, durable=settings.sync)
        self.intake = Intake(appender, self.commit, self.limits, settings.heartbeat_seconds)
        self.app = ReceiverApp(self.intake, self.limits, settings.token)
        listener = socket.socket(fileno=orders.handles["otlp_http"])
        tls = Tls(settings.tls_certificate, settings.tls_key)
        self.server = HttpServer(self.app, listener, self.limits, tls)
        self.folder = layout.journal
        self._full = ""
        self.grpc_state = "starts"
        self.grpc_idle, self.grpc = self._grpc(orders.handles["otlp_grpc"], tls)
        self.outputs = OutputsServer(layout.outputs_socket, self.intake, self.status)

    def status(self) -> dict[str, Any]:
        """What the judge shows of this role."""
        return {
            "pid": os.getpid(),
            "next_offset": self.appender.next_offset,
            "recovered_bytes": self.appender.recovered_bytes,
            "commits": self.commit.commits,
            "journal": self._full or "ok",
            "otlp_grpc": self.grpc_state,
            **self.app.counts(),
        }

    async def run(self, control: Control) -> int:
        """Serve until told to stop; returns the exit code."""
        asyncio.get_running_loop().set_exception_handler(Shortage(_say_shortage))
        if not await self._begin(control):
            self._close()
            return 1
        await self.outputs.start()
        await self.server.start()
        binding = await self._start_grpc()
        tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._report()), binding]
        control.say(READY)
        await either(control.stop, self.commit.failed)
        for task in tasks:
            task.cancel()
        await self._drain()
        control.say(DRAINED)
        if not self.commit.failed.is_set():
            await either(control.end, self.commit.failed, timeout_seconds=JUDGE_SECONDS)
        await self.outputs.stop()
        self._close()
        return 1 if self.commit.failed.is_set() else 0

    def _close(self) -> None:
        self.intake.close()
        self.commit.close()

    async def _begin(self, control: Control) -> bool:
        """Configuration and start stand before every request: a full disk is waited for. False: stopped."""
        for kind, values in (
            (Kind.CONFIGURATION, configuration(self.settings)),
            (Kind.MASTER_STARTED, versions()),
        ):
            payload = json.dumps(values, sort_keys=True).encode()
            while not await self._noted(kind, payload):
                if await either(control.stop, self.commit.failed, timeout_seconds=REPORT_SECONDS):
                    return False
        return True

    async def _noted(self, kind: Kind, payload: bytes) -> bool:
        try:
            await self.intake.note(kind, payload)
        except Refusal:
            self._say_full()
            return False
        return True

    def _say_full(self) -> None:
        """Say it once when the disk gets full, and once when there is room again."""
        full = self.appender.full
        if full and not self._full:
            log.error("receive: %s; senders keep what they have: free space in %s", full, self.folder)
        elif self._full and not full:
            if not os.statvfs(self.folder).f_bavail:  # a tick may fit where no request does
                return
            log.info("receive: there is room again: telemetry is taken")
        self._full = full
        self.intake.counts.journal(writable=not full)

    async def _report(self) -> None:
        layout = Layout(self.settings.data_dir)
        while True:
            self._say_full()
            store_receptions(layout, self.intake.counts.metrics.points(time.time_ns()))
            await asyncio.sleep(REPORT_SECONDS)

    async def _tick(self) -> None:
        """A tick each period; those missed while the machine slept are not made up for."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.intake.tick()
            due = max(due + self.settings.tick_seconds, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _drain(self) -> None:
        """Answer what is in flight; what comes now is sent away with 503 or UNAVAILABLE."""
        self.app.draining = True
        await self.grpc.drain()
        await asyncio.wait(
            [asyncio.create_task(idle.wait()) for idle in (self.app.idle, self.grpc_idle)],
            timeout=DRAIN_SECONDS,
        )
        await asyncio.gather(self.server.stop(), self.grpc.stop())

    def _grpc(self, handle: int, tls: Tls) -> tuple[asyncio.Event, GrpcServer]:
        """The gRPC server for the address that the master holds.

        gRPC is imported here, in the one process that needs it: its threads do not survive a fork.
        """
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes a line for every client that misbehaves
        from arobust_otel.receiver.grpc_server import GrpcReceiver, GrpcServer

        held = socket.socket(fileno=handle)
        address = Address(*held.getsockname()[:2])
        held.detach()
        receiver = GrpcReceiver(self.intake, self.limits, self.app.budget, self.settings.token)
        return receiver.idle, GrpcServer(receiver, address, self.limits, tls)

    async def _start_grpc(self) -> asyncio.Task[None]:
        """Start gRPC; where another program has its port now, go on without it and try again."""
        if not await self._try_grpc():
            log.error("receive: OTLP/gRPC: %s; choose with --otlp-grpc HOST:PORT", self.grpc_state)
        return asyncio.create_task(self._keep_trying_grpc())

    async def _keep_trying_grpc(self) -> None:
        while self.grpc_state != "ok":
            await asyncio.sleep(BIND_SECONDS)
            if await self._try_grpc():
                log.info("receive: OTLP/gRPC is served now")

    async def _try_grpc(self) -> bool:
        try:
            await self.grpc.start()
        except OSError as error:
            self.grpc_state = str(error)
            return False
        self.grpc_state = "ok"
        return True


def _say_shortage(error: OSError) -> None:
    log.error("receive: %s: new connections wait; allow more open files (ulimit -n)", error)


def _limits(settings: MasterSettings) -> ReceiverLimits:
    wished = ReceiverLimits(body_bytes=settings.max_request_bytes)
    limits = within_handles(wished)
    if limits.connections < wished.connections:
        log.warning(
            "receive: few open files are allowed (ulimit -n): %d HTTP connections at one time instead of %d;"
            " all of them need a limit of %d",
            limits.connections,
            wished.connections,
            handles_for(wished),
        )
    return limits


async def run_receive(orders: Orders, control: Control) -> int:
    """The process `receive`."""
    layout = Layout(orders.settings.data_dir)
    try:
        appender = await _open(layout, orders.settings)
    except JournalError as error:
        log.error("receive: %s", error)
        return 2
    if appender.recovered_bytes:
        log.warning("receive: %d bytes of a half-written record were cut off", appender.recovered_bytes)
    role = ReceiveRole(orders, appender)
    try:
        return await role.run(control)
    finally:
        appender.close()


async def _open(layout: Layout, settings: MasterSettings) -> Appender:
    """Open the journal; a receiver that was killed just now may still hold its lock for a moment."""
    deadline = time.monotonic() + LOCK_SECONDS
    seen = [Cursor(path).load() for path in cursor_paths(layout, settings)]
    at_least = max([*seen, *snapshots.offsets(layout.snapshots)], default=0)
    while True:
        try:
            return Appender.open(layout.journal, at_least=at_least)
        except JournalLocked:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def cursor_paths(layout: Layout, settings: MasterSettings) -> list[Any]:
    """Cursor files of the configured forwarders: each stream has one from its start on."""
    names = [forwarder.name for forwarder in settings.forwarders]
    paths = [layout.cursors / f"{name}{end}" for name in names for end in ("", ".incidents")]
    return [path for path in paths if path.exists()]
