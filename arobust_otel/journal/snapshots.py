"""Snapshots: what a reader had computed at an offset, so that it need not read from the begin."""

from __future__ import annotations

import struct
from pathlib import Path
from zlib import crc32

from arobust_otel.journal.durable import TEMPORARY, make_private_folder, sync_folder, write_atomically

MAGIC = b"AROBSNP1"
SUFFIX = ".snapshot"
KEEP = 3
_FIELDS = struct.Struct("<8sIQQ")  # magic, version, offset, payload length
_CRC = struct.Struct("<I")


def store(folder: str | Path, offset: int, payload: bytes, version: int) -> None:
    """Write a snapshot of everything before `offset`, durably; the newest three are kept.

    One process stores: what is half written here is of one that was killed over it, and goes.
    """
    folder = Path(folder)
    make_private_folder(folder)
    for half in folder.glob(f"*{SUFFIX}{TEMPORARY}"):
        half.unlink(missing_ok=True)
    fields = _FIELDS.pack(MAGIC, version, offset, len(payload))
    checksum = _CRC.pack(crc32(payload, crc32(fields)))
    write_atomically(_path(folder, offset), fields + checksum + payload)
    for old in offsets(folder)[:-KEEP]:
        _path(folder, old).unlink(missing_ok=True)
    sync_folder(folder)


def latest(folder: str | Path, version: int) -> tuple[int, bytes] | None:
    """Offset and payload of the newest whole snapshot of this version; None where there is none.

    A damaged one, or one of another version, is passed over for an older one: reading from an earlier offset
    costs time only.
    """
    for offset in reversed(offsets(folder)):
        payload = _load(_path(Path(folder), offset), offset, version)
        if payload is not None:
            return offset, payload
    return None


def offsets(folder: str | Path) -> list[int]:
    """Offsets of the snapshots that are there, ascending, whole or not."""
    names = (path.name.removesuffix(SUFFIX) for path in Path(folder).glob(f"*{SUFFIX}"))
    return sorted(int(name) for name in names if name.isdecimal())


def _path(folder: Path, offset: int) -> Path:
    return folder / f"{offset:020d}{SUFFIX}"


def _load(path: Path, offset: int, version: int) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # another process has just stored a newer one
        return None
    start = _FIELDS.size + _CRC.size
    if len(data) < start:
        return None
    fields, payload = data[: _FIELDS.size], data[start:]
    wanted = (MAGIC, version, offset, len(payload))
    checksum = _CRC.unpack_from(data, _FIELDS.size)[0]
    whole = _FIELDS.unpack(fields) == wanted and checksum == crc32(payload, crc32(fields))
    return payload if whole else None
