"""The compiled exact scan: the nearest signatures, and all within a radius, at the speed of memory.

A block of rows is left as soon as a lower bound says that none of it can be among the hits: from the first half of the
words for a block, so that most of the second half is never read, then from all words for a group. Both bounds are
minima, which the compiler turns into vector instructions; rows are looked at one by one only in groups that hold a hit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.index.bits import Rows, Words, between
from geostore.index.compiled import compiled, popcount

BLOCK = 256  # rows ruled out together by the first half of their words
SAMPLED = 16  # of so many blocks one is looked at beforehand, where many rows are wanted
FEW = 64  # rows that a bitmap leaves of a block; so few are looked at one by one
GROUP = 32  # rows ruled out together by all of their words
TILE = 1024  # rows that stay in the fastest cache while every query of a batch passes over them
NEAR = 8  # bits a word; nearer limits are tried on the first half of the words first
Int16s = npt.NDArray[np.int16]


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
def _least_1(a: Words, p: Any) -> int:  # pragma: no cover - compiled
    least = 1 << 20
    for i in range(a.size):
        least = min(least, popcount(a[i] ^ p))
    return least


@compiled
def _least_2(a: Words, b: Words, p: Any, q: Any) -> int:  # pragma: no cover - compiled
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
def _least(words: Words, lo: int, hi: int, query: Words) -> int:  # pragma: no cover - compiled
    """The smallest distance of rows in [lo, hi)."""
    if words.shape[0] == 1:
        return _least_1(words[0, lo:hi], query[0])
    if words.shape[0] == 2:
        return _least_2(words[0, lo:hi], words[1, lo:hi], query[0], query[1])
    return _least_4(words[0, lo:hi], words[1, lo:hi], words[2, lo:hi], words[3, lo:hi], query)


@compiled
def _ruled_out(words: Words, lo: int, hi: int, query: Words, limit: int) -> bool:  # pragma: no cover - compiled
    """True if a bound (for near limits that of half the words) puts all rows in [lo, hi) at `limit` or more."""
    count = words.shape[0]
    if limit > NEAR * count or count == 1:
        return _least(words, lo, hi, query) >= limit
    if count == 2:
        return _least_1(words[0, lo:hi], query[0]) >= limit
    return _least_2(words[0, lo:hi], words[1, lo:hi], query[0], query[1]) >= limit


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
def _count(allowed: Words, lo: int, hi: int) -> int:  # pragma: no cover - compiled
    """Rows of the bitmap in the words that hold [lo, hi)."""
    total = 0
    for w in range(lo >> 6, ((hi - 1) >> 6) + 1):
        total += popcount(allowed[w])
    return total


@compiled
def _has(allowed: Words, row: int) -> bool:  # pragma: no cover - compiled
    return allowed.size == 0 or (allowed[row >> 6] >> np.uint64(row & 63)) & np.uint64(1) != 0


@compiled
def _take(row: int, far: int, k: int, state: Rows, tally: Rows, rows: Rows, far_of: Int16s) -> None:  # pragma: no cover
    """Keep a row nearer than the limit; then lower the limit to the k-th distance so far.

    `state` is (limit, kept, kept at or below the limit); `tally` counts kept rows by distance.
    """
    if state[1] == rows.size:
        _drop_beyond(k, state, tally, rows, far_of)
    rows[state[1]], far_of[state[1]] = row, far
    state[1] += 1
    state[2] += 1
    tally[far] += 1
    while state[2] - tally[state[0]] >= k:
        state[2] -= tally[state[0]]
        state[0] -= 1


@compiled
def _drop_beyond(k: int, state: Rows, tally: Rows, rows: Rows, far_of: Int16s) -> None:  # pragma: no cover - compiled
    """Remove what lies beyond the limit; at the limit itself the first rows stay, as many as the k-th needs."""
    limit = state[0]
    room = k - (state[2] - tally[limit])
    kept = at_limit = 0
    for i in range(state[1]):
        if far_of[i] < limit or (far_of[i] == limit and at_limit < room):
            at_limit += far_of[i] == limit
            rows[kept], far_of[kept] = rows[i], far_of[i]
            kept += 1
    tally[limit] = at_limit
    tally[limit + 1 :] = 0
    state[1] = state[2] = kept


@compiled
def scan_runs(
    words: Words,
    base: int,
    queries: Words,
    runs: Rows,
    allowed: Words,
    k: int,
    state: Rows,
    tally: Rows,
    rows: Rows,
    far_of: Int16s,
) -> None:  # pragma: no cover - compiled
    """Offer the rows of `runs` to every query's k nearest.

    Args:
        words: (W, N) signatures.
        base: added to row numbers that are kept.
        queries: (Q, W).
        runs: (R, 2), ascending [start, stop).
        allowed: bitmap over N rows, or empty for no such filter.
        k: rows wanted.
        state: (Q, 3), see `_take`; this and the following are changed in place.
        tally: (Q, bits + 2).
        rows: (Q, C), C above k.
        far_of: (Q, C).
    """
    for r in range(runs.shape[0]):
        lo, stop = runs[r, 0], runs[r, 1]
        while lo < stop:
            end = min((lo // TILE + 1) * TILE, stop)
            for j in range(queries.shape[0]):
                _scan_tile(words, base, queries[j], lo, end, allowed, k, state[j], tally[j], rows[j], far_of[j])
            lo = end


@compiled
def _scan_tile(
    words: Words,
    base: int,
    query: Words,
    lo: int,
    end: int,
    allowed: Words,
    k: int,
    state: Rows,
    tally: Rows,
    rows: Rows,
    far_of: Int16s,
) -> None:  # pragma: no cover - compiled
    while lo < end:
        hi = min((lo // BLOCK + 1) * BLOCK, end)
        count = BLOCK if allowed.size == 0 else _count(allowed, lo, hi)
        if count and not _ruled_out(words, lo, hi, query, state[0]):
            if count <= FEW:
                _offer_few(words, base, query, lo, hi, allowed, k, state, tally, rows, far_of)
            else:
                _offer(words, base, query, lo, hi, allowed, k, state, tally, rows, far_of)
        lo = hi


@compiled
def _offer(
    words: Words,
    base: int,
    query: Words,
    lo: int,
    hi: int,
    allowed: Words,
    k: int,
    state: Rows,
    tally: Rows,
    rows: Rows,
    far_of: Int16s,
) -> None:  # pragma: no cover - compiled
    while lo < hi:
        stop = min((lo // GROUP + 1) * GROUP, hi)
        if _least(words, lo, stop, query) < state[0]:
            for row in range(lo, stop):
                far = distance(words, row, query)
                if far < state[0] and _has(allowed, row):
                    _take(base + row, far, k, state, tally, rows, far_of)
        lo = stop


@compiled
def _offer_few(
    words: Words,
    base: int,
    query: Words,
    lo: int,
    hi: int,
    allowed: Words,
    k: int,
    state: Rows,
    tally: Rows,
    rows: Rows,
    far_of: Int16s,
) -> None:  # pragma: no cover - compiled
    """As `_offer`, from one set bit of the bitmap to the next."""
    for w in range(lo >> 6, ((hi - 1) >> 6) + 1):
        word = allowed[w] & between(w, lo, hi)
        while word:
            row = (w << 6) + popcount((word & (~word + np.uint64(1))) - np.uint64(1))
            word &= word - np.uint64(1)
            far = far_at_most(words, row, query, state[0] - 1)
            if far < state[0]:
                _take(base + row, far, k, state, tally, rows, far_of)


@compiled
def sample(words: Words, query: Words, runs: Rows, allowed: Words, tally: Rows) -> None:  # pragma: no cover - compiled
    """Count the distances of the chosen rows in every SAMPLED-th block of the runs, into (bits + 2,) `tally`."""
    for r in range(runs.shape[0]):
        for lo in range(runs[r, 0], runs[r, 1], SAMPLED * BLOCK):
            for row in range(lo, min(lo + BLOCK, runs[r, 1])):
                if _has(allowed, row):
                    tally[distance(words, row, query)] += 1


@compiled
def scan_rows(
    words: Words,
    base: int,
    queries: Words,
    chosen: Rows,
    k: int,
    state: Rows,
    tally: Rows,
    rows: Rows,
    far_of: Int16s,
) -> None:  # pragma: no cover - compiled
    """As `scan_runs`, for single rows: `chosen` is (M,), ascending."""
    for i in range(chosen.size):
        for j in range(queries.shape[0]):
            far = far_at_most(words, chosen[i], queries[j], state[j, 0] - 1)
            if far < state[j, 0]:
                _take(base + chosen[i], far, k, state[j], tally[j], rows[j], far_of[j])


@compiled
def hits_runs(
    words: Words,
    query: Words,
    radius: int,
    run: int,
    start: int,
    runs: Rows,
    allowed: Words,
    rows: Rows,
    far_of: Int16s,
) -> tuple[int, int, int]:  # pragma: no cover - compiled
    """Rows within `radius` from row `start` of run `run` on, until the buffers may not hold another block.

    Returns:
        (hits written, run to go on with, row to go on with); the run is len(runs) at the end.
    """
    found = 0
    for r in range(run, runs.shape[0]):
        lo = max(start, runs[r, 0]) if r == run else runs[r, 0]
        while lo < runs[r, 1]:
            if found + BLOCK > rows.size:
                return found, r, lo
            hi = min((lo // BLOCK + 1) * BLOCK, runs[r, 1])
            if (allowed.size == 0 or _count(allowed, lo, hi)) and not _ruled_out(words, lo, hi, query, radius + 1):
                while lo < hi:
                    stop = min((lo // GROUP + 1) * GROUP, hi)
                    if _least(words, lo, stop, query) <= radius:
                        for row in range(lo, stop):
                            far = distance(words, row, query)
                            if far <= radius and _has(allowed, row):
                                rows[found], far_of[found] = row, far
                                found += 1
                    lo = stop
            lo = hi
    return found, runs.shape[0], 0


@compiled
def hits_rows(
    words: Words, query: Words, radius: int, chosen: Rows, rows: Rows, far_of: Int16s
) -> int:  # pragma: no cover - compiled
    """Rows among `chosen` within `radius`; how many were written to buffers as long as `chosen`."""
    found = 0
    for i in range(chosen.size):
        far = far_at_most(words, chosen[i], query, radius)
        if far <= radius:
            rows[found], far_of[found] = chosen[i], far
            found += 1
    return found
