"""Rows in an area are the rows of the cells that `partition.cover` lists for it, for any area and any rows."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.errors import InvalidInput
from geostore.index.spatial import Circle, places_of, where
from geostore.partition.cover import cover
from geostore.partition.geohash import bounds, code_of, encode_many, names_of

POLYGON = [(8.0, 45.0), (12.5, 44.0), (14.0, 47.5), (11.0, 46.0), (9.0, 48.0)]
AREAS = {
    "box": (8.3, 44.1, 11.2, 46.9),
    "box on cell edges": bounds("u0"),
    "box across the antimeridian": (177.0, -20.0, -176.5, -14.0),
    "polygon": POLYGON,
    "polygon across the antimeridian": [(178.0, -20.0), (-178.0, -20.0), (-178.0, -15.0), (178.0, -15.0)],
    "circle": Circle(10.0, 46.0, 120.0),
    "circle across the antimeridian": Circle(179.9, -17.0, 150.0),
    "circle over the pole": Circle(10.0, 89.0, 300.0),
    "point": (9.0, 45.0, 9.0, 45.0),
    "line": shapely.LineString([(8.0, 45.0), (12.0, 46.0)]),
    "two boxes": shapely.union(shapely.box(8, 45, 9, 46), shapely.box(11, 45, 12, 46)),
    "ring with a hole": shapely.box(8, 45, 12, 47).difference(shapely.box(9, 45.5, 11, 46.5)),
    "half the Earth": (-180, 0, 180, 90),
}


def _cells(precision, seed=0):
    """Ascending codes: crowded around the areas, sparse elsewhere."""
    rng = np.random.default_rng(seed)
    lon = np.concatenate([rng.uniform(7, 15, 3000), rng.uniform(-180, 180, 800), rng.uniform(175, 180, 400)])
    lon = np.concatenate([lon, rng.uniform(-180, -175, 400)])
    lat = np.concatenate([rng.uniform(43, 49, 3000), rng.uniform(-90, 90, 800), rng.uniform(-22, -12, 800)])
    near_pole = rng.uniform(86, 90, 300), rng.uniform(-180, 180, 300)
    lon, lat = np.append(lon, near_pole[1]), np.append(lat, near_pole[0])
    return np.sort(encode_many(lon, lat, precision))


def _rows(runs):
    assert (np.diff(runs.ravel()) > 0).all(), "runs are ascending, apart, none empty"
    return np.concatenate([np.arange(a, b) for a, b in runs] or [np.zeros(0, int)])


@pytest.mark.parametrize("name", list(AREAS))
@pytest.mark.parametrize("precision", [2, 4])
def test_rows_in_an_area_are_those_that_cover_lists(name, precision):
    """The oracle lists every cell of the area; rows are found without any list."""
    cells = _cells(precision)
    given = AREAS[name].ring() if isinstance(AREAS[name], Circle) else AREAS[name]
    wanted = {code_of(c) for c in cover(given, precision, 32**precision)}
    found = _rows(where(AREAS[name]).runs(cells, precision))
    assert found.tolist() == [i for i, c in enumerate(cells.tolist()) if c in wanted]
    runs, count = where(AREAS[name]).rows(places_of(cells), precision)
    assert (_rows(runs).tolist(), count) == (found.tolist(), len(found))


@settings(max_examples=25, deadline=None)
@given(
    west=st.integers(-180, 170), south=st.integers(-90, 80), width=st.floats(0.01, 100), height=st.floats(0.01, 60),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_any_box_equals_a_test_of_every_cell(west, south, width, height, seed):
    """Property: a row is in a box if its cell's outline overlaps it by more than an edge, at the finest cells too."""
    box = (west, south, min(west + width, 180.0), min(south + height, 90.0))
    for precision in (2, 6):
        cells = _cells(precision, seed)
        outlines = shapely.box(*np.array([bounds(g) for g in names_of(cells, precision)]).T)
        overlaps = shapely.intersects(shapely.box(*box), outlines) & ~shapely.touches(shapely.box(*box), outlines)
        assert _rows(where(box).runs(cells, precision)).tolist() == np.flatnonzero(overlaps).tolist()


