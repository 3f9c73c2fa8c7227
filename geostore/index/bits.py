"""Bits held in 64-bit words: signatures as one array a word, and bitmaps with one bit a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.errors import InvalidInput
from geostore.index.intrinsics import popcount

Words = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
BITS_MIN, BITS_MAX = 32, 256


def check_bits(bits: int) -> int:
    """Return `bits` if signatures can have that many; raise InvalidInput otherwise."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not BITS_MIN <= bits <= BITS_MAX:
        raise InvalidInput(f"signatures of {bits!r} bits; use {BITS_MIN} to {BITS_MAX}")
    return bits


def word_count(bits: int) -> int:
    """Words that hold a signature: 1, 2 or 4, so that the scan has few shapes; spare bits are 0.

    >>> word_count(32), word_count(128), word_count(160)
    (1, 2, 4)
    """
    return 1 if check_bits(bits) <= 64 else 2 if bits <= 128 else 4


def pack_signatures(bits: npt.NDArray[np.bool_]) -> Words:
    """(N, bits) bool -> (W, N) uint64, bit i of a signature in word i // 64 at value 2**(i % 64).

    Raises:
        InvalidInput: not two-dimensional, or a width that is not 32 to 256.
    """
    if bits.ndim != 2:
        raise InvalidInput(f"signature bits of shape {bits.shape}; give (rows, bits)")
    rows, words = len(bits), word_count(bits.shape[1])
    packed = np.zeros((rows, 8 * words), np.uint8)
    packed[:, : -(-bits.shape[1] // 8)] = np.packbits(bits, axis=1, bitorder="little")
    return np.ascontiguousarray(packed.view("<u8").T.astype(np.uint64, copy=False))


def unpack_signatures(words: Words, bits: int) -> npt.NDArray[np.bool_]:
    """The inverse of `pack_signatures`: (W, N) uint64 -> (N, bits) bool."""
    octets = np.ascontiguousarray(words.T).astype("<u8", copy=False).view(np.uint8)  # (N, 8 W)
    return np.unpackbits(octets, axis=1, count=check_bits(bits), bitorder="little").astype(np.bool_)


def octets(words: Words) -> npt.NDArray[np.uint8]:
    """(W, N) uint64 -> (N, 8 W) uint8, the layout other libraries' binary indices take."""
    return np.ascontiguousarray(words.T).astype("<u8", copy=False).view(np.uint8)


def bitmap_size(rows: int) -> int:
    """Words of a bitmap over `rows` rows."""
    return -(-rows // 64)


def bitmap(chosen: npt.NDArray[np.bool_]) -> Words:
    """(N,) bool -> bitmap; row i is bit i % 64 of word i // 64, spare bits are 0."""
    octets = np.zeros(8 * bitmap_size(len(chosen)), np.uint8)
    octets[: -(-len(chosen) // 8)] = np.packbits(chosen, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def bitmap_of(rows: npt.NDArray[Any], size: int) -> Words:
    """The bitmap over `size` rows in which the rows of an integer array are set."""
    out = np.zeros(bitmap_size(size), np.uint64)
    set_rows(out, np.asarray(rows))
    return out


@compiled
def set_rows(words: Words, rows: npt.NDArray[Any]) -> None:  # pragma: no cover - compiled
    """Set the bit of each row, in place."""
    for i in range(rows.size):
        row = np.uint64(rows[i])
        words[row >> np.uint64(6)] |= np.uint64(1) << (row & np.uint64(63))


@compiled
def clear_rows(words: Words, rows: npt.NDArray[Any]) -> None:  # pragma: no cover - compiled
    """Clear the bit of each row, in place."""
    for i in range(rows.size):
        row = np.uint64(rows[i])
        words[row >> np.uint64(6)] &= ~(np.uint64(1) << (row & np.uint64(63)))


@compiled
def bits_at(words: Words, rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:  # pragma: no cover - compiled
    """Whether each row's bit is set."""
    out = np.empty(rows.size, np.bool_)
    for i in range(rows.size):
        out[i] = (words[rows[i] >> 6] >> np.uint64(rows[i] & 63)) & np.uint64(1) != 0
    return out


@compiled
def count_bits(words: Words) -> int:  # pragma: no cover - compiled
    """How many bits are set."""
    total = 0
    for i in range(words.size):
        total += popcount(words[i])
    return total


@compiled
def count_in_runs(words: Words, runs: npt.NDArray[np.int64]) -> int:  # pragma: no cover - compiled
    """How many bits are set at rows within `runs`, (R, 2) of [start, stop)."""
    total = 0
    for r in range(runs.shape[0]):
        start, stop = runs[r, 0], runs[r, 1]
        if start >= stop:
            continue
        first, last = start >> 6, (stop - 1) >> 6
        total += popcount(words[first] & between(first, start, stop))
        if first < last:
            total += count_bits(words[first + 1 : last]) + popcount(words[last] & between(last, start, stop))
    return total


@compiled
def rows_in_runs(
    words: Words, runs: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:  # pragma: no cover - compiled
    """The set rows within `runs`, ascending; `count` is `count_in_runs` of the same."""
    out = np.empty(count, np.int64)
    n = 0
    for r in range(runs.shape[0]):
        start, stop = runs[r, 0], runs[r, 1]
        if start >= stop:
            continue
        for w in range(start >> 6, ((stop - 1) >> 6) + 1):
            word = words[w] & between(w, start, stop)
            while word:
                low = word & (~word + np.uint64(1))
                out[n] = (w << 6) + popcount(low - np.uint64(1))
                n += 1
                word ^= low
    return out


@compiled
def between(word: int, start: int, stop: int) -> np.uint64:  # pragma: no cover - compiled
    """The bits of word number `word` whose rows lie in [start, stop)."""
    every = np.uint64(0xFFFFFFFFFFFFFFFF)
    low, high = start - (word << 6), stop - (word << 6)
    mask = every if low <= 0 else every << np.uint64(low)
    return mask if high >= 64 else mask & ~(every << np.uint64(high))
