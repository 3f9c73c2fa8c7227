"""Scenes in memory for the partition tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geostore.raster import Band, Bands, Grid, Raster

SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"
PLACES = [  # CRS, left, top, resolution
    ("EPSG:4326", -74.6, -8.2, 0.0008),
    ("EPSG:3035", 5_271_982.5766, 2_533_004.2149, 97.0),
    ("EPSG:32634", 499_980.0, 6_000_000.0, 60.0),
    ("EPSG:32622", 619_395.0, -410_205.0, 120.0),
    (SINUSOIDAL, -6_073_798.06, -1_278_279.78, 231.65635826),
    ("EPSG:27700", 255_000.0, 285_000.0, 100.0),
]


@dataclass
class WholeScene:
    """A source that copies windows out of rasters in memory; grids must share its lattice."""

    rasters: dict[str, Raster]

    @property
    def grids(self) -> dict[str, Grid]:
        return {name: r.grid for name, r in self.rasters.items()}

    def read(self, group: str, grid: Grid) -> Raster:
        whole = self.rasters[group]
        row, col = whole.grid.offset_of(grid)  # type: ignore[misc]
        pixels = np.zeros((len(whole.bands), *grid.shape), whole.pixels.dtype)
        valid = np.zeros(grid.shape, bool)
        top, left = max(row, 0), max(col, 0)
        bottom, right = min(row + grid.height, whole.grid.height), min(col + grid.width, whole.grid.width)
        inner = np.s_[top - row : bottom - row, left - col : right - col]
        pixels[(slice(None), *inner)] = whole.pixels[:, top:bottom, left:right]
        valid[inner] = whole.valid[top:bottom, left:right]
        return Raster(pixels=pixels, valid=valid, bands=whole.bands, grid=grid)


def bands(count: int, dtype: str = "uint16", nodata: float | None = 0) -> Bands:
    return Bands(tuple(Band(f"b{i}", f"B{i}", 10.0, dtype=dtype, nodata=nodata) for i in range(count)))


def scene(grid: Grid, seed: int, count: int = 2) -> WholeScene:
    """Random pixels, a block of nodata, and clouds that keep their values."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 10_000, (count, *grid.shape)).astype(np.uint16)
    valid = rng.random(grid.shape) > 0.2
    row, col = rng.integers(0, grid.height), rng.integers(0, grid.width)
    pixels[:, row : row + 9, col:], valid[row : row + 9, col:] = 0, False
    return WholeScene({"10m": Raster(pixels=pixels, valid=valid, bands=bands(count), grid=grid)})
