"""Rows in an area, as runs: rows lie in the order of their cells, so an area is a few stretches of them.

A row is in an area if its cell is among those that `partition.cover.cover` lists for it: cells that the area overlaps,
or meets, where it has no size. Boxes are resolved in whole numbers, other areas by
prefixes, cut finer along the outline where there are rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from geostore.compiled import compiled
from geostore.errors import InvalidInput
from geostore.index.bits import Rows
from geostore.keys import GEOHASH_ALPHABET, check_geohash
from geostore.partition import geohash as gh
from geostore.partition.cover import Area, from_geojson, parse_area, parts_of, run_on

Cells = npt.NDArray[np.int64]
FEW = 64  # rows; fewer are tested one by one, without a finer cut of their cells
_CIRCLE = 128  # vertices


@dataclass(frozen=True)
class Circle:
    """Points within `radius_km` of (lon, lat), on the ellipsoid.

    Its edge is a polygon of 128 vertices on the circle, so up to 0.03 % of the radius inside it.
    """

    lon: float
    lat: float
    radius_km: float

    def __post_init__(self) -> None:
        if not (-180 <= self.lon <= 180 and -90 <= self.lat <= 90 and 0 < self.radius_km <= 9000):
            raise InvalidInput(f"{self}; use -180..180, -90..90 degrees and a radius of up to 9000 km")

    def ring(self) -> list[tuple[float, float]]:
        """Its vertices, (lon, lat)."""
        from pyproj import Geod

        around = np.arange(_CIRCLE) * (360 / _CIRCLE)
        lon, lat, _ = Geod(ellps="WGS84").fwd(
            np.full(_CIRCLE, self.lon), np.full(_CIRCLE, self.lat), around, np.full(_CIRCLE, 1000 * self.radius_km)
        )
        return [(float(x), float(y)) for x, y in zip(lon, lat, strict=True)]


@dataclass(frozen=True)
class Places:
    """The different cells of ascending rows, which an area is looked up in.

    Attributes:
        cells: (U,) int64, ascending, each once.
        starts: (U + 1,) int64, the first row of each; the last is the number of rows.
    """

    cells: Cells
    starts: Rows


def places_of(cells: Cells) -> Places:
    """Of (N,) int64 cells, ascending."""
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    return Places(cells[starts], np.append(starts, len(cells)).astype(np.int64))


@dataclass(frozen=True)
class Where:
    """A prepared area; make one with `where`, and use it for any number of segments.

    Attributes:
        prefixes: geohashes, if it was given as such, else ().
        shape: the area, if it is none of these.
    """

    prefixes: tuple[str, ...] = ()
    shape: BaseGeometry | None = None

    def rows(self, places: Places, precision: int) -> tuple[Rows, int]:
        """As `runs`, of rows whose different cells are known; and how many rows these are."""
        if self._boxes is not None and len(self._boxes) == 1:
            runs, count = _box_rows(places.cells, places.starts, precision, *_columns(precision, self._boxes[0]))
            return runs, int(count)
        runs = places.starts[self.runs(places.cells, precision)]
        return runs, int((runs[:, 1] - runs[:, 0]).sum())

    def runs(self, cells: Cells, precision: int) -> Rows:
        """(R, 2) int64, ascending [start, stop): rows of ascending `cells` of `precision` that lie in the area."""
        if self.shape is None:
            found = [_prefix_run(cells, precision, p) for p in self.prefixes]
        elif self._boxes is not None:
            found = [_box_runs(cells, precision, box) for box in self._boxes]
        else:
            found = self._shape_runs(cells, precision)
        return found[0] if len(found) == 1 else _joined(np.concatenate([np.zeros((0, 2), np.int64), *found]))

    @cached_property
    def _boxes(self) -> list[tuple[float, float, float, float]] | None:
        """The area as boxes, if it consists of boxes with a size."""
        if self.shape is None:
            return None
        parts = list(shapely.get_parts(self.shape))
        if len(parts) > 8 or not all(p.geom_type == "Polygon" and p.area > 0 and _is_box(p) for p in parts):
            return None
        return [p.bounds for p in parts]

    def _shape_runs(self, cells: Cells, precision: int) -> list[Rows]:
        """Prefixes are cut into their children while they lie partly inside and hold many rows."""
        found: list[Rows] = []
        partial = [("", 0, len(cells))]
        shapely.prepare(self.shape)
        while partial:
            children = []
            for name, start, stop in partial:
                if stop - start > FEW and cells[start] < cells[stop - 1]:
                    children += _children(cells, precision, (name, start, stop))
                elif start < stop:
                    found.append(start + self._tested(cells[start:stop], precision))
            partial = []
            if children:
                met, inside = self._overlaps(shapely.box(*np.array([gh.bounds(name) for name, _, _ in children]).T))
                found += [np.array([[c[1], c[2]]]) for c, i in zip(children, inside, strict=True) if i]
                partial = [c for c, m, i in zip(children, met, inside, strict=True) if m and not i]
        return found

    def _tested(self, cells: Cells, precision: int) -> Rows:
        """Runs of the rows whose cell the area overlaps."""
        places = places_of(cells)
        met, _ = self._overlaps(shapely.box(*bounds_of(places.cells, precision).T))
        return np.asarray(np.column_stack([places.starts[:-1], places.starts[1:]])[met])

    def _overlaps(self, boxes: npt.NDArray[Any]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Whether the area overlaps each box, and whether it covers it."""
        met = shapely.intersects(self.shape, boxes)
        if shapely.area(self.shape) > 0:
            met[met] = ~shapely.touches(self.shape, boxes[met])
        return met, shapely.covers(self.shape, boxes)


