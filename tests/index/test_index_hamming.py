"""Exact Hamming search equals a full sort by NumPy, and faiss's exact index, for every width and any chosen rows."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signatures_made import brute, brute_nearest, clustered

from geostore.errors import InvalidInput
from geostore.index import by_faiss, by_numpy
from geostore.index.bits import bitmap, bitmap_of, count_bits, octets, pack_signatures, unpack_signatures
from geostore.index.hamming import Nearest, nearest, nearest_set, within
from geostore.index.selection import Listed, everything, of_listed, of_rows, select

WIDTHS = (32, 64, 100, 128, 256)
OTHERS = (by_numpy, by_faiss) if find_spec("faiss") else (by_numpy,)


@pytest.mark.parametrize("bits", [32, 33, 64, 65, 128, 129, 256])
def test_packing_turns_round(bits):
    """Unpacking gives back the bits, and spare bits are 0, so distances are those of the bits alone."""
    made = np.random.default_rng(bits).random((77, bits)) < 0.5
    words = pack_signatures(made)
    assert words.shape == ({1: 1, 2: 2, 3: 4, 4: 4}[-(-bits // 64)], 77)
    assert (unpack_signatures(words, bits) == made).all()
    assert (brute(words, words[:, 5]) == (made != made[5]).sum(axis=1)).all()


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("k", [1, 20, 700, 6000])
def test_nearest_equals_a_full_sort(bits, k):
    """Rows and distances are those of sorting everything by distance, then row, though many are equal."""
    words = clustered(5000, bits=bits, seed=bits)
    queries = np.ascontiguousarray(words[:, :7].T)
    for query, hits in zip(queries, nearest(words, queries, k), strict=True):
        rows, far = brute_nearest(words, query, k)
        assert (hits.rows == rows).all()
        assert (hits.distances == far).all()


def test_distances_are_those_of_faiss():
    """Against faiss's exact binary index: identical distances; rows differ only where distances tie."""
    faiss = pytest.importorskip("faiss")
    faiss.omp_set_num_threads(1)
    words = clustered(20_000, clusters=300)
    queries = np.ascontiguousarray(words[:, 50:114].T)
    index = faiss.IndexBinaryFlat(128)
    index.add(octets(words))
    far, _ = index.search(octets(queries.T), 20)
    assert all((hits.distances == row).all() for hits, row in zip(nearest(words, queries, 20), far, strict=True))
    limits, far, rows = index.range_search(octets(queries.T), 9)  # faiss: nearer than
    for j, query in enumerate(queries):
        assert set(within(words, query, 8).rows) == set(rows[limits[j] : limits[j + 1]])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_selection_searched_in_any_parts_is_a_full_sort_of_it(data):
    """Property: runs, bitmaps and single rows, cut into any parts, give the first k of the chosen rows alone.

    So does the scan by NumPy alone.
    """
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    size, bits = data.draw(st.integers(1, 3000)), data.draw(st.sampled_from(WIDTHS))
    words, k = clustered(size, bits=bits, seed=size), data.draw(st.integers(1, 50))
    radius = data.draw(st.none() | st.integers(0, bits))
    kind = data.draw(st.sampled_from(("all", "runs", "bitmap", "both", "rows", "list")))
    chosen, selection = _chosen(rng, words, kind)
    assert selection.count == chosen.sum()
    assert (selection.row_numbers() == np.flatnonzero(chosen)).all()
    parts = selection.split(data.draw(st.integers(1, 5)))
    assert np.concatenate([p.row_numbers() for p in parts]).tolist() == np.flatnonzero(chosen).tolist()
    gathered = Nearest(words[:, :1].T, k, radius=radius)
    for part in parts:
        gathered.add(words, selection=part)
    rows, far = brute_nearest(words, words[:, 0], k, chosen, radius)
    (alone,) = nearest(words, words[:, :1].T, k, radius=radius, selection=selection)
    assert (alone.rows == rows).all()
    assert (alone.distances == far).all()
    assert (gathered.hits()[0].rows == rows).all()
    assert (gathered.hits()[0].distances == far).all()
    for other in OTHERS:
        (plain,) = other.nearest(words, words[:, :1].T, k, radius=radius, selection=selection)
        assert (plain.rows == rows).all()
        assert (plain.distances == far).all()
    if radius is not None:
        rows, far = brute_nearest(words, words[:, 0], size, chosen, radius)
        for way in (within, *(other.within for other in OTHERS)):
            hits = way(words, words[:, 0], radius, selection=selection)
            assert (hits.rows == rows).all()
            assert (hits.distances == far).all()


def _chosen(rng, words, kind):
    """(mask, selection) of one kind."""
    size = words.shape[1]
    edges = np.sort(rng.integers(0, size + 1, 8)).reshape(-1, 2)
    in_runs = np.zeros(size, bool)
    for start, stop in edges:
        in_runs[start:stop] = True
    spread = rng.random(size) < rng.choice([0.0, 0.01, 0.5, 1.0])
    if kind == "all":
        return np.ones(size, bool), everything(size)
    if kind == "runs":
        return in_runs, select(size, edges)
    if kind == "bitmap":
        return spread, select(size, None, bitmap(spread))
    if kind == "list":
        order = rng.permutation(size).astype(np.uint32)
        listed = Listed(order, np.ascontiguousarray(words[:, order]), 0, size)
        return spread, of_listed(size, listed.among(spread[order]))
    if kind == "rows":
        return spread, of_rows(size, np.flatnonzero(spread))
    return in_runs & spread, select(size, edges, bitmap(spread))


