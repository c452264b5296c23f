from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, NumberDataPoint, Sum

from arobust_otel.model import signals
from arobust_otel.otlp.attributes import to_attributes, to_whole
from arobust_otel.otlp.points import REMEMBERED_BYTES, Groups, Row, take_points

bounded = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

T = 1_700_000_000_000_000_000


def plainly(message: Any) -> tuple[list[Row], int]:
    """Rows through protobuf's own objects: slow, and easy to believe."""
    rows: list[Row] = []
    groups: Groups = {}
    for point in message.data_points:
        which = point.WhichOneof("value")
        if which is None or point.flags & 1:
            continue
        found = to_attributes(point.attributes)
        rank = to_whole(found.get(signals.RANK))
        group = (str(found.get(signals.GROUP_NAME, "")), str(found.get(signals.GROUP_RANKS, "")))
        number = groups.setdefault(group, len(groups)) if any(group) else -1
        rows.append((7, -1 if rank is None else rank, point.time_unix_nano, getattr(point, which), number))
    return rows, len(message.data_points) - len(rows)


def walked(message: Any) -> tuple[list[Row], int]:
    rows: list[Row] = []
    skipped = take_points(message.SerializeToString(), 7, rows, {})
    return rows, skipped


def attach(point: NumberDataPoint, key: str, value: int | str) -> None:
    held = point.attributes.add(key=key).value
    if isinstance(value, int):
        held.int_value = value
    else:
        held.string_value = value


@st.composite
def points(draw: st.DrawFn) -> NumberDataPoint:
    zero_or = st.one_of(st.just(0), st.integers(0, 2**64 - 1))
    point = NumberDataPoint(time_unix_nano=draw(zero_or), start_time_unix_nano=draw(zero_or))
    number = draw(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)))
    if isinstance(number, int):
        point.as_int = number
    elif number is not None:
        point.as_double = number
    for _ in range(draw(st.sampled_from([0, 0, 0, 2]))):
        point.exemplars.add(as_int=1, span_id=b"12345678")
    for key in draw(
        st.lists(st.sampled_from([signals.RANK, signals.GROUP_NAME, signals.GROUP_RANKS, "x"]), max_size=4)
    ):
        text = signals.GROUP_NAME in key or signals.GROUP_RANKS in key
        attach(
            point,
            key,
            draw(st.sampled_from(["", "dp", "0-3", "y" * 300])) if text else draw(st.integers(-1, 9)),
        )
    point.flags = draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
    return point


@bounded
@given(st.lists(points(), max_size=6), st.booleans())
def test_walking_gives_what_protobuf_gives(given_points: list[NumberDataPoint], as_sum: bool) -> None:
    message: Any = Sum(aggregation_temporality=2, is_monotonic=True) if as_sum else Gauge()
    message.data_points.extend(given_points)
    assert walked(message) == plainly(message)


def test_points_of_any_length_are_walked() -> None:
    message = Gauge()
    for size in (0, 1, 60, 100, 120, 130, REMEMBERED_BYTES, 1000, 20_000):
        point = message.data_points.add(time_unix_nano=T, as_double=size)
        attach(point, "padding", "x" * size)
        attach(point, signals.RANK, size % 7)
    rows, skipped = walked(message)
    assert [row[3] for row in rows] == [0, 1, 60, 100, 120, 130, REMEMBERED_BYTES, 1000, 20_000]
    assert (rows, skipped) == plainly(message)


def test_fields_of_a_later_version_do_not_disturb() -> None:
    body = Gauge(data_points=[NumberDataPoint(time_unix_nano=T, as_int=5)]).SerializeToString()
    longer = bytes([body[0], body[1] + 5]) + body[2:] + b"\xf2\x3f\x02xy"
    message = Gauge.FromString(longer + b"\xf2\x3f\x02xy")
    assert walked(message) == ([(7, -1, T, 5, -1)], 0)


def test_nothing_gives_nothing() -> None:
    assert walked(Gauge()) == ([], 0)
    assert walked(Gauge(data_points=[NumberDataPoint()])) == ([], 1)
