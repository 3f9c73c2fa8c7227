"""Look-ups by key lists equal the scan, whatever they cost, for every width, radius and selection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signatures_made import brute_nearest, clustered

from geostore.index import radius as module
from geostore.index.bits import bitmap
from geostore.index.radius import key_lists, near
from geostore.index.selection import select

SIZE = 3000


@pytest.fixture(params=[32, 100, 128, 256], scope="module")
def bits(request):
    """A width."""
    return request.param


@pytest.fixture(scope="module")
def words(bits):
    """Signatures of that width."""
    return clustered(SIZE, bits=bits, seed=bits)


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 7, 8, 9, 16, 23, 24, 31, 40])
def test_key_lists_find_what_a_full_sort_finds(words, bits, radius, monkeypatch):
    """With costs set so that lists are always taken, hits and their order are those of sorting everything."""
    monkeypatch.setattr(module, "COST_CALL", -1)
    monkeypatch.setattr(module, "COST_BUCKET", 0)
    monkeypatch.setattr(module, "COST_CANDIDATE", 0)
    lists = key_lists(words, bits)
    rng = np.random.default_rng(radius)
    for row in rng.integers(0, SIZE, 5):
        query = words[:, row] ^ np.uint64(rng.integers(0, 4))
        hits = near(words, lists, query, radius)
        rows, far = brute_nearest(words, query, SIZE, radius=radius)
        assert (hits.rows == rows).all()
        assert (hits.distances == far).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), radius=st.integers(0, 64), share=st.sampled_from([0.0, 0.3, 1.0]))
def test_only_selected_rows_are_found(seed, radius, share):
    """Property: under runs and a bitmap the hits are those of the chosen rows alone, by lists or by scan."""
    rng = np.random.default_rng(seed)
    made = clustered(SIZE, seed=7)
    mask = rng.random(SIZE) < share
    edges = np.sort(rng.choice(SIZE, 6, replace=False)).reshape(-1, 2)
    inside = np.zeros(SIZE, bool)
    for start, stop in edges:
        inside[start:stop] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COST_CALL", 0)
        hits = near(made, key_lists(made, 128), made[:, 3], radius, selection=select(SIZE, edges, bitmap(mask)))
    rows, far = brute_nearest(made, made[:, 3], SIZE, mask & inside, radius)
    assert (hits.rows == rows).all()
    assert (hits.distances == far).all()


def test_lists_hold_each_row_once_per_key(words, bits):
    """Each key's list is a permutation of the rows, ascending within a bucket."""
    lists = key_lists(words, bits)
    assert lists.rows.shape == (-(-bits // 16), SIZE)
    assert (np.sort(lists.rows, axis=1) == np.arange(SIZE)).all()
    assert (lists.starts[:, -1] == SIZE).all()
    first = lists.rows[0, lists.starts[0, :-1][np.diff(lists.starts[0]) > 0]]
    assert len(np.unique(words[0, first] & np.uint64(0xFFFF))) == len(first)


def test_what_costs_more_than_a_scan_is_scanned(words, bits, monkeypatch):
    """With dear buckets the plan is a scan; the hits are the same."""
    lists = key_lists(words, bits)
    monkeypatch.setattr(module, "COST_CALL", 0)
    cheap = near(words, lists, words[:, 0], 3)
    monkeypatch.setattr(module, "COST_CANDIDATE", 1 << 40)
    assert module._planned(lists, words[:, 0], 3, SIZE, np.empty(len(lists.starts), np.int64)) == -1
    assert (near(words, lists, words[:, 0], 3).rows == cheap.rows).all()
