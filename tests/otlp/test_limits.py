from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from arobust_otel.errors import DecodeError
from arobust_otel.otlp.limits import MAX_MEMBERS, BodyTooLarge, UnknownEncoding, inflate

BODY = b"some telemetry " * 20_000


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_identity_passes_as_it_is(encoding: str) -> None:
    assert inflate(encoding, BODY) is BODY


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip"])
def test_gzip_is_inflated(encoding: str) -> None:
    assert inflate(encoding, gzip.compress(BODY)) == BODY
    assert inflate(encoding, gzip.compress(b"")) == b""


def test_deflate_is_a_zlib_stream_as_python_clients_send_it() -> None:
    assert inflate("deflate", zlib.compress(BODY)) == BODY


def test_gzip_of_several_members_is_inflated_whole() -> None:
    assert (
        inflate("gzip", gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(BODY)) == b"one " + BODY
    )


@pytest.mark.parametrize("tail", [b"x", b"\x00", b"garbage" * 20_000])
def test_garbage_behind_the_body_is_refused(tail: bytes) -> None:
    for encoding, compressed in (("gzip", gzip.compress(BODY)), ("deflate", zlib.compress(BODY))):
        with pytest.raises(DecodeError):
            inflate(encoding, compressed + tail)


def test_second_zlib_stream_is_refused() -> None:
    with pytest.raises(DecodeError, match="follow"):
        inflate("deflate", zlib.compress(b"a") + zlib.compress(b"b"))


def test_body_cut_short_anywhere_is_refused() -> None:
    compressed = gzip.compress(b"telemetry")
    for size in range(len(compressed)):
        with pytest.raises(DecodeError):
            inflate("gzip", compressed[:size])


def test_checksum_of_gzip_is_checked() -> None:
    compressed = bytearray(gzip.compress(b"telemetry"))
    compressed[-6] ^= 1
    with pytest.raises(DecodeError, match="Content-Encoding"):
        inflate("gzip", bytes(compressed))


def test_size_is_limited_before_and_after_inflating() -> None:
    assert inflate("gzip", gzip.compress(bytes(1000)), limit_bytes=1000) == bytes(1000)
    with pytest.raises(BodyTooLarge, match="inflates"):
        inflate("gzip", gzip.compress(bytes(1001)), limit_bytes=1000)
    with pytest.raises(BodyTooLarge):
        inflate("", bytes(1001), limit_bytes=1000)
    with pytest.raises(BodyTooLarge):
        inflate("deflate", zlib.compress(bytes(600)) + zlib.compress(bytes(600)) * 40, limit_bytes=500)


def test_decompression_bomb_costs_no_more_memory_than_the_limit() -> None:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(64)) + stream.flush()
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            inflate("gzip", bomb, limit_bytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_endless_members_are_refused() -> None:
    with pytest.raises(DecodeError, match="members"):
        inflate("gzip", gzip.compress(b"") * (MAX_MEMBERS + 1))


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 1000])
def test_unknown_encoding_has_an_error_of_its_own(encoding: str) -> None:
    with pytest.raises(UnknownEncoding, match="gzip, deflate, identity") as caught:
        inflate(encoding, b"")
    assert len(str(caught.value)) < 200
