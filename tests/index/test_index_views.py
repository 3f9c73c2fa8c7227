"""Views are drawn evenly, turned the eight ways there are, and dropped where a descriptor does not see the way."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.index.views import WAYS, Views, drawn, no_views, turned, views_of


def test_there_are_eight_ways_to_lay_down_a_square():
    """All differ, the first is as it is; bands stay in their order."""
    pixels = np.arange(18).reshape(2, 3, 3)
    made = [turned(pixels, way) for way in range(WAYS)]
    assert (made[0] == pixels).all()
    assert len({m.tobytes() for m in made}) == WAYS
    assert all((np.sort(m[1].ravel()) == pixels[1].ravel()).all() for m in made)
    assert turned(np.zeros((2, 5)), 1).shape == (5, 2)


@pytest.mark.parametrize(("rows", "most", "expected"), [(10, 25, 25), (10, 7, 7), (3, 100, 21), (5, 0, 0), (0, 9, 0)])
def test_views_are_drawn_evenly(rows, most, expected):
    """No pair twice, none as it is, no row has two more than another; the seed decides."""
    pairs = drawn(rows, most, seed=1)
    assert pairs.shape == (expected, 2)
    assert len(np.unique(pairs, axis=0)) == expected
    assert not (pairs[:, 1] == 0).any()
    counts = np.bincount(pairs[:, 0], minlength=rows)
    assert rows == 0 or np.ptp(counts) <= 1
    assert (drawn(rows, most, seed=1) == pairs).all()


def test_a_descriptor_that_sees_no_way_is_asked_a_few_times_only():
    """One that does is asked for every view."""
    asked = []

    def blind(way):
        asked.append(way)
        return np.full(3, 1, np.float32)

    pairs = drawn(40, 200, seed=0).tolist()
    assert len(views_of(((row, way, blind) for row, way in pairs), 3)) == 0
    assert len(asked) < 80
    seen = ((row, way, lambda way, row=row: np.array([row, way, 0], np.float32)) for row, way in pairs)
    found = views_of(seen, 3)
    assert (found.of == np.array(pairs)[:, 0]).all()
    assert (found.vectors[:, :2] == pairs).all()


def test_views_among_some_rows_are_numbered_by_their_place_there():
    """Others go."""
    views = Views(np.arange(4, dtype=np.float32)[:, None], np.array([0, 2, 2, 5]))
    found = views.among(np.array([5, 2, 7]))
    assert (found.of == [1, 1, 0]).all()
    assert (found.vectors[:, 0] == [1, 2, 3]).all()
    assert len(no_views(3).among(np.arange(2))) == len(views.among(np.zeros(0, np.int64))) == 0
