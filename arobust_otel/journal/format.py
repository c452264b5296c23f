"""The bytes of segments and records (docs/journal.md): packing and parsing only, no file is touched here."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from arobust_otel.errors import JournalError

SEGMENT_MAGIC = b"AROBJRN1"
RECORD_MAGIC = b"ARJ1"
MAX_CONTENT_BYTES = 256 * 1024 * 1024
SEAL = 0  # kind of the last record of a finished segment; its offset is the name of the next segment

_SEGMENT = struct.Struct("<8sQqI")  # magic, first offset, floor of receive times, salt
_CRC = struct.Struct("<I")
_FIELDS = struct.Struct("<IIQQqBBH")  # content crc, content length, offset, durable, received, kind, lengths
SEGMENT_BYTES = _SEGMENT.size + _CRC.size  # 32
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
    """One entry: `offset` counts records from 0 and never repeats; `received_ns` never decreases."""

    offset: int
    received_ns: int
    kind: Kind
    signal: str
    sender: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Head of a segment: the salt seeds every checksum in it, so that a payload cannot look like a record."""

    first_offset: int
    floor_ns: int
    salt: int

    def pack(self) -> bytes:
        """The 32 bytes at the begin of the file."""
        fields = _SEGMENT.pack(SEGMENT_MAGIC, self.first_offset, self.floor_ns, self.salt)
        return fields + _CRC.pack(crc32(fields))

    @classmethod
    def parse(cls, data: bytes) -> SegmentHeader | None:
        """The header in the first 32 bytes; None where they are not one."""
        if len(data) < SEGMENT_BYTES or not data.startswith(SEGMENT_MAGIC):
            return None
        fields = data[: _SEGMENT.size]
        if _CRC.unpack_from(data, _SEGMENT.size)[0] != crc32(fields):
            return None
        _, first, floor, salt = _SEGMENT.unpack(fields)
        return cls(first, floor, salt)


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """Head of a record. `durable`: all records below this offset were on disk when it was written."""

    content_crc: int
    content_bytes: int
    offset: int
    durable: int
    received_ns: int
    kind: int
    signal_bytes: int
    sender_bytes: int

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
        header = cls(*_FIELDS.unpack(fields))
        if header.signal_bytes + header.sender_bytes > header.content_bytes:
            return None
        return header

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
        if kind is None:
            raise JournalError(f"record {self.offset} is of kind {self.kind}, unknown to this version")
        try:
            signal = str(content[: self.signal_bytes], "utf-8")
            sender = str(content[self.signal_bytes : split], "utf-8")
        except UnicodeDecodeError as error:
            raise JournalError(f"record {self.offset}: {error}") from None
        return Record(self.offset, self.received_ns, kind, signal, sender, bytes(content[split:]))


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the appender knows of a record beside its content."""

    offset: int
    durable: int
    received_ns: int
    kind: int


def pack_record(stamp: Stamp, texts: tuple[str, str], payload: bytes, salt: int) -> tuple[bytes, bytes]:
    """Bytes before the payload, and the payload. `texts` are signal and sender.

    Raises:
        JournalError: signal, sender or payload are too long for the format.
    """
    signal, sender = texts[0].encode(), texts[1].encode("utf-8", "replace")
    names = signal + sender
    length = len(names) + len(payload)
    if len(signal) > 255 or len(sender) > 65535 or length > MAX_CONTENT_BYTES:
        raise JournalError(f"{length} bytes from a sender of {len(sender)} are too long for a record")
    content = crc32(payload, crc32(names, salt))
    fields = _FIELDS.pack(
        content, length, stamp.offset, stamp.durable, stamp.received_ns, stamp.kind, len(signal), len(sender)
    )
    return RECORD_MAGIC + _CRC.pack(crc32(fields, salt)) + fields + names, payload
