"""The most similar rows of several indexes under a filter: signatures choose, descriptors put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from geostore.index import by_faiss, by_numpy, hamming
from geostore.index.bits import Words
from geostore.index.filters import ALL, Filter, Plan
from geostore.index.hamming import Hits, Scan
from geostore.index.radius import looked_up
from geostore.index.rerank import CANDIDATES, rerank
from geostore.index.rows import TIME, Space
from geostore.index.search import plans
from geostore.index.segment import Segment
from geostore.index.segments import Segments
from geostore.partition.geohash import name_of

SCANS: dict[str, Scan] = {"compiled": hamming, "numpy": by_numpy, "faiss": by_faiss}


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        signature: (1, W) uint64.
        descriptor: (D,) float32.
        space: what made both.
    """

    signature: Words
    descriptor: npt.NDArray[np.float32]
    space: Space


@dataclass(frozen=True)
class Match:
    """One hit.

    Attributes:
        key: what owns the row.
        geohash: the row's cell; of a chip finer than the raster's.
        score: inner product of the descriptors, of length 1 the cosine; of rows without one, 1 - 2 x the share of bits
            that differ.
        distance: bits of the signature that differ.
        segment, row: where it lies.
    """

    key: bytes
    geohash: str
    score: float
    distance: int
    segment: Segment
    row: int

    @property
    def time_us(self) -> int:
        """UTC microseconds."""
        return int(self.segment.numbers[TIME].values[self.row])


@dataclass(frozen=True)
class Matches:
    """Hits, most similar first, and how they were found.

    Attributes:
        found: hits.
        count: rows that meet the filter, exact.
        plans: of each segment, for `explain`.
    """

    found: list[Match]
    count: int
    plans: tuple[Plan, ...]


def ranked(
    indexes: Sequence[Segments],
    query: Query,
    k: int,
    *,
    wanted: Filter = ALL,
    radius: int | None = None,
    without: frozenset[bytes] = frozenset(),
    spared: frozenset[tuple[bytes, str]] = frozenset(),
    candidates: int = CANDIDATES,
    threads: int = 1,
    scan: str = "compiled",
) -> Matches:
    """The k rows most similar to `query` that meet the filter.

    The filter is decided first; of the rows it leaves, the `candidates` nearest by signature are put in order by their
    descriptors. Where it leaves no more than that, the answer is that of a comparison with every one of them.

    Args:
        indexes: where to look, all of the query's space.
        query: what to look for.
        k: hits wanted.
        wanted: which rows may be hits.
        radius: bits that may differ at most, or None.
        without: keys whose rows are left out; `count` counts them all the same.
        spared: (key, cell) of single rows that are left out.
        candidates: rows of the first stage, k at least.
        threads: at most.
        scan: what compares signatures, of SCANS; the answer is the same.

    Returns:
        Hits by score, then distance, key and cell; empty where nothing meets the filter.

    Raises:
        NotComparable: the query comes from another space. InvalidInput: the filter names what is not there.
        NotInstalled: faiss is to compare, and is not there.
    """
    made: list[tuple[Segment, Plan]] = []
    for index in indexes:
        chosen = plans(index, query.signature, query.space, wanted)
        made += zip([part.segment for part in index.parts], chosen, strict=True)
    more = len(spared) + (sum(len(segment.rows_of(without)) for segment, _ in made) if without else 0)
    made, near = _near(made, query, max(candidates, k) + more, radius, threads, SCANS[scan])
    found = [m for (segment, _), hits in zip(made, near, strict=True) for m in _best(segment, hits, query, k + more)]
    kept = sorted((m for m in found if m.key not in without and (m.key, m.geohash) not in spared), key=_order)
    return Matches(kept[:k], sum(plan.selection.count for _, plan in made), tuple(plan for _, plan in made))


_Planned = list[tuple[Segment, Plan]]


def _near(
    made: _Planned, query: Query, count: int, radius: int | None, threads: int, scan: Scan
) -> tuple[_Planned, list[Hits]]:
    """Of each segment the rows among the `count` nearest of all, and all that are as far as the last of these.

    So the choice does not depend on how rows lie in segments. The plans say how it was made.
    """
    first: list[Hits] = []
    for at, (segment, chosen) in enumerate(made):
        hits = None if radius is None or scan is not hamming else _by_keys(segment, chosen, query, radius, count)
        made[at] = segment, replace(chosen, by_keys=hits is not None)
        if hits is None:
            words = segment.signatures
            (hits,) = scan.nearest(
                words, query.signature, count, radius=radius, selection=chosen.selection, threads=threads
            )
        first.append(hits)
    distances = np.sort(np.concatenate([np.zeros(0, np.int16), *(h.distances for h in first)]))
    if len(distances) < count:
        return made, first
    limit = int(distances[count - 1])
    return made, [_up_to(s, p, h, query, limit, count, scan) for (s, p), h in zip(made, first, strict=True)]


def _by_keys(segment: Segment, chosen: Plan, query: Query, radius: int, count: int) -> Hits | None:
    """The `count` nearest within `radius` by key lists; None where there are none, or a scan is cheaper."""
    if segment.lists is None:
        return None
    hits = looked_up(segment.signatures, segment.lists, query.signature[0], radius, selection=chosen.selection)
    return None if hits is None else Hits(hits.rows[:count], hits.distances[:count])


def _up_to(segment: Segment, plan: Plan, hits: Hits, query: Query, limit: int, count: int, scan: Scan) -> Hits:
    """The hits up to `limit`; looked for once more where the first search may have cut some off."""
    if len(hits) == count and int(hits.distances[-1]) == limit:
        return scan.within(segment.signatures, query.signature[0], limit, selection=plan.selection)
    kept = hits.distances <= limit
    return Hits(hits.rows[kept], hits.distances[kept])


def _best(segment: Segment, hits: Hits, query: Query, k: int) -> list[Match]:
    """The k most similar of the hits, and those that are as similar as the last of them."""
    if not len(hits):
        return []
    if segment.descriptors is None or segment.scales is None:
        last = int(hits.distances[min(k, len(hits)) - 1])
        pairs = zip(hits.rows.tolist(), hits.distances.tolist(), strict=True)
        return [_match(segment, row, 1 - 2 * far / query.space.bits, far) for row, far in pairs if far <= last]
    order = np.argsort(hits.rows)
    rows, far_of = hits.rows[order], hits.distances[order]
    best = rerank(segment.descriptors, segment.scales, query.descriptor, rows, len(rows))
    count = int((best.scores >= best.scores[min(k, len(rows)) - 1]).sum())
    far = far_of[np.searchsorted(rows, best.rows[:count])]
    found = zip(best.rows[:count].tolist(), best.scores[:count].tolist(), far.tolist(), strict=True)
    return [_match(segment, row, score, distance) for row, score, distance in found]


def _order(match: Match) -> tuple[float, int, bytes, str]:
    return -match.score, match.distance, match.key, match.geohash


def _match(segment: Segment, row: int, score: float, distance: int) -> Match:
    return Match(
        key=segment.keys[int(segment.owners[row])],
        geohash=name_of(int(segment.cells[row]), segment.precision),
        score=score,
        distance=distance,
        segment=segment,
        row=row,
    )


def explained(plans_made: Sequence[Plan]) -> list[dict[str, object]]:
    """Each segment's plan as JSON values: rows there, rows left after each condition, how they were read."""
    return [
        {
            "rows": plan.selection.size,
            "steps": [{"what": step.what, "rows": step.rows} for step in plan.steps],
            "left": plan.selection.count,
            "path": plan.path,
        }
        for plan in plans_made
    ]
