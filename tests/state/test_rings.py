"""Rings: what was written comes back, in order, and exact in what float32 can hold."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from arobust_otel.state.rings import Rings

SECOND = 1_000_000_000


@given(st.integers(1, 12), st.integers(0, 40))
def test_history_is_the_newest_samples_oldest_first(slots: int, written: int) -> None:
    rings = Rings.empty(1, 2, slots)
    ranks = np.array([1])
    for index in range(written):
        rings.write(ranks, np.array([True]), (index + 1) * SECOND, np.array([[float(index)]]))
    _, values = rings.history(0, 1)
    assert list(values) == [float(index) for index in range(max(0, written - slots), written)]
    assert len(rings.history(0, 0)[1]) == 0


def test_growing_keeps_what_is_there() -> None:
    rings = Rings.empty(1, 1, 4)
    rings.write(np.array([0]), np.array([True]), SECOND, np.array([[7.0]]))
    rings.grow(1000)
    assert list(rings.history(0, 0)[1]) == [7.0]
    assert rings.values.shape == (1, 1000, 4)


def test_rate_of_a_counter_over_the_last_seconds() -> None:
    rings = Rings.empty(1, 1, 8)
    for second in range(6):
        rings.write(np.array([0]), np.array([True]), (second + 1) * SECOND, np.array([[200.0 * second]]))
    assert rings.rate(0, 0, 3.0) == 200.0


def test_no_rate_from_one_sample() -> None:
    rings = Rings.empty(1, 1, 8)
    rings.write(np.array([0]), np.array([True]), SECOND, np.array([[5.0]]))
    assert rings.rate(0, 0, 3.0) is None
