"""Votes of parts for their cells, against a plain look at every row; what is passed over could not have been found."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.errors import NotComparable
from geostore.index.filters import Filter
from geostore.index.groups import grouped
from geostore.index.ranked import Query
from geostore.index.rerank import quantise
from geostore.index.rows import Rows, Space
from geostore.index.segments import Segments
from geostore.index.signatures import rotation, signatures
from geostore.index.votes import VOTES, Layer, elected
from geostore.keys import RasterKey, time_us
from geostore.partition.geohash import code_of, name_of

WIDTH, BITS = 12, 64
HEAD = rotation(np.zeros((2, WIDTH), np.float32), BITS)
SPACE = Space("made", "0", HEAD.name, "0", BITS, WIDTH)
LETTERS = "0123456789bcdefghjkmnpqrstuvwxyz"


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def packed(vectors):
    """int8 and scales of length 1, as the store keeps them."""
    small, _ = quantise(unit(vectors))
    return small, (1 / np.linalg.norm(small.astype(np.float32), axis=1)).astype(np.float32)


def made(cells, dates, *, seed=0):
    """(whole, chips) of cells over dates: a cell has its own look, its chips theirs near it, dates a little of both."""
    rng = np.random.default_rng(seed)
    rows = {0: [], 1: []}
    for cell in cells:
        look = rng.normal(size=WIDTH)
        chips = [(cell + LETTERS[i], look + 0.5 * rng.normal(size=WIDTH)) for i in rng.permutation(32)[:9]]
        for date in range(dates):
            key = RasterKey("c", cell, "10m", time_us(datetime(2020, 1 + date, 3, tzinfo=UTC))).to_bytes()
            rows[0].append((cell, key, date, look + 0.1 * rng.normal(size=WIDTH)))
            rows[1] += [(name, key, date, vector + 0.1 * rng.normal(size=WIDTH)) for name, vector in chips]
    return [as_rows(rows[letters]) for letters in (0, 1)]


def as_rows(found):
    names, owners, dates, vectors = zip(*found, strict=True)
    keys = sorted(set(owners))
    small, scales = packed(np.array(vectors))
    return Rows(
        signatures=signatures(HEAD, small.astype(np.float32) * scales[:, None]),
        cells=np.array([code_of(n) for n in names]),
        times_us=np.array([time_us(datetime(2020, 1 + d, 3, tzinfo=UTC)) for d in dates]),
        owners=np.array([keys.index(o) for o in owners]),
        keys=keys,
        descriptors=small,
        scales=scales,
        numbers={"cloud": np.array(dates) / 10},
    )


def cells_named(count, seed):
    rng = np.random.default_rng(seed)
    return sorted({"".join(rng.choice(list(LETTERS), 4)) for _ in range(count)})


def layers_of(folder, rows, splits=1):
    """Indexes of whole cells and of chips; rows come in several appends where asked."""
    layers = []
    for letters, part in enumerate(rows):
        index = Segments.create(folder / f"{letters}", SPACE, 4 + letters, letters=letters)
        for at in np.array_split(np.arange(len(part.keys)), splits):
            index.append(of_keys(part, at))
        layers.append(Layer(index, letters))
    return layers


def of_keys(part, at):
    chosen = np.flatnonzero(np.isin(part.owners, at))
    back = {int(a): i for i, a in enumerate(at)}
    return Rows(
        signatures=part.signatures[:, chosen], cells=part.cells[chosen], times_us=part.times_us[chosen],
        owners=np.array([back[int(o)] for o in part.owners[chosen]]), keys=[part.keys[int(a)] for a in at],
        descriptors=part.descriptors[chosen], scales=part.scales[chosen],
        numbers={n: c[chosen] for n, c in part.numbers.items()},
    )  # fmt: skip


def query_of(vector):
    small, scales = packed(vector[None])
    point = small.astype(np.float32) * scales[:, None]
    return Query(np.ascontiguousarray(signatures(HEAD, point).T), point[0], SPACE)


def plainly(rows, points, allowed=lambda date: True):
    """(cell, score) best first, by a look at every row."""
    best = defaultdict(lambda: np.full(len(points), -2.0))
    for letters, part in enumerate(rows):
        vectors = part.descriptors.astype(np.float32) * part.scales[:, None]
        for i in range(len(part)):
            if allowed(round(float(part.numbers["cloud"][i] * 10))):
                place = name_of(int(part.cells[i]), 4 + letters)
                best[place] = np.maximum(best[place], points @ vectors[i])
    scores = {}
    for cell in {place[:4] for place in best}:
        mine = np.sort(np.array([s for place, s in best.items() if place[:4] == cell]), axis=0)[::-1][:VOTES]
        scores[cell] = float((0.02 * np.log(np.exp(mine / 0.02).sum(axis=0) / VOTES)).mean())
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 99), points=st.integers(1, 3), k=st.integers(1, 50), splits=st.integers(1, 3))
def test_cells_are_ranked_as_a_look_at_every_row_ranks_them(tmp_path_factory, seed, points, k, splits) -> None:
    """Scores and order, pruned and not, in one segment or several, for one point or more; weights add up to one."""
    rows = made(cells_named(60, seed), 2, seed=seed)
    layers = layers_of(tmp_path_factory.mktemp("votes"), rows, splits)
    rng = np.random.default_rng(seed)
    looked = [query_of(rng.normal(size=WIDTH)) for _ in range(points)]
    near = np.array([q.descriptor for q in looked])
    found = elected(layers, looked[0], near, k)
    whole = elected(layers, looked[0], near, k, prune=False)
    assert [(c.geohash, c.score, c.votes) for c in found.found] == [(c.geohash, c.score, c.votes) for c in whole.found]
    assert found.count == whole.count == whole.read == len({*rows[0].cells.tolist()})
    plain = plainly(rows, near)[:k]
    np.testing.assert_allclose([c.score for c in found.found], [score for _, score in plain], atol=1e-5)
    assert [c.geohash for c in found.found] == [cell for cell, _ in plain]
    for cell in found.found:
        assert sum(v.weight for v in cell.votes) == pytest.approx(1, abs=1e-5)
        assert all(v.geohash.startswith(cell.geohash) for v in cell.votes)
        assert len(cell.votes) <= VOTES * points


def test_cells_that_cannot_be_found_are_not_read(tmp_path) -> None:
    """Where few cells are near, most are passed over; groups bound every row they hold, also with one row."""
    rows = made(cells_named(400, 5), 2, seed=5)
    layers = layers_of(tmp_path, rows)
    part = layers[1].index.parts[0].segment
    point = query_of(part.descriptors[7].astype(np.float32))
    found = elected(layers, point, point.descriptor[None], 3)
    assert found.read < found.count / 2
    for layer in layers:
        segment = layer.index.parts[0].segment
        groups = segment.groups
        scores = segment.descriptors.astype(np.float32) * segment.scales[:, None] @ point.descriptor
        highest = np.maximum.reduceat(scores, groups.starts[:-1])
        assert (groups.bounds(point.descriptor[None])[0] >= highest).all()
    lone = grouped(part.descriptors[:1], part.scales[:1], part.cells[:1], 1)
    assert lone.starts.tolist() == [0, 1]
    assert (lone.reach > 0.999).all()


def test_a_small_thing_is_found_by_votes_and_not_in_the_mean(tmp_path) -> None:
    """One chip of 32 in five cells of 200 looks like the example: votes find the five, whole cells do not."""
    rng = np.random.default_rng(3)
    cells = cells_named(200, 3)
    small = rng.normal(size=WIDTH)
    holders = set(rng.choice(cells, 5, replace=False).tolist())
    whole, chips = [], []
    for cell in cells:
        key = RasterKey("c", cell, "10m", 0).to_bytes()
        looks = rng.normal(size=WIDTH) + 0.3 * rng.normal(size=(32, WIDTH))
        if cell in holders:
            looks[rng.integers(32)] = small + 0.1 * rng.normal(size=WIDTH)
        whole.append((cell, key, 0, looks.mean(axis=0)))
        chips += [(cell + letter, key, 0, look) for letter, look in zip(LETTERS, looks, strict=True)]
    layers = layers_of(tmp_path, [as_rows(whole), as_rows(chips)])
    query = query_of(small)
    found = elected(layers, query, query.descriptor[None], 5)
    assert {c.geohash for c in found.found} == holders
    assert all(len(c.votes[0].geohash) == 5 for c in found.found)
    by_mean = elected(layers[:1], query, query.descriptor[None], 5)
    assert len({c.geohash for c in by_mean.found} & holders) < 3


def test_conditions_choose_who_votes(tmp_path) -> None:
    """A filter leaves dates out of the vote; cells left out are counted; nothing is an empty, well-formed answer."""
    rows = made(cells_named(40, 8), 3, seed=8)
    layers = layers_of(tmp_path, rows, 2)
    query = query_of(np.random.default_rng(1).normal(size=WIDTH))
    near = query.descriptor[None]
    early = Filter(numbers={"cloud": (None, 0.05)})
    found = elected(layers, query, near, 9, wanted=early)
    assert [c.geohash for c in found.found] == [c for c, _ in plainly(rows, near, lambda date: date == 0)[:9]]
    assert {RasterKey.from_bytes(v.key).time.month for c in found.found for v in c.votes} == {1}
    first = found.found[0].geohash
    without = elected(layers, query, near, 8, wanted=early, without=[first])
    assert [c.geohash for c in without.found] == [c.geohash for c in found.found[1:]]
    assert without.count == found.count
    nothing = elected(layers, query, near, 8, wanted=Filter(numbers={"cloud": (2, 3)}))
    assert (nothing.found, nothing.count, nothing.read) == ([], 0, 0)
    assert elected([], query, near, 8).found == []
    other = Query(query.signature, query.descriptor, Space("other", "0", HEAD.name, "0", BITS, WIDTH))
    with pytest.raises(NotComparable):
        elected(layers, other, near, 3)
