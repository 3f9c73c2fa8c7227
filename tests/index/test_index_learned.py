"""A learned head brings together what belongs together, better than baselines do; ties in rankings count right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.errors import Cancelled, Corrupt, InvalidInput
from geostore.index.bits import unpack_signatures
from geostore.index.evaluation import average_precision
from geostore.index.learned import learned_from_bytes, train_head
from geostore.index.signatures import rotation, signatures


def _classes(count=600, seed=0):
    """((N, 48) descriptors, (N,) classes): 12 classes that differ in few of many noisy directions."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(42).normal(size=(12, 48)) * (np.arange(48) < 8)
    classes = rng.integers(0, 12, count)
    noise = rng.normal(size=(count, 48)) * np.where(np.arange(48) < 8, 0.5, 2.0)
    return (centres[classes] * 1.5 + noise).astype(np.float32), classes.astype(np.int64)


def _precision(head, database, queries):
    """Tie-aware mean average precision at 20."""
    known, asked = (unpack_signatures(signatures(head, x), head.bits) for x, _ in (database, queries))
    far = (asked[:, None] != known[None]).sum(axis=2).astype(float)
    return np.mean([average_precision(f, database[1] == c, 20) for f, c in zip(far, queries[1], strict=True)])


@pytest.fixture(scope="module")
def head():
    """A head trained for a second."""
    torch.set_num_threads(1)
    return train_head(*_classes(), 64, hidden=64, steps=80)


def test_it_learns_what_belongs_together(head):
    """On rows it has not seen it ranks the same class far better than random directions do."""
    database, queries = _classes(400, seed=1), _classes(60, seed=2)
    assert _precision(head, database, queries) > _precision(rotation(database[0], 64), database, queries) + 0.2


def test_bits_are_balanced_each_by_itself(head):
    """No bit is the same for nearly every row, and hardly any two are the same."""
    bits = unpack_signatures(signatures(head, _classes(500, seed=3)[0]), 64)
    assert (np.abs(bits.mean(axis=0) - 0.5) < 0.4).all()
    signs = 2.0 * bits - 1
    assert np.abs((signs.T @ signs / 500)[~np.eye(64, dtype=bool)]).mean() < 0.5


def test_a_head_turns_round_and_the_seed_decides(head):
    """Its bytes give the same signatures; the same seed trains the same head; damage is seen."""
    points = _classes(50, seed=4)[0]
    again = learned_from_bytes(head.to_bytes())
    assert (signatures(again, points) == signatures(head, points)).all()
    first, second = (train_head(*_classes(), 32, hidden=16, steps=3, seed=5) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    with pytest.raises(Corrupt):
        learned_from_bytes(head.to_bytes()[:-1])


def test_what_cannot_teach_is_refused_and_training_can_be_stopped():
    """One group, lengths that differ; a progress that raises ends it."""
    points, classes = _classes(50)
    with pytest.raises(InvalidInput, match="at least two"):
        train_head(points, np.zeros(50, np.int64), 32)
    with pytest.raises(InvalidInput, match="a group each"):
        train_head(points, classes[:9], 32)

    def stop(what, share):
        raise Cancelled(what)

    with pytest.raises(Cancelled):
        train_head(points, classes, 32, progress=stop)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.integers(1, 7))
def test_ties_count_as_the_mean_over_all_their_orders(rows, k):
    """Property, against every permutation: the plain average precision of each order that distances allow, averaged."""
    distances, relevant = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    orders = [o for o in itertools.permutations(range(len(rows))) if (np.diff(distances[list(o)]) >= 0).all()]
    wanted = np.mean([_plain(relevant[list(o)], k) for o in orders])
    assert average_precision(distances, relevant, k) == pytest.approx(wanted)


def _plain(relevant, k):
    best, hits, total = min(int(relevant.sum()), k), 0, 0.0
    for place, is_relevant in enumerate(relevant[:k], 1):
        hits += is_relevant
        total += hits / place if is_relevant else 0
    return total / best if best else 0.0


def test_shapes_of_rankings_are_checked():
    """Lengths that differ are refused."""
    with pytest.raises(InvalidInput):
        average_precision(np.zeros(3), np.zeros(4, bool), 5)
