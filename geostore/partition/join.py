"""Put rasters of neighbouring cells together, and measure the seams between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from geostore.errors import BandMismatch, InvalidInput
from geostore.partition.geohash import Codes
from geostore.partition.grid import cell_codes
from geostore.raster import Grid, Mask, Raster

PIXELS_MAX = 1 << 29  # pixels times bands of a mosaic


def join(rasters: Sequence[Raster]) -> Raster:
    """One raster on the bounding box of all: the inverse of `split.split`.

    Where several overlap, a valid pixel wins over an invalid one, and among equals the one given first; an invalid
    pixel of zeros covers nothing. Pixels that none holds are 0 and invalid.

    Raises:
        InvalidInput: there is none, their grids are not of one CRS and lattice, or the mosaic is too large.
        BandMismatch: their bands differ.
    """
    if not rasters:
        raise InvalidInput("nothing to join; give at least one raster")
    first = rasters[0]
    offsets = [_offset(first, r) for r in rasters]
    row, col = min(o[0] for o in offsets), min(o[1] for o in offsets)
    height = max(o[0] + r.grid.height for o, r in zip(offsets, rasters, strict=True)) - row
    width = max(o[1] + r.grid.width for o, r in zip(offsets, rasters, strict=True)) - col
    if height * width * len(first.bands) > PIXELS_MAX:
        raise InvalidInput(
            f"a mosaic of {len(first.bands)} x {height} x {width} values is beyond {PIXELS_MAX}; join fewer cells"
        )
    pixels = np.zeros((len(first.bands), height, width), first.pixels.dtype)
    valid = np.zeros((height, width), np.bool_)
    for (down, right), raster in zip(offsets, rasters, strict=True):
        window = np.s_[down - row : down - row + raster.grid.height, right - col : right - col + raster.grid.width]
        _lay(pixels[(slice(None), *window)], valid[window], raster)
    return Raster(pixels=pixels, valid=valid, bands=first.bands, grid=first.grid.window(row, col, height, width))


def _offset(first: Raster, other: Raster) -> tuple[int, int]:
    if other.bands != first.bands:
        raise BandMismatch(f"bands {list(other.bands.names)} do not join {list(first.bands.names)}; select the same")
    offset = first.grid.offset_of(other.grid)
    if offset is None:
        raise InvalidInput(
            f"{_lattice(other.grid)} does not join {_lattice(first.grid)}; decode both on one CRS, resolution and snap"
        )
    return offset


def _lattice(grid: Grid) -> str:
    return f"a grid of {grid.crs[:60]!r} at {grid.xres} x {grid.yres} through ({grid.left}, {grid.top})"


def _lay(pixels: npt.NDArray[np.generic], valid: Mask, raster: Raster) -> None:
    """Write what `raster` holds and what lies there does not, in place."""
    taken = valid | (pixels != 0).any(0)
    lay = np.where(raster.valid, ~valid, ~taken)
    np.copyto(pixels, raster.pixels, where=lay)
    valid |= raster.valid


def seam(original: Raster, joined: Raster, precision: int = 5) -> float | None:
    """The seam figure of a mosaic of cells against the scene itself: see `seam_ratio`.

    Errors are in physical units, over pixels valid in both, where the two overlap.

    Raises:
        InvalidInput: the two are not on one lattice, or do not overlap.
        BandMismatch: their bands differ.
    """
    row, col = _offset(original, joined)
    top, left = max(row, 0), max(col, 0)
    bottom = min(row + joined.grid.height, original.grid.height)
    right = min(col + joined.grid.width, original.grid.width)
    if bottom <= top or right <= left:
        raise InvalidInput(f"{_lattice(joined.grid)} and the scene do not overlap; compare the same place")
    mine, theirs = np.s_[top:bottom, left:right], np.s_[top - row : bottom - row, left - col : right - col]
    bands = original.bands
    errors = bands.to_physical(original.pixels[(slice(None), *mine)]) - bands.to_physical(
        joined.pixels[(slice(None), *theirs)]
    )
    valid = original.valid[mine] & joined.valid[theirs]
    codes = cell_codes(original.grid.window(top, left, bottom - top, right - left), precision)
    return seam_ratio(np.abs(errors).mean(0), codes, valid)


def seam_ratio(error: npt.NDArray[np.floating], cells: Codes, valid: Mask | None = None) -> float | None:
    """Mean absolute error of pixels along borders between cells over that of all others; 1 means no seam.

    Args:
        error: (height, width) float.
        cells: (height, width) int64, which cell owns each pixel, as `grid.cell_codes` gives it.
        valid: (height, width) bool, pixels that count; all if None.

    Returns:
        The ratio, inf if only the border has errors; None where there is no border or nothing besides.
    """
    border = border_of(cells)
    counts = np.ones(border.shape, np.bool_) if valid is None else valid
    if not (border & counts).any() or not (~border & counts).any():
        return None
    at_border = float(np.abs(error[border & counts]).mean(dtype=np.float64))
    elsewhere = float(np.abs(error[~border & counts]).mean(dtype=np.float64))
    if elsewhere == 0:
        return 1.0 if at_border == 0 else float("inf")
    return at_border / elsewhere


def border_of(cells: Codes) -> Mask:
    """(height, width) bool, True for pixels one of whose four neighbours belongs to another cell."""
    border = np.zeros(cells.shape, np.bool_)
    down, across = cells[1:] != cells[:-1], cells[:, 1:] != cells[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= across
    border[:, :-1] |= across
    return border