def test_threads_change_nothing():
    """The same hits with one thread and with three, ties included, above the size that is worth threads."""
    words = np.ascontiguousarray(np.tile(clustered(2000), 2500))  # 5 M rows, every signature 2,500 times
    queries = np.ascontiguousarray(words[:, :2].T)
    for one, three in zip(nearest(words, queries, 50), nearest(words, queries, 50, threads=3), strict=True):
        assert (one.rows == three.rows).all()
        assert (one.distances == three.distances).all()


@pytest.mark.parametrize("case", ["fair", "near rows in the sample", "far rows in the sample"])
def test_a_sample_that_misleads_changes_nothing(case):
    """Many rows are found by a guess from a sample; rows laid out against it are those of a full sort too."""
    words = clustered(40_000, clusters=300)
    query = words[:, 17].copy()
    if case != "fair":
        order = np.argsort(brute(words, query), kind="stable")
        sampled = np.arange(40_000) // 256 % 16 == 0
        at = np.concatenate([np.flatnonzero(sampled), np.flatnonzero(~sampled)])
        words[:, at] = words[:, order if case == "near rows in the sample" else order[::-1]]
    for k in (300, 2000):
        (hits,) = nearest(words, query[None], k)
        rows, far = brute_nearest(words, query, k)
        assert (hits.rows == rows).all()
        assert (hits.distances == far).all()


def test_within_grows_its_buffers():
    """Every row within the largest radius comes back once, in order, however many there are."""
    words = clustered(50_000)
    hits = within(words, words[:, 0], 999)
    assert (np.sort(hits.rows) == np.arange(50_000)).all()
    assert (np.diff(hits.distances) >= 0).all()


def test_bitmaps_count_and_name_their_rows():
    """A bitmap made from rows equals one made from a mask."""
    mask = np.random.default_rng(1).random(1000) < 0.3
    assert (bitmap(mask) == bitmap_of(np.flatnonzero(mask), 1000)).all()
    assert count_bits(bitmap(mask)) == mask.sum()


def test_nothing_to_search_gives_nothing():
    """No rows, no chosen rows, no queries: empty answers of the right kind."""
    none, words = np.zeros((2, 0), np.uint64), clustered(100)
    query = words[:, :1].T
    assert len(nearest(none, query, 5)[0]) == 0
    assert len(nearest(words, query, 5, selection=of_rows(100, np.zeros(0, np.int64)))[0]) == 0
    assert nearest(words, np.zeros((0, 2), np.uint64), 5) == []
    assert len(within(none, query[0], 5)) == 0


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda w: nearest(w, w[:1, :1].T, 5), "of as many words"),
        (lambda w: nearest(w, w[:, 0], 5), "queries, words"),
        (lambda w: nearest(w, w[:, :1].T, 0), "1 to 1000000"),
        (lambda w: within(w, w[:, 0], -1), "0 or more"),
        (lambda w: nearest(w, w[:, :1].T, 5, selection=everything(9)), "over 9 rows"),
        (lambda w: select(100, [[5, 3], [50, 101]]), "ascending"),
        (lambda w: select(100, None, np.zeros(3, np.uint64)), "it needs 2"),
        (lambda w: pack_signatures(np.zeros((3, 20), bool)), "32 to 256"),
    ],
)
def test_what_does_not_fit_is_refused(call, wanted):
    """Shapes, widths, k, radius and selections are checked; the message says what was wanted."""
    with pytest.raises(InvalidInput, match=wanted):
        call(clustered(100))


def test_faiss_and_torch_share_a_process():
    """Imported in either order, both compute with threads: their OpenMP copies get along."""
    pytest.importorskip("faiss")
    code = (
        "import {}, {}, numpy as np\n"
        "index = faiss.IndexBinaryFlat(128); index.add(np.zeros((9999, 16), np.uint8))\n"
        "far = index.search(np.zeros((99, 16), np.uint8), 3)[0]\n"
        "print(far.sum(), float((torch.ones(600, 600) @ torch.ones(600)).sum()))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code.format(*order)], stdout=subprocess.PIPE, text=True)
        for order in (("torch", "faiss"), ("faiss", "torch"))
    ]
    for process in started:
        assert process.communicate(timeout=120)[0].split() == ["0", "360000.0"]


@pytest.mark.parametrize("chosen", ["all", "bitmap", "rows", "list"])
def test_the_nearest_as_a_set_are_the_same_rows_in_their_order(chosen):
    """Of few rows and of many, where a sample says how far to look, ties at the edge go to the first rows."""
    words = clustered(20_000, bits=128, seed=3)
    mask, selection = _chosen(np.random.default_rng(3), words, chosen)
    for k in (1, 50, 600, 20_000):
        wanted, _ = brute_nearest(words, words[:, 5], k, mask)
        found = nearest_set(words, words[:, 5], k, selection=selection)
        assert found.rows.tolist() == sorted(wanted.tolist())
        assert (found.distances == np.bitwise_count(words[:, found.rows] ^ words[:, 5:6]).sum(axis=0)).all()