def test_prefixes_are_one_run_each():
    """A geohash names a stretch of rows; a finer one than the rows' names the cell that holds it."""
    cells = np.sort(encode_many(*np.random.default_rng(3).uniform(0, 45, (2, 4000)), 4))
    names = names_of(cells, 4)
    for given_ in ("s", "s0", ("s0", "s1", "s01"), "s012", "s01234"):
        wanted = (given_,) if isinstance(given_, str) else given_
        rows = [i for i, n in enumerate(names) if any(n.startswith(p[:4]) for p in wanted)]
        assert _rows(where(given_).runs(cells, 4)).tolist() == rows


def test_no_rows_and_no_area_give_no_runs():
    """Empty answers of the right shape."""
    assert where((0, 0, 1, 1)).runs(np.zeros(0, np.int64), 5).shape == (0, 2)
    assert where(POLYGON).runs(np.zeros(0, np.int64), 5).shape == (0, 2)
    assert where(shapely.Polygon()).runs(_cells(4), 4).shape == (0, 2)


@pytest.mark.parametrize(
    ("area", "wanted"),
    [
        ([(0, 0), (10, 10), (10, 0), (0, 10)], "without crossings"),
        ((0, 0, 500, 1), "degrees"),
        ("hello", "not a geohash"),
        ("", "not a geohash"),
        ([(0, 0)], "no area|at least"),
    ],
)
def test_areas_that_make_no_sense_are_refused(area, wanted):
    """A self-crossing outline, a box off the Earth, no geohash: the message says what was wanted."""
    with pytest.raises(InvalidInput, match=wanted):
        where(area)


def _square(west, south, size=2.0):
    """A polygon whose edges may run past the antimeridian."""
    ring = [(west, south), (west + size, south), (west + size, south + size), (west, south + size)]
    return shapely.Polygon([(lon - 360 if lon > 180 else lon, lat) for lon, lat in ring])


@pytest.mark.parametrize("west", [9.0, 178.0])
@pytest.mark.parametrize("step", [1.0, 2.0, 0.5])
def test_polygons_of_one_area_may_overlap_or_touch(west, step):
    """A MultiPolygon whose parts overlap or share an edge, here and across the antimeridian, is the union of them."""
    cells, outer = _cells(4), _square(west, -18.0 if west > 100 else 45.0)
    parts = [
        outer,
        _square(west + step, -18.0 if west > 100 else 45.0),
        _square(west + 0.5, outer.bounds[1] + 0.5, 1.0),
    ]
    wanted = sorted({row for part in parts for row in _rows(where(part).runs(cells, 4)).tolist()})
    many = shapely.MultiPolygon(parts)
    assert not many.is_valid
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(many)}
    nested = {"type": "FeatureCollection", "features": [feature, feature]}
    assert wanted
    for given_ in (many, shapely.geometry.mapping(many), feature, nested):
        assert _rows(where(given_).runs(cells, 4)).tolist() == wanted
    crossed = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])
    with pytest.raises(InvalidInput, match="without crossings"):
        where(shapely.MultiPolygon([*parts, crossed]))


def test_features_without_a_place_are_left_out():
    """GeoJSON's null geometry, as a GeoDataFrame with a gap gives it: the others count; alone it is no area."""
    cells = _cells(4)
    located = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapely.Polygon(POLYGON))}
    both = {"type": "FeatureCollection", "features": [located, {**located, "geometry": None}]}
    assert _rows(where(both).runs(cells, 4)).tolist() == _rows(where(POLYGON).runs(cells, 4)).tolist()
    assert where({**both, "features": both["features"][1:]}).runs(cells, 4).shape == (0, 2)
    with pytest.raises(InvalidInput, match="no GeoJSON geometry"):
        where({**located, "geometry": None})


def test_a_ring_may_touch_itself():
    """Where a ring meets itself at a point, what lies inside is the two parts on either side of it."""
    cells = _cells(4)
    notched = [(8, 45), (12, 45), (12, 48), (10, 45), (8, 48)]
    halves = shapely.union_all(
        [shapely.Polygon([(8, 45), (10, 45), (8, 48)]), shapely.Polygon([(10, 45), (12, 45), (12, 48)])]
    )
    assert not shapely.Polygon(notched).is_valid
    assert _rows(where(notched).runs(cells, 4)).tolist() == _rows(where(halves).runs(cells, 4)).tolist() != []


def test_circles_are_checked():
    """A radius that is not one is refused."""
    with pytest.raises(InvalidInput, match="radius"):
        Circle(0, 0, -3)