def where(area: Area | Circle | str | Sequence[str] | Where) -> Where:
    """An area prepared for search.

    Args:
        area: a geohash or several, a `Circle`, or what `partition.cover.parse_area` takes: a box (west > east crosses
            the antimeridian), a ring, GeoJSON, a shapely geometry.

    Raises:
        InvalidInput: it is none of these, its outline crosses itself, or it reaches off the Earth.
    """
    if isinstance(area, Where):
        return area
    if isinstance(area, str):
        return Where((check_geohash(area),))
    if isinstance(area, Sequence) and area and all(isinstance(a, str) for a in area):
        return Where(tuple(sorted({check_geohash(str(a)) for a in area})))
    given = area.ring() if isinstance(area, Circle) else area
    _check_simple(given)
    return Where(shape=parse_area(given))


def _check_simple(area: Any) -> None:
    """Raise InvalidInput if a ring crosses itself: which side was meant cannot be told.

    Polygons of one area may overlap, touch or lie inside each other, and a ring may touch itself: they are united.
    """
    shape = _ring(area) if isinstance(area, Sequence) else from_geojson(area) if isinstance(area, Mapping) else area
    if not isinstance(shape, BaseGeometry):
        return
    for part in parts_of(shape):
        outline = part if part.geom_type != "Polygon" or _spans_little(part) else run_on(part)
        if not outline.is_valid and not _touches_itself(outline):
            why = shapely.is_valid_reason(outline)
            raise InvalidInput(f"the area is no simple polygon ({why}); give its outline without crossings")


def _touches_itself(outline: BaseGeometry) -> bool:
    """Whether a polygon's rings meet without crossing: what they run around is then what lies inside."""
    if outline.geom_type != "Polygon" or not np.isfinite(shapely.get_coordinates(outline)).all():
        return False
    return bool(np.isclose(outline.area, shapely.make_valid(outline).area, rtol=1e-9, atol=0))


def _ring(points: Sequence[Any]) -> Any:
    try:
        return shapely.Polygon([(float(p[0]), float(p[1])) for p in points])
    except (TypeError, ValueError, IndexError, shapely.errors.ShapelyError):
        return None  # a box, or parse_area says what is wrong


def _spans_little(shape: BaseGeometry) -> bool:
    """False where an edge may cross the antimeridian, so that the outline only seems to cross itself."""
    xy = shapely.get_coordinates(shape)
    return bool((np.abs(np.diff(xy[:, 0])) <= 180).all())


def _is_box(polygon: BaseGeometry) -> bool:
    return not polygon.interiors and bool(shapely.equals(polygon, shapely.box(*polygon.bounds)))


