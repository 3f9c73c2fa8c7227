"""Rows whose cells share a beginning, summed up: a centre, and how far from it they reach at most.

So a search can tell that no row of a group is near enough, without reading one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.index.rerank import quantise

Floats = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
SLACK = 1e-5  # added to every bound: what sums of float32 may be off by
_ROWS = 1 << 18  # read at once


@dataclass(frozen=True)
class Groups:
    """Groups of the rows of one segment, in order.

    Attributes:
        starts: (G + 1,) int64, where each begins; the last is the number of rows.
        centres: (G, D) int8, directions.
        reach: (G,) float32, the least inner product of one of its rows with the centre at length 1.
    """

    starts: Ints
    centres: Int8
    reach: Floats

    def bounds(self, points: Floats) -> Floats:
        """(P, D) points of length 1 -> (P, G): no row of a group has a larger inner product with the point.

        On a sphere a row that is `a` from the centre at most is `angle(point, centre) - a` from the point at least.
        """
        units = _unit(self.centres.astype(np.float32))
        apart = np.arccos(np.clip((points @ units.T).astype(np.float64), -1, 1))
        around = np.arccos(np.clip(self.reach.astype(np.float64), -1, 1))
        return np.asarray(np.cos(np.maximum(apart - around, 0)) + SLACK, np.float32)


def grouped(descriptors: Int8, scales: Floats, cells: Ints, letters: int) -> Groups:
    """Groups of rows by ascending cells without their last `letters` letters.

    Args:
        descriptors: (N, D) int8, with scales of length 1.
        scales: (N,) float32.
        cells: (N,) int64, ascending.
        letters: 0 for rows of one cell.
    """
    beginnings = cells >> (5 * letters)
    starts = np.append(np.flatnonzero(np.diff(beginnings, prepend=-1)), len(cells)).astype(np.int64)
    count, width = len(starts) - 1, descriptors.shape[1]
    centres, reach = np.zeros((count, width), np.int8), np.ones(count, np.float32)
    for first, last in _batches(starts):
        low, high = starts[first], starts[last]
        rows = descriptors[low:high].astype(np.float32) * scales[low:high, None]
        at = starts[first:last] - low
        centres[first:last] = quantise(_unit(np.add.reduceat(rows, at, axis=0)))[0]
        units = np.repeat(_unit(centres[first:last].astype(np.float32)), np.diff(starts[first : last + 1]), axis=0)
        reach[first:last] = np.minimum.reduceat(np.einsum("nd,nd->n", rows, units), at)
    return Groups(starts, centres, reach)


def _batches(starts: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of groups of about _ROWS rows, one group at least."""
    first = 0
    while first < len(starts) - 1:
        last = max(int(np.searchsorted(starts, starts[first] + _ROWS, side="right")) - 1, first + 1)
        yield first, last
        first = last


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)
