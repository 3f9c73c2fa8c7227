import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partition_sources import PLACES, SINUSOIDAL

from geostore.errors import InvalidInput
from geostore.partition import geohash as gh
from geostore.partition.grid import cell_codes, cell_grid, centres_lonlat, owned, utm_crs
from geostore.raster import Grid


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PLACES), st.integers(0, 90), st.integers(0, 90), st.integers(4, 5))
def test_every_pixel_belongs_to_one_cell(
    place: tuple[str, float, float, float], dx: int, dy: int, precision: int
) -> None:
    """On random windows in six CRSs, the owned masks of all cells add up to exactly one, and follow pygeohash."""
    crs, left, top, res = place
    grid = Grid(crs, left + dx * res, top - dy * res, res, res, 83, 71)
    total = np.zeros(grid.shape, int)
    codes = cell_codes(grid, precision)
    for name in gh.names_of(np.unique(codes), precision):
        mask = owned(str(name), grid)
        total += mask
        assert (mask == (codes == gh.code_of(str(name)))).all()
    assert (total == 1).all()
    lon, lat = centres_lonlat(grid)
    assert gh.encode(float(lon[7, 9]), float(lat[7, 9]), precision) == gh.name_of(int(codes[7, 9]), precision)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PLACES), st.integers(-500, 500), st.integers(-500, 500))
def test_one_lattice_gives_one_grid(place: tuple[str, float, float, float], rows: int, cols: int) -> None:
    """A cell's grid does not depend on which pixel corner of the lattice it is snapped through."""
    crs, left, top, res = place
    lon, lat = centres_lonlat(Grid(crs, left, top, res, res, 1, 1))
    name = gh.encode(float(lon[0, 0]), float(lat[0, 0]), 5)
    assert cell_grid(name, crs, res, res, (left, top)) == cell_grid(
        name, crs, res, res, (left + cols * res, top + rows * res)
    )
    offset = Grid(crs, left, top, res, res, 1, 1).offset_of(cell_grid(name, crs, res, res, (left, top)))
    assert offset is not None


@pytest.mark.parametrize(("crs", "left", "top", "res"), PLACES)
def test_a_cell_grid_holds_every_pixel_of_its_cell(crs: str, left: float, top: float, res: float) -> None:
    """No pixel around a cell's grid, on its lattice, has its centre in the cell."""
    lon, lat = centres_lonlat(Grid(crs, left, top, res, res, 1, 1))
    name = gh.encode(float(lon[0, 0]), float(lat[0, 0]), 4)
    grid = cell_grid(name, crs, res, res, (left, top))
    wider = owned(name, grid.window(-2, -2, grid.height + 4, grid.width + 4))
    assert wider[2:-2, 2:-2].any()
    wider[2:-2, 2:-2] = False
    assert not wider.any()


@pytest.mark.parametrize(
    ("name", "crs", "res"),
    [
        ("zzzzz", "EPSG:5041", 10.0),
        ("bpbpb", "EPSG:5041", 10.0),
        ("00000", "EPSG:5042", 10.0),
        ("xbpbp", "EPSG:32660", 60.0),
        ("80000", "EPSG:32660", 60.0),
        ("80000", "EPSG:32701", 60.0),
        ("xbpbp", "EPSG:4326", 0.001),
        ("xbp", "EPSG:32660", 600.0),
        ("80000", SINUSOIDAL, 250.0),
    ],
)
def test_owned_agrees_with_codes_at_the_edges_of_the_earth(name: str, crs: str, res: float) -> None:
    """Settling blocks by their corners changes no pixel, near the poles and across the antimeridian neither."""
    grid = cell_grid(name, crs, res, res)
    wider = grid.window(-40, -40, grid.height + 80, grid.width + 80) if crs != "EPSG:4326" else grid
    assert (owned(name, wider) == (cell_codes(wider, len(name)) == gh.code_of(name))).all()


def test_impossible_grids() -> None:
    """A cell without a place in the CRS, too many pixels, and an unknown CRS say so."""
    with pytest.raises(InvalidInput, match="no place"):
        cell_grid("u33db", "+proj=ortho +lat_0=-60 +lon_0=-150 +ellps=WGS84", 10, 10)
    with pytest.raises(InvalidInput, match="limit"):
        cell_grid("zzzzz", "EPSG:3857", 10, 10)  # the pole is infinitely far
    with pytest.raises(InvalidInput, match="limit"):
        cell_grid("s", "EPSG:4326", 1e-5, 1e-5)
    with pytest.raises(InvalidInput, match="not a CRS"):
        cell_grid("s0000", "EPSG:999999", 10, 10)


def test_utm_zone_of_a_cell() -> None:
    """North, south, both ends of the zones, and the polar caps."""
    names = ("u33db", "6mc5n", "80000", "xbpbp", "zzzzz", "00000")
    assert [utm_crs(n)[5:] for n in names] == ["32633", "32718", "32601", "32660", "5041", "5042"]
