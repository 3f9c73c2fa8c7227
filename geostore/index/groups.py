"""Rows whose cells share a beginning, summed up by balls: some centres, and how far rows reach from that they are in.

So a search can tell that no row of a group is near enough, without reading one. A cell holds several kinds of ground;
one ball around all of it would be wide and rule out little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.index.encoders import unit
from geostore.index.rerank import quantise

Floats = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int64]
BALLS = 8  # of a group of several cells; of one cell there is one
SLACK = 1e-5  # added to every bound: what sums of float32 may be off by
_ROWS = 1 << 18  # read at once


@dataclass(frozen=True)
class Groups:
    """Groups of the rows of one segment, in order.

    Attributes:
        starts: (G + 1,) int64, where each begins; the last is the number of rows.
        centres: (G, balls, D) int8, directions.
        reach: (G, balls) float32, the least inner product of one of a ball's rows with its centre at length 1; 1 of a
            ball without rows.
    """

    starts: Ints
    centres: Int8
    reach: Floats

    def bounds(self, points: Floats) -> Floats:
        """(P, D) points of length 1 -> (P, G): no row of a group has a larger inner product with the point.

        On a sphere a row that is `a` from the centre at most is `angle(point, centre) - a` from the point at least.
        """
        best = np.full((len(points), len(self.centres)), -1.0, np.float32)
        for ball in range(self.centres.shape[1]):
            units = unit(self.centres[:, ball].astype(np.float32))
            apart = np.arccos(np.clip((points @ units.T).astype(np.float64), -1, 1))
            around = np.arccos(np.clip(self.reach[:, ball].astype(np.float64), -1, 1))
            bounds = np.cos(np.maximum(apart - around, 0)) + SLACK
            best = np.maximum(best, bounds.astype(np.float32))
        return best


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
    count, balls = len(starts) - 1, BALLS if letters else 1
    centres = np.zeros((count, balls, descriptors.shape[1]), np.int8)
    reach = np.ones((count, balls), np.float32)
    for first, last in _batches(starts):
        low, high = starts[first], starts[last]
        rows = descriptors[low:high].astype(np.float32) * scales[low:high, None]
        _balls(rows, starts[first : last + 1] - low, centres[first:last], reach[first:last])
    return Groups(starts, centres, reach)


def _balls(rows: Floats, starts: Ints, centres: Int8, reach: Floats) -> None:
    """Fill in the balls of whole groups of rows.

    References:
        Gonzalez 1985, "Clustering to minimize the maximum intercluster distance": each seed is the row farthest from
        those before it, the first is the one nearest the middle. Centres then are the means of what is nearest a seed.
    """
    owner = np.repeat(np.arange(len(centres)), np.diff(starts))
    middle = unit(np.add.reduceat(rows, starts[:-1], axis=0))
    farthest = -_products(rows, middle[owner])
    nearest, ball = np.full(len(rows), -2.0, np.float32), np.zeros(len(rows), np.int64)
    for number in range(centres.shape[1]):
        seeds = _lowest(farthest, starts)
        near = _products(rows, rows[seeds][owner])
        ball[near > nearest] = number
        farthest = nearest = np.maximum(near, nearest)
    slot = owner * centres.shape[1] + ball
    order = np.argsort(slot, kind="stable")
    at = np.flatnonzero(np.diff(slot[order], prepend=-1))
    used = slot[order][at]
    flat, least = centres.reshape(-1, centres.shape[2]), reach.reshape(-1)
    flat[used] = quantise(unit(np.add.reduceat(rows[order], at, axis=0)))[0]
    units = unit(flat.astype(np.float32))
    least[used] = np.minimum.reduceat(_products(rows[order], units[slot[order]]), at)


def _lowest(values: Floats, starts: Ints) -> Ints:
    """Of each group the position of its lowest value."""
    order = np.lexsort((values, np.repeat(np.arange(len(starts) - 1), np.diff(starts))))
    return order[starts[:-1]].astype(np.int64)


def _products(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("nd,nd->n", a, b), np.float32)


def _batches(starts: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of groups of about _ROWS rows, one group at least."""
    first = 0
    while first < len(starts) - 1:
        last = max(int(np.searchsorted(starts, starts[first] + _ROWS, side="right")) - 1, first + 1)
        yield first, last
        first = last
