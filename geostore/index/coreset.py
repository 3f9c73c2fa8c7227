"""A few rows that stand for many: each pick is the row that is farthest, by signature, from all picks before it.

Exact greedy k-centre with a running minimum: a pick costs one pass over the signatures, and no pick is ever taken back.
It favours extremes; strata keep what is common from being left to chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.errors import InvalidInput
from geostore.index.bits import Rows, Words
from geostore.index.intrinsics import popcount
from geostore.index.selection import Selection, everything

BLOCK = 1024  # rows of which the one that is worst off is found together
Int16s = npt.NDArray[np.int16]


@dataclass(frozen=True)
class CoreSet:
    """Rows in the order they were picked; the first n are the core-set of n, within a stratum.

    Attributes:
        rows: (n,) int64.
        radius: bits by which the chosen row that is worst off differs from its nearest pick.
    """

    rows: Rows
    radius: int


def core_set(
    words: Words, count: int, *, selection: Selection | None = None, strata: npt.NDArray[Any] | None = None
) -> CoreSet:
    """The `count` rows of (W, N) signatures that cover the selected ones.

    Args:
        words: (W, N) uint64.
        count: rows wanted; all selected rows come back where there are no more.
        selection: which rows may be picked and are to be covered; all by default.
        strata: (N,) class, season or cell of each row: each stratum is covered by itself, with a share of the picks in
            proportion to its rows and at least one as long as `count` allows, largest strata first.

    Raises:
        InvalidInput: shapes do not fit, or `count` is not positive.

    References:
        Gonzalez 1985, "Clustering to minimize the maximum intercluster distance". The first pick is the row nearest to
        the majority of bits, ties by row, so that nothing is random.
    """
    chosen = everything(words.shape[1]) if selection is None else selection
    if count < 1 or chosen.size != words.shape[1] or (strata is not None and strata.shape != (words.shape[1],)):
        raise InvalidInput(
            f"{count} of {words.shape[1]} rows, a selection over {chosen.size}, strata "
            f"{None if strata is None else strata.shape}; give a positive count, and one entry a row"
        )
    rows = chosen.row_numbers()
    if not len(rows):
        return CoreSet(rows, 0)
    groups = [rows] if strata is None else [rows[strata[rows] == s] for s in np.unique(strata[rows])]
    picks = [_covered(words, g, n) for g, n in zip(groups, _shares([len(g) for g in groups], count), strict=True) if n]
    return CoreSet(np.concatenate([p.rows for p in picks]), max(p.radius for p in picks))


def _shares(sizes: list[int], count: int) -> list[int]:
    """Picks of each stratum: one each, largest first, then the rest by largest remainders; never more than it has."""
    given = np.zeros(len(sizes), np.int64)
    order = np.argsort(-np.asarray(sizes), kind="stable")
    given[order[:count]] = 1
    for _ in range(min(count, sum(sizes)) - int(given.sum())):
        short = np.where(given < sizes, np.asarray(sizes) / (given + 0.5), -1.0)  # as seats by Webster
        given[int(short.argmax())] += 1
    return [int(n) for n in given]


def _covered(words: Words, rows: Rows, count: int) -> CoreSet:
    kept = np.ascontiguousarray(words[:, rows])
    picks = np.empty(min(count, len(rows)), np.int64)
    radius = _greedy(kept, _majority(kept), picks)
    return CoreSet(rows[picks], int(radius))


def _majority(words: Words) -> Words:
    """(W,) the signature of the bits that most rows have."""
    out = np.zeros(len(words), np.uint64)
    for w, word in enumerate(words):
        for bit in range(64):
            many = int(((word >> np.uint64(bit)) & np.uint64(1)).sum()) * 2 > words.shape[1]
            out[w] |= np.uint64(many) << np.uint64(bit)
    return out


@compiled
def _lower(words: Words, point: Words, least: Int16s) -> int:  # pragma: no cover - compiled
    """Bring each row's distance to its nearest pick down by one more pick; the row that is worst off, the first."""
    worst = at = -1
    for lo in range(0, least.size, BLOCK):
        part = least[lo : lo + BLOCK]
        if words.shape[0] == 2:
            a, b = words[0, lo : lo + BLOCK], words[1, lo : lo + BLOCK]
            most = _lower_two(a, b, point[0], point[1], part)
        else:
            most = _lower_all(words, lo, point, part)
        if most > worst:
            worst, at = most, lo
    while least[at] != worst:
        at += 1
    return at


@compiled
def _lower_two(a: Words, b: Words, p: Any, q: Any, least: Int16s) -> Any:  # pragma: no cover - compiled
    """The largest distance that is left; single arrays let the compiler keep whole vectors at work."""
    most = -1
    for i in range(least.size):
        far: Any = min(np.int64(least[i]), popcount(a[i] ^ p) + popcount(b[i] ^ q))
        least[i] = far
        most = max(most, far)
    return most


@compiled
def _lower_all(words: Words, lo: int, point: Words, least: Int16s) -> Any:  # pragma: no cover - compiled
    most = -1
    for i in range(least.size):
        far: Any = 0
        for w in range(words.shape[0]):
            far += popcount(words[w, lo + i] ^ point[w])
        far = min(np.int64(least[i]), far)
        least[i] = far
        most = max(most, far)
    return most


@compiled
def _greedy(words: Words, centre: Words, picks: Rows) -> int:  # pragma: no cover - compiled
    """Fill `picks`; the covering radius after the last."""
    least = np.full(words.shape[1], 32767, np.int16)
    _lower(words, centre, least)
    at: Any = least.argmin()
    least[:] = 32767
    for n in range(picks.size):
        picks[n] = at
        least[at] = -1  # picked: never again, equal rows or not
        at = _lower(words, words[:, at].copy(), least)
    return int(max(least[at], 0))
