"""The nearest rows of a whole index under a filter, over all of its segments, as keys and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.errors import NotComparable
from geostore.index.bits import Words, word_count
from geostore.index.filters import ALL, Filter, Plan, check_columns, plan
from geostore.index.hamming import Hits, merged, nearest, within
from geostore.index.radius import near
from geostore.index.rows import TIME, Space
from geostore.index.segments import Part, Segments
from geostore.index.selection import Selection
from geostore.partition.geohash import name_of


@dataclass(frozen=True)
class Found:
    """One hit.

    Attributes:
        key: what owns the row, as it was given.
        geohash: the row's cell; of a chip finer than the raster's.
        time_us: UTC microseconds.
        distance: bits that differ.
        part: position of its segment.
        row: within the segment.
    """

    key: bytes
    geohash: str
    time_us: int
    distance: int
    part: int
    row: int


@dataclass(frozen=True)
class Answer:
    """Hits, nearest first, and how many rows the filter left.

    Attributes:
        found: hits of each query.
        count: rows that meet the filter, exact.
        plans: of each segment, for `explain`.
    """

    found: list[list[Found]]
    count: int
    plans: tuple[Plan, ...]

    def explain(self) -> list[str]:
        """What was done, line by line."""
        lines = []
        for number, made in enumerate(self.plans):
            lines.append(f"segment {number}: {made.selection.size} rows")
            lines += [f"  {step.what}: {step.rows} left" for step in made.steps]
            lines.append(f"  {made.path} of {made.selection.count} rows")
        return [*lines, f"{self.count} rows searched"]


def search(
    index: Segments,
    queries: Words,
    k: int,
    *,
    space: Space,
    wanted: Filter = ALL,
    radius: int | None = None,
    threads: int = 1,
) -> Answer:
    """The k nearest rows of each query that meet the filter.

    Args:
        index: where to look.
        queries: (Q, W) uint64 signatures.
        k: rows wanted.
        space: what made the queries' signatures.
        wanted: which rows may be hits; decided before the search, so k hits come back where k rows meet it.
        radius: bits at most, or None.
        threads: at most.

    Returns:
        Hits by distance, then by segment and row: empty where nothing meets the filter.

    Raises:
        NotComparable: the queries come from another space. InvalidInput: the filter names what is not there.
    """
    made = plans(index, queries, space, wanted)
    hits = [nearest(p.segment.signatures, queries, k, radius=radius, selection=chosen.selection, threads=threads)
            for p, chosen in zip(index.parts, made, strict=True)]  # fmt: skip
    return _answer(index, made, hits, len(queries), k)


def search_radius(
    index: Segments, queries: Words, radius: int, *, space: Space, wanted: Filter = ALL, limit: int = 1_000_000
) -> Answer:
    """All rows within `radius` bits of each query that meet the filter, `limit` of them at most.

    Raises:
        NotComparable: the queries come from another space. InvalidInput: the filter names what is not there.
    """
    made = plans(index, queries, space, wanted)
    hits = [
        [_near(p, q, radius, chosen.selection) for q in queries] for p, chosen in zip(index.parts, made, strict=True)
    ]
    return _answer(index, made, hits, len(queries), limit)


def _near(part: Part, query: Words, radius: int, selection: Selection) -> Hits:
    lists, signatures = part.segment.lists, part.segment.signatures
    if lists is None:
        return within(signatures, query, radius, selection=selection)
    return near(signatures, lists, query, radius, selection=selection)


def plans(index: Segments, queries: Words, space: Space, wanted: Filter) -> tuple[Plan, ...]:
    """Which rows of each segment meet `wanted`, once (Q, W) queries of `space` are found to fit the index.

    Raises:
        NotComparable: they come from another space. InvalidInput: the filter names what is not there.
    """
    index.space.check(space)
    if queries.ndim != 2 or queries.shape[1] != word_count(space.bits):
        raise NotComparable(f"queries of shape {queries.shape}; {space.bits} bits are {word_count(space.bits)} words")
    check_columns([p.segment for p in index.parts], wanted)
    return tuple(plan(p.segment, wanted, alive=p.alive) for p in index.parts)


def _answer(index: Segments, plans: Sequence[Plan], hits: Sequence[Sequence[Hits]], queries: int, k: int) -> Answer:
    sizes = [len(p.segment) for p in index.parts]
    bases = np.cumsum([0, *sizes]).astype(np.int64)
    found = []
    for j in range(queries):
        moved = [Hits(part[j].rows + base, part[j].distances) for part, base in zip(hits, bases, strict=False)]
        found.append(_found(index, bases, merged(moved, k)) if moved else [])
    return Answer(found, sum(p.selection.count for p in plans), tuple(plans))


def _found(index: Segments, bases: npt.NDArray[np.int64], hits: Hits) -> list[Found]:
    parts = np.searchsorted(bases, hits.rows, side="right") - 1
    return [
        _one(index, int(p), int(row - bases[p]), int(far))
        for p, row, far in zip(parts, hits.rows, hits.distances, strict=True)
    ]


def _one(index: Segments, part: int, row: int, distance: int) -> Found:
    segment = index.parts[part].segment
    return Found(
        key=segment.keys[int(segment.owners[row])],
        geohash=name_of(int(segment.cells[row]), segment.precision),
        time_us=int(segment.numbers[TIME].values[row]),
        distance=distance,
        part=part,
        row=row,
    )
