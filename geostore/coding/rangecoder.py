"""A range coder of whole numbers around an expected one: every table, state and decision is an integer.

References:
    Martin (1979), "Range encoding"; carries are propagated as in Subbotin's and the LZMA coder.
    Laplace tables by recurrence in fixed point, from constants that decimal arithmetic gives alike everywhere.
"""

from __future__ import annotations

from decimal import Context, Decimal
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled

OCTAVE = 8  # table scales per doubling
SCALES = 64  # from 2**-5 to about 2**3 quanta
ONE_QUANTUM = 5 * OCTAVE  # the index of a scale of one quantum
LARGEST_SCALE = SCALES - 1 + 8 * OCTAVE  # wider ones are coded by their high bits, the low ones raw
PARTS = 16  # expected values are in 1/16 quantum
_REACH = 63  # offsets that tables hold; larger ones escape
_SYMBOLS = 2 * _REACH + 2
_TOTAL_BITS = 16
_TOP = 1 << 24
_FIX = 40  # fraction bits of the constants

Bytes = npt.NDArray[np.uint8]
Longs = npt.NDArray[np.int64]


@lru_cache(maxsize=1)
def tables() -> npt.NDArray[np.int32]:
    """(SCALES, PARTS + 1, _SYMBOLS + 1) cumulative frequencies for a scale and the part of a quantum expected."""
    context = Context(prec=40)
    parts = []
    for index in range(SCALES):
        scale = context.power(Decimal(2), context.divide(Decimal(index - ONE_QUANTUM), Decimal(OCTAVE)))
        base = context.exp(context.divide(Decimal(-1), context.multiply(Decimal(PARTS), scale)))
        parts.append(int(context.multiply(base, Decimal(1 << _FIX))))
    out = np.zeros((SCALES, PARTS + 1, _SYMBOLS + 1), np.int32)
    _fill_tables(np.array(parts, np.int64), out)
    return out


@compiled(lean=True)
def _times(a: int, b: int) -> int:
    """A * b / 2**_FIX for a, b of at most 2**_FIX, without leaving 64 bits."""
    high, low = a >> 20, a & 0xFFFFF
    return (high * (b >> 20)) + ((high * (b & 0xFFFFF) + low * (b >> 20)) >> 20)


@compiled
def _fill_tables(bases: Longs, out: npt.NDArray[np.int32]) -> None:
    """Laplace masses of -_REACH.._REACH for an expected value of (part - PARTS / 2) / PARTS."""
    powers = np.empty(PARTS + 1, np.int64)
    for s in range(len(bases)):
        powers[0] = 1 << _FIX
        for j in range(1, PARTS + 1):
            powers[j] = _times(powers[j - 1], bases[s])
        ratio = powers[PARTS]
        for part in range(PARTS + 1):
            up = _times(powers[PARTS - part], (1 << _FIX) - ratio) >> 1  # the mass of 1
            down = _times(powers[part], (1 << _FIX) - ratio) >> 1  # the mass of -1
            row = out[s, part]
            rest = (1 << _TOTAL_BITS) - 1  # the escape has one
            for k in range(1, _REACH + 1):
                row[_REACH + k + 1] = max(up >> (_FIX - _TOTAL_BITS), 1)
                row[_REACH - k + 1] = max(down >> (_FIX - _TOTAL_BITS), 1)
                rest -= row[_REACH + k + 1] + row[_REACH - k + 1]
                up, down = _times(up, ratio), _times(down, ratio)
            row[_REACH + 1] = rest
            row[_SYMBOLS] = 1
            for i in range(_SYMBOLS):
                row[i + 1] += row[i]


@compiled(lean=True)
def log2_16ths(value: int) -> int:
    """16 * log2 of a positive whole number, by straight lines between powers of two."""
    bits = 0
    while value >> (bits + 1):
        bits += 1
    return 16 * bits + ((value - (1 << bits)) * 16 >> bits)


# A coder is an int64 array: low, range, bytes held back and how many, position (encoder); code, range, -, -, position.
@compiled
def start_encoder() -> Longs:
    """State of an encoder that has written nothing."""
    return np.array([0, 0xFFFFFFFF, 0, 1, 0], np.int64)


@compiled
def start_decoder(stream: Bytes) -> Longs:
    """State of a decoder at the start of `stream`; beyond its end it reads zeros."""
    state = np.array([0, 0xFFFFFFFF, 0, 0, 0], np.int64)
    for _ in range(4):
        state[0] = (state[0] << 8) | _next(stream, state)
    return state


@compiled(lean=True)
def _next(stream: Bytes, state: Longs) -> int:
    at = state[4]
    state[4] = at + 1
    return stream[at] if at < len(stream) else 0


@compiled(lean=True)
def _shift(out: Bytes, state: Longs) -> None:
    """Move the top byte of low out; bytes of 255 wait for a carry."""
    low = state[0]
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        while state[3] > 0:
            out[state[4]] = (state[2] + carry) & 0xFF
            state[4] += 1
            state[3] -= 1
            state[2] = 0xFF
        state[2] = (low >> 24) & 0xFF
    state[3] += 1
    state[0] = (low & 0x00FFFFFF) << 8


@compiled(lean=True)
def _narrow(out: Bytes, state: Longs, start: int, size: int, bits: int) -> None:
    part = state[1] >> bits
    state[0] += part * start
    state[1] = part * size
    while state[1] < _TOP:
        state[1] = state[1] << 8
        _shift(out, state)


