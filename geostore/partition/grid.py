"""The pixel grid of a cell, and which of its pixels the cell owns."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput
from geostore.keys import check_geohash
from geostore.partition import geohash as gh
from geostore.partition.projection import from_lonlat, parse_crs, to_lonlat
from geostore.raster import Grid, Mask

SIDE_MAX = 65_536  # pixels along one side of a cell's grid
_EDGE_POINTS = 129  # per edge; a bent edge strays from its chord by far less than half a pixel
_PHASE_DIGITS = 6  # lattices whose pixels agree to a millionth of a pixel are one lattice
_BLOCK = 16  # pixels; blocks wholly inside or outside a cell are settled by their corners
_POINTS_MAX = 1 << 20  # points transformed at once
_CACHED_PIXELS_MAX = 1 << 20


def cell_grid(geohash: str, crs: str, xres: float, yres: float, snap: tuple[float, float] = (0.0, 0.0)) -> Grid:
    """The grid of a whole cell: its bounding box in a CRS, widened to whole pixels of a lattice.

    Args:
        geohash: the cell.
        crs: authority code or WKT2.
        xres: pixel width, CRS units, positive.
        yres: pixel height, CRS units, positive.
        snap: (x, y) of any pixel corner of the lattice, CRS units, such as a scene's (left, top).

    Returns:
        A grid that holds every pixel whose centre lies in the cell; the same one for every `snap` of one lattice.

    Raises:
        InvalidInput: the cell has no place in the CRS, is torn by its seam, or is larger than SIDE_MAX pixels.
    """
    west, south, east, north = _projected_bounds(check_geohash(geohash), crs)
    first, last, left = _snapped(west, east, xres, snap[0])
    bottom, upper, _ = _snapped(south, north, yres, snap[1])
    width, height = last - first, upper - bottom
    if max(width, height) > SIDE_MAX:
        raise InvalidInput(
            f"cell {geohash} is {width} x {height} pixels in {crs[:40]!r}; the limit is {SIDE_MAX} a side: use a "
            "finer precision, a coarser resolution, or a CRS without a seam through the cell"
        )
    top = (upper + _phase(snap[1], yres)) * yres
    return Grid(crs, left, top, xres, yres, height, width)


def _projected_bounds(geohash: str, crs: str) -> gh.Bounds:
    west, south, east, north = gh.bounds(geohash)
    along_x, along_y = np.linspace(west, east, _EDGE_POINTS), np.linspace(south, north, _EDGE_POINTS)
    lon = np.concatenate([along_x, along_x, np.full_like(along_y, west), np.full_like(along_y, east)])
    lat = np.concatenate([np.full_like(along_x, south), np.full_like(along_x, north), along_y, along_y])
    x, y = from_lonlat(crs, lon, lat)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInput(
            f"cell {geohash} has no place in {crs[:40]!r}; use a CRS that covers it, such as its UTM zone"
        )
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _phase(snap: float, size: float) -> float:
    """Where the lattice lies between multiples of `size`, in pixels, 0 <= phase < 1."""
    return round(snap / size % 1.0, _PHASE_DIGITS) % 1.0


def _snapped(low: float, high: float, size: float, snap: float) -> tuple[int, int, float]:
    """(first, last, coordinate of first) pixel edges of the lattice around low..high, at least one pixel apart."""
    phase = _phase(snap, size)
    first = math.floor(low / size - phase)
    return first, max(math.ceil(high / size - phase), first + 1), (first + phase) * size


def owned(geohash: str, grid: Grid) -> Mask:
    """(height, width) bool, True where the pixel's centre lies in the cell.

    Over all cells of one precision each pixel of a grid is owned exactly once, as `geohash.encode` of its centre
    says; pixels where the CRS has no point on Earth are owned by none.
    """
    if grid.height * grid.width > _CACHED_PIXELS_MAX:
        return _owned(geohash, grid)
    packed = _owned_packed(geohash, grid)
    return np.unpackbits(packed, count=grid.height * grid.width).astype(np.bool_).reshape(grid.shape)


@lru_cache(maxsize=128)
def _owned_packed(geohash: str, grid: Grid) -> npt.NDArray[np.uint8]:
    return np.packbits(_owned(geohash, grid))


def _owned(geohash: str, grid: Grid) -> Mask:
    """Settle whole blocks by their corners, and pixels one by one in the blocks that touch the outline."""
    out = np.zeros(grid.shape, np.bool_)
    inside, outside = _settled_blocks(geohash, grid)
    for row in range(inside.shape[0]):
        rows = slice(row * _BLOCK, min((row + 1) * _BLOCK, grid.height))
        for first, last in _runs(inside[row]):
            out[rows, first * _BLOCK : last * _BLOCK] = True
        columns = np.flatnonzero(np.repeat(~inside[row] & ~outside[row], _BLOCK)[: grid.width])
        if columns.size:
            x, y = _centres(grid, np.arange(rows.start, rows.stop), columns)
            out[rows.start : rows.stop, columns] = gh.contains(geohash, *to_lonlat(grid.crs, x, y))
    return out


def _settled_blocks(geohash: str, grid: Grid) -> tuple[Mask, Mask]:
    """(block rows, block columns) bool twice: blocks certainly inside the cell, blocks certainly outside.

    A block's longitudes and latitudes are taken to lie within those of its corners, widened by their spread: far
    more than projections bend over 16 pixels. Where a corner has no place, near a pole, at the antimeridian and
    for blocks wider than a degree nothing is taken for certain.
    """
    edge_rows = np.minimum(np.arange(-(-grid.height // _BLOCK) + 1) * _BLOCK, grid.height)
    edge_columns = np.minimum(np.arange(-(-grid.width // _BLOCK) + 1) * _BLOCK, grid.width)
    x, y = np.meshgrid(grid.left + edge_columns * grid.xres, grid.top - edge_rows * grid.yres)
    lon, lat = to_lonlat(grid.crs, x, y)
    with np.errstate(invalid="ignore"):
        lon_low, lon_high = _corner_range(lon)
        lat_low, lat_high = _corner_range(lat)
        smooth = (lon_high - lon_low < 3) & (lat_high - lat_low < 3) & (lat_low > -85) & (lat_high < 85)
        west, south, east, north = gh.bounds(geohash)
        inside = (lon_low >= west) & (lon_high < east) & (lat_low >= south) & (lat_high < north)
        outside = (lon_high < west) | (lon_low > east) | (lat_high < south) | (lat_low > north)
        near_seam = (lon_low < -180) | (lon_high > 180)
    return inside & smooth, outside & smooth & ~near_seam


def _corner_range(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    corners = np.stack([values[:-1, :-1], values[:-1, 1:], values[1:, :-1], values[1:, 1:]])
    low, high = corners.min(0), corners.max(0)
    return low - (high - low), high + (high - low)


def _runs(flags: Mask) -> list[tuple[int, int]]:
    """(first, one past last) of each run of True."""
    steps = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(steps[::2], steps[1::2], strict=True)]


def _centres(
    grid: Grid, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(rows, columns) coordinates x and y of pixel centres, CRS units."""
    x = grid.left + (columns + 0.5) * grid.xres
    y = grid.top - (rows + 0.5) * grid.yres
    xs, ys = np.meshgrid(x, y)
    return xs, ys


