"""A Karhunen-Loeve transform over bands whose inverse is whole numbers, so that it is the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from geostore.classical.av1 import LEVELS, Planes
from geostore.classical.bend import Bend, Floats, Longs

Doubles = npt.NDArray[np.float64]
_SHIFT = 14
_MARGIN = 1 / 16  # of a component's range, left free at either end for dates to come


@dataclass(frozen=True)
class Klt:
    """Bands on the scale of a `Bend` to components of LEVELS whole numbers, and back.

    Back is value = (basis @ component + offset) >> 14 in 64 bits: exact by construction.

    Attributes:
        bend: the scale.
        weights: (B, B) float64, symmetric: what an error of all bands on it is multiplied by before its parts count
            alike.
        basis: (B, K) int32, in 2^-14 of a step of the scale for one level of a component; by falling variance.
        offset: (B,) int64, half a step of the scale included.
    """

    bend: Bend
    weights: Doubles
    basis: npt.NDArray[np.int32]
    offset: Longs

    @classmethod
    def of(cls, values: Floats, valid: npt.NDArray[np.bool_], bend: Bend, weights: Doubles) -> Klt:
        """The transform of (T, B, H, W) `values` on the scale of `bend`, by those where (T, H, W) `valid`."""
        samples = values.transpose(0, 2, 3, 1)[valid] @ weights  # (T, B, H, W) -> (N, B)
        mean = samples.mean(axis=0)
        _, vectors = np.linalg.eigh(np.atleast_2d(np.cov(samples.T, bias=True)))
        vectors = vectors[:, ::-1] * np.where(vectors[:, ::-1].sum(axis=0) < 0, -1.0, 1.0)
        components = (samples - mean) @ vectors
        low, high = components.min(axis=0), components.max(axis=0)
        margin = (high - low) * _MARGIN
        step = max(float((high - low + 2 * margin).max()) / (LEVELS - 1), 2.0**-10)
        centre = mean + vectors @ (low + high) / 2
        unweighted = np.linalg.inv(weights)
        exact = unweighted @ vectors * step  # one level of a component, in every band
        basis = np.rint(exact * 2**_SHIFT).astype(np.int32)
        middle = basis.astype(np.int64).sum(axis=1) * (LEVELS // 2)
        offset = np.rint(unweighted @ centre * 2**_SHIFT).astype(np.int64) - middle + 2 ** (_SHIFT - 1)
        return cls(bend, weights, basis, offset)

    @property
    def components(self) -> int:
        """How many there are."""
        return int(self.basis.shape[1])

    def first(self, count: int) -> Klt:
        """The same without the components after the first `count`, which are then taken for their middle."""
        dropped = self.basis[:, count:].astype(np.int64).sum(axis=1) * (LEVELS // 2)
        return replace(self, basis=self.basis[:, :count], offset=self.offset + dropped)

    def back(self) -> Doubles:
        """(K, B) from the scale of `bend`, less the offset, to levels: of errors as weighed the least is left."""
        exact = self.basis.astype(np.float64) / 2**_SHIFT
        return np.asarray(np.linalg.pinv(self.weights @ exact) @ self.weights)

    def forward(self, values: Floats) -> Planes:
        """(B, H, W) on the scale of `bend` -> (K, H, W) levels, what lies beyond them clipped."""
        back = self.back()
        none = back @ ((self.offset - 2 ** (_SHIFT - 1)) / 2**_SHIFT)
        levels = np.tensordot(back.astype(np.float32), values, 1) - none.astype(np.float32)[:, None, None]
        return np.asarray(np.clip(np.rint(levels), 0, LEVELS - 1), np.uint16)

    def inverse(self, components: Planes) -> npt.NDArray[np.generic]:
        """(K, H, W) levels -> (B, H, W) stored values."""
        flat = components.reshape(self.components, -1).astype(np.int64)
        values = self.basis.astype(np.int64) @ flat + self.offset[:, None]
        return self.bend.inverse((values >> _SHIFT).reshape(len(self.offset), *components.shape[1:]))
