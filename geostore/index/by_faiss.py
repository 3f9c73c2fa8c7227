"""Exact Hamming search by faiss, on a processor or a graphics card, with the answers of `hamming` to the row.

For many questions at once over signatures that fit the card: `hamming` needs nothing installed and is faster for one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, NotInstalled
from geostore.index.bits import Words, octets
from geostore.index.hamming import Hits, check_queries, ordered, within

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
        self._index = _made(64 * len(words), device)
        self._index.add(octets(words))

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
            found = within(self.words, query, last)
            return Hits(found.rows[:k], found.distances[:k])
        order = np.argsort(rows, kind="stable")
        return ordered(rows[order].astype(np.int64), far[order].astype(np.int16), k)


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
