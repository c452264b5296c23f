"""What a collector or a user hands over comes back from the disk as it was."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arobust_otel.agent.parcel import Chunk, Lane, Receipt
from arobust_otel.agent.spool.item_codec import decode_chunks, encode_chunks
from arobust_otel.model.identity import JobIdentity
from arobust_otel.model.samples import Event, Frame, LogLine, Point, StackCapture, ThreadStack

ANY_TEXT = st.text(st.characters(), max_size=20)  # lone surrogates included
LEAVES = (
    ANY_TEXT
    | st.booleans()
    | st.none()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | st.binary(max_size=20)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(ANY_TEXT | st.just("~") | st.integers() | st.binary(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)
ATTRIBUTES = st.dictionaries(ANY_TEXT, VALUES, max_size=4)
TIMES = st.integers(0, 2**64)
FLAGS = st.none() | st.booleans()
FRAMES = st.lists(st.builds(Frame, ANY_TEXT, ANY_TEXT, st.integers(0, 10**6)), max_size=3).map(tuple)
THREADS = st.builds(ThreadStack, ANY_TEXT, st.none() | TIMES, FRAMES, st.booleans(), FLAGS, FLAGS)
ITEMS = {
    Lane.POINTS: st.builds(
        Point, ANY_TEXT, st.floats(allow_nan=False) | st.integers(), TIMES, ATTRIBUTES, st.none() | TIMES
    ),
    Lane.FACTS: st.builds(Event, ANY_TEXT, TIMES, ANY_TEXT, ATTRIBUTES, st.integers(0, 24)),
    Lane.LINES: st.builds(
        LogLine, ANY_TEXT, TIMES, ANY_TEXT, TIMES, ATTRIBUTES, st.integers(), st.booleans()
    ),
    Lane.STACKS: st.builds(
        StackCapture,
        TIMES,
        TIMES,
        st.none() | TIMES,
        TIMES,
        ANY_TEXT,
        ANY_TEXT,
        st.lists(THREADS, max_size=3).map(tuple),
        ANY_TEXT,
        ATTRIBUTES,
    ),
}
IDENTITIES = st.builds(JobIdentity, ANY_TEXT, st.integers(0, 99), ANY_TEXT, st.none() | st.integers(0, 99))


def there_and_back(items: list[Any], lane: Lane = Lane.POINTS) -> list[Any]:
    chunk = Chunk(lane, items, JobIdentity("job", 0, "host"), Receipt(), 1, 1.0)
    (found,) = decode_chunks(lane, encode_chunks([chunk]), 1, 1.0)
    return list(found.items)


def types_of(value: Any) -> Any:
    """Types all the way down: 1, 1.0 and True are equal, and are not the same."""
    if isinstance(value, dict):
        return {key: types_of(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [types_of(inner) for inner in value]
    return type(value)


@pytest.mark.parametrize("lane", Lane)
@settings(deadline=None)
@given(data=st.data())
def test_items_come_back_as_they_were(lane: Lane, data: st.DataObject) -> None:
    items = data.draw(st.lists(ITEMS[lane], min_size=1, max_size=3))
    identity, urgent = data.draw(IDENTITIES), data.draw(st.booleans())
    chunk = Chunk(lane, items, identity, Receipt(lambda: None, outstanding=9), 5 * 10**9, 7.0, urgent)
    (found,) = decode_chunks(lane, encode_chunks([chunk]), wall_ns=8 * 10**9, mono=100.0)
    assert list(found.items) == items
    assert [types_of(item.attributes) for item in found.items] == [types_of(i.attributes) for i in items]
    assert (found.identity, found.urgent, found.lane) == (identity, urgent, lane)
    assert (found.handed_wall_ns, found.handed_mono) == (5 * 10**9, 97.0)
    assert found.receipt == Receipt(None, None, outstanding=len(items))


@pytest.mark.parametrize(
    "value",
    [
        "\ud83d\ude00",  # two lone surrogates that JSON's escapes would make one character
        "caf\udce9",
        -(2**70),
        10**5000,  # more digits than Python prints
        -0.0,
        math.inf,
        b"\x00\xff",
        (1, (2, [3, b"4"])),
        {"~": "t", "v": [1]},
        {1: "a", (2, 3): {"b": b"c"}, None: False},
        [True, 1, 1.0],
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) else "integer",
)
def test_values_that_json_has_not(value: Any) -> None:
    (found,) = there_and_back([Point("m", 1, 1, {"k": value})])
    assert found.attributes["k"] == value
    assert types_of(found.attributes["k"]) == types_of(value)
    assert math.copysign(1, found.attributes["k"] if value == 0 and not isinstance(value, list) else 1) == (
        -1 if value == 0 else 1
    )


def test_not_a_number_stays_not_a_number() -> None:
    (found,) = there_and_back([Point("m", math.nan, 1)])
    assert math.isnan(found.value)


class Strange:
    def __str__(self) -> str:
        return "strange"


def test_value_of_a_type_nobody_knows_becomes_its_text() -> None:
    (found,) = there_and_back([Event("e", 1, "b", {"k": Strange(), "s": {4}})])  # type: ignore[dict-item]
    assert found.attributes == {"k": "strange", "s": "{4}"}


def test_value_nested_without_end_is_cut() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    (found,) = there_and_back([Event("e", 1, "b", {"k": endless})])  # type: ignore[dict-item]
    depth, value = 0, found.attributes["k"]
    while isinstance(value, dict):
        depth, value = depth + 1, value["again"]
    assert depth == 49  # the attributes themselves are the first level


def test_item_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="Strange is no item"):
        there_and_back([Strange()])


@given(st.binary(max_size=40))
def test_foreign_bytes_are_no_items(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_chunks(Lane.POINTS, data, 0, 0.0)


def test_any_changed_byte_is_seen() -> None:
    chunk = Chunk(Lane.POINTS, [Point("m", 1, 1)] * 3, JobIdentity("job", 0, "host"), Receipt(), 1, 1.0)
    body = encode_chunks([chunk])
    for position in range(2, len(body)):
        damaged = bytearray(body)
        damaged[position] ^= 0x55
        with pytest.raises(ValueError):
            decode_chunks(Lane.POINTS, bytes(damaged), 0, 0.0)
