"""Inflating request bodies without trusting them: size caps, every member, nothing behind the last one."""

from __future__ import annotations

import zlib

from arobust_otel.errors import DecodeError

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_MEMBERS = 1000
_CHUNK_BYTES = 64 * 1024
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_IDENTITY = ("", "identity")


class BodyTooLarge(DecodeError):
    """The body is over the limit, before or after inflating: 413."""


class UnknownEncoding(DecodeError):
    """A Content-Encoding that this master does not speak: 415."""


def inflate(encoding: str, body: bytes, limit_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The body without its Content-Encoding.

    Args:
        encoding: the header's value, any case, empty where absent.
        body: as received.
        limit_bytes: cap before and after; no more than that is ever held of the result.

    Raises:
        BodyTooLarge: over the limit.
        UnknownEncoding: neither identity, gzip nor deflate.
        DecodeError: damaged, cut short, too many members, or followed by other bytes.
    """
    name = encoding.strip().lower()
    if len(body) > limit_bytes:
        raise BodyTooLarge(f"the body has more than {limit_bytes} bytes")
    if name in _IDENTITY:
        return body
    if name not in _WINDOW:
        raise UnknownEncoding(f"Content-Encoding {name[:40]!r} is none of gzip, deflate, identity")
    return _Inflater(_WINDOW[name], limit_bytes).run(body)


class _Inflater:
    """State over the members of one body."""

    def __init__(self, window: int, limit_bytes: int) -> None:
        self.window = window
        self.limit_bytes = limit_bytes
        self.members = 0
        self.produced = 0
        self.parts: list[bytes] = []
        self.stream = zlib.decompressobj(window)

    def run(self, body: bytes) -> bytes:
        """Feed in chunks: what is left over at the end of a member is never more than a chunk."""
        view = memoryview(body)
        for start in range(0, len(body), _CHUNK_BYTES):
            self._feed(bytes(view[start : start + _CHUNK_BYTES]))
        if not self.stream.eof:
            raise DecodeError("the compressed body is cut short")
        return b"".join(self.parts)

    def _feed(self, data: bytes) -> None:
        while data:
            if self.stream.eof:
                self._next_member()
            try:
                part = self.stream.decompress(data, self.limit_bytes - self.produced + 1)
            except zlib.error as error:
                raise DecodeError(f"the body is not what its Content-Encoding says: {error}") from None
            self.produced += len(part)
            if self.produced > self.limit_bytes:
                raise BodyTooLarge(f"the body inflates to more than {self.limit_bytes} bytes")
            self.parts.append(part)
            data = self.stream.unused_data if self.stream.eof else self.stream.unconsumed_tail

    def _next_member(self) -> None:
        self.members += 1
        if self.window == _WINDOW["deflate"]:
            raise DecodeError("bytes follow the compressed body")
        if self.members >= MAX_MEMBERS:
            raise DecodeError(f"the body has more than {MAX_MEMBERS} compressed members")
        self.stream = zlib.decompressobj(self.window)
