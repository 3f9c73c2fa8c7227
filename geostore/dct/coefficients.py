"""Coefficients of one date as bits: class by class of frequencies, block by block, from what lies around and before.

References:
    Sullivan, Wiegand (1998), "Rate-distortion optimization for video compression": a value is what costs least in
    squared error and bits together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.coding.logistic import logistic
from geostore.coding.rangecoder import Bytes, decode_bit, encode_bit
from geostore.compiled import compiled
from geostore.dct.blocks import CLASSES
from geostore.dct.contexts import (
    BUCKETS,
    Ahead,
    Hints,
    Spot,
    sign_contexts,
    size_contexts,
    value_contexts,
)
from geostore.dct.learnt import INPUTS, Learnt
from geostore.dct.mixing import guess, mixed_bit, new_question, rates

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Shorts = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]
_MAGNITUDES = 14  # from which on a magnitude's rest is raw
_RAW_BITS = 24
BIT_WORTH = 0.08  # squared steps that a bit is worth
_NEVER = 0.5  # of a step: what is smaller becomes 0
_CENTRE = 3  # 1/64 of a step by which a magnitude of 1 is read smaller; 1 of larger ones


class Tables(NamedTuple):
    """Constants of the coder."""

    odds: Shorts
    back: Ints
    moves: Ints
    buckets: Longs
    bits: Floats


class Asked(NamedTuple):
    """Room for the models that are asked, and what they say, of each kind of bit, see `mixing.new_question`."""

    flag: Ints
    zero: Ints
    size: Ints
    sign: Ints


def new_asked() -> Asked:
    """Nothing asked yet."""
    return Asked(*(new_question(n) for n in INPUTS))


@lru_cache(maxsize=1)
def tables() -> Tables:
    """As numba takes them: `bits` of a probability in 1/65536, for the encoder's choices only."""
    share = np.maximum(np.arange(65537), 1) / 65536
    odds, back = logistic()
    return Tables(odds.astype(np.int16), back, rates(), BUCKETS, -np.log2(share).astype(np.float32))


@compiled(lean=True)
def read_as(size: int, step: int) -> int:
    """What a magnitude stands for: a little less than so many steps, as small ones are the more common."""
    if size == 0:
        return 0
    return (64 * size - (_CENTRE if size == 1 else 1)) * step >> 6


@compiled(lean=True)
def _cost(size: int, share: int, around: int, wide: int, spot: Spot, learnt: Learnt, t: Tables, asked: Ints) -> float:
    """Bits of a magnitude, given the probability `share` that it is not 0; nothing learns from that."""
    if size == 0:
        return float(t.bits[65536 - share])
    total = t.bits[share] + 1.0
    for known in range(1, min(size, _MAGNITUDES) + 1):
        if known == _MAGNITUDES:
            break
        at = size_contexts(asked, known, around, wide, spot)
        more = guess(learnt.sizes, learnt.size_weights, asked, at, min(spot.k, 3), t.back)
        total += t.bits[more if size > known else 65536 - more]
    return float(total)


@compiled(lean=True)
def choose(
    missed: Longs, own: Ints, order: Longs, spot: Spot, step: int, ahead: Ahead, learnt: Learnt, t: Tables,
    asked: Asked,
) -> tuple[float, float, int]:  # fmt: skip
    """Fill a block's class with what costs least; the cost of that, of nothing at all, and what it sums to.

    (N,) `missed` is what the class lacks in the order of (N, 3) `order`; (h, w) `own` are the block's magnitudes.
    """
    cost, none, total = 0.0, 0.0, 0
    chosen = min(spot.k, 3) * CLASSES + spot.kind
    for n in range(len(order)):
        u, v = order[n, 0], order[n, 1]
        exact = abs(missed[n]) / step
        nearest = int(exact + 0.5)
        none += exact * exact
        around = value_contexts(asked.zero, ahead, own, n, u, v, t.buckets)
        share = guess(learnt.zeros, learnt.zero_weights, asked.zero, chosen, around, t.back)
        best, least = 0, exact * exact + BIT_WORTH * t.bits[65536 - share]
        if exact >= _NEVER:
            for size in range(max(nearest - 1, 1), nearest + 1):
                away = exact - read_as(size, step) / step
                bits = _cost(size, share, around, ahead.wide[n], spot, learnt, t, asked.size)
                now = away * away + BIT_WORTH * bits
                if now < least:
                    best, least = size, now
        own[u, v] = best if missed[n] > 0 else -best
        total += min(best, 4)
        cost += least
    return cost, none, total


@compiled(lean=True)
def code_size(
    data: Bytes, state: Longs, size: int, around: int, wide: int, spot: Spot, learnt: Learnt, t: Tables, asked: Ints,
    encode: bool,
) -> int:  # fmt: skip
    """One magnitude of at least 1: more or not, then how many raw bits are left, and these."""
    known, part = 1, min(spot.k, 3)
    while known < _MAGNITUDES:
        at = size_contexts(asked, known, around, wide, spot)
        more = 1 if size > known else 0
        if not mixed_bit(
            data, state, learnt.sizes, learnt.size_weights, asked, at, part, t.odds, t.back, t.moves, more, encode
        ):
            return known
        known += 1
    return known + raw_number(data, state, size - known, encode)


@compiled(lean=True)
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


@compiled(lean=True)
def code_class(
    data: Bytes, state: Longs, whole: Ints, order: Longs, spot: Spot, hints: Hints, ahead: Ahead, learnt: Learnt,
    t: Tables, asked: Asked, encode: bool,
) -> int:  # fmt: skip
    """The values of a block's class, one by one; what their magnitudes sum to, each at most 4."""
    total, part, own = 0, min(spot.k, 3), whole[spot.k, spot.y, spot.x]
    chosen = part * CLASSES + spot.kind
    for n in range(len(order)):
        u, v = order[n, 0], order[n, 1]
        around = value_contexts(asked.zero, ahead, own, n, u, v, t.buckets)
        value = own[u, v] if encode else 0
        if not mixed_bit(
            data, state, learnt.zeros, learnt.zero_weights, asked.zero, chosen, around, t.odds, t.back, t.moves,
            1 if value != 0 else 0, encode,
        ):  # fmt: skip
            own[u, v] = 0
            continue
        sign_contexts(asked.sign, whole, spot, hints, n, u, v)
        positive = mixed_bit(
            data, state, learnt.signs, learnt.sign_weights, asked.sign, part, 0, t.odds, t.back, t.moves,
            1 if value > 0 else 0, encode,
        )  # fmt: skip
        size = code_size(data, state, abs(value), around, ahead.wide[n], spot, learnt, t, asked.size, encode)
        own[u, v] = size if positive else -size
        total += min(size, 4)
    return total
