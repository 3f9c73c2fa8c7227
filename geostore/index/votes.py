"""Cells by the votes of their parts: rasters and chips of every level are looked at, and the most similar ones count.

What is small fills a chip and is lost in the mean of a cell; what is large fills many. So every part of a cell stands
for itself: the best of its dates is its score s, and the VOTES best parts vote. The cell's score is the soft maximum
T log(mean exp(s / T)), T = 0.02: that of the best part, less up to 0.028 where no other is as good. So whatever lies
around a small thing takes nothing from it, and of cells that hold one those come first that hold more.

The answer is exact: cells are read in the order of the largest score that their groups of rows (`groups`) allow, until
no further one can be among the k.

References:
    Votes of patches for the images they are part of: "Curator: Creating Large-Scale Curated Labelled Datasets using
    Self-Supervised Learning", multi-resolution search. Ours differs: scores count and not only places in a list, all
    dates of a part have one vote, and what cannot be found is not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from geostore.errors import NotComparable
from geostore.index.bits import Words
from geostore.index.filters import ALL, Filter, Plan
from geostore.index.groups import Floats, Groups, Ints
from geostore.index.ranked import Query
from geostore.index.rerank import scores_of
from geostore.index.rows import TIME
from geostore.index.search import plans
from geostore.index.segment import Segment
from geostore.index.segments import Segments
from geostore.partition.geohash import name_of, names_of

Doubles = npt.NDArray[np.float64]
VOTES = 4  # parts of a cell that vote for one point
SOFTNESS = 0.02  # T: a part whose score is that much less than the best weighs a third of it
_FIRST = 64  # cells read before it is known whether more are needed; then twice as many, and so on
_ROWS = 1 << 18  # of rows read at once


@dataclass(frozen=True)
class Layer:
    """An index that is looked at.

    Attributes:
        index: its rows are of one precision.
        letters: how many letters more their cells have than the cells that are ranked.
    """

    index: Segments
    letters: int


@dataclass(frozen=True)
class Vote:
    """A part that voted.

    Attributes:
        key: what owns the row that was best of its dates.
        geohash: the part, a cell or a chip.
        score: mean inner product with the points it voted for.
        weight: its share of the cell's score, 0..1; those of a cell add up to 1.
        segment, row: where it lies.
    """

    key: bytes
    geohash: str
    score: float
    weight: float
    segment: Segment
    row: int


@dataclass(frozen=True)
class Elected:
    """A cell that was found.

    Attributes:
        geohash: the cell.
        score: soft maximum of its votes, of length 1 a cosine.
        distance: bits between the query's signature and that of the first vote.
        votes: heaviest first.
    """

    geohash: str
    score: float
    distance: int
    votes: tuple[Vote, ...]


@dataclass(frozen=True)
class Election:
    """Cells, best first, and how they were found.

    Attributes:
        found: the cells.
        count: cells that have a part which meets the filter, exact.
        read: of these, whose rows were read; the others could not be among the found.
        plans: of each segment, for `explain`.
    """

    found: list[Elected]
    count: int
    read: int
    plans: tuple[Plan, ...]


@dataclass(frozen=True)
class _Part:
    """One segment: groups that hold chosen rows, and the cell of each."""

    segment: Segment
    groups: Groups
    rows: Ints | None  # chosen, ascending; None for all
    held: Ints  # numbers of groups
    firsts: Ints  # (held,) position of the first chosen row of each
    counts: Ints  # (held,) chosen rows of each
    cells: Ints  # (held,) names of cells

    def of(self, which: Ints) -> Ints:
        """Chosen rows of some of the held groups, one after the other."""
        counts = self.counts[which]
        positions = np.repeat(self.firsts[which] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        return positions if self.rows is None else self.rows[positions]


def elected(
    layers: Sequence[Layer],
    query: Query,
    points: Floats,
    k: int,
    *,
    wanted: Filter = ALL,
    without: Iterable[str] = (),
    prune: bool = True,
) -> Election:
    """The k cells whose parts are most similar to the points.

    Args:
        layers: where to look, all of the query's space.
        query: what to look for as one.
        points: (P, D) float32 of length 1, the same by parts; each has its own voters, and the mean of all counts.
        k: cells wanted.
        wanted: which rows may vote.
        without: geohashes of cells that are left out; `count` counts them all the same.
        prune: pass over cells that cannot be among the found; the answer is the same without.

    Returns:
        Cells by score, then name; empty where nothing meets the filter.

    Raises:
        NotComparable: the query comes from another space. InvalidInput: the filter names what is not there.
    """
    parts, made = _parts(layers, query, wanted)
    cells, of_part = _cells(parts)
    bounds = _bounds(parts, of_part, len(cells), points)
    names = _names(cells)
    left_out = frozenset(without)
    order = np.array([i for i in np.argsort(-bounds, kind="stable") if names[i] not in left_out], np.int64)
    where = _Places(parts, of_part, len(cells))
    best: list[tuple[float, str, int]] = []
    read, count = 0, _FIRST
    while read < len(order) and not (prune and len(best) == k and bounds[order[read]] < -best[-1][0]):
        batch = where.fitting(order[read : read + count])
        scores = _scored(where.rows(batch), points)
        best = sorted([*best, *((-float(s), names[i], int(i)) for s, i in zip(scores, batch, strict=True))])[:k]
        read, count = read + len(batch), 2 * count
    found = [_elected(where.rows(np.array([cell]), in_order=True), name, query, points) for _, name, cell in best]
    return Election(found, len(cells), read, made)


def _parts(layers: Sequence[Layer], query: Query, wanted: Filter) -> tuple[list[_Part], tuple[Plan, ...]]:
    parts: list[_Part] = []
    plans_made: list[Plan] = []
    for layer in layers:
        chosen = plans(layer.index, query.signature, query.space, wanted)
        plans_made += chosen
        parts += [_part(p.segment, c, layer.letters) for p, c in zip(layer.index.parts, chosen, strict=True)]
    return parts, tuple(plans_made)


def _part(segment: Segment, plan: Plan, letters: int) -> _Part:
    groups = segment.groups
    if groups is None:
        raise NotComparable(f"{segment.file.path} has no descriptors, so its cells cannot vote; build the index anew")
    starts, selection = groups.starts, plan.selection
    rows = None if selection.count == selection.size else selection.row_numbers()
    firsts = starts if rows is None else np.searchsorted(rows, starts)
    counts = np.diff(firsts)
    held = np.flatnonzero(counts)
    cells = (segment.cells[starts[held]] >> (5 * letters) << 4) | (segment.precision - letters)
    return _Part(segment, groups, rows, held, firsts[held], counts[held], cells)


def _cells(parts: Sequence[_Part]) -> tuple[Ints, list[Ints]]:
    """The different cells, and of each part the number of the cell of each group."""
    if not parts:
        return np.zeros(0, np.int64), []
    cells, numbers = np.unique(np.concatenate([p.cells for p in parts]), return_inverse=True)
    return cells, np.split(numbers.astype(np.int64), np.cumsum([len(p.cells) for p in parts])[:-1])


def _names(cells: Ints) -> list[str]:
    """Geohashes of cells as they are numbered: code, then precision."""
    names = np.empty(len(cells), object)
    for precision in np.unique(cells & 15):
        mine = cells & 15 == precision
        names[mine] = names_of(cells[mine] >> 4, int(precision))
    return [str(name) for name in names]


def _bounds(parts: Sequence[_Part], of_part: Sequence[Ints], count: int, points: Floats) -> Floats:
    """(cells,) the largest score that a cell can have."""
    best = np.full((len(points), count), -1.0, np.float32)
    for part, numbers in zip(parts, of_part, strict=True):
        bounds = part.groups.bounds(points)[:, part.held]
        for own, row in zip(best, bounds, strict=True):
            np.maximum.at(own, numbers, row)
    return np.asarray(best.mean(axis=0), np.float32)


@dataclass(frozen=True)
class _Rows:
    """Rows of some cells, those of one place (a part of one cell) together.

    Attributes:
        parts: the segments.
        segments, rows: (n,) where each lies.
        places: (m + 1,) where each place begins; the last is n.
        cells: (m,) number of the cell of each place, from 0 on.
    """

    parts: Sequence[_Part]
    segments: Ints
    rows: Ints
    places: Ints
    cells: Ints

    def scores(self, point: Floats) -> Floats:
        """(n,) inner products with a (D,) point."""
        out = np.empty(len(self.rows), np.float32)
        for number, part in enumerate(self.parts):
            mine = np.flatnonzero(self.segments == number)
            descriptors, scales = part.segment.descriptors, part.segment.scales
            assert descriptors is not None
            assert scales is not None
            out[mine] = scores_of(descriptors, scales, point, self.rows[mine])
        return out


class _Places:
    """Where the chosen rows of every cell lie."""

    def __init__(self, parts: Sequence[_Part], of_part: Sequence[Ints], count: int) -> None:
        self._parts = parts
        self._held = np.full((len(parts), count), -1, np.int64)  # which held group of a part is that of a cell
        self._sizes = np.zeros(count, np.int64)
        for held, part, cells in zip(self._held, parts, of_part, strict=True):
            self._sizes[cells] += part.counts
            held[cells] = np.arange(len(cells))
        self._apart = len({part.segment.precision for part in parts}) == len(parts)  # no place is in two of them

    def fitting(self, cells: Ints) -> Ints:
        """The first of these cells that have _ROWS rows together, one at least."""
        return cells[: max(1, int(np.searchsorted(np.cumsum(self._sizes[cells]), _ROWS)))]

    def rows(self, cells: Ints, *, in_order: bool = False) -> _Rows:
        """All chosen rows of these cells; in order of cells and places, the newest first, if that is asked for."""
        held = [(part, mine[cells]) for part, mine in zip(self._parts, self._held, strict=True)]
        pieces = [part.of(mine[mine >= 0]) for part, mine in held]
        owners = [np.repeat(np.flatnonzero(mine >= 0), part.counts[mine[mine >= 0]]) for part, mine in held]
        names = [(p.segment.cells[rows] << 4) | p.segment.precision for (p, _), rows in zip(held, pieces, strict=True)]
        segments = np.repeat(np.arange(len(held)), [len(rows) for rows in pieces])
        rows, owner, name = (np.concatenate(parts) for parts in (pieces, owners, names))
        if in_order or not self._apart:
            ages = [-p.segment.numbers[TIME].values[mine] for (p, _), mine in zip(held, pieces, strict=True)]
            order = np.lexsort((np.concatenate(ages), name, owner))
            rows, owner, name, segments = rows[order], owner[order], name[order], segments[order]
        starts = np.flatnonzero((np.diff(name, prepend=-1) != 0) | (np.diff(owner, prepend=-1) != 0))
        return _Rows(self._parts, segments, rows, np.append(starts, len(rows)).astype(np.int64), owner[starts])


def _scored(rows: _Rows, points: Floats) -> Doubles:
    """The score of each cell."""
    total = np.zeros(int(rows.cells.max()) + 1, np.float64)
    for point in points:
        best = np.maximum.reduceat(rows.scores(point), rows.places[:-1]).astype(np.float64)
        order = np.lexsort((-best, rows.cells))
        cells = rows.cells[order]
        rank = np.arange(len(order)) - np.searchsorted(cells, cells)
        kept = rank < VOTES
        voters = np.full((len(total), VOTES), -np.inf)
        voters[cells[kept], rank[kept]] = best[order[kept]]
        total += soft_maximum(voters)[0]
    return total / len(points)


def _elected(rows: _Rows, name: str, query: Query, points: Floats) -> Elected:
    """A cell with its votes: for each point the best row of a place stands for it, and the best VOTES places vote."""
    cast: dict[int, list[tuple[float, float]]] = {}
    for point in points:
        scores = rows.scores(point)
        best = np.array([a + np.argmax(scores[a:b]) for a, b in pairwise(rows.places.tolist())], np.int64)
        voters = best[np.argsort(-scores[best], kind="stable")[:VOTES]]
        weights = soft_maximum(scores[voters].astype(np.float64)[None])[1][0] / len(points)
        for row, weight in zip(voters.tolist(), weights.tolist(), strict=True):
            cast.setdefault(row, []).append((float(scores[row]), weight))
    counted = [(sum(w for _, w in given), sum(s for s, _ in given) / len(given), row) for row, given in cast.items()]
    votes = [_vote(rows, row, s, w) for w, s, row in sorted(counted, key=lambda vote: (-vote[0], -vote[1], vote[2]))]
    distance = _differ(votes[0].segment.signatures[:, votes[0].row], query.signature[0])
    return Elected(name, float(_scored(rows, points)[0]), distance, tuple(votes))


def soft_maximum(scores: Doubles) -> tuple[Doubles, Doubles]:
    """(N, up to VOTES) scores, largest first, -inf for none -> (N,) soft maxima and weights that add up to 1."""
    powers = np.exp((scores - scores[:, :1]) / SOFTNESS)
    sums = powers.sum(axis=1, keepdims=True)
    return (scores[:, :1] + SOFTNESS * np.log(sums / VOTES))[:, 0], powers / sums


def _vote(rows: _Rows, at: int, score: float, weight: float) -> Vote:
    segment, row = rows.parts[int(rows.segments[at])].segment, int(rows.rows[at])
    key = segment.keys[int(segment.owners[row])]
    return Vote(key, name_of(int(segment.cells[row]), segment.precision), score, weight, segment, row)


def _differ(signature: Words, query: Words) -> int:
    return sum(int(a ^ b).bit_count() for a, b in zip(signature, query, strict=True))
