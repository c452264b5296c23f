"""Bodies of answers: export responses with partial success, google.rpc.Status, in both encodings."""

from __future__ import annotations

from enum import Enum

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from arobust_otel.otlp.messages import REJECTED, RESPONSES

MAX_MESSAGE_CHARACTERS = 1000  # an answer is limited to 4 MiB; nobody reads more than a few sentences

# Code of google.rpc.Code by HTTP status (grpc/doc/statuscodes.md and the OTLP table of responses).
_CODES = {
    400: 3,
    401: 16,
    403: 7,
    404: 12,
    405: 12,
    408: 4,
    411: 3,
    413: 8,
    415: 3,
    429: 8,
    431: 3,
    500: 13,
    501: 12,
    502: 14,
    503: 14,
    504: 14,
}
_UNKNOWN = 2


class Encoding(Enum):
    """Encoding of a request and so of its answer; the value is the media type."""

    PROTOBUF = "application/x-protobuf"
    JSON = "application/json"


def encoding_of(content_type: str) -> Encoding | None:
    """Encoding named by a Content-Type, parameters and case ignored; None where it is not one of OTLP."""
    media_type = content_type.partition(";")[0].strip().lower()
    return next((encoding for encoding in Encoding if encoding.value == media_type), None)


def success(signal: str, encoding: Encoding, rejected: int = 0, message: str = "") -> bytes:
    """Body of a 200. `partial_success` is set only where something was rejected or there is a warning."""
    response = RESPONSES[signal]()
    if rejected or message:
        partial = response.partial_success  # type: ignore[attr-defined]
        setattr(partial, REJECTED[signal], rejected)
        partial.error_message = _short(message)
    return _encode(response, encoding)


def failure(status: int, encoding: Encoding, message: str) -> bytes:
    """Body of a 4xx or 5xx: google.rpc.Status; a 400 carries a BadRequest that says the same."""
    return _encode(rpc_status(status, message), encoding)


def rpc_status(
    status: int, message: str, retry: RetryInfo | None = None, limit: int = MAX_MESSAGE_CHARACTERS
) -> Status:
    """google.rpc.Status of an HTTP status; its code is the one that gRPC answers with.

    Args:
        status: the HTTP status.
        message: what a person should read, cut to `limit` characters.
        retry: when the same request may succeed, a detail of its own.
        limit: as above; what travels in the trailers of gRPC must be short.
    """
    text = _short(message, limit)
    found = Status(code=_CODES.get(status, _UNKNOWN), message=text)
    if status == 400:
        violation = BadRequest.FieldViolation(field="body", description=text)
        found.details.add().Pack(BadRequest(field_violations=[violation]))
    if retry is not None:
        found.details.add().Pack(retry)
    return found


def _short(message: str, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Cut, and without lone surrogates, which protobuf refuses."""
    return message[:limit].encode("utf-8", "replace").decode()


def _encode(message: Message, encoding: Encoding) -> bytes:
    if encoding is Encoding.PROTOBUF:
        return message.SerializeToString()
    text = json_format.MessageToJson(message, indent=None, use_integers_for_enums=True)
    return text.encode()
