"""The compiled scan for all rows within a radius, at the speed of memory."""

from __future__ import annotations

import numpy as np

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
from geostore.index.scan import Int16s


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
    found, far_limit = 0, radius >= NEAR * words.shape[0]  # few blocks are ruled out as a whole
    for r in range(run, runs.shape[0]):
        lo = max(start, runs[r, 0]) if r == run else runs[r, 0]
        while lo < runs[r, 1]:
            if found + BLOCK > rows.size:
                return found, r, lo
            hi = min((lo // BLOCK + 1) * BLOCK, runs[r, 1])
            count = BLOCK if allowed.size == 0 else count_allowed(allowed, lo, hi)
            if count and (far_limit or not ruled_out(words, lo, hi, query, radius + 1)):
                if count <= FEW:
                    found = _hits_few(words, query, radius, lo, hi, allowed, found, rows, far_of)
                elif words.shape[0] == 2:
                    found = _hits_two(words[0], words[1], query, radius, lo, hi, allowed, found, rows, far_of)
                else:
                    found = _hits_block(words, query, radius, lo, hi, allowed, found, rows, far_of)
            lo = hi
    return found, runs.shape[0], 0


@compiled
def _hits_block(
    words: Words, query: Words, radius: int, lo: int, hi: int, allowed: Words, found: int, rows: Rows, far_of: Int16s
) -> int:  # pragma: no cover - compiled
    """Write rows of [lo, hi) within `radius` behind the `found` that are there; how many are there then."""
    while lo < hi:
        stop = min(lo + GROUP, hi)
        if least(words, lo, stop, query) <= radius:
            for row in range(lo, stop):
                far = distance(words, row, query)
                if far <= radius and has(allowed, row):
                    rows[found], far_of[found] = row, far
                    found += 1
        lo = stop
    return found


@compiled
def _hits_two(
    a: Words, b: Words, query: Words, radius: int, lo: int, hi: int, allowed: Words, found: int, rows: Rows,
    far_of: Int16s,
) -> int:  # pragma: no cover - compiled  # fmt: skip
    """As `_hits_block`, of two words; see `_offer_two`."""
    p, q = query[0], query[1]
    while lo < hi:
        stop = min(lo + GROUP, hi)
        first = a[lo:stop]
        if (radius >= 2 * NEAR or least_1(first, p) <= radius) and least_2(first, b[lo:stop], p, q) <= radius:
            for row in range(lo, stop):
                far = popcount(a[row] ^ p) + popcount(b[row] ^ q)
                if far <= radius and has(allowed, row):
                    rows[found], far_of[found] = row, far
                    found += 1
        lo = stop
    return found


@compiled
def _hits_few(
    words: Words, query: Words, radius: int, lo: int, hi: int, allowed: Words, found: int, rows: Rows, far_of: Int16s
) -> int:  # pragma: no cover - compiled
    """As `_hits_block`, from one set bit of the bitmap to the next."""
    for w in range(lo >> 6, ((hi - 1) >> 6) + 1):
        word = allowed[w] & between(w, lo, hi)
        while word:
            row = (w << 6) + popcount((word & (~word + np.uint64(1))) - np.uint64(1))
            word &= word - np.uint64(1)
            far = far_at_most(words, row, query, radius)
            if far <= radius:
                rows[found], far_of[found] = row, far
                found += 1
    return found


@compiled
def hits_rows(
    words: Words, query: Words, radius: int, chosen: Rows, rows: Rows, far_of: Int16s
) -> int:  # pragma: no cover - compiled
    """Rows among `chosen` within `radius`; how many were written to buffers as long as `chosen`."""
    found = 0
    for i in range(chosen.size):
        if i + AHEAD < chosen.size:
            for w in range(words.shape[0]):
                prefetch(words[w], chosen[i + AHEAD])
        far = far_at_most(words, chosen[i], query, radius)
        if far <= radius:
            rows[found], far_of[found] = chosen[i], far
            found += 1
    return found
