"""State as JSON text and back, for snapshots: exact, deterministic, and without pickle.

Dataclasses of the registered types, tuples, dicts with text or number keys, and numpy arrays (dtype, shape,
base64 of the bytes) survive the round trip; anything else is refused by name.
"""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from typing import Any

import numpy as np

from arobust_otel.model.columns import Fact
from arobust_otel.model.finding import Finding
from arobust_otel.model.heartbeat import CollectorReport, RankReport
from arobust_otel.model.incident import Action, Culprit, Evidence, Incident, Revision
from arobust_otel.model.samples import Frame, StackCapture, ThreadStack
from arobust_otel.state.book import AgentState, Book
from arobust_otel.state.groups import GroupState
from arobust_otel.state.job import JobState, RankLife
from arobust_otel.state.rings import Rings

_TYPES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Fact,
        Finding,
        CollectorReport,
        RankReport,
        Action,
        Culprit,
        Evidence,
        Incident,
        Revision,
        Frame,
        StackCapture,
        ThreadStack,
        AgentState,
        Book,
        GroupState,
        JobState,
        RankLife,
        Rings,
    )
}


def register(kind: type[Any]) -> type[Any]:
    """Let a further dataclass take part (the engine's own); usable as a decorator."""
    _TYPES[kind.__name__] = kind
    return kind


def dumps(value: Any) -> bytes:
    """UTF-8 JSON of a registered value."""
    return json.dumps(_encode(value), separators=(",", ":"), sort_keys=True).encode()


def loads(data: bytes) -> Any:
    """The value that `dumps` was given."""
    return _decode(json.loads(data))


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        packed = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"~": "array", "d": value.dtype.str, "s": list(value.shape), "b": packed}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, tuple):
        return {"~": "tuple", "v": [_encode(item) for item in value]}
    if isinstance(value, dict):
        return {"~": "dict", "v": [[_encode(key), _encode(item)] for key, item in value.items()]}
    kind = type(value).__name__
    if _TYPES.get(kind) is not type(value):
        raise TypeError(f"{kind} has no place in a snapshot: register it in state/codec.py")
    return {"~": kind, "v": {field.name: _encode(getattr(value, field.name)) for field in fields(value)}}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value["~"]
    if kind == "array":
        data = np.frombuffer(base64.b64decode(value["b"]), dtype=np.dtype(value["d"]))
        return data.reshape(value["s"]).copy()
    if kind == "tuple":
        return tuple(_decode(item) for item in value["v"])
    if kind == "dict":
        return {_decode(key): _decode(item) for key, item in value["v"]}
    return _TYPES[kind](**{name: _decode(item) for name, item in value["v"].items()})
