"""What is known when a bit is to be guessed: what lies around it, in components and dates before, between references.

References:
    Taubman (2000), "High performance scalable image compression with EBCOT": significance from neighbours. Deviations:
    many contexts at once, their guesses mixed (`geostore.dct.mixing`); dates and components before are among them, and
    how far references of a value lie apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.dct.blocks import CLASSES
from geostore.dct.learnt import ZERO, Learnt

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.uint32]
_NINTH = 1.0 / 9.0
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
        near: (R, ...) values of the class in each, the first N, whole numbers.
        expected: (N,) what they are weighed to.
        apart: (N,) how far references lie apart around each value, see `spreads`.
        step: of the quantiser.
    """

    near: Floats
    expected: Longs
    apart: Ints
    step: int


class Ahead(NamedTuple):
    """What is known of the values of a block's class before the first of them.

    Attributes:
        zeros: (N, ZERO) contexts of values not to be 0, but for what lies around each within the block.
        beside: (N,) magnitudes near each in blocks beside, in 1/16 and weighed.
        wide: (N,) levels of how far references lie from what is expected.
        far: (N,) sums these come from.
    """

    zeros: Ints
    beside: Ints
    wide: Ints
    far: Doubles

    @classmethod
    def of(cls, length: int) -> Ahead:
        """For blocks of so many values."""
        zeros, counts = np.zeros((length, ZERO), np.int32), np.zeros((2, length), np.int32)
        return cls(zeros, counts[0], counts[1], np.zeros(length))


@compiled(lean=True)
def bucket(value: int, buckets: Longs) -> int:
    """The level of an amount in 1/16."""
    found: int = buckets[min(value, 255)]
    return found


def spreads(seen: Floats, places: Places, side: tuple[int, int]) -> Ints:
    """Eight times how far (R, K, blocks, N) references lie from their mean, (K, blocks, N); 0 where R is below 2.

    Smoothed over 3 x 3 frequencies of blocks of that `side`, in which they lie at (N,) `places`. Whole numbers in
    float64, whose quotients are rounded to below the next whole number.
    """
    out = np.zeros(seen.shape[1:], np.int32)
    if len(seen) > 1:
        _spreads(seen, places, np.empty((2, len(places))), np.empty(side), np.empty((2, side[1] + 2)), out)
    return out


@compiled(lean=True)
def _spreads(seen: Floats, places: Places, lines: Doubles, plane: Doubles, rows: Doubles, out: Ints) -> None:
    parts, blocks, length = out.shape
    flat = plane.reshape(-1)
    for k in range(parts):
        for b in range(blocks):
            far, to = lines[0], out[k, b]
            _distances(seen, k, b, lines[1], far)
            for n in range(length):
                flat[places[n]] = far[n]
            _smooth(plane, rows[0], rows[1])
            for n in range(length):
                to[n] = np.int32(flat[places[n]])


@compiled(lean=True)
def _distances(seen: Floats, k: int, b: int, mean: Doubles, far: Doubles) -> None:
    """(N,) eight times the mean distance from the mean, of a block of two or more (R, K, blocks, N) references.

    Quotients of whole numbers by small ones lie no nearer below a whole number than half of one part does: what they
    are rounded to is the same by the reciprocal.
    """
    count, length = len(seen), len(mean)
    part, first, second = 1.0 / count, seen[0, k, b], seen[1, k, b]
    for n in range(length):
        mean[n] = np.float64(first[n]) + np.float64(second[n])
    for r in range(2, count):
        line = seen[r, k, b]
        for n in range(length):
            mean[n] += line[n]
    for n in range(length):
        mean[n] = np.floor((mean[n] + 0.5) * part)
        far[n] = abs(first[n] - mean[n]) + abs(second[n] - mean[n])
    for r in range(2, count):
        line = seen[r, k, b]
        for n in range(length):
            far[n] += abs(line[n] - mean[n])
    for n in range(length):
        far[n] = np.floor((8.0 * far[n] + 0.5) * part)