def bounds_of(cells: Cells, precision: int) -> npt.NDArray[np.float64]:
    """(N, 4) west, south, east, north of cells, degrees."""
    columns, rows = np.empty(len(cells), np.int64), np.empty(len(cells), np.int64)
    _places(cells, precision, columns, rows)
    width, height = 360 / (1 << (5 * precision + 1) // 2), 180 / (1 << 5 * precision // 2)
    west, south = -180 + columns * width, -90 + rows * height
    return np.column_stack([west, south, west + width, south + height])


def _children(cells: Cells, precision: int, node: tuple[str, int, int]) -> list[tuple[str, int, int]]:
    """(geohash, first row, end of rows) of the children of a geohash that have rows."""
    name, start, stop = node
    code, shift = (gh.code_of(name) << 5 if name else 0), 5 * (precision - len(name) - 1)
    edges = start + np.searchsorted(cells[start:stop], (code + np.arange(33)) << shift)
    return [
        (name + letter, int(a), int(b))
        for letter, a, b in zip(GEOHASH_ALPHABET, edges, edges[1:], strict=False)
        if a < b
    ]


def _prefix_run(cells: Cells, precision: int, prefix: str) -> Rows:
    """The one run of rows below a prefix; of a finer geohash, the rows of the cell that holds it."""
    code, shift = gh.code_of(prefix), 5 * (precision - len(prefix))
    low, high = (code << shift, (code + 1) << shift) if shift >= 0 else (code >> -shift, (code >> -shift) + 1)
    start, stop = (int(v) for v in np.searchsorted(cells, (low, high)))
    return np.array([[start, stop]] if start < stop else [], np.int64).reshape(-1, 2)


def _box_runs(cells: Cells, precision: int, box: tuple[float, float, float, float]) -> Rows:
    """Runs of the rows whose cells overlap a box."""
    return np.asarray(_runs(cells, precision, *_columns(precision, box)))


def _columns(precision: int, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """First and last column, first and last row of the cells that overlap a box."""
    west, south, east, north = box
    columns, rows = (5 * precision + 1) // 2, 5 * precision // 2
    return *_span(west, east, -180.0, 360.0, columns), *_span(south, north, -90.0, 180.0, rows)


def _span(low: float, high: float, start: float, length: float, bits: int) -> tuple[int, int]:
    """Numbers of the first and last of 2**bits cells that overlap low..high by more than an edge; edges are exact."""
    count = 1 << bits
    size = length / count
    first = min(max(int((low - start) / size), 0), count - 1)
    first += (start + size * (first + 1)) <= low
    first -= (start + size * first) > low
    last = min(max(int((high - start) / size), 0), count - 1)
    last += last + 1 < count and (start + size * (last + 1)) < high
    last -= (start + size * last) >= high
    return first, last


@compiled
def _box_rows(
    cells: Cells, starts: Rows, precision: int, x0: int, x1: int, y0: int, y1: int
) -> tuple[Rows, int]:  # pragma: no cover - compiled
    """Runs of the rows of the different cells in columns x0..x1 and rows y0..y1, and how many rows these are."""
    runs, count = _runs(cells, precision, x0, x1, y0, y1), 0
    for r in range(len(runs)):
        runs[r, 0], runs[r, 1] = starts[runs[r, 0]], starts[runs[r, 1]]
        count += runs[r, 1] - runs[r, 0]
    return runs, count


@compiled
def _runs(cells: Cells, precision: int, x0: int, x1: int, y0: int, y1: int) -> Rows:  # pragma: no cover - compiled
    """Runs of ascending cells in columns x0..x1 and rows y0..y1."""
    out = np.empty((256, 2), np.int64)
    found = _cut(cells, precision, x0, x1, y0, y1, out)
    if found > len(out):
        out = np.empty((found, 2), np.int64)
        found = _cut(cells, precision, x0, x1, y0, y1, out)
    return out[:found].copy()


@compiled
def _cut(
    cells: Cells, precision: int, x0: int, x1: int, y0: int, y1: int, out: Rows
) -> int:  # pragma: no cover - compiled
    """Write runs of rows in columns x0..x1 and rows y0..y1 of cells; how many there are, even if `out` is too short.

    Cells are halved in the order of their codes; a half outside is left, one inside is a run, one with few rows is
    looked at row by row.
    """
    total, found = 5 * precision, 0
    codes, lows = np.empty(2 * total + 4, np.int64), np.empty(2 * total + 4, np.int64)
    highs, depths = np.empty(2 * total + 4, np.int64), np.empty(2 * total + 4, np.int64)
    codes[0], lows[0], highs[0], depths[0] = 0, 0, cells.size, 0
    top = 1
    while top > 0:
        top -= 1
        code, low, high, depth = codes[top], lows[top], highs[top], depths[top]
        if low == high:
            continue
        x, y = _place(code, depth)
        wide, tall = (total + 1) // 2 - (depth + 1) // 2, total // 2 - depth // 2
        left, right = x << wide, ((x + 1) << wide) - 1
        bottom, upper = y << tall, ((y + 1) << tall) - 1
        if right < x0 or left > x1 or upper < y0 or bottom > y1:
            continue
        if left >= x0 and right <= x1 and bottom >= y0 and upper <= y1:
            found = _extend(out, found, low, high)
        elif high - low <= FEW or cells[low] == cells[high - 1]:
            start = low
            while start < high:
                stop = start + 1
                while stop < high and cells[stop] == cells[start]:
                    stop += 1
                column, line = _place(cells[start], total)
                if x0 <= column <= x1 and y0 <= line <= y1:
                    found = _extend(out, found, start, stop)
                start = stop
        else:
            middle = (2 * code + 1) << (total - depth - 1)
            at = low + np.searchsorted(cells[low:high], middle)
            codes[top], lows[top], highs[top], depths[top] = 2 * code + 1, at, high, depth + 1
            codes[top + 1], lows[top + 1], highs[top + 1], depths[top + 1] = 2 * code, low, at, depth + 1
            top += 2
    return found


@compiled
def _extend(out: Rows, found: int, low: int, high: int) -> int:  # pragma: no cover - compiled
    """Add a run, or lengthen the last; how many there are."""
    if 0 < found <= len(out) and out[found - 1, 1] == low:
        out[found - 1, 1] = high
        return found
    if found < len(out):
        out[found, 0], out[found, 1] = low, high
    return found + 1


@compiled
def _place(code: int, bits: int) -> tuple[int, int]:  # pragma: no cover - compiled
    """(column, row) of the first `bits` bits of a geohash code, longitude first."""
    last, other = _every_second(np.uint64(code)), _every_second(np.uint64(code) >> np.uint64(1))
    return (last, other) if bits % 2 else (other, last)


@compiled
def _every_second(code: Any) -> int:  # pragma: no cover - compiled
    """Bits 0, 2, 4, ... side by side."""
    x = code & np.uint64(0x5555555555555555)
    x = (x | (x >> np.uint64(1))) & np.uint64(0x3333333333333333)
    x = (x | (x >> np.uint64(2))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    x = (x | (x >> np.uint64(4))) & np.uint64(0x00FF00FF00FF00FF)
    x = (x | (x >> np.uint64(8))) & np.uint64(0x0000FFFF0000FFFF)
    return np.int64((x | (x >> np.uint64(16))) & np.uint64(0x00000000FFFFFFFF))  # type: ignore[return-value]


@compiled
def _places(cells: Cells, precision: int, columns: Cells, rows: Cells) -> None:  # pragma: no cover - compiled
    for i in range(cells.size):
        columns[i], rows[i] = _place(cells[i], 5 * precision)


def _joined(runs: Rows) -> Rows:
    """Runs in order, those that touch or overlap as one."""
    kept = runs[runs[:, 0] < runs[:, 1]]
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    if not len(kept):
        return kept
    ends = np.maximum.accumulate(kept[:, 1])
    first = np.append(True, kept[1:, 0] > ends[:-1])
    return np.column_stack([kept[first, 0], ends[np.append(np.flatnonzero(first)[1:] - 1, len(kept) - 1)]])
