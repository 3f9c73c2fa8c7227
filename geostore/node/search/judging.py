"""Whether labels make better signatures than what belongs together without them, by places that were held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from geostore.index.bits import unpack_signatures
from geostore.index.evaluation import hits_expected
from geostore.index.signatures import Head, signatures
from geostore.node.search.sampling import LABELS, UNLABELLED, Bools, Described, Floats, Ints

SETS_MIN, PLACES_MIN = 2, 32  # sets of labels, and places that have each, from which labels are tried
COVERED_MIN = 0.85  # share of the rasters that must be like those with labels
HELD_OUT = 3  # one of so many places is
K = 5  # nearest that count
_QUESTIONS, _KNOWN = 500, 20_000  # rows that ask, and rows that may be found
Train = Callable[[str, Bools | None], Head]  # (by, rows that may be learned from; None for all)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a head is learned from labels.

    Attributes:
        used: True if it is.
        asked: True if whoever asked for the head said so.
        why: in words, for whoever labelled.
        sets: sets of labels that PLACES_MIN places or more have.
        places: places that have one of these.
        covered: share of the rasters that have such labels, or are as like to one that has as these are to each other;
            None if it was not looked at.
        by_labels, without: share of the K nearest that have the labels of the raster asked for, by heads of both kinds,
            among places that neither head knew the labels of; None if they were not made.
    """

    used: bool
    asked: bool = False
    why: str
    sets: int = 0
    places: int = 0
    covered: float | None = None
    by_labels: float | None = None
    without: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def obeyed(rows: Described, by: str) -> Verdict:
    """The verdict where somebody asked for LABELS or UNLABELLED: these, unless there is nothing to learn from."""
    if by == LABELS and len(np.unique(rows.shared[rows.shared >= 0])) < SETS_MIN:
        return Verdict(used=False, asked=True, why=f"fewer than {SETS_MIN} sets of them have two rasters here")
    return Verdict(used=by == LABELS, asked=True, why="asked for")


def judge(rows: Described, train: Train, *, seed: int) -> Verdict | None:
    """Whether a head is to be learned from the labels of these rows; None where there are none.

    Labels are tried where there are enough of them, and they stand for what is stored: a head that learned a few kinds
    of land puts all others into their bits. Then two heads are trained, one by the labels of two thirds of the places,
    one without labels, and what they find on the places left out decides.
    """
    counts = _places_with(rows)
    if not len(counts):
        return None
    counted = np.flatnonzero(counts >= PLACES_MIN)
    found = Verdict(used=False, why="", sets=len(counted), places=int(counts[counted].sum()))
    if len(counted) < SETS_MIN:
        why = f"{len(counted)} of {len(counts)} sets of labels have {PLACES_MIN} places or more, {SETS_MIN} have to"
        return replace(found, why=why)
    mine = rows.whole & np.isin(rows.sets, counted)
    found = replace(found, covered=round(_covered(rows, mine, seed), 3))
    assert found.covered is not None
    if found.covered < COVERED_MIN:
        why = f"{found.covered:.0%} of the rasters are like those with labels, wanted {COVERED_MIN:.0%}"
        return replace(found, why=why)
    rng = np.random.default_rng(seed)
    held = np.isin(rows.places, rng.permutation(np.unique(rows.places[mine]))[::HELD_OUT])
    shares = [_found_with(head, rows, mine & held, seed) for head in (train(LABELS, ~held), train(UNLABELLED, None))]
    return _decided(found, shares[0], shares[1])


def _decided(found: Verdict, by_labels: Floats, without: Floats) -> Verdict:
    """By (Q,) shares that were found: labels win where they find more by twice the standard error."""
    gain = by_labels - without
    used = gain.mean() > 2 * gain.std() / np.sqrt(len(gain))
    found = replace(found, used=bool(used), by_labels=_mean(by_labels), without=_mean(without))
    why = f"of {K} found for places held out {found.by_labels:.0%} are right by labels, {found.without:.0%} without"
    return replace(found, why=why)


def _mean(shares: Floats) -> float:
    return round(float(shares.mean()), 4)


def _places_with(rows: Described) -> Ints:
    """(S,) how many places have rasters with each set of labels."""
    chosen = rows.whole & (rows.sets >= 0)
    pairs = np.unique(np.stack([rows.sets[chosen], rows.places[chosen]]), axis=1)
    return np.bincount(pairs[0], minlength=len(rows.rasters))


def _covered(rows: Described, mine: Bools, seed: int) -> float:
    """Share of all rasters that have one of these labels, or lie as near to one that has as half of these do.

    Nearest of other places: dates of one place are near each other whatever they show. Of the rasters without, drawn
    from the same as those with, half would lie so near, so their share counts double.
    """
    rng = np.random.default_rng(seed)
    known, asking = _some(mine, _KNOWN, rng), _some(mine, _QUESTIONS, rng)
    others = _some(rows.whole & ~mine, _QUESTIONS, rng)
    if not len(others):
        return 1.0
    near, far = (_nearest(rows, chosen, known) for chosen in (asking, others))
    labelled = mine.sum() / rows.whole.sum()
    return float(labelled + (1 - labelled) * min(1.0, 2 * (far >= np.median(near)).mean()))


def _nearest(rows: Described, asking: Ints, known: Ints) -> Floats:
    """(Q,) cosine of each row with the nearest of another place; -1 where there is none."""
    likeness = rows.points(asking) @ rows.points(known).T
    likeness[rows.places[asking][:, None] == rows.places[known]] = -1
    return np.asarray(likeness.max(axis=1, initial=-1), np.float32)


def _found_with(head: Head, rows: Described, held: Bools, seed: int) -> Floats:
    """(Q,) shares of the K nearest of other held-out places that have the labels of the one that asks."""
    rng = np.random.default_rng(seed)
    asking, known = _some(held, _QUESTIONS, rng), _some(held, _KNOWN, rng)
    questions, there = (_signs(head, rows.points(chosen)) for chosen in (asking, known))
    shares = []
    for question, row in zip(questions, asking, strict=True):
        others = rows.places[known] != rows.places[row]
        right = rows.sets[known[others]] == rows.sets[row]
        shares.append(hits_expected(-(there[others] @ question), right, K) / K)
    return np.array(shares, np.float32)


def _signs(head: Head, points: Floats) -> Floats:
    """(N, bits) of +1 and -1, whose products order as distances of signatures do."""
    return np.where(unpack_signatures(signatures(head, points), head.bits), 1, -1).astype(np.float32)


def _some(chosen: Bools, most: int, rng: np.random.Generator) -> Ints:
    """Numbers of chosen rows, `most` of them at most, ascending."""
    found = np.flatnonzero(chosen)
    return np.sort(rng.choice(found, most, replace=False)) if len(found) > most else found