@compiled(lean=True)
def _smooth(plane: Doubles, above: Doubles, three: Doubles) -> None:
    """Means over 3 x 3 of (H, W), edges repeated, in their place; (W + 2,) `above` and `three` are to compute in."""
    height, width = plane.shape
    for v in range(width):
        above[v] = plane[0, v]
    for u in range(height):
        own, below = plane[u], plane[min(u + 1, height - 1)]
        for v in range(width):
            three[v + 1] = above[v] + own[v] + below[v]
            above[v] = own[v]
        three[0], three[width + 1] = three[1], three[width]
        middle, right = three[1:], three[2:]
        for v in range(width):
            own[v] = np.floor((three[v] + middle[v] + right[v] + 0.5) * _NINTH)


@compiled(lean=True)
def look_ahead(
    ahead: Ahead, whole: Ints, spot: Spot, hints: Hints, order: Longs, learnt: Learnt, buckets: Longs
) -> None:  # fmt: skip
    """Fill `ahead` with what is known of a block's class, frequencies (N, 3) `order`, before its first value."""
    k, y, x, kind, level, dense = spot
    c, part, active, step, last = min(kind, 7), min(k, 3), learnt.active[k, y, x], float(hints.step), max(k - 1, 0)
    rate = ((bucket(dense, buckets) * 8 + c) * 4 + part) * 6 + min(level, 5)
    _magnitudes_beside(ahead.beside, whole, spot, order)
    _distances_apart(ahead, hints, buckets)
    for n in range(len(order)):
        u, v = order[n, 0], order[n, 1]
        others = abs(whole[last, y, x, u, v]) if k > 0 else 0
        for j in range(k):
            others += abs(whole[j, y, x, u, v])
        near = (active[u - 1, v] if u > 0 else 0) + (active[u, v - 1] if v > 0 else 0)
        beside, wide, usual = ahead.beside[n], ahead.wide[n], bucket(active[u, v] >> 3, buckets)
        large = bucket(int(8 * abs(hints.expected[n]) / step), buckets)
        apart = bucket(int(2 * hints.apart[n] / step), buckets)
        some, out = min(others, 6), ahead.zeros[n]
        out[0] = (some * 16 + wide) * 4 + part
        out[1] = bucket(beside, buckets) * 4 + min(c, 3)
        out[2] = (usual * 16 + bucket(near >> 4, buckets)) * 4 + part
        out[3] = (min(u, 63) * 64 + min(v, 63)) * 4 + part
        out[4] = some * 64 + part
        out[5] = wide * 64 + part
        out[6] = (wide * 16 + large) * 8 + c
        out[7] = (wide * 16 + usual) * 4 + part
        out[8] = apart * 64 + part
        out[9] = rate


@compiled(lean=True)
def _distances_apart(ahead: Ahead, hints: Hints, buckets: Longs) -> None:
    """Levels of how far references of values lie from what is expected."""
    count, scale = hints.near.shape[0], float(hints.step * max(hints.near.shape[0], 1))
    far, wide, length = ahead.far, ahead.wide, len(hints.expected)
    far[:length] = 0.0
    for r in range(count):
        line = hints.near[r]
        for n in range(length):
            far[n] += abs(line[n] - float(hints.expected[n]))
    for n in range(length):
        wide[n] = bucket(int(16 * far[n] / scale), buckets)


@compiled(lean=True)
def _at(plane: Ints, u: int, v: int) -> int:
    return abs(plane[u, v]) if u >= 0 and v >= 0 else 0


@compiled(lean=True)
def _magnitudes_beside(beside: Ints, whole: Ints, spot: Spot, order: Longs) -> None:
    """Magnitudes near (u, v) in blocks beside, in 1/16 and weighed; of those not coded yet lower frequencies.

    Weights sum to 58, and a damaged stream gives no magnitude above 2^25 + 13: 32 bits hold it.
    """
    k, y, x, _, _, _ = spot
    up, down, left, right = y > 0, y + 1 < whole.shape[1], x > 0, x + 1 < whole.shape[2]
    beside[: len(order)] = 0
    if left:
        _add_magnitudes(beside, whole[k, y, x - 1], order, 13)
    if up:
        _add_magnitudes(beside, whole[k, y - 1, x], order, 13)
    if up and left:
        _add_magnitudes(beside, whole[k, y - 1, x - 1], order, 6)
    if up and right:
        _add_magnitudes(beside, whole[k, y - 1, x + 1], order, 6)
    if right:
        _add_lower(beside, whole[k, y, x + 1], order, 5)
    if down:
        _add_lower(beside, whole[k, y + 1, x], order, 5)


