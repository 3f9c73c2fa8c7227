"""How good a ranking is, when many rows are equally far: average precision expected over every order of ties."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput

Bools = npt.NDArray[np.bool_]


def average_precision(distances: npt.NDArray[np.float64], relevant: Bools, k: int) -> float:
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
    if distances.shape != relevant.shape or distances.ndim != 1 or k < 1:
        raise InvalidInput(
            f"distances {distances.shape}, relevant {relevant.shape}, k {k}; give equal lengths and k >= 1"
        )
    best = min(int(relevant.sum()), k)
    if best == 0:
        return 0.0
    total, before, seen = 0.0, 0, 0
    order = np.argsort(distances, kind="stable")
    for tie in np.split(order, np.flatnonzero(np.diff(distances[order])) + 1):
        if before >= k:
            break
        size, hits = len(tie), int(relevant[tie].sum())
        places = np.arange(1, min(size, k - before) + 1)
        others = (places - 1) * (hits - 1) / (size - 1) if size > 1 else np.zeros(1)
        total += float((hits / size * (seen + 1 + others) / (before + places)).sum())
        before += size
        seen += hits
    return total / best
