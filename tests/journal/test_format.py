"""docs/journal.md is enough to write a reader: this one is made from that page alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from arobust_otel.journal import Appender, Kind, Reader, Source
from arobust_otel.journal.format import RecordHeader

Plain = tuple[int, int, int, str, str, str, bytes]


def read_by_the_page(folder: Path) -> Iterator[Plain]:
    name: int | None = min(int(path.stem) for path in folder.glob("*.segment"))
    while name is not None:
        data = (folder / f"{name:020d}.segment").read_bytes()
        magic, first, _floor, salt, checksum = struct.unpack_from("<8sQqII", data)
        assert (magic, first, checksum) == (b"AROBJRN2", name, crc32(data[:28]))
        at, name = 32, None
        while at < len(data):
            magic, header_crc, content_crc, length, offset, durable, received, kind, signal, sender = (
                struct.unpack_from("<4sIIIQQqBBH", data, at)
            )
            content = data[at + 44 : at + 44 + length]
            assert magic == b"ARJ1"
            assert header_crc == crc32(data[at + 8 : at + 44], salt)
            assert content_crc == crc32(content, salt)
            assert durable <= offset
            at += 44 + length
            if kind == 0:
                name = offset
                break
            names = content[:signal].decode(), content[signal : signal + sender].decode()
            rest = content[signal + sender :]
            batch = rest[:16] if kind & 128 else b""
            yield offset, received, kind & 127, *names, batch.hex(), rest[len(batch) :]


def test_reader_made_from_the_page_reads_the_same(tmp_path: Path) -> None:
    with Appender.open(tmp_path, segment_bytes=500) as appender:
        for number in range(40):
            payload = b"x" * number
            source = Source("logs", "nöde", f"{number:032x}" if number % 3 else "")
            appender.append(Kind(number % 6 + 1), payload, received_ns=number, source=source)
            if number % 4 == 0:
                appender.sync()
    with Reader(tmp_path) as reader:
        ours = [
            (r.offset, r.received_ns, int(r.kind), r.signal, r.sender, r.batch, r.payload)
            for r in reader.read()
        ]
    assert list(read_by_the_page(tmp_path)) == ours
    assert len(ours) == 40


def test_header_whose_names_are_longer_than_the_content_is_no_header() -> None:
    for signal, whole in ((2, True), (3, False)):
        fields = struct.pack("<IIQQqBBH", 0, 2, 0, 0, 0, 1, signal, 0)
        header = RecordHeader.parse(b"ARJ1" + struct.pack("<I", crc32(fields)) + fields, 0)
        assert (header is not None) is whole
