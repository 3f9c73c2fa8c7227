"""What is known when a bit is to be guessed: what lies around it, in components and dates before, between references.

References:
    Taubman (2000), "High performance scalable image compression with EBCOT": significance from neighbours. Deviations:
    many contexts at once, their guesses mixed (`geostore.dct.mixing`); dates and components before are among them, and
    how far references of a value lie apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from geostore.dct.blocks import CLASSES
from geostore.dct.learnt import Learnt

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_EDGES = (1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 46, 64, 91, 128, 182)  # of sums of magnitudes, in 1/16
BUCKETS = np.searchsorted(np.array(_EDGES), np.arange(256), side="right").astype(np.int64)


class Spot(NamedTuple):
    """A block's class, and what the date is.

    Attributes:
        k, y, x: component, row and column of the block.
        kind: class of frequencies.
        level: of the date's place in the order.
        dense: what the component had so far beside what it mostly has, in 1/16.
    """

    k: int
    y: int
    x: int
    kind: int
    level: int
    dense: int


class Hints(NamedTuple):
    """What references say of a block's class.

    Attributes:
        near: (R, N) values of the class in each, whole numbers.
        expected: (N,) what they are weighed to.
        apart: (N,) how far references lie apart around each value, see `spreads`.
        step: of the quantiser.
    """

    near: Floats
    expected: Longs
    apart: Ints
    step: int


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def bucket(value: int, buckets: Longs) -> int:
    """The level of an amount in 1/16."""
    found: int = buckets[min(value, 255)]
    return found


def spreads(seen: Floats, scan: Longs, side: tuple[int, int]) -> Ints:
    """Eight times how far (R, K, blocks, N) references lie from their mean, (K, blocks, N); 0 where R is below 2.

    Smoothed over 3 x 3 frequencies of blocks of that `side`, which are in the order of (N, 3) `scan`. Whole numbers in
    float64, whose quotients are rounded to below the next whole number.
    """
    out = np.zeros(seen.shape[1:], np.int32)
    if len(seen) > 1:
        _spreads(seen, scan, np.empty(side), out)
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _spreads(seen: Floats, scan: Longs, plane: Doubles, out: Ints) -> None:
    parts, blocks, length = out.shape
    far = np.empty(length)
    for k in range(parts):
        for b in range(blocks):
            _distances(seen[:, k, b], far)
            for n in range(length):
                plane[scan[n, 0], scan[n, 1]] = far[n]
            _smooth(plane)
            to = out[k, b]
            for n in range(length):
                to[n] = np.int32(plane[scan[n, 0], scan[n, 1]])


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _distances(seen: Floats, far: Doubles) -> None:
    """(R, N) -> (N,) eight times the mean distance from the mean."""
    count, length = seen.shape
    mean = np.zeros(length)
    far[:] = 0.0
    for r in range(count):
        line = seen[r]
        for n in range(length):
            mean[n] += line[n]
    for n in range(length):
        mean[n] = np.floor(mean[n] / count)
    for r in range(count):
        line = seen[r]
        for n in range(length):
            far[n] += abs(line[n] - mean[n])
    for n in range(length):
        far[n] = np.floor(8 * far[n] / count)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _smooth(plane: Doubles) -> None:
    """Means over 3 x 3, edges repeated, in their place."""
    height, width = plane.shape
    above, here, three = plane[0].copy(), np.empty(width), np.empty(width + 2)
    for u in range(height):
        own, below = plane[u], plane[min(u + 1, height - 1)]
        for v in range(width):
            here[v] = own[v]
            three[v + 1] = above[v] + own[v] + below[v]
        three[0], three[width + 1] = three[1], three[width]
        for v in range(width):
            own[v] = np.floor((three[v] + three[v + 1] + three[v + 2]) / 9)
        above[:] = here


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def spread_of(hints: Hints, n: int, buckets: Longs) -> int:
    """The level of how far references of a value lie from what is expected."""
    total, count = 0, hints.near.shape[0]
    for r in range(count):
        total += abs(np.int64(hints.near[r, n]) - hints.expected[n])
    return bucket(16 * total // (hints.step * max(count, 1)), buckets)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _at(plane: Longs, u: int, v: int) -> int:
    return abs(plane[u, v]) if u >= 0 and v >= 0 else 0


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _around(whole: Longs, spot: Spot, u: int, v: int) -> tuple[int, int]:
    """Magnitudes near (u, v) in the block, and near it in blocks beside, in 1/16 and weighed."""
    k, y, x, _, _, _ = spot
    own, rows, columns = whole[k, y, x], whole.shape[1], whole.shape[2]
    within = 16 * (_at(own, u - 1, v) + _at(own, u, v - 1)) + 10 * _at(own, u - 1, v - 1)
    within += 6 * (_at(own, u - 2, v) + _at(own, u, v - 2))
    beside = 0
    if x > 0:
        beside += 13 * abs(whole[k, y, x - 1, u, v])
    if y > 0:
        beside += 13 * abs(whole[k, y - 1, x, u, v])
        if x > 0:
            beside += 6 * abs(whole[k, y - 1, x - 1, u, v])
        if x + 1 < columns:
            beside += 6 * abs(whole[k, y - 1, x + 1, u, v])
    if x + 1 < columns:
        beside += 5 * (_at(whole[k, y, x + 1], u - 1, v) + _at(whole[k, y, x + 1], u, v - 1))
    if y + 1 < rows:
        beside += 5 * (_at(whole[k, y + 1, x], u - 1, v) + _at(whole[k, y + 1, x], u, v - 1))
    return within, beside


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def value_contexts(
    out: Longs, whole: Longs, spot: Spot, hints: Hints, n: int, u: int, v: int, learnt: Learnt, buckets: Longs
) -> tuple[int, int]:
    """Fill `out` with the contexts of value n of a class not to be 0; the levels of what lies around, of its spread."""
    k, y, x, kind, _, _ = spot
    within, beside = _around(whole, spot, u, v)
    others = 0
    for j in range(k):
        others += abs(whole[j, y, x, u, v]) * (2 if j == k - 1 else 1)
    active = learnt.active[k, y, x]
    near = (active[u - 1, v] if u > 0 else 0) + (active[u, v - 1] if v > 0 else 0)
    c, part = min(kind, 7), min(k, 3)
    around, wide = bucket((within + beside) >> 1, buckets), spread_of(hints, n, buckets)
    usual, large = bucket(active[u, v] >> 3, buckets), bucket(8 * abs(hints.expected[n]) // hints.step, buckets)
    out[0] = (min(others, 6) * 16 + wide) * 4 + part
    out[1] = (bucket(within, buckets) * 16 + bucket(beside, buckets)) * 4 + min(c, 3)
    out[2] = (usual * 16 + bucket(near >> 4, buckets)) * 4 + part
    out[3] = (min(u, 63) * 64 + min(v, 63)) * 4 + part
    out[4] = (min(others, 6) * 16 + around) * 4 + part
    out[5] = (wide * 16 + around) * 4 + part
    out[6] = (wide * 16 + large) * 8 + c
    out[7] = (wide * 16 + usual) * 4 + part
    out[8] = (bucket(2 * hints.apart[n] // hints.step, buckets) * 16 + around) * 4 + part
    out[9] = ((bucket(spot.dense, buckets) * 8 + c) * 4 + part) * 6 + min(spot.level, 5)
    return around, wide


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def flag_contexts(out: Longs, sums: Longs, spot: Spot, hints: Hints, learnt: Learnt, buckets: Longs) -> None:
    """Fill `out` with the contexts of a block to have anything in a class; (K, rows, columns, CLASSES) sums so far."""
    k, y, x, kind, level, dense = spot
    columns = sums.shape[2]
    lower = sums[k, y, x, kind - 1] * 2 + (sums[k, y, x, kind - 2] if kind > 1 else 0)
    beside = 0
    if x > 0:
        beside += 2 * sums[k, y, x - 1, kind]
    if y > 0:
        beside += 2 * sums[k, y - 1, x, kind] + (sums[k, y - 1, x + 1, kind] if x + 1 < columns else 0)
    others, apart = 0, 0
    for j in range(k):
        others += sums[j, y, x, kind] * (2 if j == k - 1 else 1)
    for n in range(len(hints.apart)):
        apart += hints.apart[n]
    wide = bucket(4 * apart // (hints.step * len(hints.apart)), buckets)
    usual = bucket(learnt.busy[k, y, x, kind] >> 5, buckets)
    part, low, near = min(k, 3), bucket(4 * lower, buckets), bucket(4 * beside, buckets)
    out[0] = (low * CLASSES + kind) * 4 + part
    out[1] = (near * CLASSES + kind) * 4 + part
    out[2] = (bucket(4 * others, buckets) * CLASSES + kind) * 4 + part
    out[3] = (usual * CLASSES + kind) * 4 + part
    out[4] = ((bucket(dense, buckets) * CLASSES + kind) * 4 + part) * 6 + min(level, 5)
    out[5] = (low * 16 + near) * 16 + usual
    out[6] = ((wide * CLASSES + kind) * 4 + part) * 4 + min(low >> 2, 3)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def size_contexts(out: Longs, known: int, around: int, wide: int, spot: Spot) -> int:
    """Fill `out` with the contexts of a magnitude to be more than `known`; the set of weights to mix by."""
    at, c, part = min(known, 4), min(spot.kind, 7), min(spot.k, 3)
    out[0] = (at * 16 + around) * 4 + part
    out[1] = (at * 8 + c) * 4 + part
    out[2] = (at * 16 + around) * 8 + c
    out[3] = (at * 16 + wide) * 4 + part
    return at


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def sign_contexts(out: Longs, whole: Longs, spot: Spot, hints: Hints, n: int, u: int, v: int) -> None:
    """Fill `out` with the contexts of value n of a class to be above 0: components before, references, neighbours."""
    k, y, x, kind, _, _ = spot
    own, part, near, expected = whole[k, y, x], min(k, 3), hints.near, hints.expected[n]
    before, sides, low = 0, 0, hints.step >> 2
    for j in range(1, 4):
        before = before * 3 + (_sign(whole[k - j, y, x, u, v], 0) if k >= j else 1)
    for r in range(3):
        sides = sides * 3 + (_sign(np.int64(near[r, n]) - expected, low) if near.shape[0] > r else 1)
    left, above = _sign(own[u, v - 1], 0) if v > 0 else 1, _sign(own[u - 1, v], 0) if u > 0 else 1
    west = _sign(whole[k, y, x - 1, u, v], 0) if x > 0 else 1
    north = _sign(whole[k, y - 1, x, u, v], 0) if y > 0 else 1
    first = 0 if u and v else 1 if u else 2 if v else 3
    out[0] = before * 4 + part
    out[1] = (before * 4 + part) * CLASSES + kind
    out[2] = (sides * 4 + part) * CLASSES + kind
    out[3] = ((left * 3 + above) * 4 + first) * CLASSES + kind
    out[4] = ((((west * 3 + north) * 2 + (u & 1)) * 2 + (v & 1)) * 4 + first) * 3 + _sign(expected, low)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _sign(value: int, low: int) -> int:
    """0 below -low, 2 above low, 1 between."""
    return 2 if value > low else 0 if value < -low else 1
