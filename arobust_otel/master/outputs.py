"""The judge's way into the journal: a unix socket with length-prefixed JSON, one judge at a time.

The receiver greets with the offset up to which outputs of an earlier judge may stand in the journal; the
judge looks there for the highest (cause, index) before it sends anything. So no output is stored twice,
whichever side was killed, and the receiver need not remember anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arobust_otel.model.heartbeat import Command
from arobust_otel.receiver.answers import Refusal
from arobust_otel.receiver.intake import Intake

MAX_FRAME_BYTES = 64 * 1024 * 1024
STATUS_SECONDS = 1.0
RETRY_SECONDS = 0.25
_LENGTH = struct.Struct(">I")

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sent:
    """One output on its way: what is stored, and how old its cause is by now."""

    cause: int
    index: int
    kind: str
    body: dict[str, Any]
    age_seconds: float = 0.0

    def payload(self) -> bytes:
        """Payload of the OUTPUT record."""
        values = {"cause": self.cause, "index": self.index, "kind": self.kind, "body": self.body}
        return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def output_key(payload: bytes) -> tuple[int, int]:
    """(cause, index) of an OUTPUT record's payload."""
    values = json.loads(payload)
    return values["cause"], values["index"]


async def read_frame(reader: asyncio.StreamReader) -> Message:
    """Next message.

    Raises:
        ConnectionError: the other side is gone, or does not speak this protocol.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise ConnectionError(f"a frame of {length} bytes")
        message: Message = json.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise ConnectionError(str(error)) from None
    return message


async def write_frame(writer: asyncio.StreamWriter, message: Message) -> None:
    """Send a message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    writer.write(_LENGTH.pack(len(body)) + body)
    await writer.drain()


class OutputsServer:
    """The receiver's side. A new judge replaces the one before it."""

    def __init__(self, path: Path, intake: Intake, status: Callable[[], Message]) -> None:
        """`status` gives what the judge should know of the receiver, every second."""
        self._path = path
        self._intake = intake
        self._status = status
        self._server: asyncio.Server | None = None
        self._judge: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen; the socket is for this user only (its folder is 0700)."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._connected, self._path)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        await self._dismiss()
        self._path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._dismiss()
        self._judge = asyncio.create_task(self._serve(reader, writer))

    async def _dismiss(self) -> None:
        """After this, nothing more of an earlier judge enters the journal."""
        judge, self._judge = self._judge, None
        if judge is not None:
            judge.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await judge

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = asyncio.create_task(self._send_status(writer))
        try:
            await write_frame(writer, {"next_offset": self._intake.appender.next_offset})
            while True:
                await write_frame(writer, await self._store(await read_frame(reader)))
        except ConnectionError:
            return
        finally:
            status.cancel()
            writer.close()

    async def _store(self, message: Message) -> Message:
        sent = Sent(**message)
        command = _command(sent.body) if sent.kind == "command" else None
        try:
            offset = await self._intake.output(sent.payload(), command, sent.age_seconds)
        except Refusal as refusal:
            return {"refused": refusal.message}
        return {"stored": offset}

    async def _send_status(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await write_frame(writer, {"status": self._status()})
                await asyncio.sleep(STATUS_SECONDS)


def _command(body: dict[str, Any]) -> Command:
    return Command(**{**body, "ranks": tuple(body["ranks"])})


class OutputsClient:
    """The judge's side. `status` is what the receiver said last."""

    def __init__(self, path: Path) -> None:
        self.status: Message = {}
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._listener: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether outputs can be sent."""
        return self._listener is not None and not self._listener.done()

    async def connect(self) -> int:
        """Connect; returns the offset below which an earlier judge's outputs may stand.

        Raises:
            OSError: the receiver is away.
        """
        await self.close()
        reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._answers = asyncio.Queue()
        self._listener = asyncio.create_task(self._listen(reader))
        try:
            return int((await self._answer())["next_offset"])
        except BaseException:  # nobody waits any longer: without a greeting it is not connected
            await self.close()
            raise

    async def send(self, sent: Sent) -> int:
        """Store one output; returns its offset once it is durable.

        Raises:
            ConnectionError: the receiver went away; whether the output was stored is not known.
        """
        while True:
            if self._writer is None or not self.connected:
                raise ConnectionError("the receiver is away")
            message = {
                "cause": sent.cause,
                "index": sent.index,
                "kind": sent.kind,
                "body": sent.body,
                "age_seconds": sent.age_seconds,
            }
            await write_frame(self._writer, message)
            answer = await self._answer()
            if "stored" in answer:
                return int(answer["stored"])
            await asyncio.sleep(RETRY_SECONDS)  # the journal takes nothing now, a full disk for example

    async def close(self) -> None:
        """Disconnect."""
        if self._writer is not None:
            self._writer.close()
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener
        self._writer = self._listener = None

    async def _answer(self) -> Message:
        answer = await self._answers.get()
        if "gone" in answer:
            raise ConnectionError("the receiver went away")
        return answer

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await read_frame(reader)
                if "status" in message:
                    self.status = message["status"]
                else:
                    self._answers.put_nowait(message)
        except ConnectionError:
            self._answers.put_nowait({"gone": True})
