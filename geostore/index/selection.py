"""Which rows a search may look at: runs of rows, with or without a bitmap, or a few single rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput
from geostore.index.bits import Rows, Words, bitmap_size, count_in_runs, rows_in_runs

_NO_RUNS = np.zeros((0, 2), np.int64)
GATHER_SHARE = 0.02  # of the rows of the runs; below it single rows are read faster than blocks


@dataclass(frozen=True)
class Listed:
    """A few rows in an order of their own, with their signatures beside each other where these are at hand.

    Attributes:
        order: (M,) uint32, rows.
        signatures: (W, M) uint64, theirs, or None.
        start, stop: which of these are meant.
    """

    order: npt.NDArray[np.uint32]
    signatures: Words | None
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> npt.NDArray[np.uint32]:
        """The rows, each once."""
        return self.order[self.start : self.stop]

    def among(self, kept: npt.NDArray[np.bool_]) -> Listed:
        """Those of the rows for which `kept` holds."""
        rows, signatures = self.rows[kept], self.signatures
        mine = None if signatures is None else np.compress(kept, signatures[:, self.start : self.stop], axis=1)
        return Listed(rows, mine, 0, len(rows))


@dataclass(frozen=True)
class Selection:
    """Rows chosen before a search; make one with `everything`, `select` or `from_mask`.

    Attributes:
        size: rows it was made for.
        count: rows chosen, exact.
        runs: (R, 2) int64, ascending and disjoint [start, stop), none empty.
        allowed: bitmap over `size` rows that must be set as well, or None.
        rows: (count,) int64 ascending; where set, the rows themselves, and runs and bitmap are not looked at.
        listed: where set, the rows with their signatures, and none of the others is looked at.
    """

    size: int
    count: int
    runs: Rows
    allowed: Words | None = None
    rows: Rows | None = None
    listed: Listed | None = None

    @property
    def single(self) -> bool:
        """Whether rows are named one by one."""
        return self.rows is not None or self.listed is not None

    def split(self, parts: int) -> list[Selection]:
        """At most `parts` selections of about as many rows each, in order, that make up this one."""
        if parts <= 1 or self.count < parts or self.listed is not None:
            return [self]
        if self.rows is not None:
            return [Selection(self.size, len(p), self.runs, None, p) for p in np.array_split(self.rows, parts)]
        return [_within(self, cut) for cut in _cut(self.runs, parts)]

    def row_numbers(self) -> Rows:
        """(count,) int64, ascending: the rows chosen."""
        if self.rows is not None:
            return self.rows
        if self.listed is not None:
            return np.sort(self.listed.rows).astype(np.int64)
        if self.allowed is not None:
            return np.asarray(rows_in_runs(self.allowed, self.runs, self.count))
        return np.concatenate([np.arange(a, b, dtype=np.int64) for a, b in self.runs] or [np.zeros(0, np.int64)])


def everything(size: int) -> Selection:
    """All of `size` rows."""
    return Selection(size, size, np.array([[0, size]] if size else [], np.int64).reshape(-1, 2))


def select(size: int, runs: npt.NDArray[Any] | None = None, allowed: Words | None = None) -> Selection:
    """The rows of `runs` (all by default) whose bit is set in `allowed` (any by default).

    Raises:
        InvalidInput: runs are not ascending [start, stop) within `size`, or the bitmap is of another size.
    """
    kept = everything(size).runs if runs is None else _check_runs(np.asarray(runs, np.int64), size)
    if allowed is not None and allowed.shape != (bitmap_size(size),):
        raise InvalidInput(f"a bitmap of {allowed.shape} words for {size} rows; it needs {bitmap_size(size)}")
    return chosen(size, kept, allowed)


def chosen(size: int, runs: Rows, allowed: Words | None, *, count: int | None = None) -> Selection:
    """As `select`, of runs and a bitmap that are known to be right, and where it is known the rows they leave."""
    span = int((runs[:, 1] - runs[:, 0]).sum())
    if allowed is None:
        return Selection(size, span, runs)
    count = int(count_in_runs(allowed, runs)) if count is None else count
    if count < GATHER_SHARE * span:
        return Selection(size, count, runs, None, rows_in_runs(allowed, runs, count))
    return Selection(size, count, runs, allowed)


def of_rows(size: int, rows: npt.NDArray[Any]) -> Selection:
    """The rows of an ascending integer array without doubles."""
    kept = np.asarray(rows, np.int64)
    if len(kept) and not (kept[0] >= 0 and kept[-1] < size and (np.diff(kept) > 0).all()):
        raise InvalidInput(f"rows {kept[:4]}... are not ascending within 0..{size - 1}")
    return Selection(size, len(kept), _NO_RUNS, None, kept)


def of_listed(size: int, listed: Listed) -> Selection:
    """The rows of a list; where it has no signatures they must ascend."""
    if listed.signatures is not None:
        return Selection(size, len(listed), _NO_RUNS, listed=listed)
    return Selection(size, len(listed), _NO_RUNS, rows=listed.rows.astype(np.int64))


def _check_runs(runs: Rows, size: int) -> Rows:
    if runs.ndim != 2 or runs.shape[1] != 2:
        raise InvalidInput(f"runs of shape {runs.shape}; give (runs, 2) of [start, stop)")
    kept = runs[runs[:, 0] < runs[:, 1]]
    edges = kept.ravel()
    if len(edges) and not (edges[0] >= 0 and edges[-1] <= size and (np.diff(edges) >= 0).all()):
        raise InvalidInput(f"runs {kept[:3].tolist()}... are not ascending and disjoint within 0..{size}")
    return np.ascontiguousarray(kept)


def _within(whole: Selection, runs: Rows) -> Selection:
    if whole.allowed is None:
        return Selection(whole.size, int((runs[:, 1] - runs[:, 0]).sum()), runs)
    return Selection(whole.size, int(count_in_runs(whole.allowed, runs)), runs, whole.allowed)


def _cut(runs: Rows, parts: int) -> list[Rows]:
    """Runs cut into `parts` lists of as many rows each, to the row."""
    lengths = runs[:, 1] - runs[:, 0]
    ends = np.cumsum(lengths)
    marks = [int(ends[-1]) * p // parts for p in range(parts + 1)]
    return [_slice(runs, ends - lengths, low, high) for low, high in pairwise(marks)]


def _slice(runs: Rows, before: Rows, low: int, high: int) -> Rows:
    """The part of `runs` that holds their rows number `low` to `high`, counted over all runs."""
    start = np.clip(low - before, 0, runs[:, 1] - runs[:, 0]) + runs[:, 0]
    stop = np.clip(high - before, 0, runs[:, 1] - runs[:, 0]) + runs[:, 0]
    return np.ascontiguousarray(np.column_stack([start, stop])[start < stop])
