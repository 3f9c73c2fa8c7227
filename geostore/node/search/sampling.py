"""What a head is trained on: descriptors of an index's rows, and which of them belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput
from geostore.index.segment import Segment
from geostore.node.search.labelling import Labelling
from geostore.node.search.levels import LETTERS, RASTER, Levels

ROWS_MAX = 200_000  # a sample of more rows trains no better head
LABELS, UNLABELLED = "labels", "unlabelled"  # by which of the two a head may be asked for
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Described:
    """The rows of one model's indexes, without their descriptors, which are read as they are wanted.

    Attributes:
        parts: (segment, rows of it that count), in the order of the rows here.
        cells: (N, 2) int64, code and precision of each row's cell.
        places: (N,) int64, the same of the cell of the raster it belongs to, in one number.
        sets: (N,) int64, number of the set of labels its raster has, -1 for none.
        whole: (N,) bool, rows of whole rasters and not of their chips.
        rasters: how many rasters have each set of labels.
    """

    parts: tuple[tuple[Segment, Ints], ...]
    cells: Ints
    places: Ints
    sets: Ints
    whole: Bools
    rasters: Ints

    @property
    def shared(self) -> Ints:
        """(N,) `sets`, -1 where a single raster has them: its chips tell the place, not the labels."""
        kept = np.append(np.where(self.rasters > 1, np.arange(len(self.rasters)), -1), -1)
        return np.asarray(kept[self.sets], np.int64)

    def keys(self, chosen: Ints) -> list[bytes]:
        """Keys of the rasters that rows belong to, by their numbers."""
        starts, which = self._parts_of(chosen)
        found = []
        for row, number in zip(chosen.tolist(), which.tolist(), strict=True):
            segment, rows = self.parts[number]
            found.append(segment.keys[int(segment.owners[rows[row - starts[number]]])])
        return found

    def _parts_of(self, chosen: Ints) -> tuple[Ints, Ints]:
        """Where parts begin, and the part of each of (M,) rows."""
        starts = np.cumsum([0, *(len(rows) for _, rows in self.parts)])
        return starts, np.searchsorted(starts, chosen, "right") - 1

    def points(self, chosen: Ints) -> Floats:
        """(M, D) float32 descriptors of rows by their numbers, in this order."""
        starts, which = self._parts_of(chosen)
        out: Floats | None = None
        for number, (segment, rows) in enumerate(self.parts):
            assert segment.descriptors is not None
            assert segment.scales is not None
            mine = np.flatnonzero(which == number)
            taken = rows[chosen[mine] - starts[number]]
            if out is None:
                out = np.empty((len(chosen), segment.descriptors.shape[1]), np.float32)
            out[mine] = segment.descriptors[taken].astype(np.float32) * segment.scales[taken, None]
        assert out is not None
        return out


class Keys(Protocol):
    """Keys by position."""

    def __getitem__(self, at: int) -> bytes:
        """One of them."""
        ...


def described(levels: Levels, labelling: Labelling) -> Described:
    """The rows of a model's indexes.

    Raises:
        InvalidInput: there are none.
    """
    parts, cells, places, sets, whole = [], [], [], [], []
    named: dict[tuple[str, ...], set[bytes]] = {}
    for (kind, precision), index in sorted(levels.indexes.items()):
        for part in index.parts:
            segment, up = part.segment, LETTERS[kind]
            rows = np.arange(len(segment)) if part.alive is None else _living(part.alive, len(segment))
            parts.append((segment, rows))
            cells.append(np.stack([segment.cells[rows], np.full(len(rows), precision)], axis=1))
            places.append((segment.cells[rows] >> (5 * up)) * 16 + precision - up)
            sets.append(_sets(segment.keys, segment.owners[rows], labelling.names, named))
            whole.append(np.full(len(rows), kind == RASTER))
    if not sum(map(len, sets)):
        raise InvalidInput("nothing is described yet, so no head can be trained; run `geostore index build` first")
    rasters = np.array([len(keys) for keys in named.values()], np.int64)
    one = np.concatenate
    return Described(tuple(parts), one(cells), one(places), one(sets), one(whole), rasters)


def _living(alive: npt.NDArray[np.uint64], size: int) -> Ints:
    return np.flatnonzero(np.unpackbits(alive.view(np.uint8), count=size, bitorder="little"))


def _sets(
    keys: Keys, owners: npt.NDArray[np.uint32], labels: Mapping[bytes, tuple[str, ...]],
    named: dict[tuple[str, ...], set[bytes]],
) -> Ints:  # fmt: skip
    """(N,) number of each row's set of labels, in the order of `named`, which gets the rasters of each; -1 without."""
    if not labels:
        return np.full(len(owners), -1, np.int64)
    found, which = np.unique(owners, return_inverse=True)
    numbers = {names: number for number, names in enumerate(named)}
    sets = np.full(len(found), -1, np.int64)
    for at, owner in enumerate(found.tolist()):
        key = keys[owner]
        mine = tuple(sorted(labels.get(key, ())))
        if mine:
            sets[at] = numbers.setdefault(mine, len(numbers))
            named.setdefault(mine, set()).add(key)
    return sets[which]


def check_enough(labelling: Labelling) -> None:
    """Raise InvalidInput where fewer than two sets of labels have two rasters: no head can learn from them."""
    counts = Counter(tuple(sorted(names)) for names in labelling.names.values() if names)
    if sum(count > 1 for count in counts.values()) < 2:
        raise InvalidInput(
            "labels were asked for, and fewer than two sets of them have two rasters each; see `geostore label`"
        )


def samples(rows: Described, by: str, *, seed: int, among: Bools | None = None) -> tuple[Ints, Ints, str]:
    """Numbers of rows to learn from, what each belongs to, and by which of four rules.

    "labels": the labels of the raster, where two rasters or more have just these; other rows are left out. Without
    them the first that two groups keep: "places": the cell, seen at several dates; "neighbours": the cell one level up,
    whose chips lie side by side, for a store with one date a place; "rows": nothing belongs together, so that every row
    comes twice, and training tells it from others by two noisy views of it.

    Args:
        rows: what is described.
        by: LABELS or UNLABELLED.
        seed: of the sample, where there are more than ROWS_MAX rows.
        among: (N,) rows that may be taken; all, if None.
    """
    groups, rule = (rows.shared, LABELS) if by == LABELS else unlabelled(rows.cells)
    usable = groups >= 0 if among is None else (groups >= 0) & among
    chosen = np.flatnonzero(usable)
    if len(chosen) > ROWS_MAX:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, ROWS_MAX, replace=False))
    chosen = np.tile(chosen, 2) if rule == "rows" else chosen
    return chosen, groups[chosen], rule


def unlabelled(cells: Ints) -> tuple[Ints, str]:
    """(N,) group of each row, and by what, of (N, 2) cells and precisions; labels left aside.

    A raster's row belongs with its chips: its cell is theirs one level up.
    """
    code, precision = cells[:, 0], cells[:, 1]
    coarsest = precision == precision.min()
    above = np.where(coarsest, code, code >> 5) * 16 + np.where(coarsest, precision, precision - 1)
    for by, groups in {"places": code * 16 + precision, "neighbours": above}.items():
        _, counts = np.unique(groups, return_counts=True)
        if (counts > 1).sum() > 1:
            return groups, by
    return np.arange(len(cells), dtype=np.int64), "rows"
