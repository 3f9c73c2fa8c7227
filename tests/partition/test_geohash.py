import numpy as np
import pygeohash
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore.errors import InvalidInput
from geostore.partition import geohash as gh

SEED = 20201121


def _points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random points, cell corners and their float neighbours, poles and the antimeridian."""
    rng = np.random.default_rng(SEED)
    lon, lat = rng.uniform(-180, 180, count), rng.uniform(-90, 90, count)
    edge = count // 4
    lon[:edge] = -180 + 360 * rng.integers(0, 2**13 + 1, edge) / 2**13
    lat[:edge] = -90 + 180 * rng.integers(0, 2**12 + 1, edge) / 2**12
    step = rng.integers(-1, 2, edge)
    lon[:edge] = np.where(step == 0, lon[:edge], np.nextafter(lon[:edge], step * 999.0))
    lon[edge : edge + 500], lat[edge + 500 : edge + 1000] = 180, 90
    lon[edge + 1000 : edge + 1500], lat[edge + 1500 : edge + 2000] = -180, -90
    return np.clip(lon, -180, 180), lat


@pytest.mark.parametrize("precision", [1, 5, 12])
def test_cells_agree_with_pygeohash_on_100000_points(precision: int) -> None:
    """Our kernel names the same cell as pygeohash on 100,000 points: random, on cell edges, at the poles and 180."""
    lon, lat = _points(100_000)
    names = gh.names_of(gh.encode_many(lon, lat, precision), precision)
    wanted = [pygeohash.encode(y, x, precision) for x, y in zip(lon.tolist(), lat.tolist(), strict=True)]
    assert names.tolist() == wanted


def test_edges_of_the_earth() -> None:
    """The rules at the poles and the antimeridian are pygeohash's: clamped, not wrapped."""
    assert gh.encode(180, 90, 5) == "zzzzz"
    assert gh.encode(180, 0, 5) == "xbpbp"
    assert gh.encode(-180, 0, 5) == "80000"
    assert gh.encode(-180, -90, 5) == "00000"


@pytest.mark.parametrize(("lon", "lat"), [(0, 91), (181, 0), (float("nan"), 0), (0, float("nan")), (float("inf"), 0)])
def test_points_off_the_earth_are_refused(lon: float, lat: float) -> None:
    """A point that is not on Earth is an error for one point; for many, only what is finite is."""
    with pytest.raises(InvalidInput, match="not on Earth"):
        gh.encode(lon, lat, 5)
    if np.isfinite(lon) and np.isfinite(lat):
        with pytest.raises(InvalidInput, match="not on Earth"):
            gh.encode_many([0.0, lon], [0.0, lat], 5)
    else:
        assert gh.encode_many(lon, lat, 5) == gh.OUTSIDE


@given(st.floats(-180, 180), st.floats(-90, 90), st.integers(1, 12))
def test_a_cell_contains_what_it_names(lon: float, lat: float, precision: int) -> None:
    """encode, bounds, contains and codes agree on every point."""
    name = gh.encode(lon, lat, precision)
    assert gh.contains(name, np.array(lon), np.array(lat))
    west, south, east, north = gh.bounds(name)
    assert west <= lon <= east
    assert south <= lat <= north
    assert gh.name_of(gh.code_of(name), precision) == name
    assert gh.encode(*gh.centre(name), precision) == name
    box = pygeohash.get_bounding_box(name)
    assert (box.min_lon, box.min_lat, box.max_lon, box.max_lat) == pytest.approx((west, south, east, north), abs=1e-12)


@given(st.text(alphabet=gh.GEOHASH_ALPHABET, min_size=1, max_size=8))
def test_family(name: str) -> None:
    """Children know their parent, neighbours know each other, and neither leaves the precision."""
    assert all(gh.parent(child) == name for child in gh.children(name))
    around = gh.neighbours(name)
    assert name not in around
    assert all(name in gh.neighbours(other) for other in around)
    touches_pole = gh.bounds(name)[1] == -90 or gh.bounds(name)[3] == 90
    assert len(around) == (5 if touches_pole else 8) or len(name) == 1


def test_malformed_names_and_precisions() -> None:
    """What is no geohash or no length is named in the error."""
    for bad in ("", "a", "9QDFR", "9qdfrilo", "0" * 13):
        with pytest.raises(InvalidInput, match="not a geohash"):
            gh.bounds(bad)
    for length in (0, 13, True, 5.0):
        with pytest.raises(InvalidInput, match="precision"):
            gh.encode(0, 0, length)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no parent"):
        gh.parent("s")
    with pytest.raises(InvalidInput, match="not geohashes"):
        gh.names_of([-1], 5)
