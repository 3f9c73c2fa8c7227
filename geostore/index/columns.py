"""Attributes of rows, kept so that a condition on them is answered with a bitmap and not by a look at every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.errors import InvalidInput
from geostore.index.bits import Words, bitmap, bitmap_size, clear_rows, set_rows
from geostore.index.selection import Listed

STEPS = 32  # bitmaps a column of numbers keeps beside its order
STRIDE = 64  # of so many rows of the order the value of one is kept at hand
Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Numbers:
    """A column of numbers that knows its order.

    Attributes:
        values: (N,) int64 or float64; NaN meets no condition.
        order: (M,) uint32, rows by value, those with NaN left out.
        steps: (STEPS - 1, words) uint64; step j has the first M * (j + 1) // STEPS rows of the order set.
        signatures: (W, M) uint64, those of the rows of the order, so that a range's lie together; None if not kept.
    """

    values: Values
    order: npt.NDArray[np.uint32]
    steps: Words
    signatures: Words | None = None

    def span(self, low: float | None, high: float | None) -> tuple[int, int]:
        """Positions in `order`, [start, stop), of rows with low <= value <= high; None is no bound."""
        least, most = _bound(self.values, low, up=True), _bound(self.values, high, up=False)
        start, stop = _span(self.values, self.order, self._strided, low is not None, least, high is not None, most)
        return int(start), int(stop)

    @cached_property
    def _strided(self) -> Values:
        """The values of every STRIDE-th row of the order."""
        return self.values[self.order[::STRIDE]]

    def listed(self, start: int, stop: int) -> Listed:
        """The rows at these positions of `order`: with their signatures as they lie, otherwise ascending."""
        if self.signatures is not None:
            return Listed(self.order, self.signatures, start, stop)
        return Listed(np.sort(self.order[start:stop]), None, 0, stop - start)

    def between(self, low: float | None, high: float | None) -> Words:
        """The bitmap of rows with low <= value <= high; None is no bound."""
        start, stop = self.span(low, high)
        if stop - start <= len(self.order) // STEPS:
            out = np.zeros(bitmap_size(len(self.values)), np.uint64)
            set_rows(out, self.order[start:stop])
            return out
        first = self._first(stop)
        if start:
            first ^= self._first(start)  # the one holds the other
        return first

    def _first(self, count: int) -> Words:
        """The bitmap of the first `count` rows of the order: from the nearest step, by the rows between."""
        total = len(self.order)
        step = min((2 * count * STEPS + total) // (2 * total), STEPS - 1)
        out = np.zeros(bitmap_size(len(self.values)), np.uint64) if step == 0 else self.steps[step - 1].copy()
        at = total * step // STEPS
        if at <= count:
            set_rows(out, self.order[at:count])
        else:
            clear_rows(out, self.order[count:at])
        return out


def numbers(values: Values, signatures: Words | None = None) -> Numbers:
    """A column of (N,) int64 or float64 values; of (W, N) signatures a copy in its order is kept.

    None is kept of a column with one value only, of which no condition leaves few rows.
    """
    kept = values if values.dtype == np.int64 else values.astype(np.float64)
    order = np.argsort(kept, kind="stable").astype(np.uint32)
    if kept.dtype == np.float64:
        order = order[: len(order) - int(np.isnan(kept).sum())]
    steps = np.zeros((STEPS, bitmap_size(len(kept))), np.uint64)
    for j in range(1, STEPS):
        steps[j] = steps[j - 1]
        set_rows(steps[j], order[len(order) * (j - 1) // STEPS : len(order) * j // STEPS])
    several = len(order) > 0 and kept[order[0]] != kept[order[-1]]
    return Numbers(kept, order, steps[1:], signatures[:, order] if several and signatures is not None else None)


def _bound(values: Values, bound: float | None, *, up: bool) -> float:
    """A bound of the type of the values, rounded into the range; 0 for none."""
    if values.dtype.kind == "f":
        return 0.0 if bound is None else float(bound)
    return 0 if bound is None else math.ceil(bound) if up else math.floor(bound)


@compiled
def _span(
    values: Values, order: Values, strided: Values, bounded: bool, low: float, limited: bool, high: float
) -> tuple[int, int]:  # pragma: no cover - compiled
    """Positions in the order of rows from `low`, if bounded, to `high`, if limited."""
    start = _rank(values, order, strided, 0, low, False) if bounded else 0
    stop = _rank(values, order, strided, start, high, True) if limited else order.size
    return start, max(start, stop)


@compiled
def _rank(
    values: Values, order: Values, strided: Values, known: int, bound: float, after: bool
) -> int:  # pragma: no cover - compiled
    """Rows of the order below `bound`, with `after` or equal to it; at least, or fewer than, the `known` ones.

    They are looked up among every STRIDE-th first, which lie together, from the known ones on in growing steps.
    """
    low, step = known // STRIDE, 1 if known else strided.size
    while low + step < strided.size and strided[low + step] <= bound:
        step *= 2
    part = strided[low : min(low + step, strided.size)]
    at: Any = np.searchsorted(part, bound, "right") if after else np.searchsorted(part, bound)
    low, high = max(low + at - 1, 0) * STRIDE, min((low + at) * STRIDE, order.size)
    while low < high:
        middle = (low + high) // 2
        value = values[order[middle]]
        if value < bound or (after and value == bound):
            low = middle + 1
        else:
            high = middle
    return int(low)


@dataclass(frozen=True)
class Category:
    """A column of names, few of them different.

    Attributes:
        names: the names that occur, sorted.
        codes: (N,) uint16, position in `names`.
        bitmaps: (names, words) uint64.
    """

    names: tuple[str, ...]
    codes: npt.NDArray[np.uint16]
    bitmaps: Words

    def among(self, wanted: Sequence[str]) -> Words:
        """The bitmap of rows whose name is one of `wanted`; names that do not occur add nothing."""
        known = [self.names.index(name) for name in set(wanted) & set(self.names)]
        out = self.bitmaps[known[0]].copy() if known else np.zeros(bitmap_size(len(self.codes)), np.uint64)
        for other in known[1:]:
            out |= self.bitmaps[other]
        return out


def category(values: Sequence[str] | npt.NDArray[np.str_]) -> Category:
    """A column of (N,) names.

    Raises:
        InvalidInput: more than 65,535 different ones.
    """
    names, codes = np.unique(np.asarray(values, np.str_), return_inverse=True)
    return coded(tuple(str(n) for n in names), codes)


def coded(names: tuple[str, ...], codes: npt.NDArray[Any]) -> Category:
    """A column of positions in `names`; names that do not occur are left out."""
    present = np.unique(codes)
    if len(present) > 65_535:
        raise InvalidInput(f"{len(present)} different names in one column; at most 65535 can be told apart")
    kept = np.searchsorted(present, codes).astype(np.uint16)
    maps = [bitmap(kept == c) for c in range(len(present))]
    shape = (len(present), bitmap_size(len(kept)))
    return Category(tuple(names[c] for c in present), kept, np.array(maps, np.uint64).reshape(shape))