def centres_lonlat(grid: Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(height, width) longitude and latitude of every pixel centre, degrees; inf off the Earth."""
    return to_lonlat(grid.crs, *_centres(grid, np.arange(grid.height), np.arange(grid.width)))


def cell_codes(grid: Grid, precision: int) -> gh.Codes:
    """(height, width) int64: the code of the cell that owns each pixel; geohash.OUTSIDE off the Earth."""
    out = np.empty(grid.shape, np.int64)
    step = max(1, _POINTS_MAX // grid.width)
    for row in range(0, grid.height, step):
        part = grid.window(row, 0, min(step, grid.height - row), grid.width)
        out[row : row + step] = gh.encode_many(*centres_lonlat(part), precision)
    return out


def utm_crs(geohash: str) -> str:
    """The UTM zone of the cell's centre as an EPSG code; beyond 84 N and 80 S the polar stereographic UPS.

    >>> utm_crs("u33db"), utm_crs("6mc5n")
    ('EPSG:32633', 'EPSG:32718')
    """
    lon, lat = gh.centre(geohash)
    if lat >= 84:
        return "EPSG:5041"
    if lat < -80:
        return "EPSG:5042"
    return f"EPSG:{(32600 if lat >= 0 else 32700) + min(int((lon + 180) // 6) + 1, 60)}"


def outline(grid: Grid, points: int = 33) -> list[list[float]]:
    """The grid's edge as a ring of [longitude, latitude], degrees, `points` a side, closed; [] if it has no place."""
    left, bottom, right, top = grid.bounds
    share = np.linspace(0, 1, points)[:-1]
    x = np.concatenate([left + share * (right - left), np.full_like(share, right)])
    x = np.concatenate([x, right - share * (right - left), np.full_like(share, left)])
    y = np.concatenate([np.full_like(share, top), top - share * (top - bottom)])
    y = np.concatenate([y, np.full_like(share, bottom), bottom + share * (top - bottom)])
    lon, lat = to_lonlat(grid.crs, x, y)
    if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
        return []
    ring = [[float(a), float(b)] for a, b in zip(lon, lat, strict=True)]
    return [*ring, ring[0]]


def is_geographic(crs: str) -> bool:
    """True if the CRS counts in degrees of longitude and latitude."""
    return bool(parse_crs(crs).is_geographic)
