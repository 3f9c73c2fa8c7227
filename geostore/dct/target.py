"""What is to be coded of one date: values where they matter, elsewhere what costs next to nothing beside them.

References:
    Blumensath, Davies (2009), "Iterative hard thresholding for compressed sensing": few coefficients that give what is
    known, found with thresholds that fall.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from geostore.dct.blocks import Blocks
from geostore.dct.regression import Regression
from geostore.dct.steps import step_of
from geostore.raster import Mask

Longs = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
_DEAD = 0.5  # of a step: smaller coefficients are hardly ever told
_ROUNDS, _ROUNDS_STEP = 6, 0.4  # of filling: at least, and for each number by which the step is finer than a guess's
_SIDE = 32  # pixels of squares that are foretold from others, to see how well references do
_CLEARLY = 0.5  # of what references miss is missed by what lies along time, where that is taken
_COARSE = 100  # number of a step at which little but references is told


@dataclass(frozen=True)
class Guess:
    """What a date may be like.

    Attributes:
        planes: (K, padded) values.
        step: number of the step at which they were told.
    """

    planes: Doubles
    step: int


@dataclass(frozen=True)
class Target:
    """What is to be coded of one date.

    Attributes:
        planes: (K, padded) values.
        known: (height, width), True where they matter; somewhere they do.
        at: (2,) how far off it lies.
        line: (K, padded) what lies along time, see `along`; None if all of it is known.
    """

    planes: Doubles
    known: Mask
    at: Longs
    line: Doubles | None = None

    @cached_property
    def free(self) -> Mask:
        """(padded) True where a value may be anything; nowhere if all of the date matters."""
        found = np.full(self.planes.shape[1:], not self.known.all())
        found[: self.known.shape[0], : self.known.shape[1]] = ~self.known
        return found

    def guess(self, references: Iterable[Doubles]) -> Guess:
        """By component: its mean, and what ridge regression over references without theirs adds to it, or the line.

        The line is taken where the regression, fitted to the pixels of other squares, is clearly worse.
        """
        if not self.free.any():
            return Guess(self.planes, _COARSE)
        at, ends = _by_squares(~self.free)
        wanted, there = _Seen.of(self.planes, at), [_Seen.of(r, at) for r in references]
        line = None if self.line is None else _Seen.of(self.line, at)
        planes = np.empty_like(self.planes)
        for k, plane in enumerate(planes):
            plane[:] = wanted.means[k]
            values, use = wanted.away[k], there
            found = Regression.of(np.array([one.away[k] for one in there]).reshape(-1, len(at)), values, ends)
            if line is not None and np.sum((values - line.away[k]) ** 2) < _CLEARLY * found.missed():
                use, weights = [line], np.ones(1)
            else:
                weights = found.weights()
            for weight, one in zip(weights, use, strict=True):
                plane += weight * (one.planes[k] - one.means[k])
        return Guess(planes, _COARSE)

    def filled(self, guess: Guess, blocks: Blocks, step: int) -> Target:
        """The same with values where they do not matter that ask for few coefficients at that number of a step.

        These are a guess and what few coefficients, as told at the step, add to it to give the values that matter.
        """
        if not self.free.any():
            return self
        rounds = round(_ROUNDS + _ROUNDS_STEP * max(0, guess.step - step))
        missed = np.where(self.free, 0, self.planes - guess.planes).astype(np.float32)
        more, free = np.zeros_like(missed), np.broadcast_to(self.free, missed.shape)
        for limit in np.geomspace(step_of(max(guess.step, step)), step_of(step), rounds):
            np.copyto(missed, more, where=free)
            more = blocks.sparse(missed, _DEAD * limit)
        return replace(self, planes=np.where(self.free, guess.planes + more, self.planes))


class _Seen(NamedTuple):
    """Planes, their (K,) means over N pixels, and these without them."""

    planes: Doubles
    means: Doubles
    away: Doubles

    @classmethod
    def of(cls, planes: Doubles, at: Longs) -> _Seen:
        values = planes.reshape(len(planes), -1)[:, at]
        means = values.mean(axis=1)
        return cls(planes, means, values - means[:, None])


def _by_squares(seen: Mask) -> tuple[Longs, Longs]:
    """(N,) the pixels seen, by the parts that squares beside one another are in; and where each part ends."""
    rows, columns = np.nonzero(seen)
    part = rows // _SIDE % 2 * 2 + columns // _SIDE % 2
    order = np.argsort(part, kind="stable")
    return (rows * seen.shape[1] + columns)[order], np.cumsum(np.bincount(part, minlength=4))
