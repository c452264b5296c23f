"""The bytes of segments and records (docs/journal.md): packing and parsing only, no file is touched here."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from arobust_otel.errors import JournalError

SEGMENT_MAGICS = {1: b"AROBJRN1", 2: b"AROBJRN2"}  # by version of the format
VERSION = 2  # what is written; format 1 has no batch ids
RECORD_MAGIC = b"ARJ1"
MAX_CONTENT_BYTES = 256 * 1024 * 1024
BATCH_BYTES = 16
SEAL = 0  # kind of the last record of a finished segment; its offset is the name of the next segment

_SEGMENT = struct.Struct("<8sQqI")  # magic, first offset, floor of receive times, salt
_CRC = struct.Struct("<I")
_FIELDS = struct.Struct("<IIQQqBBH")  # content crc, content length, offset, durable, received, kind, lengths
SEGMENT_BYTES = _SEGMENT.size + _CRC.size  # 32
_HAS_BATCH = 0x80  # in the byte of the kind: a batch id stands between sender and payload
HEADER_BYTES = len(RECORD_MAGIC) + _CRC.size + _FIELDS.size  # 44


class Kind(IntEnum):
    """What a record holds."""

    REQUEST = 1
    HEARTBEAT = 2
    TICK = 3
    OUTPUT = 4
    CONFIGURATION = 5
    MASTER_STARTED = 6


_KINDS = {int(kind): kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Record:
    """One entry: `offset` counts records from 0 and never repeats; `received_ns` never decreases.

    `batch` names the sender's batch, 32 lower-case hex digits; empty where it gave none.
    """

    offset: int
    received_ns: int
    kind: Kind
    signal: str
    sender: str
    payload: bytes
    batch: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a record comes from: a request's signal, its sender, and the id of the sender's batch."""

    signal: str = ""
    sender: str = ""
    batch: str = ""


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Head of a segment: the salt seeds every checksum in it, so that a payload cannot look like a record."""

    first_offset: int
    floor_ns: int
    salt: int
    version: int = VERSION

    def pack(self) -> bytes:
        """The 32 bytes at the begin of the file."""
        fields = _SEGMENT.pack(SEGMENT_MAGICS[self.version], self.first_offset, self.floor_ns, self.salt)
        return fields + _CRC.pack(crc32(fields))

    @classmethod
    def parse(cls, data: bytes) -> SegmentHeader | None:
        """The header in the first 32 bytes; None where they are not one."""
        version = next((number for number, magic in SEGMENT_MAGICS.items() if data.startswith(magic)), 0)
        if len(data) < SEGMENT_BYTES or not version:
            return None
        fields = data[: _SEGMENT.size]
        if _CRC.unpack_from(data, _SEGMENT.size)[0] != crc32(fields):
            return None
        _, first, floor, salt = _SEGMENT.unpack(fields)
        return cls(first, floor, salt, version)


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """Head of a record. `durable`: all records below this offset were on disk when it was written.

    `batch_bytes` is 16 where a batch id stands between sender and payload, else 0.
    """

    content_crc: int
    content_bytes: int
    offset: int
    durable: int
    received_ns: int
    kind: int
    signal_bytes: int
    sender_bytes: int
    batch_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Size of the whole record in the file."""
        return HEADER_BYTES + self.content_bytes

    @classmethod
    def parse(cls, data: bytes | memoryview, salt: int) -> RecordHeader | None:
        """The header in the first 44 bytes; None where they are damaged or not a header."""
        if data[:4] != RECORD_MAGIC:
            return None
        fields = data[8:HEADER_BYTES]
        if _CRC.unpack_from(data, 4)[0] != crc32(fields, salt):
            return None
        crc, size, offset, durable, received, kind, signal_bytes, sender_bytes = _FIELDS.unpack(fields)
        batch_bytes = BATCH_BYTES if kind & _HAS_BATCH else 0
        if signal_bytes + sender_bytes + batch_bytes > size:
            return None
        kind &= ~_HAS_BATCH
        return cls(crc, size, offset, durable, received, kind, signal_bytes, sender_bytes, batch_bytes)

    def matches(self, content: bytes | memoryview, salt: int) -> bool:
        """Whether `content` is what was written behind this header."""
        return crc32(content, salt) == self.content_crc

    def record(self, content: bytes) -> Record:
        """The record of this header and its content.

        Raises:
            JournalError: kind or text are not of this version of the format.
        """
        kind = _KINDS.get(self.kind)
        split = self.signal_bytes + self.sender_bytes
        start = split + self.batch_bytes
        if kind is None:
            raise JournalError(f"record {self.offset} is of kind {self.kind}, unknown to this version")
        try:
            signal = str(content[: self.signal_bytes], "utf-8")
            sender = str(content[self.signal_bytes : split], "utf-8")
        except UnicodeDecodeError as error:
            raise JournalError(f"record {self.offset}: {error}") from None
        batch = content[split:start].hex()
        return Record(self.offset, self.received_ns, kind, signal, sender, bytes(content[start:]), batch)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the appender knows of a record beside its content."""

    offset: int
    durable: int
    received_ns: int
    kind: int


def pack_record(stamp: Stamp, source: Source, payload: bytes, salt: int) -> tuple[bytes, bytes]:
    """Bytes before the payload, and the payload.

    Raises:
        JournalError: signal, sender or payload are too long for the format, or the batch id is none.
    """
    signal, sender = source.signal.encode(), source.sender.encode("utf-8", "replace")
    names = signal + sender + _batch(source.batch)
    length = len(names) + len(payload)
    if len(signal) > 255 or len(sender) > 65535 or length > MAX_CONTENT_BYTES:
        raise JournalError(f"{length} bytes from a sender of {len(sender)} are too long for a record")
    content = crc32(payload, crc32(names, salt))
    kind = stamp.kind | _HAS_BATCH if source.batch else stamp.kind
    fields = _FIELDS.pack(
        content, length, stamp.offset, stamp.durable, stamp.received_ns, kind, len(signal), len(sender)
    )
    return RECORD_MAGIC + _CRC.pack(crc32(fields, salt)) + fields + names, payload


def _batch(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b"?"
    if len(found) not in (0, BATCH_BYTES) or len(text) != 2 * len(found):
        raise JournalError(f"{text[:64]!r} is not a batch id: 32 hexadecimal digits")
    return found
