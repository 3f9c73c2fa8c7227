"""mosaic: two pieces of one acquisition as one raster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geostore.keys import RasterKey
from geostore.raster import Raster

JOIN = "+"  # between the ids of the scenes one raster was mosaicked from


@dataclass(frozen=True)
class Placed:
    """A raster as it will be stored: its key, where it lies in the cell, and the scene or scenes it came from."""

    key: RasterKey
    row: int
    col: int
    raster: Raster
    scene: str


def mosaic(first: Placed, second: Placed) -> Placed:
    """Both on the box of the two, under the key of the first, which lies on top."""
    top, left = min(first.row, second.row), min(first.col, second.col)
    bottom = max(p.row + p.raster.grid.height for p in (first, second))
    right = max(p.col + p.raster.grid.width for p in (first, second))
    pixels = np.zeros((len(first.raster.bands), bottom - top, right - left), first.raster.pixels.dtype)
    valid = np.zeros(pixels.shape[1:], np.bool_)
    for piece in (second, first):
        raster, row, col = piece.raster, piece.row - top, piece.col - left
        at = (slice(row, row + raster.grid.height), slice(col, col + raster.grid.width))
        over = raster.valid | (~valid[at] & (raster.pixels != 0).any(axis=0))
        pixels[(slice(None), *at)] = np.where(over, raster.pixels, pixels[(slice(None), *at)])
        valid[at] |= raster.valid
    grid = first.raster.grid.window(top - first.row, left - first.col, *valid.shape)
    joined = Raster(pixels=pixels, valid=valid, bands=first.raster.bands, grid=grid)
    return Placed(first.key, top, left, joined, first.scene + JOIN + second.scene)
