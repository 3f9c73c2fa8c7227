"""Exact Hamming search over signatures: the k nearest, or all within a radius, of chosen rows.

Ties are settled: rows come by distance, then by row number, whatever the number of threads or parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput
from geostore.index import scan, scan_within
from geostore.index.bits import Rows, Words
from geostore.index.selection import Listed, Selection, everything

Distances = npt.NDArray[np.int16]

K_MAX = 1_000_000
GUESS_MIN = 256  # for more rows than that a sample is looked at first, so that fewer are kept and dropped again
BYTES_A_THREAD = 32 << 20  # below this a second thread costs more than it brings
_WHOLE = (int, np.integer)
_NO_BITMAP = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Hits:
    """Rows near one query, nearest first, ties by row.

    Attributes:
        rows: (n,) int64.
        distances: (n,) int16, bits that differ.
    """

    rows: Rows
    distances: Distances

    def __len__(self) -> int:
        return len(self.rows)


class Scan(Protocol):
    """A way to compare signatures: this module, `by_numpy`, or `by_faiss`."""

    def nearest(
        self, words: Words, queries: Words, k: int, *, radius: int | None = None, selection: Selection | None = None,
        threads: int = 1,
    ) -> list[Hits]:  # fmt: skip
        """The k nearest selected rows of each query."""
        ...

    def within(self, words: Words, query: Words, radius: int, *, selection: Selection | None = None) -> Hits:
        """All selected rows within `radius` bits of a query."""
        ...


class Nearest:
    """The k nearest rows of several queries, gathered over any number of parts.

    Args:
        queries: (Q, W) uint64.
        k: rows wanted; fewer come back where fewer are chosen.
        radius: bits at most, or None for any distance.

    Raises:
        InvalidInput: a shape, `k` or `radius` is wrong.
    """

    def __init__(self, queries: Words, k: int, *, radius: int | None = None) -> None:
        self.queries, self.k, bits = check_queries(queries), check_k(k), 64 * queries.shape[1]
        count, room = len(queries), 2 * k + 256
        self._state = np.zeros((count, 3), np.int64)
        self._state[:, 0] = limit_of(radius, queries.shape[1]) + 1
        self._tally = np.zeros((count, bits + 2), np.int64)
        self._rows = np.empty((count, room), np.int64)
        self._far = np.empty((count, room), np.int16)

    def add(self, words: Words, *, base: int = 0, selection: Selection | None = None) -> None:
        """Offer the selected rows of (W, N) signatures; `base` is added to their numbers.

        Parts come in ascending order of base, or the order of ties is lost.
        """
        chosen = selected(words, self.queries, selection)
        kept = (self.k, self._state, self._tally, self._rows, self._far)
        if chosen.single:
            scan.scan_rows(words, base, self.queries, chosen.row_numbers(), *kept)
        else:
            scan.scan_runs(words, base, self.queries, chosen.runs, _allowed(chosen), *kept)

    def hits(self) -> list[Hits]:
        """What was found so far, for each query."""
        return [self._hits(j) for j in range(len(self.queries))]

    def _hits(self, query: int) -> Hits:
        kept = int(self._state[query, 1])
        return ordered(self._rows[query, :kept], self._far[query, :kept], self.k)


def nearest(
    words: Words,
    queries: Words,
    k: int,
    *,
    radius: int | None = None,
    selection: Selection | None = None,
    threads: int = 1,
) -> list[Hits]:
    """The k nearest rows of each query among the selected rows of (W, N) signatures.

    Args:
        words: (W, N) uint64, C-contiguous, one array a word.
        queries: (Q, W) uint64.
        k: rows wanted.
        radius: bits at most, or None.
        selection: which rows may be hits; all by default.
        threads: at most; fewer where the bytes would not keep them busy.
    """
    queries = check_queries(queries)
    chosen = selected(words, queries, selection)
    limit, k = limit_of(radius, queries.shape[1]), check_k(k)
    if chosen.listed is not None:
        return [_listed(chosen.listed, query, k, limit) for query in queries]
    parts = chosen.split(_threads(threads, chosen.count * 8 * len(words) * (1 + len(queries) // 8)))

    def search(part: Selection) -> list[Hits]:
        if _is_sampled(k, part):
            many = [_many(words, query, k, radius, part) for query in queries]
            return [ordered(hits.rows, hits.distances) for hits in many]
        if len(queries) == 1 and not part.single:
            return [Hits(*scan.nearest_one(words, queries, part.runs, _allowed(part), k, limit))]
        found = Nearest(queries, k, radius=radius)
        found.add(words, selection=part)
        return found.hits()

    if len(parts) == 1:
        return search(parts[0])
    with ThreadPoolExecutor(len(parts)) as pool:
        found = list(pool.map(search, parts))
    return [merged(list(of_query), k) for of_query in zip(*found, strict=True)]


def nearest_set(words: Words, query: Words, k: int, *, selection: Selection | None = None) -> Hits:
    """The same rows as `nearest` finds for a (W,) query, but in ascending order, which takes less time to give."""
    chosen = selected(words, query[None], selection)
    if _is_sampled(k, chosen):
        return _many(words, np.ascontiguousarray(query), k, None, chosen)
    (hits,) = nearest(words, query[None], k, selection=chosen)
    order = np.argsort(hits.rows)
    return Hits(hits.rows[order], hits.distances[order])


def _listed(listed: Listed, query: Words, k: int, limit: int) -> Hits:
    assert listed.signatures is not None
    return Hits(*scan.listed(listed.signatures, listed.order, listed.start, listed.stop, query, k, limit))


def _is_sampled(k: int, chosen: Selection) -> bool:
    return k >= GUESS_MIN and not chosen.single and chosen.count >= 4 * scan.SAMPLED * k // 10


def _many(words: Words, query: Words, k: int, radius: int | None, chosen: Selection) -> Hits:
    """The k nearest in ascending order: of all within the distance that a sample of the rows suggests."""
    bits = 64 * len(words)
    tally = np.zeros(bits + 2, np.int64)
    scan.sample(words, query, chosen.runs, _allowed(chosen), tally)
    wanted = k / scan.SAMPLED
    enough = int(np.searchsorted(np.cumsum(tally), wanted + 3 * wanted**0.5 + 0.1 * wanted))
    while True:
        limit = min(enough, bits if radius is None else radius)
        pieces = list(_pieces(words, query, limit, chosen))
        rows, far = (np.concatenate([p[i] for p in pieces]) for i in range(2))
        if len(rows) >= min(k, chosen.count) or limit < enough:
            kept = scan.nearest_of(far, k, bits)
            return Hits(rows[kept], far[kept])
        enough += 4  # the sample misled


def within(words: Words, query: Words, radius: int, *, selection: Selection | None = None) -> Hits:
    """All selected rows within `radius` bits of a (W,) query, by a scan."""
    chosen = selected(words, query[None], selection)
    limit = limit_of(radius, len(words))
    if chosen.listed is not None:
        return _listed(chosen.listed, query, max(chosen.count, 1), limit)
    pieces = list(_pieces(words, np.ascontiguousarray(query), limit, chosen))
    return ordered(np.concatenate([p[0] for p in pieces]), np.concatenate([p[1] for p in pieces]))


def _pieces(words: Words, query: Words, radius: int, chosen: Selection) -> Iterator[tuple[Rows, Distances]]:
    if chosen.rows is not None:
        rows, far = np.empty(len(chosen.rows), np.int64), np.empty(len(chosen.rows), np.int16)
        found = scan_within.hits_rows(words, query, radius, chosen.rows, rows, far)
        yield rows[:found], far[:found]
        return
    allowed = _allowed(chosen)
    run = start = 0
    room = 4096
    while True:
        rows, far = np.empty(room, np.int64), np.empty(room, np.int16)
        found, run, start = scan_within.hits_runs(words, query, radius, run, start, chosen.runs, allowed, rows, far)
        yield rows[:found], far[:found]
        if run == len(chosen.runs):
            return
        room = min(4 * room, 1 << 22)


def merged(parts: Sequence[Hits], k: int | None = None) -> Hits:
    """The k first (all by default) of answers to one query, from parts in ascending order of their rows."""
    return ordered(np.concatenate([p.rows for p in parts]), np.concatenate([p.distances for p in parts]), k)


def ordered(rows: Rows, distances: Distances, k: int | None = None) -> Hits:
    """The k first (all by default) by distance; those of one distance must be in order of rows already."""
    order = np.argsort(distances, kind="stable")[:k]
    return Hits(rows[order], distances[order])


def check_queries(queries: Words) -> Words:
    """Return (Q, W) uint64 queries; raise InvalidInput if they are not."""
    if queries.ndim != 2 or queries.dtype != np.uint64 or queries.shape[1] not in (1, 2, 4):
        raise InvalidInput(f"queries {queries.shape} {queries.dtype}; give (queries, words) uint64, 1, 2 or 4 words")
    return np.ascontiguousarray(queries)


def limit_of(radius: int | None, words: int) -> int:
    """Bits that may differ at most; raise InvalidInput for a radius that is none."""
    return 64 * words if radius is None else min(check_radius(radius), 64 * words)


def check_radius(radius: int) -> int:
    """Return `radius` if it is a number of bits; raise InvalidInput otherwise."""
    if isinstance(radius, bool) or not isinstance(radius, _WHOLE) or radius < 0:
        raise InvalidInput(f"radius {radius!r}; give a number of bits, 0 or more")
    return int(radius)


def check_k(k: int) -> int:
    """Return `k` if so many rows can be asked for; raise InvalidInput otherwise."""
    if isinstance(k, bool) or not isinstance(k, _WHOLE) or not 1 <= k <= K_MAX:
        raise InvalidInput(f"k = {k!r}; ask for 1 to {K_MAX} rows")
    return int(k)


def selected(words: Words, queries: Words, selection: Selection | None) -> Selection:
    """The selection, everything by default; raise InvalidInput if rows, queries and it do not belong together."""
    if words.ndim != 2 or words.dtype != np.uint64 or len(words) != queries.shape[1]:
        raise InvalidInput(
            f"signatures {words.shape} {words.dtype} and queries of {queries.shape[1]} words; give (words, rows) "
            "uint64 of as many words"
        )
    chosen = everything(words.shape[1]) if selection is None else selection
    if chosen.size != words.shape[1]:
        raise InvalidInput(f"a selection over {chosen.size} rows for {words.shape[1]} signatures; make it for these")
    return chosen


def _allowed(chosen: Selection) -> Words:
    return _NO_BITMAP if chosen.allowed is None else chosen.allowed


def _threads(wanted: int, size_bytes: int) -> int:
    return max(1, min(wanted, size_bytes // BYTES_A_THREAD))