@compiled(lean=True)
def _add_magnitudes(beside: Ints, block: Ints, order: Longs, weight: int) -> None:
    for n in range(len(order)):
        beside[n] += weight * abs(block[order[n, 0], order[n, 1]])


@compiled(lean=True)
def _add_lower(beside: Ints, block: Ints, order: Longs, weight: int) -> None:
    for n in range(len(order)):
        u, v = order[n, 0], order[n, 1]
        beside[n] += weight * (_at(block, u - 1, v) + _at(block, u, v - 1))


@compiled(lean=True)
def value_contexts(asked: Ints, ahead: Ahead, own: Ints, n: int, u: int, v: int, buckets: Longs) -> int:
    """Fill `asked`[0] with the contexts of value n of a class not to be 0; the level of what lies around it."""
    within = 16 * (_at(own, u - 1, v) + _at(own, u, v - 1)) + 10 * _at(own, u - 1, v - 1)
    within += 6 * (_at(own, u - 2, v) + _at(own, u, v - 2))
    around = bucket((within + ahead.beside[n]) >> 1, buckets)
    for i in range(asked.shape[1]):
        asked[0, i] = ahead.zeros[n, i]
    asked[0, 1] += bucket(within, buckets) * 64
    asked[0, 4] += around * 4
    asked[0, 5] += around * 4
    asked[0, 8] += around * 4
    return around


@compiled(lean=True)
def flag_contexts(asked: Ints, sums: Longs, spot: Spot, hints: Hints, learnt: Learnt, buckets: Longs) -> None:
    """Fill `asked`[0] with the contexts of a block to have anything in a class.

    (K, rows, columns, CLASSES) `sums` are of magnitudes so far.
    """
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
    asked[0, 0] = (low * CLASSES + kind) * 4 + part
    asked[0, 1] = (near * CLASSES + kind) * 4 + part
    asked[0, 2] = (bucket(4 * others, buckets) * CLASSES + kind) * 4 + part
    asked[0, 3] = (usual * CLASSES + kind) * 4 + part
    asked[0, 4] = ((bucket(dense, buckets) * CLASSES + kind) * 4 + part) * 6 + min(level, 5)
    asked[0, 5] = (low * 16 + near) * 16 + usual
    asked[0, 6] = ((wide * CLASSES + kind) * 4 + part) * 4 + min(low >> 2, 3)


@compiled(lean=True)
def size_contexts(asked: Ints, known: int, around: int, wide: int, spot: Spot) -> int:
    """Fill `asked`[0] with the contexts of a magnitude to be more than `known`; the set of weights to mix by."""
    at, c, part = min(known, 4), min(spot.kind, 7), min(spot.k, 3)
    asked[0, 0] = (at * 16 + around) * 4 + part
    asked[0, 1] = (at * 8 + c) * 4 + part
    asked[0, 2] = (at * 16 + around) * 8 + c
    asked[0, 3] = (at * 16 + wide) * 4 + part
    return at


@compiled(lean=True)
def sign_contexts(asked: Ints, whole: Ints, spot: Spot, hints: Hints, n: int, u: int, v: int) -> None:
    """Fill `asked`[0] with the contexts of value n of a class to be above 0: of components, references, neighbours."""
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
    asked[0, 0] = before * 4 + part
    asked[0, 1] = (before * 4 + part) * CLASSES + kind
    asked[0, 2] = (sides * 4 + part) * CLASSES + kind
    asked[0, 3] = ((left * 3 + above) * 4 + first) * CLASSES + kind
    asked[0, 4] = ((((west * 3 + north) * 2 + (u & 1)) * 2 + (v & 1)) * 4 + first) * 3 + _sign(expected, low)


@compiled(lean=True)
def _sign(value: int, low: int) -> int:
    """0 below -low, 2 above low, 1 between."""
    return 2 if value > low else 0 if value < -low else 1
