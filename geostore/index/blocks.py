"""Distances of single rows, and 64 rows at a time as the bits of a word: what the compiled scans are made of."""

from __future__ import annotations

from typing import Any

import numpy as np

from geostore.compiled import compiled
from geostore.index.bits import Words, between
from geostore.index.intrinsics import popcount

BLOCK = 1024  # rows whose bits are made together
NEAR = 9  # bits a word; up to there the first half of the words is looked at alone
MANY = BLOCK // 32  # rows of a block that half of their words may leave; with more the other half is looked at for all
FEW = BLOCK // 64  # rows of a block that a bitmap leaves; so few are looked at one by one
AHEAD = 32  # single rows that are fetched before they are needed
_ONE = np.uint64(1)


@compiled
def far_at_most(words: Words, row: int, query: Words, limit: int) -> int:  # pragma: no cover - compiled
    """Bits in which a row of (W, N) differs from a (W,) query; limit + 1 as soon as it is known to be more than limit.

    Two words, the usual width, are done without a loop.
    """
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
def candidates(
    words: Words, lo: int, hi: int, query: Words, limit: int, allowed: Words, bits: Words
) -> int:  # pragma: no cover - compiled
    """Set in `bits` rows of [lo, hi), which lies in one block: all within `limit`, and some that may not be.

    Near limits are tried on the first half of the words, so that most of the other half is never read.

    Args:
        words: (W, N).
        lo: first of the rows.
        hi: behind the last.
        query: (W,).
        limit: bits that may differ.
        allowed: bitmap over N rows, or empty for no such filter; other rows are left out.
        bits: room for a block; word 0 is the bitmap's word that holds `lo`.

    Returns:
        Words of `bits` to look at; 0 where there is nothing.
    """
    first, last = lo >> 6, ((hi - 1) >> 6) + 1
    if allowed.size:
        count = 0
        for w in range(first, last):
            bits[w - first] = allowed[w] & between(w, lo, hi)
            count += popcount(bits[w - first])
        if count <= FEW:
            return last - first if count else 0
    start, stop = first << 6, min(last << 6, words.shape[1])
    found = MANY + 1
    if words.shape[0] == 1:
        found = _within_1(words[0, start:stop], query[0], limit, bits)
    elif words.shape[0] == 2:
        if limit <= 2 * NEAR:
            found = _within_1(words[0, start:stop], query[0], limit, bits)
        if found > MANY:
            found = _within_2(words[0, start:stop], words[1, start:stop], query[0], query[1], limit, bits)
    else:
        if limit <= 4 * NEAR:
            found = _within_2(words[0, start:stop], words[1, start:stop], query[0], query[1], limit, bits)
        if found > MANY:
            found = _within_4(words, start, stop, query, limit, bits)
    if not found:
        return 0
    if allowed.size:
        for w in range(first, last):
            bits[w - first] &= allowed[w]
    bits[0] &= between(first, lo, hi)
    bits[last - first - 1] &= between(last - 1, lo, hi)
    return last - first


@compiled
def _within_1(a: Words, p: Any, limit: int, bits: Words) -> int:  # pragma: no cover - compiled
    """Single arrays and loops of known length let the compiler use whole vectors."""
    total = 0
    for w in range(a.size >> 6):
        found, part = np.uint64(0), a[w << 6 : (w + 1) << 6]
        for i in range(64):
            found |= np.uint64(popcount(part[i] ^ p) <= limit) << np.uint64(i)
        bits[w] = found
        total += popcount(found)
    if a.size & 63:
        found, start = np.uint64(0), a.size & ~63
        for i in range(start, a.size):
            found |= np.uint64(popcount(a[i] ^ p) <= limit) << np.uint64(i - start)
        bits[a.size >> 6] = found
        total += popcount(found)
    return total


@compiled
def _within_2(a: Words, b: Words, p: Any, q: Any, limit: int, bits: Words) -> int:  # pragma: no cover - compiled
    total = 0
    for w in range(a.size >> 6):
        found, part, other = np.uint64(0), a[w << 6 : (w + 1) << 6], b[w << 6 : (w + 1) << 6]
        for i in range(64):
            far = popcount(part[i] ^ p) + popcount(other[i] ^ q)
            found |= np.uint64(far <= limit) << np.uint64(i)
        bits[w] = found
        total += popcount(found)
    if a.size & 63:
        found, start = np.uint64(0), a.size & ~63
        for i in range(start, a.size):
            far = popcount(a[i] ^ p) + popcount(b[i] ^ q)
            found |= np.uint64(far <= limit) << np.uint64(i - start)
        bits[a.size >> 6] = found
        total += popcount(found)
    return total


@compiled
def _within_4(
    words: Words, start: int, stop: int, query: Words, limit: int, bits: Words
) -> int:  # pragma: no cover - compiled
    total, found = 0, np.uint64(0)
    a, b, c, d = words[0, start:stop], words[1, start:stop], words[2, start:stop], words[3, start:stop]
    p, q, r, s = query[0], query[1], query[2], query[3]
    for i in range(a.size):
        far = popcount(a[i] ^ p) + popcount(b[i] ^ q) + popcount(c[i] ^ r) + popcount(d[i] ^ s)
        found |= np.uint64(far <= limit) << np.uint64(i & 63)
        if i & 63 == 63 or i == a.size - 1:
            bits[i >> 6] = found
            total += popcount(found)
            found = np.uint64(0)
    return total


@compiled
def lowest(bits: Any) -> int:  # pragma: no cover - compiled
    """Position of the lowest bit that is set; some must be."""
    return popcount((bits & (~bits + _ONE)) - _ONE)


@compiled
def without_lowest(bits: Any) -> Any:  # pragma: no cover - compiled
    """The same without its lowest bit."""
    return bits & (bits - _ONE)
