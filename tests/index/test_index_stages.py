"""Heads make the signatures they promise, and the second stage finds what a search of all descriptors would."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import Corrupt, InvalidInput, NotComparable
from geostore.index.bits import unpack_signatures
from geostore.index.rerank import quantise, rerank, two_stage
from geostore.index.selection import of_rows
from geostore.index.signatures import BASELINES, digest, itq, linear_from_bytes, rotation, signatures


def _points(count=3000, width=96, seed=0):
    """(count, width) float32 of length 1, in clusters that fill 24 dimensions."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(60, 24))[rng.integers(0, 60, count)] + 0.4 * rng.normal(size=(count, 24))
    made = latent @ np.random.default_rng(99).normal(size=(24, width)) + 0.05 * rng.normal(size=(count, width))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", list(BASELINES))
@pytest.mark.parametrize("bits", [32, 64, 96])
def test_a_head_turns_round_and_keeps_neighbours_near(name, bits):
    """Its bytes give the same signatures; bits are about balanced; near descriptors differ in fewer."""
    points = _points(800)
    head = BASELINES[name](points, bits)
    words = signatures(head, points)
    again = linear_from_bytes(head.to_bytes())
    assert (signatures(again, points) == words).all()
    assert digest(again) == digest(head)
    made = unpack_signatures(words, bits)
    assert 0.2 < made.mean() < 0.8
    cosine = points[:300] @ points[300:].T
    far = (made[:300, None] != made[None, 300:]).sum(axis=2)
    assert np.corrcoef(cosine.ravel(), far.ravel())[0, 1] < (-0.7 if name == "rotation" else -0.25)


def test_more_bits_than_components_need_a_rotation():
    """A rotation takes further groups of directions; principal components run out and say so."""
    points = _points(width=40)
    assert rotation(points, 128).matrix.shape == (40, 128)
    with pytest.raises(InvalidInput, match="rotation head"):
        itq(points, 64)


def test_itq_lies_nearer_to_its_bits_than_the_components_do():
    """What the method is for: the rotation lowers the distance between projections and their signs."""
    points = _points()

    def loss(head):
        made = head.project(points)
        made /= np.abs(made).mean()
        return float(((made - np.sign(made)) ** 2).mean())

    assert loss(itq(points, 32)) < 0.9 * loss(BASELINES["pca-sign"](points, 32))


def test_damaged_heads_and_wrong_descriptors_are_refused():
    """Cut bytes, another width, NaN."""
    head = rotation(_points(), 64)
    with pytest.raises(Corrupt):
        linear_from_bytes(head.to_bytes()[:-3])
    with pytest.raises(NotComparable, match="96"):
        signatures(head, np.zeros((3, 5), np.float32))
    with pytest.raises(InvalidInput, match="NaN"):
        signatures(head, np.full((3, 96), np.nan, np.float32))


def test_quantised_descriptors_are_off_by_about_half_a_step_and_keep_their_length():
    """Round trip; a row's product with itself is what it was; zeros stay zeros, an infinite value is refused."""
    points = _points(200)
    points[5] = 0
    small, scales = quantise(points)
    assert (np.abs(small * scales[:, None] - points) <= scales[:, None] * 0.8).all()
    kept = ((small * scales[:, None]) * points).sum(axis=1)
    assert np.allclose(kept, (points**2).sum(axis=1), rtol=1e-5)
    assert not small[5].any()
    with pytest.raises(InvalidInput, match="not finite"):
        quantise(np.array([[np.inf]], np.float32))


def test_rounding_leaves_near_neighbours_in_their_order():
    """Rows that nearly agree, as neighbouring windows of a scene do: of the 20 nearest hardly one is another."""
    rng = np.random.default_rng(4)
    points = _points(1500, 155)
    points = points[rng.integers(0, 30, 1500)] + 0.012 * rng.normal(size=(1500, 155)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    small, scales = quantise(points)
    recall = []
    for query in points[:60]:
        wanted = np.argsort(-(points @ query), kind="stable")[:20]
        recall.append(len(set(rerank(small, scales, query, np.arange(1500), 20).rows) & set(wanted)) / 20)
    assert np.mean(recall) > 0.95
    plain = np.abs(points).max(axis=1) / 127
    others = [set(rerank(small, plain, q, np.arange(1500), 20).rows) for q in points[:60]]
    worse = [len(o & set(np.argsort(-(points @ q))[:20])) / 20 for o, q in zip(others, points[:60], strict=True)]
    assert np.mean(worse) < np.mean(recall) - 0.03


def test_reranking_is_the_order_of_inner_products():
    """Against NumPy on the same int8 values; widths that are no multiple of the lanes too."""
    for width in (5, 16, 100):
        points = _points(500, width, seed=width)
        small, scales = quantise(points)
        rows = np.sort(np.random.default_rng(0).choice(500, 100, replace=False))
        ranked = rerank(small, scales, points[7], rows, 10)
        wanted = (small[rows].astype(np.float32) * scales[rows, None]) @ points[7]
        assert np.allclose(ranked.scores, np.sort(wanted)[::-1][:10], atol=1e-3)
        assert (np.diff(ranked.scores) <= 0).all()


def test_two_stages_find_what_one_search_of_all_descriptors_finds():
    """Recall at 20 against the exact float order, over all rows and over chosen ones only; every row is chosen."""
    points = _points(20_000, 128)
    head = rotation(points, 128)
    words, (small, scales) = signatures(head, points), quantise(points)
    chosen = np.flatnonzero(np.random.default_rng(1).random(20_000) < 0.1)
    for selection, rows in ((None, np.arange(20_000)), (of_rows(20_000, chosen), chosen)):
        recall = []
        for query in points[:40]:
            signature = np.ascontiguousarray(signatures(head, query[None])[:, 0])
            found = two_stage(words, small, scales, signature, query, 20, candidates=1000, selection=selection)
            wanted = rows[np.argsort(-(points[rows] @ query), kind="stable")[:20]]
            recall.append(len(set(found.rows) & set(wanted)) / 20)
            assert set(found.rows) <= set(rows.tolist())
        assert np.mean(recall) > 0.95
