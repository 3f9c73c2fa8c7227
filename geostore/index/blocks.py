"""Distances of single rows, and bounds that rule out many rows together: what the compiled scans are made of.

Bounds are minima, which the compiler turns into vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geostore.index.bits import Words
from geostore.index.compiled import compiled, popcount

BLOCK = 256  # rows ruled out together by the first half of their words
FEW = 64  # rows that a bitmap leaves of a block; so few are looked at one by one
GROUP = 16  # rows ruled out together by all of their words
NEAR = 8  # bits a word; nearer limits are tried on the first half of the words first
AHEAD = 16  # single rows that are fetched before they are needed


@compiled
def distance(words: Words, row: int, query: Words) -> int:  # pragma: no cover - compiled
    """Bits in which one row of (W, N) differs from a (W,) query; two words, the usual width, without a loop."""
    if words.shape[0] == 2:
        return popcount(words[0, row] ^ query[0]) + popcount(words[1, row] ^ query[1])
    total = 0
    for w in range(words.shape[0]):
        total += popcount(words[w, row] ^ query[w])
    return total


@compiled
def far_at_most(words: Words, row: int, query: Words, limit: int) -> int:  # pragma: no cover - compiled
    """The distance; limit + 1 as soon as it is known to be larger, before the next word is fetched."""
    if words.shape[0] == 2:
        first = popcount(words[0, row] ^ query[0])
        return limit + 1 if first > limit else min(first + popcount(words[1, row] ^ query[1]), limit + 1)
    total = 0
    for w in range(words.shape[0]):
        total += popcount(words[w, row] ^ query[w])
        if total > limit:
            return limit + 1
    return total


@compiled
def least_1(a: Words, p: Any) -> int:  # pragma: no cover - compiled
    """The smallest distance of one word of some rows."""
    least = 1 << 20
    for i in range(a.size):
        least = min(least, popcount(a[i] ^ p))
    return least


@compiled
def least_2(a: Words, b: Words, p: Any, q: Any) -> int:  # pragma: no cover - compiled
    """The same of two words, given as single arrays: the compiler keeps whole vectors at work."""
    least = 1 << 20
    for i in range(a.size):
        least = min(least, popcount(a[i] ^ p) + popcount(b[i] ^ q))
    return least


@compiled
def _least_4(a: Words, b: Words, c: Words, d: Words, query: Words) -> int:  # pragma: no cover - compiled
    least = 1 << 20
    p, q, r, s = query[0], query[1], query[2], query[3]
    for i in range(a.size):
        left = popcount(a[i] ^ p) + popcount(b[i] ^ q)
        least = min(least, left + popcount(c[i] ^ r) + popcount(d[i] ^ s))
    return least


@compiled
def least(words: Words, lo: int, hi: int, query: Words) -> int:  # pragma: no cover - compiled
    """The smallest distance of rows in [lo, hi)."""
    if words.shape[0] == 1:
        return least_1(words[0, lo:hi], query[0])
    if words.shape[0] == 2:
        return least_2(words[0, lo:hi], words[1, lo:hi], query[0], query[1])
    return _least_4(words[0, lo:hi], words[1, lo:hi], words[2, lo:hi], words[3, lo:hi], query)


@compiled
def ruled_out(words: Words, lo: int, hi: int, query: Words, limit: int) -> bool:  # pragma: no cover - compiled
    """True if a bound (for near limits that of half the words) puts all rows in [lo, hi) at `limit` or more."""
    count = words.shape[0]
    if limit > NEAR * count or count == 1:
        return least(words, lo, hi, query) >= limit
    if count == 2:
        return least_1(words[0, lo:hi], query[0]) >= limit
    return least_2(words[0, lo:hi], words[1, lo:hi], query[0], query[1]) >= limit


@compiled
def count_allowed(allowed: Words, lo: int, hi: int) -> int:  # pragma: no cover - compiled
    """Rows of the bitmap in the words that hold [lo, hi)."""
    total = 0
    for w in range(lo >> 6, ((hi - 1) >> 6) + 1):
        total += popcount(allowed[w])
    return total


@compiled
def has(allowed: Words, row: int) -> bool:  # pragma: no cover - compiled
    """Whether a row's bit is set; of an empty bitmap every row's is."""
    return allowed.size == 0 or (allowed[row >> 6] >> np.uint64(row & 63)) & np.uint64(1) != 0
