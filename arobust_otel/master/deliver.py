"""The role `deliver`: two streams for every configured forwarder, each in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

from arobust_otel import plugins
from arobust_otel.config import ForwarderSettings, MasterSettings
from arobust_otel.journal import Cursor
from arobust_otel.master.control import READY, Control, either, log
from arobust_otel.master.layout import Layout, read_json, write_json
from arobust_otel.master.sender import Sender
from arobust_otel.master.streams import BulkStream, IncidentStream, Stream
from arobust_otel.master.wire import Orders

REPORT_SECONDS = 1.0
FINISH_SECONDS = 4.0  # for what is left when the master ends; the rest is read again at the next start


class DeliverRole:
    """Everything that the process `deliver` holds."""

    def __init__(self, settings: MasterSettings) -> None:
        self.layout = Layout(settings.data_dir)
        self.finish = threading.Event()
        self.abort = threading.Event()
        self.forwarders: list[Any] = []
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
        for thread in self.threads:
            thread.start()
        control.say(READY)
        code = 0
        while not await either(control.stop, timeout_seconds=REPORT_SECONDS):
            self._report()
            dead = [thread.name for thread in self.threads if not thread.is_alive()]
            if dead:
                log.error("deliver: %s ended by itself", ", ".join(dead))
                code = 1
                break
        self.finish.set()
        await asyncio.to_thread(self._join, FINISH_SECONDS)
        self.abort.set()
        await asyncio.to_thread(self._join, FINISH_SECONDS)
        self._report()
        for forwarder in self.forwarders:
            plugins.close(forwarder)
        return code

    def _streams(self, settings: ForwarderSettings) -> dict[str, Stream]:
        """Two senders, since a connection is not shared between threads."""
        cursors, journal = self.layout.cursors, self.layout.journal
        bulk = BulkStream(journal, Cursor(cursors / settings.name), self._sender(settings), self.finish)
        name = f"{settings.name}.incidents"
        incidents = IncidentStream(journal, Cursor(cursors / name), self._sender(settings), self.finish)
        return {"incidents": incidents, "bulk": bulk}

    def _sender(self, settings: ForwarderSettings) -> Sender:
        forwarder = plugins.build(plugins.discover("forwarders")[settings.type], settings.options)
        self.forwarders.append(forwarder)
        return Sender(settings.name, forwarder, self.abort)

    def _join(self, seconds: float) -> None:
        share = seconds / max(1, len(self.threads))
        for thread in self.threads:
            thread.join(share)

    def _report(self) -> None:
        """Counters for the query API, written only when they changed."""
        values = {
            "pid": os.getpid(),
            "forwarders": {
                name: {kind: stream.sender.snapshot() for kind, stream in both.items()}
                for name, both in self.streams.items()
            },
        }
        if values != read_json(self.layout.deliveries):
            write_json(self.layout.deliveries, values)


async def run_deliver(orders: Orders, control: Control) -> int:
    """The process `deliver`."""
    return await DeliverRole(orders.settings).run(control)
