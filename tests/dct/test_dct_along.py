"""What lies along time, against a slow answer; what a regression foretells, against fits by hand."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.dct.along import along
from geostore.dct.regression import Regression


def test_each_pixel_is_the_line_between_the_dates_beside_it() -> None:
    """As pixel by pixel, where all dates have one level; what is masked is never looked at."""
    rng = np.random.default_rng(0)
    truth, known = np.zeros((9, 2, 6, 7)), rng.random((9, 6, 7)) < 0.6
    truth[:] = rng.normal(0, 50, (1, 2, 6, 7))
    truth[4, :, 2, 3] += 90  # one value, whose date must not see it
    known[3:6, 2, 3] = known[:, 0, 0] = True
    known[:, 5, 5] = False
    found = along(np.where(known[:, None], truth, 1e6), known)
    for t, y, x in np.ndindex(known.shape):
        beside = [s for s in range(9) if s != t and known[s, y, x]]
        before, after = [s for s in beside if s < t], [s for s in beside if s > t]
        if not beside:
            continue
        a, b = (before[-1] if before else after[0]), (after[0] if after else before[-1])
        want = truth[a, :, y, x] + (truth[b, :, y, x] - truth[a, :, y, x]) * ((t - a) / (b - a) if b > a else 0)
        assert found[t, :, y, x] == pytest.approx(want, abs=6)  # the one value lifts its date by a little
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1000


def test_dates_are_brought_to_one_level() -> None:
    """Light that differs from date to date leaves no seam: the line is the truth, whatever the levels and masks."""
    rng = np.random.default_rng(1)
    light = rng.normal(0, 400, (12, 3, 1, 1))
    truth, known = rng.normal(0, 80, (3, 16, 16)) + light, rng.random((12, 16, 16)) < 0.7
    found = along(np.where(known[:, None], truth, -1e5), known)
    assert np.abs(found - truth).max() < 25
    assert np.sqrt(np.mean((found - truth) ** 2)) < 8


def test_a_date_with_nothing_known_and_one_alone_are_finite() -> None:
    """The mean of what is known, where no other date tells more."""
    planes, known = np.full((2, 1, 4, 4), 7.0), np.zeros((2, 4, 4), np.bool_)
    known[1, 0, 0] = True
    assert along(planes, known)[0] == pytest.approx(np.full((1, 4, 4), 7.0))
    assert np.isfinite(along(planes[:1], np.ones((1, 4, 4), np.bool_))).all()


def test_weights_are_those_of_ridge_regression_and_parts_are_foretold_from_the_others() -> None:
    """Against least squares over rows added for the ridge; parts are left out by leaving out their values."""
    rng = np.random.default_rng(2)
    there, ends = rng.normal(0, 30, (3, 90)), np.array([20, 20, 61, 90])
    values = 0.5 * there[0] - 0.2 * there[2] + rng.normal(0, 5, 90)

    def by_hand(chosen: np.ndarray) -> np.ndarray:
        some, left = there[:, chosen], (values - there.mean(axis=0))[chosen]
        held = np.sqrt(3.0 * np.trace(some @ some.T) / 3 + 1) * np.eye(3)
        return 1 / 3 + np.linalg.lstsq(np.vstack([some.T, held]), np.r_[left, np.zeros(3)], rcond=None)[0]

    found = Regression.of(there, values, ends)
    everything, part = np.ones(90, np.bool_), np.searchsorted(ends, np.arange(90), side="right")
    assert found.weights() == pytest.approx(by_hand(everything))
    left = [values[part == p] - by_hand(part != p) @ there[:, part == p] for p in range(4)]
    assert found.missed() == pytest.approx(sum(float(one @ one) for one in left))


def test_nothing_to_lean_on_foretells_nothing() -> None:
    """Without references there are no weights, and all of the values is missed."""
    values = np.array([3.0, -4.0])
    found = Regression.of(np.empty((0, 2)), values, np.array([1, 2]))
    assert found.weights().shape == (0,)
    assert found.missed() == pytest.approx(25)
