"""Band planes of whole numbers that are mostly 0 as bytes: bit by bit, each with a probability that adapts.

References:
    Marpe, Schwarz, Wiegand (2003), "Context-based adaptive binary arithmetic coding in the H.264/AVC video compression
    standard": a flag for not 0, a sign, a magnitude in unary. Deviations: probabilities by counts, not by a table of
    states; they begin where a density, sent for every band, puts them; bands before are among the neighbours.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from geostore.coding.rangecoder import (
    Bytes,
    Longs,
    decode_bit,
    encode_bit,
    finish,
    start_decoder,
    start_encoder,
)
from geostore.compiled import compiled
from geostore.errors import Corrupt
from geostore.raster import Mask

Ints64 = npt.NDArray[np.int64]
_CLASSES = 6  # of how many neighbours are not 0
_LIFT = np.array([24, 56, 96, 144, 224, 320], np.int64)  # 1/64: how much more likely that makes a value not to be 0
_TRUST = 12  # values that the density sent counts for
_MEMORY = 400  # values a probability remembers at most
_UNARY = 8  # magnitudes from which the rest is raw
_OCTAVE = 8  # densities in 2^(-n / 8)
_RAW_BITS = 20
_BYTES_PER_VALUE = 18  # the least likely flag, sign and 8 steps of a magnitude, 11.5 bits each, and the raw bits
_EIGHTHS = np.array([65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734], np.int64)  # 65536 * 2^(-n / 8)


def pack_sparse(values: Ints64, valid: Mask) -> bytes:
    """(B, H, W) whole numbers, where (H, W) `valid`, as bytes; elsewhere nothing is kept.

    At least one pixel is valid; no value lies beyond 2^20.
    """
    assert int(np.abs(values).max()) < 1 << _RAW_BITS, "steps of 16-bit values are smaller"
    shares = [max(float((plane[valid] != 0).mean()), 2.0**-31) for plane in values]
    densities = np.array([min(round(-_OCTAVE * math.log2(s)), 254) for s in shares], np.int64)
    out = np.zeros(64 + _BYTES_PER_VALUE * values.size, np.uint8)
    state = start_encoder()
    _code(out, state, values.copy(), valid, _begin(densities), True)
    size = finish(out, state)
    return densities.astype(np.uint8).tobytes() + out[1 : 1 + size].tobytes()


def unpack_sparse(data: bytes, bands: int, valid: Mask) -> Ints64:
    """The inverse: (bands, H, W) int64, 0 where not `valid`.

    Raises:
        Corrupt: the stream ends early.
    """
    densities = np.frombuffer(data[:bands], np.uint8).astype(np.int64)
    stream = np.frombuffer(data[bands:], np.uint8).copy()
    values = np.zeros((bands, *valid.shape), np.int64)
    state = start_decoder(stream)
    if len(densities) == bands:
        _code(stream, state, values, valid, _begin(densities), False)
    if len(densities) < bands or state[4] > len(stream) + 64:
        raise Corrupt(f"a sparse layer of {len(data)} bytes ends before its planes do; restore the raster")
    return values


def _begin(densities: Longs) -> Longs:
    """(B, _CLASSES) probabilities, in 1/65536, of a value not to be 0: whole-number arithmetic, so alike everywhere."""
    octaves, rest = np.divmod(densities, _OCTAVE)
    share = (_EIGHTHS[rest] >> octaves)[:, None]
    return np.asarray(np.clip(share * _LIFT >> 6, 32, 60000))


@compiled(lean=True)
def _bit(data: Bytes, state: Longs, models: Longs, at: int, bit: int, encode: bool) -> int:
    """Code one bit with model `at` of (N, 2) `models`, probability and count, and let the model learn from it."""
    ones = models[at, 0]
    if encode:
        encode_bit(data, state, bit, ones)
    else:
        bit = decode_bit(data, state, ones)
    count = models[at, 1] + 1
    aim = 65536 if bit else 0
    models[at, 0] = min(max(ones + (aim - ones) // (count + 1), 24), 65512)
    models[at, 1] = min(count, _MEMORY)
    return bit


@compiled(lean=True)
def _at(plane: Ints64, y: int, x: int) -> int:
    if y >= 0 and 0 <= x < plane.shape[1]:
        value: int = plane[y, x]
        return value
    return 0


@compiled(lean=True)
def _class(values: Ints64, band: int, y: int, x: int) -> int:
    """How many of the neighbours known are not 0, the nearest counted twice."""
    own = values[band]
    near = 2 * ((_at(own, y, x - 1) != 0) + (_at(own, y - 1, x) != 0))
    near += (_at(own, y - 1, x - 1) != 0) + (_at(own, y - 1, x + 1) != 0)
    if band > 0:
        near += 2 * (values[band - 1, y, x] != 0)
    if band > 1:
        near += values[band - 2, y, x] != 0
    return near if near < 3 else min(2 + (near + 1) // 2, 6) - 1


@compiled(lean=True)
def _sign(value: int) -> int:
    return 0 if value == 0 else 1 if value > 0 else 2


@compiled(lean=True)
def _magnitude(data: Bytes, state: Longs, sizes: Longs, near: int, size: int, encode: bool) -> int:
    """One magnitude of at least 1: more or not, more or not ..., then raw bits for what is left."""
    known = 1
    while known < _UNARY:
        at = min(known - 1, 7) * 3 + near
        if not _bit(data, state, sizes, at, 1 if size > known else 0, encode):
            return known
        known += 1
    rest = 0
    for i in range(_RAW_BITS - 1, -1, -1):
        bit = (size - _UNARY) >> i & 1
        if encode:
            encode_bit(data, state, bit, 32768)
        else:
            bit = decode_bit(data, state, 32768)
        rest = rest << 1 | bit
    return _UNARY + rest


@compiled
def _code(data: Bytes, state: Longs, values: Ints64, valid: Mask, begin: Longs, encode: bool) -> None:
    """Values plane by plane, row by row."""
    flags = np.empty((begin.shape[1], 2), np.int64)
    signs, sizes = np.full((9, 2), 32768, np.int64), np.full((24, 2), 16384, np.int64)
    signs[:, 1], sizes[:, 1] = 4, 2
    for band in range(values.shape[0]):
        flags[:, 0], flags[:, 1] = begin[band], _TRUST
        own = values[band]
        for y in range(own.shape[0]):
            for x in range(own.shape[1]):
                if not valid[y, x]:
                    own[y, x] = 0
                    continue
                value = own[y, x]
                if not _bit(data, state, flags, _class(values, band, y, x), 1 if value != 0 else 0, encode):
                    own[y, x] = 0
                    continue
                left, above = _at(own, y, x - 1), _at(own, y - 1, x)
                before = values[band - 1, y, x] if band > 0 else 0
                at = 3 * _sign(before) + _sign(left + above)
                positive = _bit(data, state, signs, at, 1 if value > 0 else 0, encode)
                near = min(max(abs(left), abs(above), abs(before)), 3) // 2 + (abs(left) + abs(above) > 4)
                size = _magnitude(data, state, sizes, min(near, 2), abs(value), encode)
                own[y, x] = size if positive else -size
