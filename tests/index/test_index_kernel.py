"""A head by kernel regression brings rows it has not seen to their group's code, also with fewer anchors than rows."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import Cancelled, Corrupt, InvalidInput
from geostore.index import kernel
from geostore.index.bits import unpack_signatures
from geostore.index.evaluation import average_precision
from geostore.index.kernel import enough, fit_kernel_head, kernel_from_bytes
from geostore.index.learned import learned_from_bytes
from geostore.index.signatures import linear_from_bytes, rotation, signatures
from geostore.index.views import Views
from geostore.node.search.models import head_from_bytes


def _classes(count=500, seed=0, scale=2.0):
    """((N, 32) descriptors, (N,) classes): 12 classes that differ in six directions of little spread."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(42).normal(size=(12, 32)) * (np.arange(32) < 6)
    classes = np.arange(count) % 12
    noise = rng.normal(size=(count, 32)) * np.where(np.arange(32) < 6, 0.3, scale)
    return (centres[classes] + noise).astype(np.float32), classes.astype(np.int64)


def _precision(head, database, queries):
    """Tie-aware mean average precision at 20."""
    known, asked = (unpack_signatures(signatures(head, x), head.bits) for x, _ in (database, queries))
    far = (asked[:, None] != known[None]).sum(axis=2).astype(float)
    return np.mean([average_precision(f, database[1] == c, 20) for f, c in zip(far, queries[1], strict=True)])


@pytest.mark.parametrize("bits", [32, 100, 256])
def test_it_finds_its_own_kind_among_rows_it_has_not_seen(bits):
    """Far ahead of random directions, at any width."""
    database, queries = _classes(), _classes(120, seed=1)
    head = fit_kernel_head(*database, bits)
    assert (head.bits, head.width) == (bits, 32)
    assert _precision(head, database, queries) > _precision(rotation(database[0], bits), database, queries) + 0.4


def test_fewer_anchors_than_rows_are_nearly_as_good(monkeypatch):
    """Two rows in five as anchors: what is fitted over all rows loses little."""
    database, queries = _classes(), _classes(120, seed=1)
    whole = _precision(fit_kernel_head(*database, 64), database, queries)
    monkeypatch.setattr(kernel, "ANCHORS_MAX", 400)
    monkeypatch.setattr(kernel, "ANCHORS_SAMPLED", 200)
    few = fit_kernel_head(*database, 64)
    assert len(few.anchors) == 200
    assert _precision(few, database, queries) > whole - 0.1


def test_views_are_further_rows_of_their_groups(monkeypatch):
    """Rows that vary as views of each other do are found better; without room for views they change nothing."""
    (points, classes), queries = _classes(120), _classes(120, seed=1)
    noise = np.random.default_rng(2).normal(size=(480, 32)) * (np.arange(32) >= 6) * 2
    views = Views((np.repeat(points, 4, axis=0) + noise).astype(np.float32), np.repeat(np.arange(120), 4))
    plain = fit_kernel_head(points, classes, 64)
    head = fit_kernel_head(points, classes, 64, views=views)
    assert len(head.anchors) == 120 + 480
    assert _precision(head, (points, classes), queries) > _precision(plain, (points, classes), queries) + 0.02
    monkeypatch.setattr(kernel, "ANCHORS_MAX", 120)
    assert fit_kernel_head(points, classes, 64, views=views).to_bytes() == plain.to_bytes()


def test_a_head_does_not_grow_without_end(monkeypatch):
    """More anchors leave room for fewer directions."""
    monkeypatch.setattr(kernel, "NUMBERS_MAX", 2_000)
    assert fit_kernel_head(*_classes(200), 32).turn.shape == (32, 10)


def test_roots_are_taken_of_what_is_never_negative():
    """Counts with long tails; the sign of one that is negative later stays."""
    points, classes = _classes()
    head = fit_kernel_head(np.exp(points), classes, 32)
    assert head.roots == 1
    assert fit_kernel_head(points, classes, 32).roots == 0
    assert np.isfinite(head.project(-np.exp(points))).all()


def test_it_turns_round_and_the_seed_decides():
    """Its bytes give equal signatures; the same seed equal bytes; damage is seen; every kind of head is told apart."""
    points, classes = _classes(240)
    head = fit_kernel_head(points, classes, 32, seed=3)
    again = kernel_from_bytes(head.to_bytes())
    assert (signatures(again, points) == signatures(head, points)).all()
    assert type(head_from_bytes(head.to_bytes())) is kernel.KernelHead
    assert fit_kernel_head(points, classes, 32, seed=3).to_bytes() == head.to_bytes()
    assert fit_kernel_head(points, classes, 32, seed=4).to_bytes() != head.to_bytes()
    with pytest.raises(Corrupt, match="cut short"):
        kernel_from_bytes(head.to_bytes()[:-1])
    for wrong in (linear_from_bytes, learned_from_bytes):
        with pytest.raises(Corrupt):
            wrong(head.to_bytes())
    with pytest.raises(Corrupt, match="first bytes"):
        kernel_from_bytes(rotation(points, 32).to_bytes())


def test_what_is_far_from_everything_still_has_bits():
    """A row whose likeness to every anchor is below what float32 holds gets those of its nearest ones."""
    points, classes = _classes(240)
    head = fit_kernel_head(points, classes, 64)
    made = head.project(1e3 * points[:5])
    assert np.isfinite(made).all()
    assert (made != 0).all()


def test_codes_are_half_of_the_bits_apart():
    """As long as there are orthogonal ones; beyond, all are there and differ."""
    codes = kernel._codes(40, 64, np.random.default_rng(0))
    assert (codes @ codes.T == 64 * np.eye(40)).all()
    many = kernel._codes(300, 64, np.random.default_rng(0))
    assert (np.abs(many) == 1).all()
    assert len(np.unique(many, axis=0)) == 300


def test_rows_that_vary_in_one_direction_alone_are_fitted():
    """Equal rows, and numbers that never change, divide by nothing."""
    points = np.repeat(np.arange(1, 11, dtype=np.float32)[:, None] * [[1, 0, 0]], 4, axis=0).astype(np.float32)
    head = fit_kernel_head(points, np.repeat(np.arange(10), 4), 32)
    assert np.isfinite(head.project(points)).all()


def test_what_cannot_teach_is_refused_and_fitting_can_be_stopped():
    """One group; a progress that raises ends it; a few groups are too few for this to be the better head."""
    points, classes = _classes(60)
    assert enough(classes)
    assert not enough(classes % 7)
    with pytest.raises(InvalidInput, match="at least two"):
        fit_kernel_head(points, np.zeros(60, np.int64), 32)

    def stop(what, share):
        raise Cancelled(what)

    with pytest.raises(Cancelled):
        fit_kernel_head(points, classes, 32, progress=stop)
