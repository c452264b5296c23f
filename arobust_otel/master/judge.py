"""The role `judge`: follows the journal, feeds the engine, hands its outputs in, answers the query API.

One event loop does it all: the engine never runs while a query reads it. It looks for new records every
20 ms, which bounds the reaction; a busy engine lets queries in after every slice.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from arobust_otel.errors import JournalError
from arobust_otel.journal import Cursor, Kind, Reader, Record, retention, snapshots
from arobust_otel.master.api import ApiApp
from arobust_otel.master.control import READY, Control, log
from arobust_otel.master.crash_mark import CrashMark
from arobust_otel.master.judgement import SNAPSHOT_VERSION, BuildEngine, Judgement, OutputLike, incident_lines
from arobust_otel.master.layout import Layout, read_json
from arobust_otel.master.outputs import OutputsClient, Sent, output_key
from arobust_otel.master.receive import cursor_paths
from arobust_otel.master.receptions import store_points
from arobust_otel.master.wire import Orders
from arobust_otel.model import signals
from arobust_otel.model.samples import Point
from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.server import HttpServer, Tls

POLL_SECONDS = 0.02
SLICE_SECONDS = 0.02
SAY_SECONDS = 2.0  # between two words about our own progress
ROOM_SECONDS = 5.0  # between two looks at the disk
RECONNECT_SECONDS = 0.1
CONNECT_SECONDS = 1.0  # the same while nothing is to be handed in
ANSWER_SECONDS = 3.0  # for which one attempt waits for the receiver's word
GIVE_UP_SECONDS = 5.0  # how long outputs are tried at the end, when the receiver may be gone


def engine_builder(name: str) -> BuildEngine:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    build: BuildEngine = getattr(import_module(module), function)
    return build


class JudgeRole:
    """Everything that the process `judge` holds."""

    def __init__(self, orders: Orders) -> None:
        """Go on from the latest snapshot, or begin with the oldest record."""
        self.orders = orders
        self.layout = Layout(orders.settings.data_dir)
        self.judgement = Judgement(engine_builder(orders.engine))
        self.client = OutputsClient(self.layout.outputs_socket)
        self.stopping: float | None = None  # since when, on the monotonic clock
        self.blocked_bytes = 0
        self.mark = CrashMark(self.layout.run / "judge.mark")
        self._snapshot_at = time.monotonic() + orders.settings.snapshot_seconds
        self._room_at = time.monotonic() + ROOM_SECONDS
        self._say_at = 0.0
        self._connect_at = 0.0
        found = snapshots.latest(self.layout.snapshots, SNAPSHOT_VERSION)
        start = 0
        if found is not None:
            start, payload = found
            self.judgement.restore(payload)
        self.reader = Reader(self.layout.journal, start)

    async def run(self, control: Control) -> int:
        """Judge until told to stop, then to the end of the journal; returns the exit code."""
        listener = socket.socket(fileno=self.orders.handles["api"])
        settings = self.orders.settings
        tls = Tls(settings.tls_certificate, settings.tls_key)
        server = HttpServer(ApiApp(self, settings.token), listener, ReceiverLimits(), tls)
        await server.start()
        control.say(READY)
        noticing = asyncio.create_task(self._notice(control))
        await self._connect()
        while not (await self._slice() == 0 and control.stop.is_set()):
            pass
        noticing.cancel()
        await self.client.close()
        self._store_snapshot()
        self._store_incidents()
        await server.stop()
        self.reader.close()
        self.mark.close()
        return 0

    async def _notice(self, control: Control) -> None:
        """Also in the midst of a connection attempt."""
        await control.stop.wait()
        self.stopping = time.monotonic()

    async def _slice(self) -> int:
        """Judge for a while; returns how many records, 0 at the end of the journal."""
        records = self.reader.read(200)
        began = time.monotonic()
        for record in records:
            outputs = self._feed(record)
            if record.kind == Kind.OUTPUT:
                self._raise_highest(output_key(record.payload))
            if outputs:
                await self._hand_in(record, outputs)
            if time.monotonic() - began > SLICE_SECONDS:
                await asyncio.sleep(0)
                began = time.monotonic()
        if records and self.judgement.skipped[-1:] and self.judgement.skipped[-1] >= records[0].offset:
            log.error("judge: record %d made the engine fail and is skipped", self.judgement.skipped[-1])
        if time.monotonic() >= self._snapshot_at:
            self._store_snapshot()
        elif time.monotonic() >= self._room_at:
            self._make_room()
        if time.monotonic() >= self._say_at:
            self._say()
        if not self.client.connected and self.stopping is None and time.monotonic() >= self._connect_at:
            await self._try_connect()  # a receiver that was started again says how it is
        await asyncio.sleep(0 if records else POLL_SECONDS)
        return len(records)

    def _feed(self, record: Record) -> Sequence[OutputLike]:
        """Judge one record; one that ended this process again and again is skipped."""
        if record.offset == self.mark.suspect:
            self.judgement.skipped.append(record.offset)
            return ()
        self.mark.begin(record.offset)
        outputs = self.judgement.feed(record)
        self.mark.end()
        return outputs

    async def _hand_in(self, record: Record, outputs: Any) -> None:
        """Store the outputs of one record, each once, whatever happens to the receiver meanwhile."""
        for index, output in enumerate(outputs):
            key = (record.offset, index)
            while key > self.judgement.highest:
                if not self.client.connected:
                    if self._given_up():
                        return
                    await self._connect(record.offset)
                    continue
                try:
                    await self.client.send(_sent(record, index, output))
                except ConnectionError:
                    continue
                self._raise_highest(key)

    def _given_up(self) -> bool:
        return self.stopping is not None and time.monotonic() - self.stopping > GIVE_UP_SECONDS

    async def _connect(self, start: int | None = None) -> None:
        """Connect, then see which outputs of an earlier judge, or sent before, stand in the journal."""
        while not self._given_up():
            if await self._try_connect(start):
                return
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _try_connect(self, start: int | None = None) -> bool:
        self._connect_at = time.monotonic() + CONNECT_SECONDS
        try:
            end = await asyncio.wait_for(self.client.connect(), ANSWER_SECONDS)
        except (OSError, asyncio.TimeoutError):
            return False
        self._scan(self.reader.offset if start is None else start, end)
        return True

    def _scan(self, start: int, end: int) -> None:
        with Reader(self.layout.journal, start) as reader:
            while reader.offset < end:
                records = reader.read()
                if not records:
                    return
                for record in records:
                    if record.kind == Kind.OUTPUT:
                        self._raise_highest(output_key(record.payload))

    def _raise_highest(self, key: tuple[int, int]) -> None:
        self.judgement.highest = max(self.judgement.highest, key)

    def _store_snapshot(self) -> None:
        """A snapshot at this record; then delete what nobody needs any more."""
        self._snapshot_at = time.monotonic() + self.orders.settings.snapshot_seconds
        payload = self.judgement.snapshot()
        try:
            snapshots.store(self.layout.snapshots, self.reader.offset, payload, SNAPSHOT_VERSION)
        except OSError as error:
            log.error("judge: no snapshot: %s; a restart reads more of the journal", error)
        self._make_room()

    def _make_room(self) -> None:
        """Delete old segments: those over the limit, and more of them while the disk is short of space."""
        settings = self.orders.settings
        self._room_at = time.monotonic() + ROOM_SECONDS
        if not self.layout.journal.exists():  # stopped before a receiver began one
            return
        limit = retention.limit_for(self.layout.journal, settings.retention_bytes, settings.reserve_bytes)
        spare_bytes = settings.backlog_bytes if limit == settings.retention_bytes else 0
        readers = [Cursor(path).load() for path in cursor_paths(self.layout, settings)]
        oldest = (snapshots.offsets(self.layout.snapshots)[:1] or [0])[0]
        result = retention.retain_for_readers(self.layout.journal, limit, spare_bytes, readers, oldest)
        if result.deleted_segments and limit < settings.retention_bytes:
            log.warning("judge: %d bytes of old journal deleted: the disk is short", result.deleted_bytes)
        if result.blocked_bytes and not self.blocked_bytes:
            log.warning(
                "judge: the journal is %d bytes over its limit, because a forwarder has not delivered them",
                result.blocked_bytes,
            )
        self.blocked_bytes = result.blocked_bytes

    def _store_incidents(self) -> None:
        """The final incidents in the form of a replay, beside the journal that they were computed of."""
        engine = self.judgement.engine
        if engine is not None:
            try:
                self.layout.incidents.write_text(incident_lines(engine.incidents()), encoding="utf-8")
            except OSError as error:
                log.error("judge: %s is not written: %s", self.layout.incidents.name, error)

    def _lag(self, now_ns: int) -> tuple[int, float]:
        """Records that were not judged yet, and how long ago the newest judged one was received."""
        behind = max(0, int(self.client.status.get("next_offset", 0)) - self.reader.offset)
        return behind, max(0.0, (now_ns - self.judgement.received_ns) / 1e9) if behind else 0.0

    def _say(self) -> None:
        """Tell the process that exports the master's own metrics."""
        self._say_at = time.monotonic() + SAY_SECONDS
        now_ns = time.time_ns()
        behind, lag_seconds = self._lag(now_ns)
        points = [
            Point(signals.JUDGE_BEHIND, behind, now_ns),
            Point(signals.JUDGE_LAG, lag_seconds, now_ns),
            Point(signals.JUDGE_SKIPPED, len(self.judgement.skipped), now_ns),
        ]
        store_points(self.layout.judging, points)

    def status(self) -> dict[str, Any]:
        """Answer of `/api/v1/status`."""
        engine = self.judgement.engine
        receiver = self.client.status
        behind, lag_seconds = self._lag(time.time_ns())
        running = read_json(self.layout.master)
        return {
            "roles": running.get("roles", {}),
            "restarts": running.get("restarts", {}),
            "otlp_http": running.get("otlp_http"),
            "otlp_grpc": running.get("otlp_grpc"),
            "journal": {
                "folder": str(self.layout.journal),
                "next_offset": receiver.get("next_offset"),
                "blocked_bytes": self.blocked_bytes,
                "state": receiver.get("journal"),
            },
            "judge": {
                "next_offset": self.reader.offset,
                "lag_records": behind,
                "lag_seconds": round(lag_seconds, 3),
                "skipped_records": self.judgement.skipped,
                "highest_output": list(self.judgement.highest),
            },
            "engine": engine.status() if engine is not None else {},
            "receiver": {"connected": self.client.connected, **receiver},
            "forwarders": read_json(self.layout.deliveries).get("forwarders", {}),
            "agents_with_gaps": [row for row in (engine.agents() if engine else []) if row.get("gaps")],
        }


def _sent(record: Record, index: int, output: OutputLike) -> Sent:
    age_seconds = max(0.0, (time.time_ns() - record.received_ns) / 1e9)
    return Sent(record.offset, index, output.kind, output.body, age_seconds)


async def run_judge(orders: Orders, control: Control) -> int:
    """The process `judge`."""
    try:
        return await JudgeRole(orders).run(control)
    except JournalError as error:
        log.error("judge: %s", error)
        return 1
