"""How good a ranking is, when many rows may be equally far: figures expected over every order of ties.

All take the `k` nearest rows of one query into account. `lenient_precision` is the odd one out: published figures are
made with it, so it is here to be printed beside the others and never instead of them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput

Bools = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.floating] | npt.NDArray[np.integer]


def average_precision(distances: Distances, relevant: Bools, k: int) -> float:
    """Average precision among the k nearest, expected over random orders of rows at equal distance; 0..1.

    Divided by the relevant rows there could be among k, so that relevant rows that are not found count against it.

    Args:
        distances: (N,) from the query; smaller is nearer.
        relevant: (N,) bool.
        k: how far down the ranking counts.

    Raises:
        InvalidInput: shapes differ, or k is not positive.

    References:
        McSherry, Najork 2008, "Computing information retrieval performance measures efficiently in the presence of tied
        scores".
    """
    best = min(_relevant_count(distances, relevant, k), k)
    if best == 0:
        return 0.0
    total, before, seen = 0.0, 0, 0
    for size, hits in _ties(distances, relevant, k):
        places = np.arange(1, min(size, k - before) + 1)
        others = (places - 1) * (hits - 1) / (size - 1) if size > 1 else np.zeros(1)
        total += float((hits / size * (seen + 1 + others) / (before + places)).sum())
        before += size
        seen += hits
    return total / best


def strict_precision(distances: Distances, relevant: Bools, k: int) -> float:
    """Average precision among the k nearest with every tie in its worst order, relevant rows last; 0..1.

    What a user is sure to get, whatever settles the ties. Raises as `average_precision` does.
    """
    best = min(_relevant_count(distances, relevant, k), k)
    if best == 0:
        return 0.0
    return _of_order(relevant[np.lexsort((relevant, distances))[:k]]) / best


def lenient_precision(distances: Distances, relevant: Bools, k: int) -> float:
    """Average precision among the k nearest as MiLaN's published code counts it; 0..1.

    Ties are in the order of the rows, and the sum is divided by the relevant rows *found*: a ranking that finds one of
    twenty, at the first place, is called perfect. Raises as `average_precision` does.
    """
    _relevant_count(distances, relevant, k)
    kept = relevant[np.argsort(distances, kind="stable")[:k]]
    return _of_order(kept) / max(int(kept.sum()), 1)


def hits_expected(distances: Distances, relevant: Bools, k: int) -> float:
    """Relevant rows among the k nearest, expected over random orders of ties; raises as `average_precision` does.

    Over k it is the precision at k, over all relevant rows the recall.
    """
    _relevant_count(distances, relevant, k)
    found, before = 0.0, 0
    for size, hits in _ties(distances, relevant, k):
        found += hits * min(size, k - before) / size
        before += size
    return found


def _relevant_count(distances: Distances, relevant: Bools, k: int) -> int:
    if distances.shape != relevant.shape or distances.ndim != 1 or k < 1:
        raise InvalidInput(
            f"distances {distances.shape}, relevant {relevant.shape}, k {k}; give equal lengths and k >= 1"
        )
    return int(relevant.sum())


def _ties(distances: Distances, relevant: Bools, k: int) -> list[tuple[int, int]]:
    """(rows, relevant rows) of each set of equal distances that reaches into the k nearest, nearest first."""
    if k < len(distances):
        near = distances <= np.partition(distances, k - 1)[k - 1]
        distances, relevant = distances[near], relevant[near]
    _, which = np.unique(distances, return_inverse=True)
    sizes = np.bincount(which)
    hits = np.bincount(which, weights=relevant, minlength=len(sizes))
    return [(int(s), int(h)) for s, h in zip(sizes, hits, strict=True)]


def _of_order(relevant: Bools) -> float:
    """Sum over relevant places of the precision there."""
    places = np.flatnonzero(relevant) + 1
    return float((np.arange(1, len(places) + 1) / places).sum())
