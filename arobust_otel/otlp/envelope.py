"""Cutting and marking serialized requests without taking them apart: only the outermost layer is walked.

A request is a sequence of entries (field 1), one per resource; everything else at this level is passed on.
A resource is marked by appending a second `resource` field to its entry: parsers merge it into the first
(protobuf, "Last One Wins" and merging of embedded messages). All bytes of the sender stay as they are.
"""

from __future__ import annotations

from typing import Any

from arobust_otel.errors import DecodeError
from arobust_otel.model.signals import FORWARDED
from arobust_otel.otlp.messages import LOGS, METRICS, TRACES, parse

_PATHS = {
    METRICS: ("resource_metrics", "scope_metrics", "metrics"),
    LOGS: ("resource_logs", "scope_logs", "log_records"),
    TRACES: ("resource_spans", "scope_spans", "spans"),
}
_ENTRY_TAG = b"\x0a"  # field 1, length-delimited
_GROUP = 3  # wire type of a group's begin


def _length(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _length(len(content)) + content


# ResourceX.resource { attributes { key: "arobust.forwarded" value { bool_value: true } } }
_KEY_VALUE = _field(_ENTRY_TAG, FORWARDED.encode()) + _field(b"\x12", b"\x10\x01")
MARK = _field(_ENTRY_TAG, _field(_ENTRY_TAG, _KEY_VALUE))


def outgoing(signal: str, body: bytes) -> bytes:
    """A validated request as it leaves a master: every resource marked, those marked before left out.

    Empty where nothing is left.
    """
    parts = []
    for tag, content in _fields(body):
        if tag != _ENTRY_TAG:
            parts.append(tag + content)
        elif not _is_marked(signal, content):
            parts.append(_field(_ENTRY_TAG, content + MARK))
    return b"".join(parts)


def halves(signal: str, body: bytes) -> tuple[bytes, bytes] | None:
    """Two requests that are this one, cut along resource, scope, metric or point; None for one item."""
    left, right = parse(signal, body), parse(signal, body)
    items, others = _divisible(signal, left), _divisible(signal, right)
    if items is None or others is None:
        return None
    middle = len(items) // 2
    del items[middle:]
    del others[:middle]
    return left.SerializeToString(), right.SerializeToString()


def _divisible(signal: str, request: Any) -> Any | None:
    """The outermost list with more than one item."""
    node = request
    for name in _PATHS[signal]:
        items = getattr(node, name)
        if len(items) != 1:
            return items if items else None
        node = items[0]
    if signal != METRICS:
        return None
    kind = node.WhichOneof("data")
    points = getattr(node, kind).data_points if kind else ()
    return points if len(points) > 1 else None


def _is_marked(signal: str, entry: bytes) -> bool:
    """Searching bytes is cheap and never misses; what it finds is parsed, since text may say anything."""
    if FORWARDED.encode() not in entry:
        return False
    request = parse(signal, _field(_ENTRY_TAG, entry))
    resource = getattr(request, _PATHS[signal][0])[0].resource
    return any(pair.key == FORWARDED and pair.value.bool_value for pair in resource.attributes)


def _fields(body: bytes) -> list[tuple[bytes, bytes]]:
    """(tag, content) of the fields at the outermost level; the content of unknown ones with its length.

    Raises:
        DecodeError: the bytes are no sequence of fields.
    """
    found, position = [], 0
    while position < len(body):
        start = position
        tag, position = _varint(body, position)
        if tag == _ENTRY_TAG[0]:
            size, position = _varint(body, position)
            end = position + size
            found.append((_ENTRY_TAG, body[position:end]))
        else:
            end = _skip(body, position, tag)
            found.append((b"", body[start:end]))
        if end > len(body):
            raise DecodeError("the request is cut short")
        position = end
    return found


def _skip(body: bytes, position: int, tag: int) -> int:
    """Where the content of a field ends that begins at `position`."""
    wire_type = tag & 7
    if wire_type == 0:
        return _varint(body, position)[1]
    if wire_type == 2:
        size, position = _varint(body, position)
        return position + size
    if wire_type in (1, 5):
        return position + (8 if wire_type == 1 else 4)
    if wire_type == _GROUP:
        return _skip_group(body, position, tag)
    raise DecodeError(f"wire type {wire_type} has no place in a request")


def _skip_group(body: bytes, position: int, tag: int) -> int:
    """OTLP has no groups, but protobuf has: as an unknown field one is validated, and so is passed on.

    The parser, which comes first, bounds how deep they nest.
    """
    while True:
        inner, position = _varint(body, position)
        if inner == tag + 1:  # the same number with wire type 4: its end
            return position
        position = _skip(body, position, inner)


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        if position >= len(body):
            raise DecodeError("the request is cut short")
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise DecodeError("a length has no end")
