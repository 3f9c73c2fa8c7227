"""The compiled exact scan for the nearest signatures, at the speed of memory.

Rows are taken 64 at a time: a bound says, as the bits of one word, which of them may be among the hits, and only these
are looked at one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.index.bits import Rows, Words
from geostore.index.blocks import AHEAD, BLOCK, candidates, far_at_most, lowest, without_lowest
from geostore.index.intrinsics import popcount, prefetch

SAMPLED, STRETCH = 32, 256  # of so many stretches of so many rows one is looked at beforehand, where many are wanted
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
    bits = np.empty(BLOCK // 64, np.uint64)
    for r in range(runs.shape[0]):
        lo, stop = runs[r, 0], runs[r, 1]
        while lo < stop:
            end = min((lo // BLOCK + 1) * BLOCK, stop)  # stays in the fastest cache while every query passes over it
            for j in range(queries.shape[0]):
                count = candidates(words, lo, end, queries[j], state[j, 0] - 1, allowed, bits)
                if count:
                    _offer(words, base, queries[j], lo >> 6, bits[:count], k, state[j], tally[j], rows[j], far_of[j])
            lo = end


@compiled
def nearest_one(
    words: Words, queries: Words, runs: Rows, allowed: Words, k: int, limit: int
) -> tuple[Rows, Int16s]:  # pragma: no cover - compiled
    """The k nearest to the only one of (1, W) `queries` within `limit` bits, by distance, then by row.

    See `scan_runs` for the other arguments.
    """
    bits, room = 64 * words.shape[0], 2 * k + 256
    state, tally = np.zeros((1, 3), np.int64), np.zeros((1, bits + 2), np.int64)
    rows, far = np.empty((1, room), np.int64), np.empty((1, room), np.int16)
    state[0, 0] = limit + 1
    scan_runs(words, 0, queries, runs, allowed, k, state, tally, rows, far)
    return _in_order(rows[0, : state[0, 1]], far[0, : state[0, 1]], k, bits)


@compiled
def _in_order(rows: Rows, far: Int16s, k: int, bits: int) -> tuple[Rows, Int16s]:  # pragma: no cover - compiled
    """The k first by distance; those of one distance in the order they come in."""
    at = np.zeros(bits + 2, np.int64)
    for i in range(far.size):
        at[far[i] + 1] += 1
    for d in range(bits + 1):
        at[d + 1] += at[d]
    n = min(k, far.size)
    first, distances = np.empty(n, np.int64), np.empty(n, np.int16)
    for i in range(far.size):
        to = at[far[i]]
        at[far[i]] += 1
        if to < n:
            first[to], distances[to] = rows[i], far[i]
    return first, distances


@compiled
def _offer(
    words: Words,
    base: int,
    query: Words,
    first: int,
    bits: Words,
    k: int,
    state: Rows,
    tally: Rows,
    rows: Rows,
    far_of: Int16s,
) -> None:  # pragma: no cover - compiled
    """Offer the rows whose bits are set; word 0 of `bits` is number `first` of a bitmap."""
    for w in range(bits.size):
        left = bits[w]
        while left:
            row = ((first + w) << 6) + lowest(left)
            left = without_lowest(left)
            far = far_at_most(words, row, query, state[0] - 1)
            if far < state[0]:
                _take(base + row, far, k, state, tally, rows, far_of)


@compiled
def sample(words: Words, query: Words, runs: Rows, allowed: Words, tally: Rows) -> None:  # pragma: no cover - compiled
    """Count the distances of the chosen rows in every SAMPLED-th block of the runs, into (bits + 2,) `tally`."""
    far = np.empty(STRETCH, np.int16)
    for r in range(runs.shape[0]):
        for lo in range(runs[r, 0], runs[r, 1], SAMPLED * STRETCH):
            hi = min(lo + STRETCH, runs[r, 1])
            far[:] = 0
            for w in range(words.shape[0]):
                _add_distances(words[w, lo:hi], query[w], far)
            for i in range(hi - lo):
                row = lo + i
                if allowed.size == 0 or (allowed[row >> 6] >> np.uint64(row & 63)) & np.uint64(1):
                    tally[far[i]] += 1


@compiled
def listed(
    words: Words, order: Any, start: int, stop: int, query: Words, k: int, limit: int
) -> tuple[Rows, Int16s]:  # pragma: no cover - compiled
    """The k nearest within `limit` bits among rows whose signatures lie together.

    Args:
        words: (W, M) signatures, in any order of their rows.
        order: (M,) uint32, the rows.
        start: first of those to look at.
        stop: behind the last.
        query: (W,).
        k: rows wanted.
        limit: bits that may differ.

    Returns:
        Rows and distances, by distance, then by row.
    """
    far, tally = np.zeros(stop - start, np.int16), np.zeros(64 * words.shape[0] + 1, np.int64)
    for w in range(words.shape[0]):
        _add_distances(words[w, start:stop], query[w], far)
    for i in range(far.size):
        tally[far[i]] += 1
    last, near = 0, tally[0]
    while last < limit and near < k:
        last += 1
        near += tally[last]
    found, n = np.empty(near, np.int64), 0
    for i in range(far.size):
        if far[i] <= last:
            found[n] = np.int64(far[i]) << 32 | np.int64(order[start + i])
            n += 1
    found.sort()
    kept = found[: min(k, n)]
    return kept & 0xFFFFFFFF, (kept >> 32).astype(np.int16)


@compiled
def nearest_of(far_of: Int16s, k: int, bits: int) -> Rows:  # pragma: no cover - compiled
    """Positions of the k smallest distances, ascending; of the largest of these the first positions."""
    tally = np.zeros(bits + 2, np.int64)
    for i in range(far_of.size):
        tally[far_of[i]] += 1
    limit = nearer = 0
    while limit < bits and nearer + tally[limit] < k:
        nearer += tally[limit]
        limit += 1
    out, n, room = np.empty(min(k, far_of.size), np.int64), 0, k - nearer
    for i in range(far_of.size):
        if far_of[i] < limit or (far_of[i] == limit and room > 0):
            room -= far_of[i] == limit
            out[n] = i
            n += 1
    return out


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
            for w in range((words.shape[0] + 1) // 2):  # of most the other half is not read
                prefetch(words[w], chosen[i + AHEAD])
        for j in range(queries.shape[0]):
            far = far_at_most(words, chosen[i], queries[j], state[j, 0] - 1)
            if far < state[j, 0]:
                _take(base + chosen[i], far, k, state[j], tally[j], rows[j], far_of[j])
