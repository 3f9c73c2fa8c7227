"""Pixels from one grid onto another where the two do not agree."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform_bounds

from geostore.raster import Bands, Grid, Mask, Pixels

SOURCE_PIXELS_MAX = 1024  # side of the source window one step may read
_DOWN = 1.5  # target pixels at least so many source pixels wide are averages
ReadWindow = Callable[[int, int, int, int], tuple[Pixels, Mask]]


def resample(read: ReadWindow, source: Grid, bands: Bands, target: Grid) -> tuple[Pixels, Mask]:
    """What `read(row, col, height, width)` gives of the grid `source`, on `target`.

    Categories take the nearest pixel; other values the average when going down by 1.5 or more, else cubic
    convolution held inside the valid range. Unusable pixels weigh nothing, and a target pixel is usable if the
    source pixel under its centre is (going down: if half of those under it are). Unusable target pixels are 0.

    Returns:
        pixels (bands, height, width) stored dtype, valid (height, width) bool.
    """
    pixels = np.zeros((len(bands), *target.shape), bands.dtype)
    valid = np.zeros(target.shape, np.bool_)
    ratio = _ratio(source, target)
    step = max(16, int(SOURCE_PIXELS_MAX / max(ratio, 1.0)) - 16)
    for row in range(0, target.height, step):
        for col in range(0, target.width, step):
            height, width = min(step, target.height - row), min(step, target.width - col)
            part = target.window(row, col, height, width)
            where = np.s_[row : row + height, col : col + width]
            done = _part(read, source, bands, part, ratio)
            if done is not None:
                pixels[:, *where], valid[where] = done
    return pixels, valid


def _ratio(source: Grid, target: Grid) -> float:
    """How many source pixels a target pixel is wide."""
    left, bottom, right, top = _bounds_in(source.crs, target)
    size = math.hypot((right - left) / source.xres, (top - bottom) / source.yres)
    ratio = size / math.hypot(target.width, target.height)
    return ratio if math.isfinite(ratio) else 1.0


def _bounds_in(crs: str, grid: Grid) -> tuple[float, float, float, float]:
    if crs == grid.crs:
        return grid.bounds
    left, bottom, right, top = transform_bounds(CRS.from_string(grid.crs), CRS.from_string(crs), *grid.bounds)
    return left, bottom, right, top


def _part(read: ReadWindow, source: Grid, bands: Bands, target: Grid, ratio: float) -> tuple[Pixels, Mask] | None:
    """One step of the target, or None where the source has nothing."""
    left, bottom, right, top = _bounds_in(source.crs, target)
    if not all(map(math.isfinite, (left, bottom, right, top))):
        return None
    margin = math.ceil(4 * max(1.0, ratio))
    first = (
        math.floor((left - source.left) / source.xres) - margin,
        math.floor((source.top - top) / source.yres) - margin,
    )
    last = (
        math.ceil((right - source.left) / source.xres) + margin,
        math.ceil((source.top - bottom) / source.yres) + margin,
    )
    col, row = max(0, first[0]), max(0, first[1])
    width, height = min(source.width, last[0]) - col, min(source.height, last[1]) - row
    if width <= 0 or height <= 0:
        return None
    values, usable = read(row, col, height, width)
    return _warp(values, usable, source.window(row, col, height, width), bands, target, ratio)


def _warp(values: Pixels, usable: Mask, source: Grid, bands: Bands, target: Grid, ratio: float) -> tuple[Pixels, Mask]:
    down = ratio >= _DOWN
    weight = Resampling.average if down else Resampling.nearest
    share = _reproject(usable[None].astype(np.float32), source, target, weight)[0]
    valid: Mask = share >= 0.5  # NaN (outside) is not
    holes = np.where(usable, values.astype(np.float32), np.float32(np.nan))
    pixels = np.zeros((len(bands), *target.shape), bands.dtype)
    for i, band in enumerate(bands):
        method = Resampling.nearest if band.kind == "category" else Resampling.average if down else Resampling.cubic
        plane = _reproject(holes[i : i + 1], source, target, method)[0]
        valid &= np.isfinite(plane)
        plane = np.clip(np.nan_to_num(plane), band.valid_min, band.valid_max)
        pixels[i] = plane if bands.dtype.kind == "f" else np.rint(plane)
    pixels[:, ~valid] = 0
    return pixels, valid


def _reproject(
    planes: npt.NDArray[np.float32], source: Grid, target: Grid, method: Resampling
) -> npt.NDArray[np.float32]:
    """(B, h, w) -> (B, H, W), NaN where nothing lies; parts agree with the whole to some 1e-4 pixels."""
    out = np.full((planes.shape[0], *target.shape), np.nan, np.float32)
    reproject(
        planes,
        out,
        src_transform=Affine(*source.transform),
        src_crs=CRS.from_string(source.crs),
        src_nodata=np.nan,
        dst_transform=Affine(*target.transform),
        dst_crs=CRS.from_string(target.crs),
        dst_nodata=np.nan,
        resampling=method,
        tolerance=0.0,
        XSCALE=1.0,  # kernels keep their width in source pixels, whatever part is warped
        YSCALE=1.0,
    )
    return out
