"""Views of what is described: the same pixels turned and mirrored, further rows for a head to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
WAYS = 8  # a square may be laid down; way 0 is as it is
_PROBED = 32  # views after which a descriptor that sees no difference is known
_SAME = 1e-4  # of a component


@dataclass(frozen=True)
class Views:
    """Descriptors of views.

    Attributes:
        vectors: (M, D) float32.
        of: (M,) int64, the row that each is a view of.
    """

    vectors: Floats
    of: Ints

    def __len__(self) -> int:
        return len(self.of)

    def among(self, rows: Ints) -> Views:
        """Views of some rows (each once at most), which are numbered by their place among these."""
        place = np.full(int(max(rows.max(initial=-1), self.of.max(initial=-1))) + 1, -1, np.int64)
        place[rows] = np.arange(len(rows))
        kept = place[self.of] >= 0
        return Views(self.vectors[kept], place[self.of][kept])


def no_views(width: int) -> Views:
    """None of them."""
    return Views(np.zeros((0, width), np.float32), np.zeros(0, np.int64))


def turned(plane: npt.NDArray[Any], way: int) -> npt.NDArray[Any]:
    """(..., H, W) turned by `way` % 4 quarters, and mirrored from 4 on."""
    made = np.rot90(plane, way % 4, axes=(-2, -1))
    return np.ascontiguousarray(made[..., ::-1] if way >= WAYS // 2 else made)


def drawn(rows: int, most: int, *, seed: int) -> Ints:
    """(M, 2) rows and ways, by row: each row in as many other ways as the next, give or take one, `most` in all."""
    rng, ways = np.random.default_rng(seed), WAYS - 1
    if rows < 1 or most < 1:
        return np.zeros((0, 2), np.int64)
    each, more = divmod(min(most, ways * rows), rows)
    wanted = np.full(rows, each)
    wanted[rng.permutation(rows)[:more]] += 1
    order = rng.permuted(np.tile(np.arange(1, WAYS), (rows, 1)), axis=1)
    row, place = np.nonzero(np.arange(ways) < wanted[:, None])
    return np.stack([row, order[row, place]], axis=1).astype(np.int64)


def views_of(shown: Iterable[tuple[int, int, Callable[[int], Floats]]], width: int) -> Views:
    """Of each (row, way, what describes the row in a way); none where a descriptor does not see how its pixels lie."""
    vectors, of, moved = list[Floats](), list[int](), False
    for row, way, describe in shown:
        if len(of) == _PROBED and not moved:
            break
        vectors.append(describe(way))
        of.append(row)
        moved = moved or bool(np.abs(vectors[-1] - describe(0)).max() > _SAME)
    return Views(np.array(vectors, np.float32), np.array(of, np.int64)) if moved else no_views(width)
