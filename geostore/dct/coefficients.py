"""Coefficients of one date as bits: class by class of frequencies, block by block, from what lies around and before.

References:
    Taubman (2000), "High performance scalable image compression with EBCOT": significance from neighbours. Deviations:
    many contexts at once, their guesses mixed (`geostore.dct.mixing`); dates and components before are among them.
    Sullivan, Wiegand (1998), "Rate-distortion optimization for video compression": a value is what costs least in
    squared error and bits together.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from geostore.coding.rangecoder import Bytes, decode_bit, encode_bit
from geostore.dct.blocks import CLASSES
from geostore.dct.mixing import guess, learn, logistic, mixed_bit, new_models, new_weights, rates

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
_MAGNITUDES = 14  # from which on a magnitude's rest is raw
_RAW_BITS = 24
BIT_WORTH = 0.08  # squared steps that a bit is worth
_NEVER = 0.5  # of a step: what is smaller becomes 0
_FLAG, _ZERO, _SIZE = 0, 1, 2  # kinds of models
_INPUTS = (6, 7, 3)
_CONTEXTS = 1 << 14
_SETS = 64
_EDGES = (1, 2, 3, 4, 6, 8, 12, 16, 23, 32, 46, 64, 91, 128, 182)  # of sums of magnitudes, in 1/16
_BUCKETS = np.searchsorted(np.array(_EDGES), np.arange(256), side="right").astype(np.int64)
_CENTRE = 3  # 1/64 of a step by which a magnitude of 1 is read smaller; 1 of larger ones


class Learnt(NamedTuple):
    """What coder and decoder have learnt so far, alike.

    Attributes:
        flags, zeros, sizes: models of whether a block's class has anything, of values not to be 0, of magnitudes.
        flag_weights, zero_weights, size_weights: of their guesses.
        active: (K, rows, columns, h, w) running mean of magnitudes, in 1/256.
        busy: (K, rows, columns, CLASSES) the same of their sums over a class.
    """

    flags: Ints
    zeros: Ints
    sizes: Ints
    flag_weights: Ints
    zero_weights: Ints
    size_weights: Ints
    active: Ints
    busy: Ints

    @classmethod
    def nothing(cls, shape: tuple[int, ...]) -> Learnt:
        """Before the first of dates with coefficients of `shape`."""
        models = [new_models(n, _CONTEXTS) for n in _INPUTS]
        weights = [new_weights(_SETS, n) for n in _INPUTS]
        active, busy = np.zeros(shape, np.int32), np.zeros((*shape[:3], CLASSES), np.int32)
        return cls(models[0], models[1], models[2], weights[0], weights[1], weights[2], active, busy)

    def copy(self) -> Learnt:
        """The same, to go back to."""
        return Learnt(*(array.copy() for array in self))


class Tables(NamedTuple):
    """Constants of the coder."""

    odds: Ints
    back: Ints
    moves: Ints
    buckets: Longs
    bits: Floats


def tables() -> Tables:
    """As numba takes them: `bits` of a probability in 1/65536, for the encoder's choices only."""
    share = np.maximum(np.arange(65537), 1) / 65536
    return Tables(*logistic(), rates(), _BUCKETS, -np.log2(share).astype(np.float32))


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def read_as(size: int, step: int) -> int:
    """What a magnitude stands for: a little less than so many steps, as small ones are the more common."""
    if size == 0:
        return 0
    return (64 * size - (_CENTRE if size == 1 else 1)) * step >> 6


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _at(plane: Longs, u: int, v: int) -> int:
    return abs(plane[u, v]) if u >= 0 and v >= 0 else 0


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _bucket(value: int, buckets: Longs) -> int:
    found: int = buckets[min(value, 255)]
    return found


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def value_contexts(
    out: Longs, whole: Longs, k: int, y: int, x: int, u: int, v: int, kind: int, level: int, dense: int, learnt: Learnt,
    buckets: Longs,
) -> int:  # fmt: skip
    """Fill `out` with the contexts of a value not to be 0; how much lies around it, which magnitudes go by."""
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
    others = 0
    for j in range(k):
        others += abs(whole[j, y, x, u, v]) * (2 if j == k - 1 else 1)
    active = learnt.active[k, y, x]
    near = (active[u - 1, v] if u > 0 else 0) + (active[u, v - 1] if v > 0 else 0)
    c, part = min(kind, 7), min(k, 3)
    around = _bucket((within + beside) >> 1, buckets)
    out[0] = (around * 8 + c) * 4 + part
    out[1] = (_bucket(within, buckets) * 16 + _bucket(beside, buckets)) * 4 + min(c, 3)
    out[2] = (_bucket(active[u, v] >> 3, buckets) * 16 + _bucket(near >> 4, buckets)) * 4 + part
    out[3] = (min(u, 63) * 64 + min(v, 63)) * 4 + part
    out[4] = (min(others, 6) * 16 + around) * 4 + part
    out[5] = ((_bucket(dense, buckets) * 8 + c) * 4 + part) * 6 + min(level, 5)
    out[6] = (_bucket(learnt.busy[k, y, x, kind] >> 6, buckets) * 16 + _bucket(within + beside, buckets)) * 8 + c
    return around


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def flag_contexts(
    out: Longs, sums: Longs, k: int, y: int, x: int, kind: int, level: int, dense: int, learnt: Learnt, buckets: Longs
) -> None:
    """Fill `out` with the contexts of a block to have anything in a class; (K, rows, columns, CLASSES) sums so far."""
    columns = sums.shape[2]
    lower = sums[k, y, x, kind - 1] * 2 + (sums[k, y, x, kind - 2] if kind > 1 else 0)
    beside = 0
    if x > 0:
        beside += 2 * sums[k, y, x - 1, kind]
    if y > 0:
        beside += 2 * sums[k, y - 1, x, kind] + (sums[k, y - 1, x + 1, kind] if x + 1 < columns else 0)
    others = 0
    for j in range(k):
        others += sums[j, y, x, kind] * (2 if j == k - 1 else 1)
    usual = _bucket(learnt.busy[k, y, x, kind] >> 5, buckets)
    part, low, near = min(k, 3), _bucket(4 * lower, buckets), _bucket(4 * beside, buckets)
    out[0] = (low * 10 + kind) * 4 + part
    out[1] = (near * 10 + kind) * 4 + part
    out[2] = (_bucket(4 * others, buckets) * 10 + kind) * 4 + part
    out[3] = (usual * 10 + kind) * 4 + part
    out[4] = ((_bucket(dense, buckets) * 10 + kind) * 4 + part) * 6 + min(level, 5)
    out[5] = (low * 16 + near) * 16 + usual


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def size_contexts(out: Longs, known: int, around: int, kind: int, k: int) -> int:
    """Fill `out` with the contexts of a magnitude to be more than `known`; the set of weights to mix by."""
    at, c, part = min(known, 4), min(kind, 7), min(k, 3)
    out[0] = (at * 16 + around) * 4 + part
    out[1] = (at * 8 + c) * 4 + part
    out[2] = (at * 16 + around) * 8 + c
    return at


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def _cost(size: int, share: int, around: int, kind: int, k: int, learnt: Learnt, t: Tables, contexts: Longs) -> float:
    """Bits of a magnitude, given the probability `share` that it is not 0; nothing learns from that."""
    if size == 0:
        return float(t.bits[65536 - share])
    total = t.bits[share] + 1.0
    for known in range(1, min(size, _MAGNITUDES) + 1):
        if known == _MAGNITUDES:
            break
        chosen = size_contexts(contexts, known, around, kind, k)
        more = guess(learnt.sizes, learnt.size_weights, contexts, chosen, t.odds, t.back)
        total += t.bits[more if size > known else 65536 - more]
    return float(total)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def choose(
    missed: Longs, whole: Longs, scan: Longs, k: int, y: int, x: int, level: int, dense: int, step: int, learnt: Learnt,
    t: Tables, contexts: Longs, few: Longs,
) -> tuple[float, float, int]:  # fmt: skip
    """Fill a block's class of `whole` with what costs least; the cost of that, of nothing at all, and what it sums to.

    (N,) `missed` is what the class lacks in the order of (N, 3) `scan`.
    """
    cost, none, total = 0.0, 0.0, 0
    for n in range(len(scan)):
        u, v, kind = scan[n]
        exact = abs(missed[n]) / step
        nearest = int(exact + 0.5)
        none += exact * exact
        around = value_contexts(contexts, whole, k, y, x, u, v, kind, level, dense, learnt, t.buckets)
        chosen = min(k, 3) * CLASSES + kind
        share = guess(learnt.zeros, learnt.zero_weights, contexts, chosen, t.odds, t.back)
        best, least = 0, exact * exact + BIT_WORTH * t.bits[65536 - share]
        if exact >= _NEVER:
            for size in range(max(nearest - 1, 1), nearest + 1):
                away = exact - read_as(size, step) / step
                now = away * away + BIT_WORTH * _cost(size, share, around, kind, k, learnt, t, few)
                if now < least:
                    best, least = size, now
        whole[k, y, x, u, v] = best if missed[n] > 0 else -best
        total += min(best, 4)
        cost += least
    return cost, none, total


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def code_size(
    data: Bytes, state: Longs, size: int, around: int, kind: int, k: int, learnt: Learnt, t: Tables, few: Longs,
    encode: bool,
) -> int:  # fmt: skip
    """One magnitude of at least 1: more or not, then how many raw bits are left, and these."""
    known = 1
    while known < _MAGNITUDES:
        chosen = size_contexts(few, known, around, kind, k)
        more = 1 if size > known else 0
        if not mixed_bit(
            data, state, learnt.sizes, learnt.size_weights, few, chosen, t.odds, t.back, t.moves, more, encode
        ):
            return known
        known += 1
    return known + raw_number(data, state, size - known, encode)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def raw_number(data: Bytes, state: Longs, number: int, encode: bool) -> int:
    """A whole number from 0, as Elias gamma."""
    bits, rest = 0, 1
    if encode:
        while (number + 1) >> (bits + 1):
            bits += 1
        for _ in range(bits):
            encode_bit(data, state, 1, 32768)
        encode_bit(data, state, 0, 32768)
        for i in range(bits - 1, -1, -1):
            encode_bit(data, state, (number + 1) >> i & 1, 32768)
        return number
    while bits < _RAW_BITS and decode_bit(data, state, 32768):
        bits += 1
    for _ in range(bits):
        rest = rest << 1 | decode_bit(data, state, 32768)
    return rest - 1


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def code_class(
    data: Bytes, state: Longs, whole: Longs, scan: Longs, k: int, y: int, x: int, level: int, dense: int,
    learnt: Learnt, t: Tables, contexts: Longs, few: Longs, encode: bool,
) -> int:  # fmt: skip
    """The values of a block's class, one by one; what their magnitudes sum to, each at most 4."""
    total = 0
    for n in range(len(scan)):
        u, v, kind = scan[n]
        around = value_contexts(contexts, whole, k, y, x, u, v, kind, level, dense, learnt, t.buckets)
        chosen = min(k, 3) * CLASSES + kind
        value = whole[k, y, x, u, v] if encode else 0
        share = guess(learnt.zeros, learnt.zero_weights, contexts, chosen, t.odds, t.back)
        bit = 1 if value != 0 else 0
        if encode:
            encode_bit(data, state, bit, share)
        else:
            bit = decode_bit(data, state, share)
        learn(learnt.zeros, learnt.zero_weights, contexts, chosen, t.odds, t.moves, share, bit)
        if not bit:
            whole[k, y, x, u, v] = 0
            continue
        positive = 1 if value > 0 else 0
        if encode:
            encode_bit(data, state, positive, 32768)
        else:
            positive = decode_bit(data, state, 32768)
        size = code_size(data, state, abs(value), around, kind, k, learnt, t, few, encode)
        whole[k, y, x, u, v] = size if positive else -size
        total += min(size, 4)
    return total


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]
def remember(whole: Longs, sums: Longs, learnt: Learnt) -> None:
    """Let the running means follow a date's values."""
    parts, rows, columns, height, width = whole.shape
    for k in range(parts):
        for y in range(rows):
            for x in range(columns):
                for u in range(height):
                    for v in range(width):
                        aim = min(abs(whole[k, y, x, u, v]), 4) << 8
                        learnt.active[k, y, x, u, v] += ((aim - learnt.active[k, y, x, u, v]) * 31) >> 8
                for c in range(CLASSES):
                    aim = min(sums[k, y, x, c], 64) << 8
                    learnt.busy[k, y, x, c] += ((aim - learnt.busy[k, y, x, c]) * 38) >> 8
