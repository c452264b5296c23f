"""From the bytes of one request to the journal: inflate, convert, validate, append, wait until durable.

No socket here: `http` and `grpc_server` call this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from arobust_otel.errors import DecodeError, JournalError
from arobust_otel.journal import Appender, Kind, Source
from arobust_otel.journal.tail import recent_batches
from arobust_otel.model.heartbeat import Command, Heartbeat, Reply, decode_heartbeat
from arobust_otel.otlp.json import to_protobuf
from arobust_otel.otlp.limits import BodyTooLarge, UnknownEncoding, inflate
from arobust_otel.otlp.status import Encoding
from arobust_otel.otlp.validate import Validated, validate
from arobust_otel.receiver.answers import Refusal
from arobust_otel.receiver.commands import CommandTable
from arobust_otel.receiver.commit import GroupCommit
from arobust_otel.receiver.counts import HTTP, ReceiverCounts
from arobust_otel.receiver.limits import ReceiverLimits
from arobust_otel.receiver.repeats import WINDOW, Repeats, batch_id_of

CHECKS_AT_ONE_TIME = 2  # of large bodies, in threads: each may hold `body_bytes` of inflated data


@dataclass(frozen=True, slots=True)
class Upload:
    """One request as it was received. `sender` is the peer's address, `batch_id` what it named its batch."""

    signal: str
    body: bytes
    encoding: Encoding
    content_encoding: str
    sender: str
    batch_id: str = ""
    protocol: str = HTTP


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request: it is durable, but for `rejected` items that are bad for ever.

    `message` says why they were rejected. A `repeated` one was durable before: what was rejected then was
    said then.
    """

    rejected: int = 0
    message: str = ""
    repeated: bool = False


class Intake:
    """Everything that enters the journal passes here; one object per process, used from one event loop."""

    def __init__(
        self,
        appender: Appender,
        commit: GroupCommit,
        limits: ReceiverLimits,
        heartbeat_seconds: float = 2.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Batches in the journal's tail are known from the start.

        `clock` gives the receive time in nanoseconds since the epoch.
        """
        self.appender = appender
        self.counts = ReceiverCounts(clock())
        self.counts.journal(writable=True)
        self.repeats = Repeats(recent_batches(appender.folder, WINDOW))
        self.commands = CommandTable()
        self.dropped_ticks = 0
        self._commit = commit
        self._limits = limits
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = clock
        self._checks = asyncio.Semaphore(CHECKS_AT_ONE_TIME)
        self._threads = ThreadPoolExecutor(CHECKS_AT_ONE_TIME, thread_name_prefix="arobust-check")
        self._finishing: set[asyncio.Task[bool]] = set()

    def close(self) -> None:
        """End the threads that check; appender and commit stay open."""
        self._threads.shutdown()

    async def telemetry(self, upload: Upload) -> Taken:
        """Take one export request, once: what it returns is durable.

        Raises:
            Refusal: 400, 413 or 415 where it will never be accepted, 503 where the journal takes nothing now.
        """
        batch = self._batch(upload)
        key = (upload.signal, batch)
        if batch and not await self.repeats.begin(key):
            self.counts.accepted(upload.protocol, upload.signal, repeated=True)
            return Taken(repeated=True)
        appended = False
        try:
            validated = await self._check(upload)
            if validated.items:
                source = Source(upload.signal, upload.sender, batch)
                self._append(Kind.REQUEST, validated.body, source)
                appended = True
                await self._kept(key)
        finally:
            if batch and not appended:
                self.repeats.end(key, durable=False)
        self.counts.accepted(upload.protocol, upload.signal)
        self.counts.taken(upload.protocol, upload.signal, len(validated.body), validated.rejected)
        return Taken(validated.rejected, validated.message)

    def _batch(self, upload: Upload) -> str:
        if not upload.batch_id:
            return ""
        batch = batch_id_of(upload.batch_id)
        if not batch:
            self.counts.invalid_batch_id(upload.protocol)
        return batch

    async def _kept(self, key: tuple[str, str]) -> None:
        """Wait until it is durable. A client that goes away meanwhile changes nothing about its batch."""
        if not key[1]:
            await self._durable()
            return
        task = asyncio.create_task(self._finish(key))
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)
        if not await asyncio.shield(task):
            raise self._unavailable(JournalError("what was appended may be lost"))

    async def _finish(self, key: tuple[str, str]) -> bool:
        durable = False
        try:
            with suppress(JournalError):
                await self._commit.wait()
                durable = True
        finally:  # in any case: later copies wait for this one
            self.repeats.end(key, durable=durable)
        return durable

    async def heartbeat(self, body: bytes, content_encoding: str) -> Reply:
        """Take one heartbeat; the reply carries the commands that wait for its agent.

        Raises:
            Refusal: 400 where it is not a heartbeat, 413, 415 and 503 as for telemetry.
        """
        plain = _inflated(content_encoding, body, self._limits.heartbeat_bytes)
        heartbeat = _parsed_heartbeat(plain)
        self._append(Kind.HEARTBEAT, plain, Source(sender=heartbeat.agent))
        await self._durable()
        commands = self.commands.fetch(heartbeat, time.monotonic())
        return Reply(interval_seconds=self._heartbeat_seconds, commands=commands)

    def tick(self) -> None:
        """Append a tick: the clock of everything that judges. One that does not fit is counted."""
        self.commands.prune(time.monotonic())
        try:
            self.appender.append(Kind.TICK, b"", received_ns=self._clock())
        except JournalError:
            self.dropped_ticks += 1
            self._commit.refused()

    async def output(self, payload: bytes, command: Command | None = None, age_seconds: float = 0.0) -> int:
        """Append what the judge decided and wait until it is durable; a command then waits for its agent.

        Returns:
            The offset of the record.

        Raises:
            Refusal: 503, the journal takes nothing now.
        """
        offset = self._append(Kind.OUTPUT, payload, Source(sender="judge"))
        await self._durable()
        if command is not None:
            self.commands.add(command, age_seconds, time.monotonic())
        return offset

    async def note(self, kind: Kind, payload: bytes) -> int:
        """Append a record about the master itself and wait until it is durable."""
        offset = self._append(kind, payload, Source(sender="master"))
        await self._durable()
        return offset

    async def _check(self, upload: Upload) -> Validated:
        """Small bodies here, large ones in a thread: checking 64 MiB would stop every other request."""
        small = self._limits.inline_bytes
        if len(upload.body) <= small:
            with suppress(DecodeError):  # inflates to more, or is damaged: the thread finds out which
                return _validated(upload, inflate(upload.content_encoding, upload.body, small))
        async with self._checks:
            return await self._in_thread(upload)

    async def _in_thread(self, upload: Upload) -> Validated:
        """A caller that is cancelled stays until the thread has ended, as long as that holds the body.

        Else what bounds the bodies, here and in the servers, would be given back before the memory is.
        """
        loop, limit_bytes = asyncio.get_running_loop(), self._limits.body_bytes
        check = loop.run_in_executor(self._threads, _inflated_and_validated, upload, limit_bytes)
        cancelled: asyncio.CancelledError | None = None
        while not check.done():
            try:
                await asyncio.wait([check])
            except asyncio.CancelledError as error:  # gRPC: its client's deadline has passed
                cancelled = error
        if cancelled is not None:
            check.exception()  # nobody wants to know it any more
            raise cancelled
        return check.result()

    def _append(self, kind: Kind, payload: bytes, source: Source) -> int:
        try:
            return self.appender.append(kind, payload, received_ns=self._clock(), source=source)
        except JournalError as error:
            self._commit.refused()
            raise self._unavailable(error) from error

    async def _durable(self) -> None:
        try:
            await self._commit.wait()
        except JournalError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: JournalError) -> Refusal:
        return Refusal(503, f"the journal takes nothing now: {error}", self._limits.retry_after_seconds)


def _inflated_and_validated(upload: Upload, limit_bytes: int) -> Validated:
    return _validated(upload, _inflated(upload.content_encoding, upload.body, limit_bytes))


def _validated(upload: Upload, body: bytes) -> Validated:
    try:
        if upload.encoding is Encoding.JSON:
            body = to_protobuf(upload.signal, body)
        return validate(upload.signal, body)
    except BodyTooLarge as error:
        raise Refusal(413, str(error)) from None
    except DecodeError as error:
        raise Refusal(400, str(error)) from None


def _inflated(content_encoding: str, body: bytes, limit_bytes: int) -> bytes:
    try:
        return inflate(content_encoding, body, limit_bytes)
    except BodyTooLarge as error:
        raise Refusal(413, str(error)) from None
    except UnknownEncoding as error:
        raise Refusal(415, str(error)) from None
    except DecodeError as error:
        raise Refusal(400, str(error)) from None


def _parsed_heartbeat(body: bytes) -> Heartbeat:
    try:
        return decode_heartbeat(body)
    except ValueError as error:
        raise Refusal(400, f"not a heartbeat: {error}") from None
    except RecursionError:
        raise Refusal(400, "not a heartbeat: nested too deep") from None
