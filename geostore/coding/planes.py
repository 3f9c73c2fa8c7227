"""Whole numbers of band planes as bytes, each expected from its neighbours, the bands before it and a base.

References:
    Weinberger, Seroussi, Sapiro (2000), "The LOCO-I lossless image compression algorithm": contexts with a running
    mean each. Deviations: the expected value is a linear one, its weights solved by least squares and sent; Laplace
    tables and a range coder in place of Golomb codes; bands and a base are among the neighbours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.coding.rangecoder import (
    LARGEST_SCALE,
    ONE_QUANTUM,
    Bytes,
    Longs,
    decode_one,
    encode_one,
    finish,
    log2_16ths,
    start_decoder,
    start_encoder,
    tables,
)
from geostore.compiled import compiled
from geostore.errors import Corrupt
from geostore.raster import Mask

_OWN, _EACH, _BANDS = 6, 5, 3  # neighbours in the plane, in each plane before it, and how many of these
_INPUTS = _OWN + _EACH * _BANDS + 2
_WEIGHT_BITS = 6
_WEIGHT_SCALE = ONE_QUANTUM + 24  # 8 / 64
_CONTEXTS = 40
_RIDGE = 50.0
_MEMORY = 192  # values after which a context's counts are halved
_FIRST_HALF = 0.35  # of the weights left and above before anything is known
_BYTES_PER_VALUE = 10
_LARGEST = 1 << 24  # of a value a damaged stream may give

Ints64 = npt.NDArray[np.int64]


def pack_planes(values: Ints64, base: Ints64, valid: Mask) -> bytes:
    """(B, H, W) whole numbers, where (H, W) `valid`, as bytes.

    Args:
        values: what to keep; elsewhere than in `valid` nothing is.
        base: (B, H, W) what they are near, in 1/16, known to the reader.
        valid: at least one pixel.
    """
    away = np.where(valid, 16 * values - base, 0)
    weights = np.stack([_solve(away, base, b, valid) for b in range(len(values))])
    out = np.zeros(64 + _BYTES_PER_VALUE * (weights.size + values.size), np.uint8)
    state = start_encoder()
    _code(out, state, tables(), values.copy(), base, valid, weights, _CONTEXTS, True)
    size = finish(out, state)
    return out[1 : 1 + size].tobytes()


def unpack_planes(data: bytes, base: Ints64, valid: Mask) -> Ints64:
    """The inverse: (B, H, W) int64; where not `valid` something near `base`.

    Raises:
        Corrupt: the stream ends early.
    """
    stream = np.frombuffer(data, np.uint8).copy()
    values = np.zeros(base.shape, np.int64)
    weights = np.zeros((len(base), _INPUTS), np.int64)
    state = start_decoder(stream)
    _code(stream, state, tables(), values, base, valid, weights, _CONTEXTS, False)
    if state[4] > len(stream) + 64:
        raise Corrupt(f"a bounded layer of {len(data)} bytes ends before its planes do; restore the raster")
    return values


def _solve(away: Ints64, base: Ints64, band: int, valid: Mask) -> Longs:
    """Least-squares weights of one plane's inputs, in 1/64."""
    inputs = np.empty((*valid.shape, _INPUTS), np.int64)
    _gather(away, base, band, inputs)
    x, y = inputs[valid].astype(np.float64), away[band][valid].astype(np.float64)
    start = np.zeros(_INPUTS)
    start[:2] = _FIRST_HALF
    spread = max(float(np.abs(y).mean()), 1.0) ** 2
    found = np.linalg.solve(x.T @ x + _RIDGE * spread * np.eye(_INPUTS), x.T @ (y - x @ start)) + start
    return np.clip(np.rint(found * (1 << _WEIGHT_BITS)), -255, 255).astype(np.int64)


@compiled(lean=True)
def _at(plane: Ints64, y: int, x: int) -> int:
    if 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1]:
        value: int = plane[y, x]
        return value
    return 0


