"""Attribute values of OTLP as values of the model.

Keys may repeat (invalid, but seen): the last one counts. An attribute without a key or value is left out.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from typing import Any

from arobust_otel.model.samples import Attributes, AttributeValue

MAX_RANK = 2**31 - 1


def to_attributes(pairs: Iterable[Any]) -> Attributes:
    """Scalars as they are; arrays and maps as JSON text, bytes as base64 text."""
    found: Attributes = {}
    for pair in pairs:
        value = to_scalar(pair.value)
        if value is not None and pair.key:
            found[pair.key] = value
    return found


def to_scalar(value: Any) -> AttributeValue | None:
    """A scalar of the model; None where the value holds nothing."""
    which = value.WhichOneof("value")
    if which in ("string_value", "int_value", "double_value", "bool_value"):
        scalar: AttributeValue = getattr(value, which)
        return scalar
    plain = to_plain(value)
    if plain is None or isinstance(plain, str):
        return plain
    return json.dumps(plain, separators=(",", ":"))


def to_plain(value: Any) -> Any:
    """What JSON can hold of a value of any depth (the parser bounds it); not-finite numbers become text."""
    which = value.WhichOneof("value")
    if which == "array_value":
        return [to_plain(item) for item in value.array_value.values]
    if which == "kvlist_value":
        return {pair.key: to_plain(pair.value) for pair in value.kvlist_value.values}
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if which == "double_value" and not math.isfinite(value.double_value):
        return str(value.double_value)
    return getattr(value, which, None) if which else None


def to_text(value: Any) -> str:
    """Body of a log record as text: a string as it is, all else as JSON."""
    if value.WhichOneof("value") == "string_value":
        return str(value.string_value)
    plain = to_plain(value)
    return "" if plain is None else json.dumps(plain, separators=(",", ":"))


def to_whole(value: AttributeValue | None, lowest: int = 0, highest: int = MAX_RANK) -> int | None:
    """A whole number in bounds, also from a numeric text or a float without fraction; None for all else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) < 20):
            return None
        value = int(value)
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if lowest <= value <= highest else None
