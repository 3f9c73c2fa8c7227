"""The cells, or the geohash prefixes, that cover an area, found without ever listing what lies between."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geostore.errors import InvalidInput
from geostore.keys import GEOHASH_ALPHABET
from geostore.partition import geohash as gh

Area: TypeAlias = Sequence[float] | Sequence[Sequence[float]] | Mapping[str, Any] | BaseGeometry

CELLS_MAX = 100_000  # cells `cover` lists at most, unless told otherwise
PREFIXES_MAX = 64
_VERTICES_MAX = 100_000


def cover(area: Area, precision: int = 5, limit: int = CELLS_MAX) -> list[str]:
    """The cells of one precision that an area overlaps, sorted; an area without size: the cells that it meets.

    Args:
        area: see `parse_area`.
        precision: geohash length.
        limit: cells at most.

    Returns:
        Geohashes; [] for an empty area. A cell that the area only touches along its edge is not among them.

    Raises:
        InvalidInput: the area is malformed, or needs more than `limit` cells (found out without listing them).
    """
    shape = parse_area(area)
    whole: list[str] = []
    partial = [""]
    for _ in range(gh.check_precision(precision)):
        inside, partial = _refine(shape, partial)
        whole += inside
        if len(partial) + sum(32 ** (precision - len(g)) for g in whole) > limit:
            raise InvalidInput(
                f"the area needs more than {limit} cells of precision {precision}; give a smaller area, a coarser "
                "precision or a higher limit"
            )
    return sorted([*partial, *(g for prefix in whole for g in _descendants(prefix, precision))])


def cover_prefixes(area: Area, precision: int = 5, max_prefixes: int = PREFIXES_MAX) -> list[str]:
    """At most `max_prefixes` geohash prefixes that together hold every cell `cover` would list, sorted.

    The prefix with most land outside the area is refined first, while the cap allows; fewer prefixes cover more
    than was asked, never less. No prefix begins with another; [""] is the whole Earth.

    Raises:
        InvalidInput: the area is malformed, or the cap is not positive.
    """
    if max_prefixes < 1:
        raise InvalidInput(f"max_prefixes {max_prefixes}; use at least 1")
    shape = parse_area(area)
    done: list[str] = []
    queue = [(-_waste(shape, ""), "")] if not shape.is_empty else []
    while queue:
        _, prefix = heapq.heappop(queue)
        inside, partial = _refine(shape, [prefix])
        if len(done) + len(queue) + len(inside) + len(partial) > max_prefixes:
            done.append(prefix)
            continue
        done += inside
        for child in partial:
            if len(child) == gh.check_precision(precision):
                done.append(child)
            else:
                heapq.heappush(queue, (-_waste(shape, child), child))
    return _merged(done)


def parse_area(area: Area) -> BaseGeometry:
    """The area as polygons, lines or points inside -180..180, -90..90.

    Args:
        area: a box (west, south, east, north) in degrees, where west > east crosses the antimeridian; a ring of
            [lon, lat]; a GeoJSON geometry, Feature or FeatureCollection; or a shapely geometry. An edge of a ring
            or line longer than 180 degrees goes the short way, across the antimeridian; a ring that winds once
            around the Earth holds the pole it is nearer to.

    Raises:
        InvalidInput: it is none of these, has points that are not on Earth, or has too many.
    """
    if isinstance(area, BaseGeometry):
        return _on_earth(area)
    if isinstance(area, Mapping):
        return _on_earth(from_geojson(area))
    items = list(area)
    if len(items) == 4 and all(isinstance(v, int | float | np.number) for v in items):
        return _box(*np.asarray(items, np.float64).tolist())
    try:
        return _on_earth(shapely.Polygon([(float(p[0]), float(p[1])) for p in items]))
    except (TypeError, ValueError, IndexError, shapely.errors.ShapelyError) as error:
        raise InvalidInput(f"no area in {str(area)[:80]}: {error}; give a box, a ring or a GeoJSON polygon") from error


def _box(west: float, south: float, east: float, north: float) -> BaseGeometry:
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise InvalidInput(
            f"box {west, south, east, north}; use west, south, east, north in degrees, south <= north (west may "
            "exceed east across the antimeridian)"
        )
    if west > east:
        return shapely.union_all([_box(west, south, 180, north), _box(-180, south, east, north)])
    if west == east or south == north:
        ends = [(west, south), (east, north)]
        return shapely.Point(ends[0]) if ends[0] == ends[1] else shapely.LineString(ends)
    return shapely.box(west, south, east, north)


def from_geojson(item: Mapping[str, Any]) -> BaseGeometry:
    """A geometry, Feature or FeatureCollection as it is written, features without a place left out.

    Raises:
        InvalidInput: it is none of them.
    """
    try:
        if item["type"] == "FeatureCollection":
            located = [f for f in item["features"] if f.get("geometry", f) is not None]  # RFC 7946: null is no place
            return shapely.GeometryCollection([from_geojson(f) for f in located])
        if item["type"] == "Feature":
            return from_geojson(item["geometry"])
        with np.errstate(invalid="ignore"):  # what is not finite is refused by whoever takes the shape
            return shapely.geometry.shape(item)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, shapely.errors.ShapelyError) as error:
        raise InvalidInput(f"no GeoJSON geometry in {str(item)[:80]}: {error!r}; give a Polygon or Feature") from error


def _on_earth(shape: BaseGeometry) -> BaseGeometry:
    points = shapely.get_coordinates(shape)
    if len(points) > _VERTICES_MAX:
        raise InvalidInput(f"the area has {len(points)} vertices; simplify it to at most {_VERTICES_MAX}")
    if not (np.abs(points[:, 0]) <= 180).all() or not (np.abs(points[:, 1]) <= 90).all():
        raise InvalidInput(f"the area {shape.bounds} reaches off the Earth; use -180..180 and -90..90 degrees")
    parts = parts_of(shape)
    whole = shapely.union_all([_unwrapped(p) if p.geom_type in ("Polygon", "LineString") else p for p in parts])
    return whole if len(points) else shapely.Point()


def parts_of(shape: BaseGeometry) -> list[BaseGeometry]:
    """The polygons, lines and points of a shape, however deep its collections go."""
    if not hasattr(shape, "geoms"):
        return [shape]
    return [part for inner in shape.geoms for part in parts_of(inner)]


def _unwrapped(part: BaseGeometry) -> BaseGeometry:
    """A polygon or line cut at the antimeridian, where its edges cross it; a polygon around a pole holds the pole."""
    shape = shapely.make_valid(run_on(part))
    pieces = []
    for turn in (-2, -1, 0, 1, 2):
        piece = shapely.intersection(shape, shapely.box(360 * turn - 180, -90, 360 * turn + 180, 90))
        if not piece.is_empty:
            pieces.append(shapely.transform(piece, lambda xy, t=turn: xy - [360 * t, 0]))
    return shapely.union_all(pieces)


def run_on(part: BaseGeometry) -> BaseGeometry:
    """A polygon or line with longitudes that run on past 180, where its edges cross the antimeridian; in one piece."""
    if part.geom_type == "LineString":
        return shapely.LineString(_unwrap_line(shapely.get_coordinates(part)))
    shell = _unwrap_ring(shapely.get_coordinates(part.exterior))
    holes = [_unwrap_ring(shapely.get_coordinates(h)) for h in part.interiors]
    middle = shell[:, 0].mean() if len(shell) else 0.0
    for hole in holes:
        hole[:, 0] += 360 * np.round((middle - hole[:, 0].mean()) / 360)
    return shapely.Polygon(shell, holes)


def _unwrap_ring(ring: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, 2) vertices with longitudes that run on past 180; closed over a pole where the ring winds around it."""
    out = _unwrap_line(ring)
    if not len(out) or abs(out[-1, 0] - out[0, 0]) < 180:
        return out
    pole = 90.0 if ring[:, 1].mean() >= 0 else -90.0
    return np.vstack([out, [out[-1, 0], pole], [out[0, 0], pole], out[:1]])


