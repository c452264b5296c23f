"""Items as JSON and back, exactly: what the spool stores. No file, no SQL, and no pickle.

JSON has no bytes, tuples or keys that are no text: these are marked, as an object with the key ``~``. Text is
stored as it is, lone surrogates too (UTF-8 with ``surrogatepass``): escapes would join two of them into one.
A value of a type that nobody knows becomes its text, as `sanitise` would make it when it is sent.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from arobust_otel import guard
from arobust_otel.agent.parcel import Chunk, Lane, Receipt
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, Frame, LogLine, Point, StackCapture, ThreadStack

VERSION = 1
_MARK = "~"
_MAX_NESTING = 50  # deeper than anything that is sent: `sanitise` makes text of the ninth level
_JSON_INTEGERS = 1 << 128  # beyond: hexadecimal, since Python limits how long a decimal number may be
_TYPES: dict[str, type[Any]] = {"p": Point, "e": Event, "l": LogLine, "s": StackCapture}
_CODES = {kind: code for code, kind in _TYPES.items()}
# New fields go to the end and have a default: what an older version wrote is read then, too.
_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in (*_CODES, ThreadStack, Frame)}
_PLAIN = frozenset({str, float, bool, type(None)})


def encodable(chunks: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """The chunks without those items that `encode_chunks` refuses; the same ones where it refuses none."""
    kept = []
    for chunk in chunks:
        items = [item for item in chunk.items if guard.attempt("an item's JSON", lambda i=item: _item(i))[0]]  # type: ignore[misc]
        if len(items) == len(chunk.items):
            kept.append(chunk)
        elif items:
            kept.append(replace(chunk, items=items, size_bytes=1))  # on its way to the disk: nobody asks
    return tuple(kept)


def encode_chunks(chunks: Sequence[Chunk]) -> bytes:
    """The items of some chunks with what their delivery needs; receipts stay here.

    Raises:
        Exception: an item is none of ours, or holds what it must not: see `encodable`.
    """
    values = [
        [
            [_plain(value, 0) for value in chunk.identity],
            chunk.handed_wall_ns,
            chunk.urgent,
            [_item(item) for item in chunk.items],
        ]
        for chunk in chunks
    ]
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return zlib.compress(text.encode("utf-8", "surrogatepass"), 1)


def decode_chunks(lane: Lane, body: bytes, wall_ns: int, mono: float) -> tuple[Chunk, ...]:
    """Chunks as they were, with receipts that call nobody.

    Args:
        lane: where they belong.
        body: made by `encode_chunks`.
        wall_ns: now, by the clock of the wall.
        mono: now, by the monotonic clock, which may have started anew since.

    Raises:
        ValueError: the bytes are not that, or were damaged.
    """
    try:
        text = zlib.decompress(body).decode("utf-8", "surrogatepass")
        values = json.loads(text, object_hook=_unmark)
        found = []
        for identity, handed_ns, urgent, items in values:
            decoded = [_TYPES[code](*_nested(code, rest)) for code, *rest in items]
            receipt = Receipt(None, outstanding=len(decoded))
            handed_mono = mono - max(0, wall_ns - handed_ns) / 1e9
            found.append(
                Chunk(lane, decoded, JobIdentity(*identity), receipt, handed_ns, handed_mono, urgent)
            )
        return tuple(found)
    except (zlib.error, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"no items: {type(error).__name__}: {error}") from error


def _item(item: Any) -> list[Any]:
    code = _CODES.get(type(item))
    if code is None:
        raise ValueError(f"{type(item).__name__} is no item")
    values = [_plain(getattr(item, name), 0) for name in _FIELDS[type(item)] if name != "threads"]
    if code == "s":
        threads = [_thread(thread) for thread in item.threads]
        values.insert(_FIELDS[StackCapture].index("threads"), threads)
    return [code, *values]


def _thread(thread: ThreadStack) -> list[Any]:
    values = [_plain(getattr(thread, name), 0) for name in _FIELDS[ThreadStack] if name != "frames"]
    frames = [[_plain(getattr(frame, name), 0) for name in _FIELDS[Frame]] for frame in thread.frames]
    values.insert(_FIELDS[ThreadStack].index("frames"), frames)
    return values


def _nested(code: str, values: list[Any]) -> list[Any]:
    """Field values with threads and frames made again."""
    if code != "s":
        return values
    index, inner = _FIELDS[StackCapture].index("threads"), _FIELDS[ThreadStack].index("frames")
    for thread in values[index]:
        thread[inner] = tuple(Frame(*frame) for frame in thread[inner])
    values[index] = tuple(ThreadStack(*thread) for thread in values[index])
    return values


def _plain(value: Any, depth: int) -> Any:
    """A value as JSON can say it."""
    if type(value) in _PLAIN or isinstance(value, (str, float, bool)):
        return value
    if isinstance(value, int):
        number = int(value)
        return number if -_JSON_INTEGERS < number < _JSON_INTEGERS else {_MARK: "i", "v": hex(number)}
    if isinstance(value, bytes):
        return {_MARK: "b", "v": base64.b64encode(value).decode("ascii")}
    if depth < _MAX_NESTING and isinstance(value, Mapping):
        return _mapping(value, depth + 1)
    if depth < _MAX_NESTING and isinstance(value, Sequence):
        found = [_plain(item, depth + 1) for item in value]
        return {_MARK: "t", "v": found} if isinstance(value, tuple) else found
    text, _ = guard.attempt("text of a value", lambda: str(value))
    return f"<{type(value).__name__}>" if text is None else text


def _mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    if type(value) is dict:
        value = value.copy()  # its owner may change it meanwhile
    if _MARK not in value and all(isinstance(key, str) for key in value):
        return {key: _plain(item, depth) for key, item in value.items()}
    pairs = [[_plain(key, depth), _plain(item, depth)] for key, item in value.items()]
    return {_MARK: "d", "v": pairs}


_MARKED: dict[str, Callable[[Any], Any]] = {
    "i": lambda value: int(value, 16),
    "b": base64.b64decode,
    "t": tuple,
    "d": dict,
}


def _unmark(value: dict[str, Any]) -> Any:
    """A JSON object as it was before `_plain`."""
    return _MARKED[value[_MARK]](value["v"]) if _MARK in value else value
