import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.errors import InvalidInput
from geostore.partition import geohash as gh
from geostore.partition.cover import cover, cover_prefixes, parse_area


def test_the_box_of_a_cell_is_that_cell() -> None:
    """A cell's own bounds are covered by it alone: touching neighbours do not count."""
    assert cover(gh.bounds("9qdfr"), 5) == ["9qdfr"]
    assert cover_prefixes(gh.bounds("9qdfr"), 5) == ["9qdfr"]
    assert cover(gh.bounds("9qd"), 5) == sorted(b for a in gh.children("9qd") for b in gh.children(a))


@settings(max_examples=60, deadline=None)
@given(st.floats(-180, 179), st.floats(-89, 88), st.floats(0.01, 0.9), st.floats(0.01, 0.9), st.integers(0, 2**32 - 1))
def test_every_point_of_a_box_is_covered(west: float, south: float, wide: float, high: float, seed: int) -> None:
    """Brute force: cells and prefixes hold random points of the box, and cells are never more than those around it."""
    box = (west, south, west + wide, south + high)
    rng = np.random.default_rng(seed)
    points = zip(rng.uniform(west, box[2], 50), rng.uniform(south, box[3], 50), strict=True)
    cells, prefixes = cover(box, 4), cover_prefixes(box, 4, 8)
    assert len(prefixes) <= 8
    for lon, lat in points:
        name = gh.encode(lon, lat, 4)
        assert name in cells
        assert sum(name.startswith(p) for p in prefixes) == 1
    assert all(shapely.intersects(shapely.box(*gh.bounds(c)), shapely.box(*box)) for c in cells)


def test_a_large_area_is_refused_before_it_is_listed() -> None:
    """The whole Earth at precision 12 is an error at once; prefixes cope."""
    with pytest.raises(InvalidInput, match="more than 1000 cells"):
        cover((-180, -90, 180, 90), 12, limit=1000)
    assert cover_prefixes((-180, -90, 180, 90), 12, 64) == sorted(gh.GEOHASH_ALPHABET)
    assert cover_prefixes((-180, -90, 180, 90), 12, 1) == [""]
    circle = shapely.Point(10, 50).buffer(8, 256)
    assert 1 < len(cover_prefixes(circle, 12, 64)) <= 64


def test_a_line_across_the_antimeridian_goes_the_short_way() -> None:
    """A track past Fiji meets the cells on both sides of it, and none of the rest of the Earth."""
    track = {"type": "LineString", "coordinates": [[179.9, -17.0], [-179.9, -17.0]]}
    found = cover(track, 4)
    assert {gh.bounds(cell)[0] for cell in found} == {179.6484375, -180.0}


def test_areas_across_the_antimeridian() -> None:
    """A box with west > east, and a ring that jumps by 360, cover both sides of 180 and nothing between."""
    wanted = ["2pbpb", "80000", "rzzzz", "xbpbp"]
    assert cover((179.99, -0.01, -179.99, 0.01), 5) == wanted
    ring = [[179.99, -0.01], [-179.99, -0.01], [-179.99, 0.01], [179.99, 0.01]]
    assert cover(ring, 5) == wanted
    assert cover({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, 5) == wanted


def test_a_ring_around_the_pole_holds_the_pole() -> None:
    """A ring that winds around the Earth at 80 N covers the cap above it, at 80 S the cap below."""
    for sign in (1, -1):
        cap = parse_area([[lon, sign * 80.0] for lon in range(-180, 180, 20)])
        assert cap.contains(shapely.Point(13, sign * 89))
        assert not cap.intersects(shapely.Point(13, sign * 79))
        assert cap.area == pytest.approx(3600)


def test_points_and_lines_have_cells() -> None:
    """An area without size still lies somewhere."""
    assert gh.encode(10.1, 50.1, 5) in cover((10.1, 50.1, 10.1, 50.1), 5)
    assert gh.encode(10.1, 50.15, 5) in cover((10.1, 50.1, 10.1, 50.2), 5)
    assert cover(shapely.Polygon(), 5) == []
    assert cover_prefixes(shapely.Polygon(), 5) == []


@pytest.mark.parametrize(
    "area",
    [
        (0, 10, 10, 0),
        (0, 0, 400, 10),
        [[0, 0], [1, 1]],
        [[0, 0], [0, 99], [1, 1]],
        {"type": "Polygon"},
        {"type": "Nothing", "coordinates": []},
        {"kind": 1},
        "abcd",
        [["a", "b"], [1, 2], [3, 4]],
    ],
)
def test_malformed_areas(area: object) -> None:
    """What is no area is an InvalidInput, whatever it is."""
    with pytest.raises(InvalidInput):
        cover(area, 5)  # type: ignore[arg-type]


def test_geojson_features_add_up() -> None:
    """A FeatureCollection covers what its features cover."""
    parts = [shapely.geometry.mapping(shapely.box(*gh.bounds(g))) for g in ("u33db", "9qdfr")]
    features = [{"type": "Feature", "geometry": g, "properties": {}} for g in parts]
    assert cover({"type": "FeatureCollection", "features": features}, 5) == ["9qdfr", "u33db"]
