"""Cut a scene into cells, one cell at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from geostore.errors import InvalidInput
from geostore.partition.cover import CELLS_MAX, cover
from geostore.partition.grid import cell_grid, is_geographic, outline, owned
from geostore.partition.projection import between
from geostore.raster import Bands, Grid, Mask, Pixels, Raster

CellOf = Callable[[str, str], Grid | None]  # (geohash, group) -> the grid its partition is fixed to, if it has one
_POINTS_MAX = 1 << 20


class PixelSource(Protocol):
    """What can be split: a scene, or anything with grids and windows to read."""

    @property
    def grids(self) -> Mapping[str, Grid]:
        """The scene's own grid of each band group."""
        ...

    def read(self, group: str, grid: Grid) -> Raster:
        """The group's pixels on `grid`, stored values; invalid where `grid` reaches outside the scene."""
        ...


@dataclass(frozen=True, kw_only=True)
class Split:
    """What one scene holds of one cell at one native resolution.

    Attributes:
        geohash, group: the partition.
        cell: the grid of the whole cell.
        row, col: where `raster` begins in `cell`.
        raster: the bounding box of the cell's pixels that have data; 0 and invalid where it has none and where
            another cell owns the pixel, the original value and invalid where the scene masks it.
    """

    geohash: str
    group: str
    cell: Grid
    row: int
    col: int
    raster: Raster


def split(
    source: PixelSource,
    *,
    precision: int = 5,
    groups: Sequence[str] = (),
    lattices: Mapping[str, Grid] | None = None,
    cell_of: CellOf | None = None,
    cells: Sequence[str] = (),
    limit: int = CELLS_MAX,
) -> Iterator[Split]:
    """What a scene holds of each cell, by geohash and then by group; memory is that of one cell.

    Args:
        source: the scene.
        precision: geohash length of a cell.
        groups: which band groups, in this order; all of the scene's if empty.
        lattices: for a group, a grid whose CRS, resolution and snap new cells take; the scene's own where missing.
        cell_of: the grid a partition is already fixed to, which wins over `lattices`; None for a new one.
        cells: only these cells, if any are given; else all that the scene touches.
        limit: cells at most.

    Yields:
        A Split for each cell and group in which the scene has data; nothing where all is nodata.

    Raises:
        InvalidInput: the scene's grid reaches past 180 degrees, or the scene touches more than `limit` cells.
    """
    wanted = list(groups) or list(source.grids)
    for geohash in sorted(cells) or scene_cells([source.grids[g] for g in wanted], precision, limit):
        for group in wanted:
            cell = cell_of(geohash, group) if cell_of is not None else None
            lattice = (lattices or {}).get(group, source.grids[group])
            found = cut(source, geohash, group, cell or _cell_on(lattice, geohash))
            if found is not None:
                yield found


def scene_cells(grids: Sequence[Grid], precision: int, limit: int = CELLS_MAX) -> list[str]:
    """The cells that may own a pixel of any of `grids`, sorted; a few more along the edges.

    Raises:
        InvalidInput: a grid in degrees reaches past 180, has no place on Earth, or there are more than `limit`.
    """
    return list(_scene_cells(tuple(dict.fromkeys(grids)), precision, limit))


@lru_cache(maxsize=64)
def _scene_cells(grids: tuple[Grid, ...], precision: int, limit: int) -> tuple[str, ...]:
    found: set[str] = set()
    for grid in grids:
        _check_degrees(grid)
        ring = outline(grid.window(-1, -1, grid.height + 2, grid.width + 2), 129) or outline(grid, 129)
        if not ring:
            raise InvalidInput(f"the edge of {grid} has no place on Earth; crop the scene to where its CRS is defined")
        found.update(cover(ring, precision, limit))
    if len(found) > limit:
        raise InvalidInput(f"the scene touches {len(found)} cells; the limit is {limit}: use a coarser precision")
    return tuple(sorted(found))


def cut(source: PixelSource, geohash: str, group: str, cell: Grid) -> Split | None:
    """What the scene holds of one cell on the grid `cell`, or None where it has no data."""
    row, col, mine = _cropped(owned(geohash, cell) & footprint(source.grids[group], cell))
    if not mine.size:
        return None
    raster = source.read(group, cell.window(row, col, *mine.shape))
    mine &= _has_data(raster)
    down, right, mine = _cropped(mine)
    if not mine.size:
        return None
    height, width = mine.shape
    pixels = np.where(mine, raster.pixels[:, down : down + height, right : right + width], 0)
    valid = raster.valid[down : down + height, right : right + width] & mine
    row, col = row + down, col + right
    kept = Raster(pixels=pixels, valid=valid, bands=raster.bands, grid=cell.window(row, col, height, width))
    return Split(geohash=geohash, group=group, cell=cell, row=row, col=col, raster=kept)


def footprint(scene: Grid, grid: Grid) -> Mask:
    """(height, width) of `grid` bool, True where the pixel's centre lies within the scene's grid."""
    if scene.crs == grid.crs:
        left, bottom, right, top = scene.bounds
        x = grid.left + (np.arange(grid.width) + 0.5) * grid.xres
        y = grid.top - (np.arange(grid.height) + 0.5) * grid.yres
        return np.logical_and.outer((y > bottom) & (y < top), (x > left) & (x < right))
    out = np.empty(grid.shape, np.bool_)
    step = max(1, _POINTS_MAX // grid.width)
    for row in range(0, grid.height, step):
        out[row : row + step] = _warped_footprint(scene, grid.window(row, 0, min(step, grid.height - row), grid.width))
    return out


def _warped_footprint(scene: Grid, grid: Grid) -> Mask:
    left, bottom, right, top = scene.bounds
    x = grid.left + (np.arange(grid.width) + 0.5) * grid.xres
    y = grid.top - (np.arange(grid.height) + 0.5) * grid.yres
    xs, ys = between(grid.crs, scene.crs, *np.meshgrid(x, y))
    return np.asarray((xs > left) & (xs < right) & (ys > bottom) & (ys < top), np.bool_)


@lru_cache(maxsize=4096)
def _cell_on(lattice: Grid, geohash: str) -> Grid:
    return cell_grid(geohash, lattice.crs, lattice.xres, lattice.yres, (lattice.left, lattice.top))


def _check_degrees(grid: Grid) -> None:
    left, _, right, _ = grid.bounds
    half = grid.xres / 2
    if is_geographic(grid.crs) and (left + half < -180 or right - half > 180):
        raise InvalidInput(
            f"the scene reaches from {left} to {right} degrees; cut it at 180, or warp it to a CRS without that seam"
        )


def _cropped(mask: Mask) -> tuple[int, int, Mask]:
    """(row, col, part) of the bounding box of True; an empty part if there is none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return 0, 0, mask[:0, :0]
    row, col = int(rows[0]), int(columns[0])
    return row, col, mask[row : rows[-1] + 1, col : columns[-1] + 1].copy()


def _has_data(raster: Raster) -> Mask:
    """False where a pixel is invalid and holds nothing in any band: nodata, or 0, which sources put outside."""
    return np.asarray(raster.valid | ~_is_empty(raster.pixels, raster.bands), np.bool_)


def _is_empty(pixels: Pixels, bands: Bands) -> Mask:
    empty = np.ones(pixels.shape[1:], np.bool_)
    for plane, band in zip(pixels, bands, strict=True):
        nothing = plane == 0
        if plane.dtype.kind == "f":
            nothing |= np.isnan(plane)
        if band.nodata is not None:
            nothing |= plane == band.nodata
        empty &= nothing
    return empty
