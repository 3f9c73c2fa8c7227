"""How settings are chosen: the coarsest value of a dial that keeps a bound, the part of a series that is tried."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.classical.quality import Dial
from geostore.classical.scout import scouted
from geostore.testing.codecs import synthetic_series

DIAL = Dial(1.0, 70.0, 0.25, slope=0.06, near=0.98)


@given(
    exact=st.floats(-20, 100),
    slope=st.floats(0.01, 0.5),
    start=st.integers(4, 280),
    most=st.none() | st.integers(4, 280),
)
def test_the_coarsest_value_within_the_bound_is_found(exact: float, slope: float, start: int, most: int | None) -> None:
    """Whatever the error's slope and wherever tries begin: it keeps the bound, and the next coarser would not."""
    asked: list[float] = []

    def used(value: float) -> float:
        asked.append(value)
        return math.exp(slope * (value - exact))

    highest = DIAL.high if most is None else most * DIAL.step
    found = DIAL.coarsest(used, min(start * DIAL.step, highest), None if most is None else highest)
    assert all(DIAL.low <= value <= highest for value in asked)
    assert len(asked) == len(set(asked))
    if found is None:
        assert used(DIAL.low) > 1
    else:
        assert found in asked
        assert used(found) <= 1
        assert found == highest or used(found) >= DIAL.near or used(found + DIAL.step) > 1


@pytest.mark.parametrize("unit", [(1, 1), (34, 44), (50, 90)])
def test_a_part_is_cut_as_the_whole_is(unit: tuple[int, int]) -> None:
    """A window is so many units high and wide, or the whole, of pixels as they are; a small series is all of itself."""
    series = synthetic_series((7, 4, 100, 88), indices=("NDVI",))
    few = scouted(series, 2**16, 3, unit)
    count, _, height, width = few.pixels.shape
    assert count == 3
    assert height % unit[0] == 0 or height == 100
    assert width % unit[1] == 0 or width == 88
    assert few.valid.sum() >= 0.5 * few.valid.size
    places = np.lib.stride_tricks.sliding_window_view(series.pixels[few.usable[0], 0], (height, width))
    assert (places == few.pixels[0, 0]).all(axis=(2, 3)).any()
    assert scouted(series, 2**30, 3, unit) is series
