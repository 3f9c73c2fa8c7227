"""What coder and decoder of a group learn as they go: models of bits, weights of their guesses, where there is much."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.dct.blocks import CLASSES
from geostore.dct.mixing import new_models, new_weights

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
INPUTS = FLAG, ZERO, SIZE, SIGN = 7, 10, 4, 5  # contexts of each kind of bit, see `geostore.dct.contexts`
_CONTEXTS = 1 << 14
_SETS = 64


class Learnt(NamedTuple):
    """What coder and decoder have learnt so far, alike.

    Attributes:
        flags, zeros, sizes, signs: models of whether a block's class has anything, of values not to be 0, of sizes,
            of values to be above 0.
        flag_weights, zero_weights, size_weights, sign_weights: of their guesses.
        active: (K, rows, columns, h, w) running mean of magnitudes, in 1/256.
        busy: (K, rows, columns, CLASSES) the same of their sums over a class.
    """

    flags: Ints
    zeros: Ints
    sizes: Ints
    signs: Ints
    flag_weights: Ints
    zero_weights: Ints
    size_weights: Ints
    sign_weights: Ints
    active: Ints
    busy: Ints

    @classmethod
    def nothing(cls, shape: tuple[int, ...]) -> Learnt:
        """Before the first of dates with coefficients of `shape`."""
        models = [new_models(n, _CONTEXTS) for n in INPUTS]
        weights = [new_weights(_SETS, n) for n in INPUTS]
        active, busy = np.zeros(shape, np.int32), np.zeros((*shape[:3], CLASSES), np.int32)
        return cls._make([*models, *weights, active, busy])

    def copy(self) -> Learnt:
        """The same, to go back to."""
        return Learnt(*(array.copy() for array in self))


@compiled(lean=True)
def remember(whole: Ints, sums: Longs, learnt: Learnt) -> None:
    """Let the running means follow a date's values."""
    parts, rows, columns, height, width = whole.shape
    for k in range(parts):
        for y in range(rows):
            for x in range(columns):
                for u in range(height):
                    for v in range(width):
                        aim = min(abs(whole[k, y, x, u, v]), 4) << 8
                        learnt.active[k, y, x, u, v] += ((aim - learnt.active[k, y, x, u, v]) * 31) >> 8
                for c in range(CLASSES):
                    aim = min(sums[k, y, x, c], 64) << 8
                    learnt.busy[k, y, x, c] += ((aim - learnt.busy[k, y, x, c]) * 38) >> 8
