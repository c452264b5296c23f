"""OTLP/JSON to protobuf and back (OTLP specification, "JSON Protobuf Encoding").

Differs from protobuf's own JSON mapping: trace and span ids are hex, enums are numbers. Unknown fields are
ignored. Duplicate keys, bare NaN and nesting without end are refused.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from arobust_otel.errors import DecodeError
from arobust_otel.otlp.limits import BodyTooLarge
from arobust_otel.otlp.messages import parse, request_class

MAX_OBJECTS = 500_000  # each costs some 17 µs: 16 KB of gzip could hold minutes of work
MAX_DEPTH = 150  # three JSON levels for each of the 50 levels of values that protobuf allows
_IDS = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


def to_protobuf(signal: str, body: bytes) -> bytes:
    """Serialized export request of an OTLP/JSON body.

    Raises:
        BodyTooLarge: more than `MAX_OBJECTS` objects.
        DecodeError: not JSON, not this message, or an id that is not hex.
    """
    objects = body.count(b"{")
    if objects > MAX_OBJECTS:
        raise BodyTooLarge(
            f"{objects} JSON objects in one request are more than {MAX_OBJECTS}: send several, or protobuf"
        )
    message = request_class(signal)()
    tree = _load(body)
    _convert_ids(tree, _hex_to_base64)
    try:
        json_format.ParseDict(tree, message, ignore_unknown_fields=True)
        return message.SerializeToString()
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise DecodeError(f"not an OTLP/JSON request of {signal}: {str(error)[:200]}") from None


def from_protobuf(signal: str, body: bytes) -> bytes:
    """OTLP/JSON of a serialized export request.

    Raises:
        DecodeError: the bytes are not that message.
    """
    tree = json_format.MessageToDict(parse(signal, body), use_integers_for_enums=True)
    _convert_ids(tree, _base64_to_hex)
    return json.dumps(tree, separators=(",", ":")).encode()


def _load(body: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(
            body.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_int=_whole
        )
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(tree, dict):
        raise DecodeError("not an OTLP/JSON request: the body is no object")
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _refuse(token: str) -> None:
    raise ValueError(f'{token} is no JSON; write "{token}"')


def _whole(digits: str) -> int:
    if len(digits) > 40:
        raise ValueError("a number has more than 40 digits")
    return int(digits)


def _convert_ids(tree: Any, convert: Callable[[str], str]) -> None:
    """Replace ids in place; a loop of its own because input decides how deep it is."""
    level = [tree]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                for key in _IDS & node.keys():
                    node[key] = convert(node[key])
                below.extend(node.values())
            else:
                below.extend(node)
        level = [node for node in below if isinstance(node, (dict, list))]
        if not level:
            return
    raise DecodeError(f"nested deeper than {MAX_DEPTH} levels")


def _hex_to_base64(text: Any) -> str:
    if text is None:
        return ""
    try:
        return base64.b64encode(bytes.fromhex(text)).decode()
    except (TypeError, ValueError):
        raise DecodeError("a trace or span id is not hexadecimal") from None


def _base64_to_hex(text: str) -> str:
    return base64.b64decode(text).hex()
