"""What is to be coded of one date: values where they matter, elsewhere what costs next to nothing beside them.

References:
    Blumensath, Davies (2009), "Iterative hard thresholding for compressed sensing": few coefficients that give what is
    known, found with thresholds that fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from geostore.dct.blocks import Blocks
from geostore.dct.steps import step_of
from geostore.raster import Mask

Longs = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
_DEAD = 0.5  # of a step: smaller coefficients are hardly ever told
_ROUNDS, _ROUNDS_STEP = 6, 0.4  # of filling: at least, and for each number by which the step is finer than a guess's
_RIDGE = 3.0  # of the mean square of references, by which their weights are held
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
    """

    planes: Doubles
    known: Mask
    at: Longs

    @cached_property
    def free(self) -> Mask:
        """(padded) True where a value may be anything; nowhere if all of the date matters."""
        found = np.full(self.planes.shape[1:], not self.known.all())
        found[: self.known.shape[0], : self.known.shape[1]] = ~self.known
        return found

    def guess(self, references: Iterable[Doubles]) -> Guess:
        """Each component's mean, and what ridge regression over references without theirs adds to it."""
        there, seen = list(references), ~self.free
        if seen.all():
            return Guess(self.planes, _COARSE)
        planes = np.empty_like(self.planes)
        for k, (plane, wanted) in enumerate(zip(planes, self.planes, strict=True)):
            plane[:], away = wanted[seen].mean(), [r[k] - r[k][seen].mean() for r in there]
            for weight, one in zip(_weights(away, wanted - plane, seen), away, strict=True):
                plane += weight * one
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


def _weights(there: Sequence[Doubles], wanted: Doubles, seen: Mask) -> Doubles:
    """(R,) weights of planes without their means that give `wanted` where `seen`, held near equal ones."""
    if not there:
        return np.empty(0)
    values, equal = np.stack([plane[seen] for plane in there]), np.full(len(there), 1 / len(there))
    square = values @ values.T
    held = square + (_RIDGE * np.trace(square) / len(there) + 1) * np.eye(len(there))
    return np.asarray(equal + np.linalg.solve(held, values @ (wanted[seen] - equal @ values)))
