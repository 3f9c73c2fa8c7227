"""The second stage: rows that signatures brought near, put in order by their int8 descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.errors import InvalidInput
from geostore.index.bits import Rows, Words
from geostore.index.hamming import nearest_set
from geostore.index.intrinsics import prefetch
from geostore.index.selection import Selection

CANDIDATES = 2000  # rows the first stage hands over
AHEAD, LINE = 8, 64  # rows that are fetched before they are needed; bytes fetched at once
_QUERY_STEPS = 16 * 127  # the query is rounded to so many steps on either side of 0; one of int8 is kept as it is
Floats = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Ranked:
    """Rows by similarity.

    Attributes:
        rows: (n,) int64, most similar first, ties by row.
        scores: (n,) float32, inner product with the query; of descriptors of length 1, the cosine.
    """

    rows: Rows
    scores: Floats


def quantise(descriptors: Floats) -> tuple[Int8, Floats]:
    """(N, D) float32 -> (N, D) int8 and (N,) float32 scales: `descriptor = int8 * scale`, off by about half a scale.

    The scale keeps a row's inner product with itself, so rounding changes the one with a query by as little as the
    query is far from the row, and neighbours keep their order: of the 20 nearest real descriptors 1 % are others, with
    a 127th of the largest component 9 % were.

    Raises:
        InvalidInput: a value is not finite.
    """
    if descriptors.ndim != 2 or not np.isfinite(descriptors).all():
        raise InvalidInput(f"descriptors {descriptors.shape} hold values that are not finite; give (rows, D) numbers")
    steps = (np.abs(descriptors).max(axis=1, initial=0.0) / 127).astype(np.float32)
    units = descriptors / np.where(steps > 0, steps, np.float32(1))[:, None]  # (N, D), -127 to 127
    rounded = np.rint(units)
    kept = np.einsum("nd,nd->n", units, units) / np.maximum(np.einsum("nd,nd->n", units, rounded), 1)
    return rounded.astype(np.int8), (steps * kept).astype(np.float32)


def rerank(descriptors: Int8, scales: Floats, query: Floats, rows: Rows, k: int) -> Ranked:
    """The k of `rows` whose descriptors have the largest inner product with a (D,) float32 query."""
    return _first(rows, scores_of(descriptors, scales, query, rows), k)


def scores_of(descriptors: Int8, scales: Floats, query: Floats, rows: Rows) -> Floats:
    """(n,) inner products of `rows` with a (D,) float32 query: of one row the same whatever others are asked for."""
    if query.shape != descriptors.shape[1:] or not np.isfinite(query).all():
        raise InvalidInput(f"a query of shape {query.shape}; descriptors have {descriptors.shape[1]} finite components")
    step = max(float(np.abs(query).max(initial=0.0)), 1e-30) / _QUERY_STEPS
    scores = np.empty(len(rows), np.float32)
    whole = np.rint(query / step).astype(np.int32)
    _scores(descriptors, descriptors.reshape(-1), scales, whole, np.float32(step), rows, scores)
    return scores


def _first(rows: Rows, scores: Floats, k: int) -> Ranked:
    """The k of `rows` with the largest scores; only what may be among them is sorted."""
    if k < len(rows):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        kept = scores >= least
        rows, scores = rows[kept], scores[kept]
    order = np.lexsort((rows, -scores))[:k]
    return Ranked(rows[order], scores[order])


def two_stage(
    signatures: Words,
    descriptors: Int8,
    scales: Floats,
    signature: Words,
    query: Floats,
    k: int,
    *,
    candidates: int = CANDIDATES,
    selection: Selection | None = None,
) -> Ranked:
    """The k most similar of the selected rows: the `candidates` nearest by signature, in order of their descriptors.

    Args:
        signatures: (W, N) uint64.
        descriptors: (N, D) int8.
        scales: (N,) float32.
        signature: (W,) uint64, of the query.
        query: (D,) float32, of the query.
        k: rows wanted.
        candidates: rows of the first stage; more find more of the true neighbours, and cost more.
        selection: which rows may be hits; decided before the first stage.
    """
    near = nearest_set(signatures, signature, max(k, candidates), selection=selection)
    return rerank(descriptors, scales, query, near.rows, k)


@compiled
def _scores(
    descriptors: Int8, flat: Int8, scales: Floats, query: npt.NDArray[np.int32], step: Any, rows: Rows, scores: Floats
) -> None:  # pragma: no cover - compiled
    """Inner products in whole numbers, which the compiler may add in any order: 127 * 2047 * D fits up to D = 8,000.

    `flat` is the memory of `descriptors`; rows are asked for some time before they are needed.
    """
    for i in range(rows.size):
        if i + AHEAD < rows.size:
            prefetch(scales, rows[i + AHEAD])
            for j in range(0, query.size, LINE):
                prefetch(flat, rows[i + AHEAD] * query.size + j)
        row = descriptors[rows[i]]
        total = np.int32(0)
        for j in range(row.size):
            total += np.int32(row[j]) * query[j]
        scores[i] = np.float32(total) * scales[rows[i]] * step
