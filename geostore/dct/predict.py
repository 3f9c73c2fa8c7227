"""What coefficients of a date are expected to be: dates decoded before it, weighed as its lower frequencies taught.

Nothing is sent: weights of one class of frequencies are the least-squares ones of the classes below it, as they were
decoded, drawn towards what dates are worth on the whole; those of a block are drawn towards those of the date. Where a
date is brighter than they say, it mostly is so all over: what they missed of a block's mean is expected of the next,
and what they missed of the means around a block says which way it slopes.

References:
    ITU-T T.81 (1992), annex K: low frequencies from a smooth surface through the means of 3 x 3 blocks. Deviation: half
    of that, as what is missed is not as smooth as a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled

Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_ONE = 256  # of a weight
_USUAL = (90, 90, 64, 0, 0)  # of the dates next to it and of the standing image, in 1/256
_SUM = 244
_DROPPED = 3  # bits of values whose products are summed
_FADE = 3  # bits by which what lower classes taught fades from class to class
_NOISE_BITS = 6  # 1/64 of the square of a quantiser's step is how uncertain decoded values are taken to be
_SCALE, _SHARE, _WEIGHT = 30, 22, 16  # bits: of sums, of a row taken off another, of a weight while it is solved for
_MOST = 1 << 32
_LARGEST = 8 * _ONE
_SLOPES = np.array([[0, 256, 0], [37, 0, -37], [9, -18, 9]], np.int64)  # 1/256: of cosines 0, 1, 2 in means of 3 blocks


def usual(references: tuple[int, ...], standing: int) -> Longs:
    """(R,) weights of `references` before anything is known of a date; `standing` names the standing image."""
    if not references:
        return np.zeros(0, np.int64)
    beside = [_USUAL[0] if i < references.index(standing) else 0 for i in range(len(references))]
    found = np.array([_USUAL[2] if r == standing else b for r, b in zip(references, beside, strict=True)], np.int64)
    return np.asarray(found * _SUM // found.sum())


class Sums(NamedTuple):
    """Arrays to compute in, of R references and blocks of N values.

    Attributes:
        total: (N,).
        lines: (R + 1, N).
        left: (R, R).
        right: (R,).
    """

    total: Doubles
    lines: Doubles
    left: Longs
    right: Longs

    @classmethod
    def of(cls, count: int, length: int) -> Sums:
        """For so many references, and blocks of so many values."""
        lines, left = np.empty((count + 1, length)), np.empty((count, count), np.int64)
        return cls(np.empty(length), lines, left, np.empty(count, np.int64))


@compiled(lean=True)
def expect(near: Floats, weights: Longs, sums: Sums, out: Longs) -> None:
    """References, the first N of (R, ...) `near`, weighed by (R,) weights, into (N,); whole numbers in float64."""
    total, length = sums.total, len(out)
    total[:length] = 128.0
    for r in range(len(weights)):
        line, weight = near[r], float(weights[r])
        for n in range(length):
            total[n] += weight * line[n]
    for n in range(length):
        out[n] = np.int64(np.floor(total[n] * 2.0**-8))


@compiled(lean=True)
def lead(found: Longs, missed: Longs, order: Longs, y: int, x: int) -> None:
    """Add to the (N,) values expected of a block's class, frequencies (N, 3) `order`, what `missed` says of them.

    That is what references missed of (rows, columns) means: all of them, or those before where a mean is expected.
    """
    if order[0, 2] == 0:
        found[0] += _beside(missed, y, x)
        return
    for n in range(len(order)):
        u, v = order[n, 0], order[n, 1]
        if u < len(_SLOPES) and v < len(_SLOPES):
            found[n] += _slope(missed, y, x, _SLOPES[u], _SLOPES[v])


@compiled(lean=True)
def _slope(missed: Longs, y: int, x: int, down: Longs, right: Longs) -> int:
    """Half the cosine that (3,) shares `down` and `right` of the means around make; edges repeated."""
    rows, columns = missed.shape
    total = 0
    for i in range(3):
        for j in range(3):
            near = missed[min(max(y + i - 1, 0), rows - 1), min(max(x + j - 1, 0), columns - 1)]
            total += down[i] * right[j] * near
    return total >> 17


@compiled(lean=True)
def _beside(missed: Longs, y: int, x: int) -> int:
    """What references missed of the means to the left and above, on the average; 0 where there are none."""
    left, above = missed[y, x - 1] if x > 0 else 0, missed[y - 1, x] if y > 0 else 0
    found: int = (left + above) >> 1 if x > 0 and y > 0 else left + above
    return found


@compiled(lean=True)
def fade(square: Longs, cross: Longs) -> None:
    """Let what was taught so far count less."""
    for r in range(len(cross)):
        cross[r] >>= _FADE
        for s in range(len(cross)):
            square[r, s] >>= _FADE


@compiled(lean=True)
def teach(near: Floats, found: Longs, sums: Sums, square: Longs, cross: Longs, others: Longs, crossed: Longs) -> None:
    """Add sums of products of references, the first N of (R, ...) `near`, with one another and with (N,) `found`.

    Those with one another to (R, R) `square` and `others`, those with `found` to (R,) `cross` and `crossed`.
    """
    count, length, lines = len(cross), len(found), sums.lines
    for r in range(count):
        line, held = near[r], lines[r]
        for n in range(length):
            held[n] = np.floor(np.float64(line[n]) * 2.0**-_DROPPED)
    held = lines[count]
    for n in range(length):
        held[n] = float(found[n] >> _DROPPED)
    for r in range(count):
        for s in range(r, count):
            total = _product(lines[r], lines[s], length)
            square[r, s] += total
            others[r, s] += total
            square[s, r], others[s, r] = square[r, s], others[r, s]
        total = _product(lines[r], held, length)
        cross[r] += total
        crossed[r] += total


@compiled(lean=True, fastmath=("reassoc", "contract"))
def _product(a: Doubles, b: Doubles, length: int) -> int:
    """The sum of so many products of whole numbers, below 2^53: exact in any order."""
    total = 0.0
    for n in range(length):
        total += a[n] * b[n]
    return int(total)


@compiled(lean=True)
def taught(square: Longs, cross: Longs, start: Longs, step: int, pull: int, sums: Sums, out: Longs) -> None:
    """(R,) weights by what sums of products say, drawn towards `start`; in whole numbers, compilers fuse others.

    Args:
        square: (R, R) sums as `teach` keeps them; nothing but zeros gives `start`.
        cross: (R,) likewise.
        start: weights to be drawn to.
        step: of the quantiser.
        pull: how strongly, in 1/1024 of the mean square of what weights are for.
        sums: to compute in.
        out: filled with the weights.
    """
    count = len(cross)
    trace = 0
    for r in range(count):
        trace += square[r, r]
    if trace == 0:
        for r in range(count):
            out[r] = start[r]
        return
    bits, noise = 0, step * step >> _NOISE_BITS
    while (trace + noise) >> bits >= 1 << _SCALE:
        bits += 1
    up = 0
    while bits == 0 and (trace + noise) << up < 1 << (_SCALE - 1):
        up += 1
    ridge = ((trace // count >> bits << up) * pull >> 10) + (noise >> bits << up)
    left, right = sums.left, sums.right
    for r in range(count):
        for s in range(count):
            left[r, s] = square[r, s] >> bits << up
        left[r, r] += ridge
        right[r] = min(max(cross[r] >> bits << up, -_MOST), _MOST) + (ridge * start[r] >> 8)
    _solve(left, right)
    for r in range(count):
        weight = (right[r] + (1 << (_WEIGHT - 9))) >> (_WEIGHT - 8)
        out[r] = min(max(weight, -_LARGEST), _LARGEST)


@compiled(lean=True)
def _solve(left: Longs, right: Longs) -> None:
    """Put the solution of a positive definite system, in 2^-_WEIGHT, in place of its right side."""
    count = len(right)
    for p in range(count):
        first = max(left[p, p], 1)
        for r in range(p + 1, count):
            share = min(max((left[r, p] << _SHARE) // first, -(128 << _SHARE)), 128 << _SHARE)
            for s in range(p, count):
                left[r, s] -= share * left[p, s] >> _SHARE
            right[r] = min(max(right[r] - (share * right[p] >> _SHARE), -_MOST), _MOST)
    for p in range(count - 1, -1, -1):
        total = right[p] << _WEIGHT
        for s in range(p + 1, count):
            total -= left[p, s] * right[s]
        right[p] = min(max(total // max(left[p, p], 1), -(16 << _WEIGHT)), 16 << _WEIGHT)
