"""The compiled exact scan for the nearest signatures, at the speed of memory.

A block of rows is left as soon as a lower bound says that none of it can be among the hits: from the first half of the
words for a block, so that most of the second half is never read, then from all words for a group. Rows are looked at
one by one only in groups that hold a hit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.index.bits import Rows, Words, between
from geostore.index.blocks import (
    AHEAD,
    BLOCK,
    FEW,
    GROUP,
    NEAR,
    count_allowed,
    distance,
    far_at_most,
    has,
    least,
    least_1,
    least_2,
    ruled_out,
)
from geostore.index.compiled import compiled, popcount, prefetch

SAMPLED = 16  # of so many blocks one is looked at beforehand, where many rows are wanted
TILE = 1024  # rows that stay in the fastest cache while every query of a batch passes over them
Int16s = npt.NDArray[np.int16]


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
        count = BLOCK if allowed.size == 0 else count_allowed(allowed, lo, hi)
        if count and not ruled_out(words, lo, hi, query, state[0]):
            if count <= FEW:
                _offer_few(words, base, query, lo, hi, allowed, k, state, tally, rows, far_of)
            elif words.shape[0] == 2:
                _offer_two(words[0], words[1], base, query, lo, hi, allowed, k, state, tally, rows, far_of)
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
        if least(words, lo, stop, query) < state[0]:
            for row in range(lo, stop):
                far = distance(words, row, query)
                if far < state[0] and has(allowed, row):
                    _take(base + row, far, k, state, tally, rows, far_of)
        lo = stop


@compiled
def _offer_two(
    a: Words,
    b: Words,
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
    """As `_offer`, of two words, the usual width: single arrays let the compiler keep whole vectors at work.

    Near limits are tried on the first word of a group, so that little of the second is read.
    """
    p, q = query[0], query[1]
    while lo < hi:
        stop = min(lo + GROUP, hi)
        limit = state[0]
        first = a[lo:stop]
        if (limit > 2 * NEAR or least_1(first, p) < limit) and least_2(first, b[lo:stop], p, q) < limit:
            for row in range(lo, stop):
                far = popcount(a[row] ^ p) + popcount(b[row] ^ q)
                if far < state[0] and has(allowed, row):
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
    far = np.empty(BLOCK, np.int16)
    for r in range(runs.shape[0]):
        for lo in range(runs[r, 0], runs[r, 1], SAMPLED * BLOCK):
            hi = min(lo + BLOCK, runs[r, 1])
            far[:] = 0
            for w in range(words.shape[0]):
                _add_distances(words[w, lo:hi], query[w], far)
            for i in range(hi - lo):
                if has(allowed, lo + i):
                    tally[far[i]] += 1


@compiled
def _add_distances(word: Words, part: Any, far: Int16s) -> None:  # pragma: no cover - compiled
    """Add the bits in which one word of each row differs."""
    for i in range(word.size):
        far[i] += popcount(word[i] ^ part)


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
        if i + AHEAD < chosen.size:
            for w in range(words.shape[0]):
                prefetch(words[w], chosen[i + AHEAD])
        for j in range(queries.shape[0]):
            far = far_at_most(words, chosen[i], queries[j], state[j, 0] - 1)
            if far < state[j, 0]:
                _take(base + chosen[i], far, k, state[j], tally[j], rows[j], far_of[j])