@compiled(lean=True)
def _widen(stream: Bytes, state: Longs, start: int, size: int, part: int) -> None:
    state[0] -= start * part
    state[1] = part * size
    while state[1] < _TOP:
        state[1] = state[1] << 8
        state[0] = (state[0] << 8) | _next(stream, state)


@compiled(lean=True)
def _raw(out: Bytes, state: Longs, value: int, bits: int) -> None:
    for i in range(bits - 1, -1, -1):
        _narrow(out, state, (value >> i) & 1, 1, 1)


@compiled(lean=True)
def _read_raw(stream: Bytes, state: Longs, bits: int) -> int:
    value = 0
    for _ in range(bits):
        part = state[1] >> 1
        bit = 1 if state[0] >= part else 0
        _widen(stream, state, bit, 1, part)
        value = (value << 1) | bit
    return value


@compiled(lean=True)
def placed(expected: int, scale: int) -> tuple[int, int, int, int]:
    """(centre, low bits, table, part) of a value expected at `expected` / PARTS with the scale of that index."""
    shift = 0
    while scale >= SCALES:
        scale -= OCTAVE
        shift += 1
    scale = max(scale, 0)
    centre = (expected + PARTS // 2) >> 4
    part = expected - (centre << 4) + PARTS // 2
    return centre, shift, scale, part if shift == 0 else PARTS // 2


@compiled(lean=True)
def encode_one(out: Bytes, state: Longs, rows: npt.NDArray[np.int32], value: int, expected: int, scale: int) -> None:
    """Append `value`, expected near `expected` / PARTS, to `out`, which has room."""
    centre, shift, table, part = placed(expected, scale)
    row = rows[table, part]
    offset = value - centre
    high = (offset + ((1 << shift) >> 1)) >> shift
    if -_REACH <= high <= _REACH:
        at = high + _REACH
        _narrow(out, state, row[at], row[at + 1] - row[at], _TOTAL_BITS)
    else:
        at = _SYMBOLS - 1
        _narrow(out, state, row[at], row[at + 1] - row[at], _TOTAL_BITS)
        beyond = abs(high) - _REACH  # at least 1: Elias gamma
        bits = 0
        while beyond >> (bits + 1):
            bits += 1
        _raw(out, state, 1 if high < 0 else 0, 1)
        _raw(out, state, 0, bits)
        _raw(out, state, 1, 1)
        _raw(out, state, beyond & ((1 << bits) - 1), bits)
    _raw(out, state, (offset + ((1 << shift) >> 1)) & ((1 << shift) - 1), shift)


@compiled(lean=True)
def decode_one(stream: Bytes, state: Longs, rows: npt.NDArray[np.int32], expected: int, scale: int) -> int:
    """The inverse of `encode_one`; a damaged stream gives some number."""
    centre, shift, table, part = placed(expected, scale)
    row = rows[table, part]
    share = state[1] >> _TOTAL_BITS
    value = min(state[0] // share, (1 << _TOTAL_BITS) - 1)
    low, high = 0, _SYMBOLS
    while high - low > 1:
        middle = (low + high) >> 1
        if row[middle] <= value:
            low = middle
        else:
            high = middle
    _widen(stream, state, row[low], row[low + 1] - row[low], share)
    offset = low - _REACH
    if low == _SYMBOLS - 1:
        negative = _read_raw(stream, state, 1)
        bits = 0
        while bits < 20 and _read_raw(stream, state, 1) == 0:
            bits += 1
        beyond = (1 << bits) | _read_raw(stream, state, bits)
        offset = -(beyond + _REACH) if negative else beyond + _REACH
    offset = (offset << shift) + _read_raw(stream, state, shift) - ((1 << shift) >> 1)
    return centre + offset


@compiled(lean=True)
def encode_bit(out: Bytes, state: Longs, bit: int, ones: int) -> None:
    """Append one bit to `out`; `ones` of 1/65536, 1 to 65535, is the probability of a 1."""
    if bit:
        _narrow(out, state, 0, ones, _TOTAL_BITS)
    else:
        _narrow(out, state, ones, (1 << _TOTAL_BITS) - ones, _TOTAL_BITS)


@compiled(lean=True)
def decode_bit(stream: Bytes, state: Longs, ones: int) -> int:
    """The next bit of `stream`, given the probability it was written with."""
    part = state[1] >> _TOTAL_BITS
    if state[0] < ones * part:
        _widen(stream, state, 0, ones, part)
        return 1
    _widen(stream, state, ones, (1 << _TOTAL_BITS) - ones, part)
    return 0


@compiled(lean=True)
def finish(out: Bytes, state: Longs) -> int:
    """End the stream with the fewest bytes that still decode: it is out[1 : 1 + n] for the n returned.

    The first byte of an encoder takes carries that cannot come, so it is 0 and no part of the stream.
    """
    low, top = state[0], state[0] + state[1]
    for keep in range(5):
        unit = 1 << (32 - 8 * keep)
        value = (low + unit - 1) // unit * unit
        if value < top:
            break
    state[0] = value
    for _ in range(5):
        _shift(out, state)
    size: int = state[4]
    while size > 1 and out[size - 1] == 0:
        size -= 1
    return size - 1