@compiled(lean=True)
def _inputs(f: Longs, away: Ints64, base: Ints64, band: int, y: int, x: int) -> None:
    """Fill `f` with how far its neighbours are from the base, each in 1/16."""
    own = away[band]
    f[0], f[1], f[2] = _at(own, y, x - 1), _at(own, y - 1, x), _at(own, y - 1, x - 1)
    f[3], f[4], f[5] = _at(own, y - 1, x + 1), _at(own, y, x - 2), _at(own, y - 2, x)
    at = _OWN
    for k in range(1, _BANDS + 1):
        if band >= k:
            other = away[band - k]
            f[at], f[at + 1], f[at + 2] = other[y, x], _at(other, y, x - 1), _at(other, y - 1, x)
            f[at + 3], f[at + 4] = _at(other, y, x + 1), _at(other, y + 1, x)
        at += _EACH
    near = base[band]
    rows, columns = near.shape
    around = near[max(y - 1, 0), x] + near[min(y + 1, rows - 1), x] + near[y, max(x - 1, 0)]
    f[at] = (around + near[y, min(x + 1, columns - 1)] - 4 * near[y, x]) >> 2
    f[at + 1] = 16


@compiled
def _gather(away: Ints64, base: Ints64, band: int, out: Ints64) -> None:
    f = np.zeros(out.shape[2], np.int64)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            _inputs(f, away, base, band, y, x)
            out[y, x] = f


@compiled(lean=True)
def _context(missed: Ints64, band: int, y: int, x: int, contexts: int) -> int:
    """Which running mean to use: by how far the neighbours were missed, in half octaves."""
    own = missed[band]
    sides = 2 * (_at(own, y, x - 1) + _at(own, y - 1, x)) + _at(own, y - 1, x - 1) + _at(own, y - 1, x + 1)
    if band > 0:
        sides = (
            sides + 4 * missed[band - 1, y, x] + _at(missed[band - 1], y, x + 1) + _at(missed[band - 1], y + 1, x)
        ) >> 1
    return min((log2_16ths(sides + 1) + 4) >> 3, contexts - 1)


@compiled
def _code(
    data: Bytes, state: Longs, rows: npt.NDArray[np.int32], values: Ints64, base: Ints64, valid: Mask, weights: Longs,
    contexts: int, encode: bool,
) -> None:  # fmt: skip
    """Weights, then values plane by plane, row by row."""
    away, missed = np.zeros(values.shape, np.int64), np.zeros(values.shape, np.int64)
    f = np.zeros(weights.shape[1], np.int64)
    for band in range(values.shape[0]):
        for i in range(weights.shape[1]):
            if encode:
                encode_one(data, state, rows, weights[band, i], 0, _WEIGHT_SCALE)
            else:
                weights[band, i] = min(max(decode_one(data, state, rows, 0, _WEIGHT_SCALE), -255), 255)
        sums, counts = np.zeros(contexts, np.int64), np.zeros(contexts, np.int64)
        for c in range(contexts):
            sums[c], counts[c] = 2 << (c // 2), 2 * 6
        for y in range(values.shape[1]):
            for x in range(values.shape[2]):
                _inputs(f, away, base, band, y, x)
                total = 0
                for i in range(len(f)):
                    total += weights[band, i] * f[i]
                expected = base[band, y, x] + (total >> _WEIGHT_BITS)
                if not valid[y, x]:
                    values[band, y, x] = (expected + 8) >> 4
                    away[band, y, x] = 0
                    continue
                c = _context(missed, band, y, x, contexts)
                scale = (log2_16ths(sums[c]) - log2_16ths(counts[c]) - 64) // 2 + ONE_QUANTUM
                scale = min(max(scale, 0), LARGEST_SCALE)
                if encode:
                    encode_one(data, state, rows, values[band, y, x], expected, scale)
                else:
                    value = decode_one(data, state, rows, expected, scale)
                    values[band, y, x] = min(max(value, -_LARGEST), _LARGEST)
                away[band, y, x] = 16 * values[band, y, x] - base[band, y, x]
                missed[band, y, x] = abs(16 * values[band, y, x] - expected)
                sums[c] += missed[band, y, x]
                counts[c] += 1
                if counts[c] >= _MEMORY:
                    sums[c], counts[c] = (sums[c] >> 1) + 1, counts[c] >> 1
