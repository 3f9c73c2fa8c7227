"""The scale on which errors are to be even: stored values, or the logarithm of reflectance plus a bend.

A normalised difference (a - b) / (a + b) is tanh((ln a - ln b) / 2): an error that is even in the logarithm is even in
every such index, as one that is even in reflectance is in the MSE. ln(reflectance + bend) lies between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput
from geostore.raster import Bands

Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]
STEPS = 1024  # a unit of the logarithm
_ONE = 1 << 64
_RATIO = 18464767271176066526  # round(2^64 exp(1 / STEPS))


@dataclass(frozen=True)
class Bend:
    """A scale of whole numbers per band, 0 at the lowest value it tells apart.

    Attributes:
        bands: what the planes are.
        per_mille: the bend in 1/1000 of reflectance; 0 keeps stored values as they are.
    """

    bands: Bands
    per_mille: int = 0

    def __post_init__(self) -> None:
        if self.per_mille and any(b.kind != "reflectance" for b in self.bands):
            raise InvalidInput(f"bands {list(self.bands.names)} are not all reflectance: their logarithm is not coded")

    def forward(self, stored: npt.NDArray[np.generic]) -> Floats:
        """(..., B, H, W) stored values -> the same on this scale, not rounded."""
        if not self.per_mille:
            return stored.astype(np.float32)
        reflectance = np.maximum(self.bands.to_physical(stored), 0)
        return np.asarray(np.log1p(reflectance * np.float32(1000 / self.per_mille)) * np.float32(STEPS))

    def inverse(self, values: Longs) -> npt.NDArray[np.generic]:
        """(..., B, H, W) whole numbers on this scale -> stored values; the same on every machine."""
        out = np.empty(values.shape, self.bands.dtype)
        for i, band in enumerate(self.bands):
            plane = values[..., i, :, :]
            if self.per_mille:
                table = _stored_table(self.per_mille, band.scale, band.offset, band.valid_min, band.valid_max)
                out[..., i, :, :] = table[np.clip(plane, 0, len(table) - 1)]
            else:
                out[..., i, :, :] = np.clip(plane, int(band.valid_min), int(band.valid_max))
        return out


@lru_cache(maxsize=64)
def _stored_table(per_mille: int, scale: float, offset: float, low: float, high: float) -> Longs:
    """The stored value of every step, to the first one beyond `high`; in whole numbers of 2^-64."""
    step = Fraction(scale)
    bend = Fraction(per_mille, 1000)
    level = round(bend * _ONE)
    shift = round((bend + Fraction(offset)) * _ONE)
    values: list[int] = []
    while not values or values[-1] < high:
        twice = 2 * (level - shift) * step.denominator + step.numerator * _ONE
        values.append(twice // (2 * step.numerator * _ONE))
        level = level * _RATIO // _ONE
    return np.clip(np.array(values, np.int64), int(low), int(high))
