"""Exact Hamming search by faiss, on a processor or a graphics card, with the answers of `hamming` to the row.

`FaissScan` is for many questions at once over signatures that fit the card; `nearest` and `within` stand in for those
of `hamming`, which needs nothing installed and is faster.
"""

from __future__ import annotations

import weakref
from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, NotInstalled
from geostore.index import by_numpy, hamming
from geostore.index.bits import Words, octets
from geostore.index.hamming import Hits, check_k, check_queries, limit_of, ordered, selected
from geostore.index.selection import Selection

_HELD: dict[int, tuple[weakref.ref[Words], Any]] = {}  # by identity: signatures that were searched, as faiss holds them
K_MAX = 1024  # hits a query; a card finds at most twice as many, and ties take some


class FaissScan:
    """All rows of (W, N) uint64 signatures, held by faiss.

    Args:
        words: the signatures.
        device: "cpu", or "gpu" for the first card, which then holds them: 16 bytes a row of 128 bits.

    Raises:
        NotInstalled: faiss is not there, or was built without cards, or sees none.
    """

    def __init__(self, words: Words, *, device: Literal["cpu", "gpu"] = "cpu") -> None:
        if words.ndim != 2 or words.dtype != np.uint64 or not words.size:
            raise InvalidInput(f"signatures {words.shape} {words.dtype}; give (words, rows) uint64, one row at least")
        self.words = words
        self._index = _filled(words, device)

    def nearest(self, queries: Words, k: int) -> list[Hits]:
        """The k nearest rows of each of (Q, W) queries, by distance, then by row.

        Raises:
            InvalidInput: queries of another width, or a k that is none.
        """
        checked = check_queries(queries)
        if checked.shape[1] != len(self.words) or not 1 <= k <= K_MAX:
            raise InvalidInput(
                f"k = {k!r} for queries of {checked.shape[1]} words; ask for 1 to {K_MAX} rows, with {len(self.words)}"
            )
        count = min(2 * k, self.words.shape[1])
        far, rows = self._index.search(octets(np.ascontiguousarray(checked.T)), count)
        return [self._settled(q, f, r, k) for q, f, r in zip(checked, far, rows, strict=True)]

    def _settled(self, query: Words, far: npt.NDArray[Any], rows: npt.NDArray[Any], k: int) -> Hits:
        """The first k; where more rows than were found may be as far as the last, all of these are looked for."""
        last = int(far[min(k, len(far)) - 1])
        if len(far) < self.words.shape[1] and int(far[-1]) == last:
            found = hamming.within(self.words, query, last)
            return Hits(found.rows[:k], found.distances[:k])
        return _ordered(rows, far, k)


def nearest(
    words: Words,
    queries: Words,
    k: int,
    *,
    radius: int | None = None,
    selection: Selection | None = None,
    threads: int = 1,  # noqa: ARG001 - as `hamming.nearest`; faiss has its own
) -> list[Hits]:
    """As `hamming.nearest`; faiss looks at all rows, held beside `words` while these live, NumPy at some of them."""
    queries = check_queries(queries)
    chosen = selected(words, queries, selection)
    if chosen.count < max(chosen.size, 1):
        return by_numpy.nearest(words, queries, k, radius=radius, selection=chosen)
    index, limit = _held(words), limit_of(radius, queries.shape[1])
    far, _ = index.search(octets(queries.T), min(check_k(k), chosen.size))
    return [_within(index, q, min(int(last), limit), k) for q, last in zip(queries, far[:, -1], strict=True)]


def within(words: Words, query: Words, radius: int, *, selection: Selection | None = None) -> Hits:
    """As `hamming.within`: all selected rows within `radius` bits of a (W,) query."""
    chosen = selected(words, query[None], selection)
    if chosen.count < max(chosen.size, 1):
        return by_numpy.within(words, query, radius, selection=chosen)
    return _within(_held(words), query, limit_of(radius, len(words)), chosen.size)


def _within(index: Any, query: Words, limit: int, k: int) -> Hits:
    """The k first within `limit` bits: all that are as far as the last are looked for, so that rows settle ties."""
    _, far, rows = index.range_search(octets(query[:, None]), limit + 1)
    return _ordered(rows, far, k)


def _ordered(rows: npt.NDArray[Any], far: npt.NDArray[Any], k: int) -> Hits:
    """The k first of what faiss found, in whatever order it gave them."""
    order = np.argsort(rows, kind="stable")
    return ordered(rows[order].astype(np.int64), far[order].astype(np.int16), k)


def _held(words: Words) -> Any:
    """The index of these signatures, made when they are searched first."""
    name = id(words)
    known = _HELD.get(name)
    if known is None or known[0]() is not words:
        known = weakref.ref(words, lambda _: _HELD.pop(name, None)), _filled(words, "cpu")
        _HELD[name] = known
    return known[1]


def _filled(words: Words, device: str) -> Any:
    index = _made(64 * len(words), device)
    index.add(octets(words))
    return index


def _made(bits: int, device: str) -> Any:
    try:
        faiss = import_module("faiss")
    except ImportError as error:
        raise NotInstalled("faiss is not installed; `pip install faiss-cpu`, or 'geostore[gpu]' for a card") from error
    if device == "cpu":
        return faiss.IndexBinaryFlat(bits)
    if device != "gpu":
        raise InvalidInput(f"device {device!r}; use 'cpu' or 'gpu'")
    if not hasattr(faiss, "GpuIndexBinaryFlat") or not faiss.get_num_gpus():
        raise NotInstalled(
            "this faiss sees no graphics card; `pip install 'geostore[gpu]'` beside CUDA 12, or use 'cpu'"
        )
    return faiss.GpuIndexBinaryFlat(faiss.StandardGpuResources(), bits)
