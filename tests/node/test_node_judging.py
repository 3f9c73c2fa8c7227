"""Whether labels are enough: counted, held against what has none, and judged on places that were held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from geostore.index.kernel import fit_kernel_head
from geostore.index.signatures import Head, rotation
from geostore.node.search import judging
from geostore.node.search.judging import judge, obeyed
from geostore.node.search.sampling import LABELS, UNLABELLED, Bools, Described, Floats, samples

KINDS, PLACES = 10, 60  # of land; places of each


@dataclass(frozen=True)
class Made(Described):
    """Rows whose descriptors are at hand."""

    vectors: Floats | None = None

    def points(self, chosen: np.ndarray) -> Floats:
        assert self.vectors is not None
        return self.vectors[chosen]


def land(labelled: np.ndarray, *, shuffled: bool = False) -> Made:
    """One raster a place; kinds lie apart in a few of many directions; `labelled` says which rasters have theirs."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(KINDS), PLACES)
    vectors = rng.normal(0, 1, (len(kinds), 40)) * np.r_[np.full(8, 0.35), np.full(32, 1.0)]
    vectors[:, :8] += rng.normal(0, 1, (KINDS, 8))[kinds]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    named = rng.permutation(kinds) if shuffled else kinds
    sets = np.where(labelled, named, -1)
    places = np.arange(len(kinds))
    cells, whole = np.stack([places, np.full(len(kinds), 5)], axis=1), np.ones(len(kinds), np.bool_)
    rasters = np.bincount(sets[sets >= 0], minlength=KINDS)
    return Made((), cells, places, sets, whole, rasters, vectors=vectors.astype(np.float32))


def trainer(rows: Made) -> judging.Train:
    """Kernel regression by labels, a rotation without."""

    def train(by: str, among: Bools | None) -> Head:
        chosen, groups, _ = samples(rows, by, seed=0, among=among)
        points = rows.points(chosen)
        return fit_kernel_head(points, groups, 64) if by == LABELS else rotation(points, 64)

    return train


def of_each(count: int, kinds: int = KINDS) -> np.ndarray:
    """The first `count` places of the first kinds."""
    return np.array([[kind < kinds and n < count for n in range(PLACES)] for kind in range(KINDS)]).ravel()


def test_labels_of_many_places_of_every_kind_are_used() -> None:
    """Forty places of each of ten kinds: they stand for the rest, and find more on places held out."""
    rows = land(of_each(40))
    found = judge(rows, trainer(rows), seed=0)
    assert found is not None
    assert found.used, found
    assert (found.sets, found.places) == (KINDS, KINDS * 40)
    assert found.by_labels is not None
    assert found.without is not None
    assert found.by_labels > found.without + 0.1
    assert "right by labels" in found.to_dict()["why"]


@pytest.mark.parametrize(
    ("labelled", "shuffled", "why"),
    [
        (of_each(31), False, "0 of 10 sets of labels have 32 places or more, 2 have to"),
        (of_each(60, 1), False, "1 of 10 sets of labels"),
        (of_each(60, 3), False, "are like those with labels"),
        (of_each(60), True, "right by labels"),
    ],
)
def test_labels_that_would_harm_are_left_out(labelled: np.ndarray, shuffled: bool, why: str) -> None:
    """Too few places, a single kind, three kinds of ten, labels that say nothing: left out, and why is said."""
    rows = land(labelled, shuffled=shuffled)
    found = judge(rows, trainer(rows), seed=0)
    assert found is not None
    assert not found.used
    assert why in found.why


def test_who_asks_is_obeyed_unless_there_is_nothing_to_learn_from() -> None:
    """Labels of two rasters of two kinds are taken; of one kind, as where only other bands have more, they are not."""
    assert obeyed(land(of_each(2, 2)), LABELS) == judging.Verdict(used=True, asked=True, why="asked for")
    assert obeyed(land(of_each(2, 2)), UNLABELLED) == judging.Verdict(used=False, asked=True, why="asked for")
    found = obeyed(land(of_each(2, 1)), LABELS)
    assert (found.used, found.why) == (False, "fewer than 2 sets of them have two rasters here")


def test_without_labels_there_is_no_verdict() -> None:
    """Nothing labelled, nothing to judge."""
    rows = land(of_each(0))
    assert (
        judge(
            Made(*(getattr(rows, n) for n in ("parts", "cells", "places", "sets", "whole")), np.zeros(0, np.int64)),
            trainer(rows),
            seed=0,
        )
        is None
    )
