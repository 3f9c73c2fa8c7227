"""Exact Hamming search by NumPy alone, with the answers of `hamming` to the row: its oracle, and its fall-back.

Nothing is compiled; every distance is written down. Some six times slower than the compiled scan.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.index.bits import Rows, Words
from geostore.index.hamming import Distances, Hits, check_k, check_queries, limit_of, selected
from geostore.index.selection import Selection

_ROWS = 1 << 17  # compared at once, so that what lies between stays in the cache


def nearest(
    words: Words,
    queries: Words,
    k: int,
    *,
    radius: int | None = None,
    selection: Selection | None = None,
    threads: int = 1,  # noqa: ARG001 - as `hamming.nearest`; one is used
) -> list[Hits]:
    """As `hamming.nearest`: the k nearest rows of each of (Q, W) queries, by distance, then by row."""
    queries = check_queries(queries)
    rows = rows_of(selected(words, queries, selection))
    limit = limit_of(radius, queries.shape[1])
    return [_first(words, rows, query, check_k(k), limit) for query in queries]


def within(words: Words, query: Words, radius: int, *, selection: Selection | None = None) -> Hits:
    """As `hamming.within`: all selected rows within `radius` bits of a (W,) query."""
    rows = rows_of(selected(words, query[None], selection))
    return _first(words, rows, query, max(len(rows), 1), limit_of(radius, len(words)))


def rows_of(chosen: Selection) -> Rows:
    """(count,) int64, ascending: the rows of a selection, found without compiled code."""
    if chosen.rows is not None:
        return chosen.rows
    if chosen.listed is not None:
        return np.sort(chosen.listed.rows).astype(np.int64)
    kept = np.zeros(chosen.size, np.bool_)
    for start, stop in chosen.runs:
        kept[start:stop] = True
    if chosen.allowed is not None:
        octets = chosen.allowed.astype("<u8", copy=False).view(np.uint8)
        kept &= np.unpackbits(octets, count=chosen.size, bitorder="little").astype(np.bool_)
    return np.flatnonzero(kept)


def _first(words: Words, rows: Rows, query: Words, k: int, limit: int) -> Hits:
    """The k first of `rows` within `limit` bits."""
    far = _distances(words, rows, query)
    near = np.flatnonzero(far <= _enough(far, k, limit))
    order = near[np.argsort(far[near], kind="stable")][:k]
    return Hits(rows[order], far[order])


def _enough(far: Distances, k: int, limit: int) -> int:
    """The least distance that k rows are within, `limit` at most."""
    within_each = np.cumsum(np.bincount(far, minlength=1))
    return min(limit, int(np.searchsorted(within_each, k)))


def _distances(words: Words, rows: Rows, query: Words) -> Distances:
    """(n,) int16: bits in which each row differs."""
    far: npt.NDArray[np.int16] = np.empty(len(rows), np.int16)
    every = len(rows) == words.shape[1]
    for at in range(0, len(rows), _ROWS):
        part = slice(at, at + _ROWS)
        counts = [
            np.bitwise_count(word[part if every else rows[part]] ^ q) for word, q in zip(words, query, strict=True)
        ]
        far[part] = np.add.reduce(counts, dtype=np.int16)
    return far
