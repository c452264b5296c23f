"""What the end of a gRPC call means: delivered, to be tried again, to be cut, or refused for good.

The table of the OTLP specification, and what servers and proxies say in words where a code alone misleads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from arobust_otel.agent.client.transport import MAX_HINT_SECONDS, Answer, PoisonedBatch, partial_success
from arobust_otel.errors import PermanentDelivery, RetryableDelivery

RETRYABLE_CODES = frozenset(
    (
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    )
)
# What servers of several languages say of a message above their limit, usually 4 MiB, and of one that they
# cannot decode; and what the connection itself reports under codes that mean a refusal elsewhere.
_TOO_LARGE = re.compile(r"(larger than max|too large|exceeds .{0,40}size|message length)", re.IGNORECASE)
_UNREADABLE = re.compile(
    r"(deserializ|unmarshal|decod|parse|serializing request|read message)", re.IGNORECASE
)
_CONNECTION = re.compile(r"(RST_STREAM|stream removed|connection|transport|GOAWAY|socket)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Seen:
    """What came back: `code` OK with a body, or another with details."""

    code: grpc.StatusCode
    details: str = ""
    body: bytes = b""
    retry_after_seconds: float | None = None
    has_retry_info: bool = False


def judge(signal: str, seen: Seen) -> Answer:
    """What a status means; raises as `Transport.send` says."""
    code, reason = seen.code, f"{seen.code.name}: {seen.details}"
    if code is grpc.StatusCode.OK:
        return partial_success(signal, seen.body)
    if code is grpc.StatusCode.INVALID_ARGUMENT or _is_content(code, seen.details):
        raise PoisonedBatch(reason)
    if code in RETRYABLE_CODES or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and seen.has_retry_info):
        raise RetryableDelivery(reason, seen.retry_after_seconds)
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and _CONNECTION.search(seen.details):
        raise RetryableDelivery(reason)
    raise PermanentDelivery(reason)


def _is_content(code: grpc.StatusCode, details: str) -> bool:
    """Whether a smaller request, or one without some item, may be accepted."""
    if code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE):
        return bool(_TOO_LARGE.search(details))
    return code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and bool(_UNREADABLE.search(details))


def seen_in(error: Any) -> Seen:
    """Code, details and the server's hint of a failed call."""
    has_info, seconds = retry_info(error.trailing_metadata() or ())
    return Seen(error.code(), error.details() or "", b"", seconds, has_info)


def retry_info(trailers: Sequence[tuple[str, Any]]) -> tuple[bool, float | None]:
    """Whether a server sent RetryInfo, in either of its two forms, and the seconds that it asks for.

    No delay in it means: retryable, with the client's own pauses.
    """
    found = dict(trailers)
    try:
        if "google.rpc.retryinfo-bin" in found:
            return True, _seconds(RetryInfo.FromString(found["google.rpc.retryinfo-bin"]))
        for detail in Status.FromString(found.get("grpc-status-details-bin", b"")).details:
            info = RetryInfo()
            if detail.Unpack(info):
                return True, _seconds(info)
    except (DecodeError, TypeError):
        pass
    return False, None


def _seconds(info: RetryInfo) -> float | None:
    delay = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return min(delay, MAX_HINT_SECONDS) if delay > 0 else None
