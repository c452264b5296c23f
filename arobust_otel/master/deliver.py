"""The role `deliver`: every configured forwarder with its streams, each in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from typing import Any

from arobust_otel import plugins
from arobust_otel.config import ForwarderSettings, MasterSettings
from arobust_otel.errors import JournalError
from arobust_otel.journal import Cursor
from arobust_otel.journal.durable import if_there_is_room
from arobust_otel.master.control import READY, Control, either, log
from arobust_otel.master.destinations import build_forwarder
from arobust_otel.master.incident_streams import stream_of
from arobust_otel.master.journal_end import JournalEnd
from arobust_otel.master.layout import Layout, read_json, write_json
from arobust_otel.master.own_metrics import OwnMetrics
from arobust_otel.master.scrape import serve
from arobust_otel.master.sender import Sender
from arobust_otel.master.streams import BulkStream, Place, Stream
from arobust_otel.master.wire import Orders
from arobust_otel.otlp.own import own_request
from arobust_otel.receiver.server import HttpServer

REPORT_SECONDS = 1.0
FINISH_SECONDS = 4.0  # for what is left when the master ends; the rest is read again at the next start


class DeliverRole:
    """Everything that the process `deliver` holds."""

    def __init__(self, settings: MasterSettings) -> None:
        self.settings = settings
        self.layout = Layout(settings.data_dir)
        self.finish = threading.Event()
        self.abort = threading.Event()
        self.end = JournalEnd(self.layout.journal)
        self.own = OwnMetrics(self.layout)
        self.forwarders: list[tuple[str, Any]] = []
        self.servers: list[HttpServer] = []
        self.streams: dict[str, dict[str, Stream]] = {}
        for forwarder in settings.forwarders:
            self.streams[forwarder.name] = self._streams(forwarder)
        self.threads = [
            threading.Thread(target=stream.run, name=f"arobust-{name}-{kind}", daemon=True)
            for name, both in self.streams.items()
            for kind, stream in both.items()
        ]

    async def run(self, control: Control) -> int:
        """Deliver until told to stop, then what is left for some seconds; returns the exit code."""
        for name, forwarder in self.forwarders:
            if hasattr(forwarder, "page"):
                self.servers.append(await serve(name, forwarder, self.settings, self.own.points))
        for thread in self.threads:
            thread.start()
        self._report()
        control.say(READY)
        code = await self._watch(control)
        self.finish.set()
        await asyncio.to_thread(self._join, FINISH_SECONDS)
        self.abort.set()
        await asyncio.to_thread(self._join, FINISH_SECONDS)
        self._report()
        for server in self.servers:
            await server.stop()
        for _, forwarder in self.forwarders:
            plugins.close(forwarder)
        self.end.close()
        return code

    async def _watch(self, control: Control) -> int:
        while not await either(control.stop, timeout_seconds=REPORT_SECONDS):
            self._report()
            dead = [thread.name for thread in self.threads if not thread.is_alive()]
            if dead:
                log.error("deliver: %s ended by itself", ", ".join(dead))
                return 1
        return 0

    def _streams(self, settings: ForwarderSettings) -> dict[str, Stream]:
        """Incidents, and bulk data where they are taken: two senders, since each has its own connection."""
        incidents = self._sender(settings)
        streams: dict[str, Stream] = {
            "incidents": stream_of(self._place(f"{settings.name}.incidents"), incidents, self._own_request)
        }
        if takes_bulk(incidents.forwarder):
            streams["bulk"] = BulkStream(self._place(settings.name), self._sender(settings))
        return streams

    def _place(self, cursor: str) -> Place:
        return Place(self.layout.journal, Cursor(self.layout.cursors / cursor), self.finish)

    def _sender(self, settings: ForwarderSettings) -> Sender:
        forwarder = build_forwarder(settings)
        self.forwarders.append((settings.name, forwarder))
        return Sender(settings.name, forwarder, self.abort)

    def _own_request(self, now_ns: int) -> bytes:
        host = socket.gethostname()
        instance = f"{host}/{self.settings.otlp_http.port}"
        return own_request(instance, host, self.own.points(now_ns))

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _report(self) -> None:
        """Counters for the query API, written only when they changed, and for our own metrics."""
        now_ns, end_offset = time.time_ns(), self.end.next_offset()
        snapshots = {
            name: {kind: stream.sender.snapshot(now_ns, end_offset) for kind, stream in both.items()}
            for name, both in self.streams.items()
        }
        self.own.snapshots, self.own.end_offset = snapshots, end_offset
        values = {"pid": os.getpid(), "forwarders": snapshots}
        if values != read_json(self.layout.deliveries):
            with if_there_is_room():
                write_json(self.layout.deliveries, values)


def takes_bulk(forwarder: Any) -> bool:
    """Whether a forwarder wants requests, and not only incidents."""
    return hasattr(forwarder, "accepts")


async def run_deliver(orders: Orders, control: Control) -> int:
    """The process `deliver`."""
    try:
        return await DeliverRole(orders.settings).run(control)
    except JournalError as error:
        log.error("deliver: %s", error)
        return 1
