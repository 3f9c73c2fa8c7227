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

import numpy as np
import numpy.typing as npt

from geostore.errors import NotComparable
from geostore.index.bits import Words
from geostore.index.filters import ALL, Filter, Plan
from geostore.index.groups import Floats, Groups, Ints
from geostore.index.ranked import Query
from geostore.index.rows import TIME
from geostore.index.search import plans
from geostore.index.segment import Segment
from geostore.index.segments import Segments
from geostore.partition.geohash import name_of

Doubles = npt.NDArray[np.float64]
VOTES = 4  # parts of a cell that vote for one point
SOFTNESS = 0.02  # T: a part whose score is that much less than the best weighs a third of it
_AT_ONCE = 32  # cells read between two looks at whether more are needed


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
    cells: Ints  # (held,) names of cells

    def of(self, group: int) -> Ints:
        """Chosen rows of a group."""
        start, stop = self.groups.starts[group : group + 2]
        if self.rows is None:
            return np.arange(start, stop)
        low, high = np.searchsorted(self.rows, (start, stop))
        return self.rows[low:high]


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
    names = [name_of(int(cell >> 4), int(cell & 15)) for cell in cells]
    left_out = frozenset(without)
    order = [int(i) for i in np.argsort(-bounds, kind="stable") if names[i] not in left_out]
    where = _places(of_part, len(cells))
    found: list[Elected] = []
    read = 0
    for first in range(0, len(order), _AT_ONCE):
        if prune and len(found) == k and bounds[order[first]] < found[-1].score:
            break
        batch = order[first : first + _AT_ONCE]
        read += len(batch)
        found += [_counted(parts, where[i], names[i], query, points) for i in batch]
        found = sorted(found, key=lambda cell: (-cell.score, cell.geohash))[:k]
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
    counts = np.diff(starts if rows is None else np.searchsorted(rows, starts))
    held = np.flatnonzero(counts)
    precision = segment.precision - letters
    return _Part(segment, groups, rows, held, (segment.cells[starts[held]] >> (5 * letters) << 4) | precision)


def _cells(parts: Sequence[_Part]) -> tuple[Ints, list[Ints]]:
    """The different cells, and of each part the number of the cell of each group."""
    if not parts:
        return np.zeros(0, np.int64), []
    cells, numbers = np.unique(np.concatenate([p.cells for p in parts]), return_inverse=True)
    return cells, np.split(numbers.astype(np.int64), np.cumsum([len(p.cells) for p in parts])[:-1])


def _bounds(parts: Sequence[_Part], of_part: Sequence[Ints], count: int, points: Floats) -> Floats:
    """(cells,) the largest score that a cell can have."""
    best = np.full((len(points), count), -1.0, np.float32)
    for part, numbers in zip(parts, of_part, strict=True):
        bounds = part.groups.bounds(points)[:, part.held]
        for own, row in zip(best, bounds, strict=True):
            np.maximum.at(own, numbers, row)
    return np.asarray(best.mean(axis=0), np.float32)


def _places(of_part: Sequence[Ints], count: int) -> list[list[tuple[int, int]]]:
    """Of each cell the (part, position among its groups) of its rows."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for number, cells in enumerate(of_part):
        for position, cell in enumerate(cells.tolist()):
            found[cell].append((number, position))
    return found


def _counted(
    parts: Sequence[_Part], where: Sequence[tuple[int, int]], name: str, query: Query, points: Floats
) -> Elected:
    """A cell with its votes counted."""
    rows, numbers, places, ages, scores = [], [], [], [], []
    for number, position in where:
        part = parts[number]
        segment, mine = part.segment, part.of(int(part.held[position]))
        assert segment.descriptors is not None
        assert segment.scales is not None
        rows.append(mine)
        numbers.append(np.full(len(mine), number))
        places.append((segment.cells[mine] << 4) | segment.precision)
        ages.append(-segment.numbers[TIME].values[mine])
        scores.append(segment.descriptors[mine].astype(np.float32) * segment.scales[mine, None] @ points.T)
    at, which = np.concatenate(rows), np.concatenate(numbers)
    score, votes = _votes(np.concatenate(places), np.concatenate(ages), np.concatenate(scores))
    cast = [_vote(parts[which[row]].segment, int(at[row]), near, weight) for row, near, weight in votes]
    first = cast[0]
    distance = _differ(first.segment.signatures[:, first.row], query.signature[0])
    return Elected(name, score, distance, tuple(cast))


def _votes(places: Ints, ages: Ints, scores: Floats) -> tuple[float, list[tuple[int, float, float]]]:
    """The score, and (row, mean score over the points it voted for, weight) of the rows that vote, heaviest first.

    For each point the best row of a place stands for the place, the newest of equals, and the best VOTES places vote.
    """
    order = np.lexsort((ages, places))
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    cast: dict[int, list[tuple[float, float]]] = {}
    total = 0.0
    for point in scores.T:
        best = [int(order[a + np.argmax(point[order[a:b]])]) for a, b in zip(starts, ends, strict=True)]
        voters = sorted(best, key=lambda row: -point[row])[:VOTES]
        score, weights = soft_maximum(point[voters].astype(np.float64))
        total += score / scores.shape[1]
        for row, weight in zip(voters, weights, strict=True):
            cast.setdefault(row, []).append((float(point[row]), float(weight) / scores.shape[1]))
    found = [(row, sum(s for s, _ in given) / len(given), sum(w for _, w in given)) for row, given in cast.items()]
    return total, sorted(found, key=lambda vote: (-vote[2], -vote[1], vote[0]))


def soft_maximum(scores: Doubles) -> tuple[float, Doubles]:
    """Of up to VOTES scores, largest first: the cell's score, and the weight of each, which add up to 1."""
    powers = np.exp((scores - scores[0]) / SOFTNESS)
    return float(scores[0] + SOFTNESS * np.log(powers.sum() / VOTES)), powers / powers.sum()


def _vote(segment: Segment, row: int, score: float, weight: float) -> Vote:
    key = segment.keys[int(segment.owners[row])]
    return Vote(key, name_of(int(segment.cells[row]), segment.precision), score, weight, segment, row)


def _differ(signature: Words, query: Words) -> int:
    return sum(int(a ^ b).bit_count() for a, b in zip(signature, query, strict=True))
