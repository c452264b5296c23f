"""Values that the OTLP encoder and every receiver accept, made from whatever a collector handed over. Pure.

One lone surrogate, one number beyond 64 bit or one value nested too deep makes the encoder, or the receiver,
refuse the whole batch (measured: up to 512 records). So each value is put right before it is encoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NESTING = 8  # receivers refuse 51 levels; nothing that we send needs more than two
MAX_ATTRIBUTE_CHARS = 64 * 1024
MAX_BODY_CHARS = 256 * 1024
MAX_ENTRIES = 128  # the SDK's own limit of attributes
_INT64 = 1 << 63
_UINT64 = 1 << 64


def text(value: str, limit: int = MAX_ATTRIBUTE_CHARS) -> str:
    r"""Valid UTF-8 text of at most about `limit` characters; a lone surrogate becomes ``\udcff``.

    >>> text("caf\udce9")
    'caf\\udce9'
    """
    if len(value) > limit:
        value = f"{value[:limit]}... ({len(value) - limit} more characters cut)"
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def attribute(value: Any, depth: int = 0) -> Any:
    """A value that OTLP can carry; None where it cannot be said (NaN, infinity, None itself).

    >>> attribute(2 ** 70), attribute(float("nan")), attribute([1, {"a": b"x"}])
    ('1180591620717411303424', None, [1, {'a': b'x'}])
    """
    if isinstance(value, str):
        return text(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bytes):
        return value
    if depth < MAX_NESTING and isinstance(value, Mapping):
        return attributes(value, depth + 1)
    if depth < MAX_NESTING and isinstance(value, Sequence):
        return [attribute(item, depth + 1) for item in value[:MAX_ENTRIES]]
    return text(str(value))


def attributes(values: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Attributes that can be encoded; those without a value or a name are left out."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        clean = attribute(value, depth)
        if clean is not None and key != "" and len(kept) < MAX_ENTRIES:
            kept[text(str(key))] = clean
    return kept


def number(value: float) -> int | float:
    """A metric value that can be encoded.

    Raises:
        ValueError: it is not a finite number: such a value is no measurement.
    """
    if not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a number")  # noqa: TRY004 - one reason for one count
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else float(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return float(value)


def time_ns(value: int) -> int:
    """A time that can be encoded; 0, "unknown", where it is outside 64 bit."""
    return int(value) if 0 <= value < _UINT64 else 0
