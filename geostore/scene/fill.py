"""Fill swath and nodata gaps from the pixels around them; filled pixels stay marked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geostore.errors import InvalidInput
from geostore.raster import Mask, Pixels, Raster

Mode = Literal["none", "random", "nearest", "neighbourhood"]


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A raster whose gaps hold made-up values.

    Attributes:
        raster: the pixels with their gaps filled; `valid` as it was, so filled pixels still weigh nothing.
        filled: (height, width) bool, True where the values are made up.
    """

    raster: Raster
    filled: Mask


def fill(raster: Raster, mode: Mode, *, rng: np.random.Generator, missing: Mask | None = None) -> Filled:
    """Give the missing pixels values.

    Args:
        raster: pixels with gaps.
        mode: "none" leaves them; "random" takes all bands of a random known pixel; "nearest" those of the nearest
            known pixel; "neighbourhood" the mean of the known pixels in the smallest square around it (3, 5, 9, 17
            ... pixels wide) that has any.
        rng: where "random" draws from.
        missing: (height, width) bool, pixels to fill; all that are not valid if None. The others are known.

    Returns:
        The raster and what was filled: nothing if no pixel is known.

    Raises:
        InvalidInput: an unknown mode, or a mask of another shape.
    """
    gaps = ~raster.valid if missing is None else missing
    if mode not in get_args(Mode):
        raise InvalidInput(f"fill mode {mode!r}; use one of {', '.join(get_args(Mode))}")
    if gaps.shape != raster.valid.shape:
        raise InvalidInput(f"the gaps are {gaps.shape}, the raster {raster.valid.shape}; give one flag a pixel")
    if mode == "none" or gaps.all() or not gaps.any():
        return Filled(raster=raster, filled=np.zeros_like(gaps))
    pixels = raster.pixels.copy()
    if mode == "random":
        pixels[:, gaps] = _random(pixels, gaps, rng)
    elif mode == "nearest":
        pixels[:, gaps] = _nearest(pixels, gaps)
    else:
        pixels[:, gaps] = _neighbourhood(pixels, gaps)
    return Filled(raster=replace(raster, pixels=pixels), filled=gaps.copy())


def _random(pixels: Pixels, gaps: Mask, rng: np.random.Generator) -> Pixels:
    """(bands, gaps): one known pixel each, drawn evenly."""
    known = np.flatnonzero(~gaps)
    chosen = known[rng.integers(0, known.size, int(gaps.sum()))]
    return np.asarray(pixels.reshape(len(pixels), -1)[:, chosen])


def _nearest(pixels: Pixels, gaps: Mask) -> Pixels:
    """(bands, gaps): the known pixel at the least Euclidean distance."""
    rows, columns = ndimage.distance_transform_edt(gaps, return_distances=False, return_indices=True)
    return np.asarray(pixels[:, rows[gaps], columns[gaps]])


def _neighbourhood(pixels: Pixels, gaps: Mask) -> Pixels:
    """(bands, gaps): box means over known pixels, rounded for integers."""
    out = np.zeros((len(pixels), int(gaps.sum())), np.float64)
    planes = np.where(gaps, 0, pixels).astype(np.float64)
    open_gaps, reach = np.ones(out.shape[1], np.bool_), 1
    while open_gaps.any():
        count = _box_sum((~gaps).astype(np.float64), reach)[gaps]
        now = open_gaps & (count > 0.5)
        for band, plane in enumerate(planes):
            out[band, now] = _box_sum(plane, reach)[gaps][now] / count[now]
        open_gaps &= ~now
        reach *= 2
    low, high = pixels[:, ~gaps].min(1)[:, None], pixels[:, ~gaps].max(1)[:, None]
    out = np.clip(out, low, high)  # sums of floats may stray by a rounding error
    return (out if pixels.dtype.kind == "f" else np.rint(out)).astype(pixels.dtype)


def _box_sum(plane: npt.NDArray[np.float64], reach: int) -> npt.NDArray[np.float64]:
    """Sum over the (2 * reach + 1) square around each pixel, 0 outside; exact for integers."""
    height, width = plane.shape
    total = np.pad(plane, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    top, bottom = _span(height, reach)
    left, right = _span(width, reach)
    corners = total[np.ix_(bottom, right)] - total[np.ix_(top, right)]
    return np.asarray(corners - total[np.ix_(bottom, left)] + total[np.ix_(top, left)])


def _span(size: int, reach: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    at = np.arange(size)
    return np.maximum(at - reach, 0), np.minimum(at + reach + 1, size)