def _unwrap_line(points: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(N, 2) vertices with longitudes that run on past 180."""
    if not len(points):
        return points
    steps = np.diff(points[:, 0])
    turns = np.where((np.abs(steps) > 180) & (np.abs(steps) < 360), -np.sign(steps), 0)
    return np.column_stack([points[:, 0] + 360 * np.concatenate([[0.0], np.cumsum(turns)]), points[:, 1]])


def _refine(shape: BaseGeometry, prefixes: Iterable[str]) -> tuple[list[str], list[str]]:
    """Children of `prefixes` wholly inside the shape, and those that overlap it in part."""
    children = [prefix + letter for prefix in prefixes for letter in GEOHASH_ALPHABET]
    if not children or shape.is_empty:
        return [], []
    boxes = shapely.box(*np.array([gh.bounds(c) for c in children]).T)
    shapely.prepare(shape)
    met, inside = shapely.intersects(shape, boxes), shapely.covers(shape, boxes)
    candidates = np.flatnonzero(met & ~inside)
    if shapely.area(shape) > 0:
        candidates = candidates[~shapely.touches(shape, boxes[candidates])]
    return [children[i] for i in np.flatnonzero(inside)], [children[i] for i in candidates]


def _descendants(prefix: str, precision: int) -> list[str]:
    found = [prefix]
    for _ in range(precision - len(prefix)):
        found = [g + letter for g in found for letter in GEOHASH_ALPHABET]
    return found


def _waste(shape: BaseGeometry, prefix: str) -> float:
    """Square degrees of the cell outside the shape."""
    box = shapely.box(*gh.bounds(prefix)) if prefix else shapely.box(-180, -90, 180, 90)
    return float(box.area - shapely.intersection(box, shape).area)


def _merged(prefixes: Iterable[str]) -> list[str]:
    """Sorted, with 32 complete sisters replaced by their parent."""
    found = set(prefixes)
    for length in range(gh.PRECISION_MAX, 1, -1):
        for parent in {g[:-1] for g in found if len(g) == length}:
            sisters = set(gh.children(parent))
            if sisters <= found:
                found = (found - sisters) | {parent}
    return sorted(found)
