"""A core-set is what exact greedy k-centre picks, by signature; strata each get their share."""

from __future__ import annotations

import numpy as np
import pytest
from signatures_made import brute, clustered

from geostore.errors import InvalidInput
from geostore.index.coreset import core_set
from geostore.index.selection import of_rows


def _greedy(words, first, count):
    """The picks and the covering radius, by NumPy alone."""
    picks, least = [first], brute(words, words[:, first]).astype(int)
    while len(picks) < count:
        least[picks] = -1
        picks.append(int(least.argmax()))
        least = np.minimum(least, brute(words, words[:, picks[-1]]))
    least[picks] = 0
    return picks, int(least.max())


@pytest.mark.parametrize("bits", [64, 128, 256])
def test_picks_are_those_of_exact_greedy(bits):
    """Against NumPy, for every width; the first n of more picks are the picks of n."""
    words = clustered(400, bits=bits)
    made = core_set(words, 30)
    picks, radius = _greedy(words, int(made.rows[0]), 30)
    assert made.rows.tolist() == picks
    assert made.radius == radius
    assert core_set(words, 12).rows.tolist() == picks[:12]


def test_it_covers_better_than_chance():
    """The row that is worst off is nearer to a pick than with the same number of random rows."""
    words = clustered(2000)
    drawn = np.random.default_rng(0).choice(2000, 40, replace=False)
    chance = np.min([brute(words, words[:, r]) for r in drawn], axis=0).max()
    assert core_set(words, 40).radius < chance


def test_strata_have_shares_and_a_selection_is_kept():
    """A rare stratum has one pick, others in proportion; rows outside the selection are neither picked nor covered."""
    words, strata = clustered(300), np.repeat([0, 1, 2], [200, 97, 3])
    made = core_set(words, 30, strata=strata)
    counts = np.bincount(strata[made.rows], minlength=3)
    assert counts.sum() == 30
    assert counts[2] >= 1
    assert 18 <= counts[0] <= 21
    assert np.bincount(strata[core_set(words, 2, strata=strata).rows], minlength=3).tolist() == [1, 1, 0]
    few = of_rows(300, np.arange(50, 60))
    assert sorted(core_set(words, 99, selection=few).rows.tolist()) == list(range(50, 60))
    assert core_set(words, 99, selection=few).radius == 0
    assert len(core_set(words, 5, selection=of_rows(300, np.zeros(0, np.int64))).rows) == 0


def test_what_does_not_fit_is_refused():
    """No count, strata or a selection of another length."""
    words = clustered(20)
    for wrong in ({"count": 0}, {"count": 3, "strata": np.zeros(4)}, {"count": 3, "selection": of_rows(9, [1])}):
        with pytest.raises(InvalidInput, match="one entry a row"):
            core_set(words, **wrong)
