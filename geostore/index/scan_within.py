"""The compiled scan for all rows within a radius, at the speed of memory."""

from __future__ import annotations

import numpy as np

from geostore.compiled import compiled
from geostore.index.bits import Rows, Words
from geostore.index.blocks import AHEAD, BLOCK, candidates, far_at_most, lowest, without_lowest
from geostore.index.intrinsics import prefetch
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
    found, bits = 0, np.empty(BLOCK // 64, np.uint64)
    for r in range(run, runs.shape[0]):
        lo, end = runs[r, 0], runs[r, 1]
        lo = max(start, lo) if r == run else lo
        while lo < end:
            if found + BLOCK > rows.size:
                return found, r, lo
            hi = min((lo // BLOCK + 1) * BLOCK, end)
            for w in range(candidates(words, lo, hi, query, radius, allowed, bits)):
                left = bits[w]
                while left:
                    row = (((lo >> 6) + w) << 6) + lowest(left)
                    left = without_lowest(left)
                    far = far_at_most(words, row, query, radius)
                    if far <= radius:
                        rows[found], far_of[found] = row, far
                        found += 1
            lo = hi
    return found, runs.shape[0], 0


@compiled
def hits_rows(
    words: Words, query: Words, radius: int, chosen: Rows, rows: Rows, far_of: Int16s
) -> int:  # pragma: no cover - compiled
    """Rows among `chosen` within `radius`; how many were written to buffers as long as `chosen`."""
    found = 0
    for i in range(chosen.size):
        if i + AHEAD < chosen.size:
            for w in range((words.shape[0] + 1) // 2):  # of most the other half is not read
                prefetch(words[w], chosen[i + AHEAD])
        far = far_at_most(words, chosen[i], query, radius)
        if far <= radius:
            rows[found], far_of[found] = chosen[i], far
            found += 1
    return found
