"""Number data points as rows, fast: this is the master's hot loop.

Reading attributes of a point through protobuf's objects costs several microseconds, and a sender's points
carry the same attributes export after export. So the points of a metric are walked in their serialized form:
time and value stand in front at fixed places, and the bytes behind them (attributes and flags) are looked up
whole in a memory of what they mean. A point of any other form is parsed the slow way, with the same result.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint

from arobust_otel.model import signals
from arobust_otel.otlp.attributes import to_scalar, to_whole

# Metric's index, rank (-1: none), time, value, index of the group (-1: none).
Row = tuple[int, int, int, float, int]
Groups = dict[tuple[str, str], int]

NO_RECORDED_VALUE = 1
REMEMBERED_TAILS = 2**19  # about four groups of attributes for each of 100,000 ranks
REMEMBERED_BYTES = 256  # a longer tail is not worth the memory

# Tags of NumberDataPoint (metrics.proto), and of the field data_points in gauges and sums.
_POINT = 0x0A
_START_TIME = 0x11
_TIME = 0x19
_DOUBLE = 0x21
_INT = 0x31
_FIXED_BYTES = 9  # tag and value
_HEAD_BYTES = 2 * _FIXED_BYTES
_LONGEST_BYTES = _HEAD_BYTES + REMEMBERED_BYTES
_READERS = {_DOUBLE: struct.Struct("<Qxd").unpack_from, _INT: struct.Struct("<Qxq").unpack_from}


def take_points(data: bytes, index: int, rows: list[Row], groups: Groups) -> int:
    """Add a row for every point with a value; returns how many had none.

    Args:
        data: a gauge or sum as protobuf serializes it (data points first, fields in order of their numbers).
        index: index of the metric's name.
        rows: grows.
        groups: grows; name and members of a process group, and their index.
    """
    position, size, before, points = 0, len(data), len(rows), 0
    while position < size and data[position] == _POINT:
        points += 1
        start, length = position + 2, data[position + 1]
        if length > 127:
            start, length = _long_length(data, position + 1)
        position = start + length
        head = start + _FIXED_BYTES if length and data[start] == _START_TIME else start
        read = None
        if _HEAD_BYTES <= position - head <= _LONGEST_BYTES and data[head] == _TIME:
            read = _READERS.get(data[head + _FIXED_BYTES])
        if read is None:
            _parse(data[start:position], index, rows, groups)
            continue
        meaning = _meaning(data[head + _HEAD_BYTES : position])
        if meaning is not None:
            rank, group = meaning
            time_ns, value = read(data, head + 1)
            number = -1 if group is None else groups.setdefault(group, len(groups))
            rows.append((index, rank, time_ns, value, number))
    return points - (len(rows) - before)


@lru_cache(maxsize=REMEMBERED_TAILS)
def _meaning(tail: bytes) -> tuple[int, tuple[str, str] | None] | None:
    """Rank and group in the bytes behind a point's value; None where the flags say that it has no value.

    A point of one device of a rank has no rank here: rows have no dimension for devices, and two of them
    would be blended into one. Which rank computes on which device is told by events.
    """
    return _describe(NumberDataPoint.FromString(tail))


def _describe(point: Any) -> tuple[int, tuple[str, str] | None] | None:
    if point.flags & NO_RECORDED_VALUE:
        return None
    rank, name, members, is_of_device = -1, "", "", False
    for pair in point.attributes:
        if pair.key == signals.RANK:
            whole = to_whole(to_scalar(pair.value))
            rank = -1 if whole is None else whole
        elif pair.key == signals.GROUP_NAME:
            name = pair.value.string_value
        elif pair.key == signals.GROUP_RANKS:
            members = pair.value.string_value
        elif pair.key == signals.HW_ID:
            is_of_device = True
    return (-1 if is_of_device else rank), ((name, members) if name or members else None)


def _parse(data: bytes, index: int, rows: list[Row], groups: Groups) -> None:
    """The slow way: no time, no value, exemplars, long attributes."""
    point = NumberDataPoint.FromString(data)
    which = point.WhichOneof("value")
    meaning = _describe(point)
    if which is not None and meaning is not None:
        rank, group = meaning
        number = -1 if group is None else groups.setdefault(group, len(groups))
        rows.append((index, rank, point.time_unix_nano, getattr(point, which), number))


def _long_length(data: bytes, position: int) -> tuple[int, int]:
    """Where a point starts, and its length: a varint of more than one byte at `position`."""
    length = shift = 0
    while True:
        byte = data[position]
        length |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return position, length
