"""Pictures further from the first of their stream than they are: one quality of AV1 then leaves smaller errors in them.

A stream has one quality, a policy bounds every raster. Where a picture's way from the first one is coded g times as
long, its error comes back g times as small, and what stands still stays as well expected from other pictures as it was.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.classical.av1 import LEVELS, Planes

ONE = 16  # of a stretch: as it is
LEAST, MOST = ONE // 2, 4 * ONE
_EXPONENT = 0.75  # errors fall with the stretch, squared ones with its square: between the two
_AIM = 0.96  # of a bound


def stretched(pictures: Planes, first: Planes, stretches: npt.NDArray[np.int64]) -> Planes:
    """(N, H, W) pictures, so many 16ths as far from the `first` (H, W) as they are; held to what a sample can be."""
    away = pictures.astype(np.int64) - first
    return _held(first + ((away * stretches[:, None, None] + ONE // 2) // ONE))


def unstretched(picture: Planes, first: Planes, stretch: int) -> Planes:
    """(H, W) back, in whole numbers."""
    if stretch == ONE:
        return picture
    return _held(first + (2 * ONE * (picture.astype(np.int64) - first) + stretch) // (2 * stretch))


def needed(stretches: npt.NDArray[np.int64], used: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(N,) stretches at which rasters that use up the shares `used` of their bounds should nearly use them up.

    At least LEAST; above MOST a raster is too unlike the others to be coded among them.
    """
    factors = (np.maximum(used, 1e-6) / _AIM) ** _EXPONENT
    return np.asarray(np.maximum(np.ceil(stretches * factors), LEAST).astype(np.int64))


def _held(pictures: npt.NDArray[np.int64]) -> Planes:
    return np.clip(pictures, 0, LEVELS - 1).astype(np.uint16)
