import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partition_sources import PLACES, WholeScene, bands, scene

from geostore.errors import BandMismatch, InvalidInput
from geostore.partition import geohash as gh
from geostore.partition.grid import owned
from geostore.partition.join import border_of, join, seam, seam_ratio
from geostore.partition.split import footprint, scene_cells, split
from geostore.raster import Grid, Raster

DATA = Path(os.environ.get("GEOSTORE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _back_on(grid: Grid, raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    """The joined pixels and validity laid on the scene's grid."""
    row, col = grid.offset_of(raster.grid)  # type: ignore[misc]
    pixels = np.zeros((len(raster.bands), *grid.shape), raster.pixels.dtype)
    valid = np.zeros(grid.shape, bool)
    pixels[:, row : row + raster.grid.height, col : col + raster.grid.width] = raster.pixels
    valid[row : row + raster.grid.height, col : col + raster.grid.width] = raster.valid
    return pixels, valid


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(PLACES),
    st.integers(0, 200),
    st.integers(0, 200),
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(0, 2**32 - 1),
)
def test_split_then_join_is_the_scene(
    place: tuple[str, float, float, float], dx: int, dy: int, height: int, width: int, seed: int
) -> None:
    """Random scenes in six CRSs come back bit for bit, masked pixels too; each cell is cropped to its data."""
    crs, left, top, res = place
    source = scene(Grid(crs, left + dx * res, top - dy * res, res, res, height, width), seed)
    whole = source.rasters["10m"]
    parts = list(split(source))
    if not parts:
        assert not whole.pixels.any()
        return
    assert [p.geohash for p in parts] == sorted({p.geohash for p in parts})
    for part in parts:
        grid = part.raster.grid
        assert part.cell.window(part.row, part.col, grid.height, grid.width) == grid
        data = part.raster.pixels.any(0)
        assert data.any(1)[[0, -1]].all()
        assert data.any(0)[[0, -1]].all()
        assert not (data & ~owned(part.geohash, grid)).any()
        assert not (part.raster.valid & ~data).any()
    pixels, valid = _back_on(whole.grid, join([p.raster for p in reversed(parts)]))
    assert (pixels == whole.pixels).all()
    assert (valid == whole.valid).all()


def test_groups_cells_and_fixed_grids() -> None:
    """Groups keep their resolution, only the asked cells come, and a partition's fixed grid wins over the lattice."""
    fine = scene(Grid("EPSG:32633", 500_000, 5_500_000, 60, 60, 90, 90), 1).rasters["10m"]
    coarse = scene(Grid("EPSG:32633", 500_000, 5_500_000, 120, 120, 45, 45), 2).rasters["10m"]
    source = WholeScene({"60m": fine, "120m": coarse})
    parts = list(split(source))
    assert {p.group for p in parts} == {"60m", "120m"}
    assert all(p.cell.xres == {"60m": 60, "120m": 120}[p.group] for p in parts)
    one = parts[0].geohash
    assert {p.geohash for p in split(source, cells=[one])} == {one}
    fixed = {(p.geohash, p.group): p.cell.window(-3, -3, p.cell.height + 6, p.cell.width + 6) for p in parts}
    moved = list(split(source, cell_of=lambda geohash, group: fixed[geohash, group]))
    assert [(p.row, p.col) for p in moved] == [(p.row + 3, p.col + 3) for p in parts]
    assert all(np.array_equal(a.raster.pixels, b.raster.pixels) for a, b in zip(parts, moved, strict=True))


def test_a_scene_of_nodata_yields_nothing() -> None:
    """Where all is nodata there are no splits; where all is cloud there are, without a valid pixel."""
    source = scene(Grid("EPSG:32633", 500_000, 5_500_000, 60, 60, 20, 20), 3)
    whole = source.rasters["10m"]
    whole.valid[:] = False
    assert all(not p.raster.valid.any() for p in split(source))
    whole.pixels[:] = 0
    assert list(split(source)) == []


def test_lattices_move_new_cells_to_another_crs() -> None:
    """With another lattice the cells are warped: the footprint is cut by the scene's outline, not by its box."""
    grid = Grid("EPSG:32633", 700_000, 5_500_000, 60, 60, 90, 90)
    other = Grid("EPSG:3035", 4_800_000, 3_000_000, 60, 60, 400, 400)
    name = scene_cells([grid], 5)[4]

    class Ones(WholeScene):
        def read(self, group: str, grid: Grid) -> Raster:
            return Raster(
                pixels=np.ones((2, *grid.shape), np.uint16),
                valid=np.ones(grid.shape, bool),
                bands=bands(2),
                grid=grid,
            )

    source = Ones(scene(grid, 4).rasters)
    for part in split(source, lattices={"10m": other}, cells=[name]):
        assert part.cell.crs == "EPSG:3035"
        assert other.offset_of(part.cell) is not None
        wanted = owned(name, part.raster.grid) & footprint(grid, part.raster.grid)
        assert (part.raster.valid == wanted).all()


def test_a_scene_past_180_degrees_is_refused() -> None:
    """A grid in degrees that runs on past 180 would lose pixels, so it is an error."""
    source = scene(Grid("EPSG:4326", 179.99, 0.01, 0.001, 0.001, 20, 20), 5)
    with pytest.raises(InvalidInput, match="180"):
        list(split(source))


def test_join_refuses_what_does_not_fit() -> None:
    """Nothing, other lattices, other bands and mosaics that are too large are errors that name both sides."""
    here = scene(Grid("EPSG:32633", 500_000, 5_500_000, 60, 60, 9, 9), 6).rasters["10m"]
    with pytest.raises(InvalidInput, match="nothing to join"):
        join([])
    for left, crs in ((500_030, "EPSG:32633"), (500_000, "EPSG:32634")):
        there = scene(Grid(crs, left, 5_500_000, 60, 60, 9, 9), 7).rasters["10m"]
        with pytest.raises(InvalidInput, match=r"32633.*|32634"):
            join([here, there])
    with pytest.raises(BandMismatch):
        join([here, scene(here.grid, 8, count=3).rasters["10m"]])
    far = scene(here.grid.window(0, 10**9, 9, 9), 9).rasters["10m"]
    with pytest.raises(InvalidInput, match="beyond"):
        join([here, far])


def test_join_prefers_valid_pixels_then_the_first() -> None:
    """Overlaps: valid wins over invalid whatever the order; between equals the first given stays."""
    grid = Grid("EPSG:32633", 500_000, 5_500_000, 60, 60, 1, 3)

    def row(values: list[int], valid: list[bool]) -> Raster:
        return Raster(pixels=np.array([[values]], np.uint16), valid=np.array([valid]), bands=bands(1), grid=grid)

    joined = join([row([5, 6, 0], [False, True, False]), row([7, 8, 9], [True, True, False])])
    assert joined.pixels.tolist() == [[[7, 6, 9]]]
    assert joined.valid.tolist() == [[True, True, False]]


def test_seam_figure() -> None:
    """Errors doubled along the border give 2, even errors 1, no border None."""
    cells = np.repeat(np.array([[1, 2]], np.int64), 10, axis=1).repeat(6, axis=0)
    error = np.where(border_of(cells), 2.0, 1.0)
    assert border_of(cells).sum() == 12
    assert seam_ratio(error, cells) == 2.0
    assert seam_ratio(np.ones_like(error), cells) == 1.0
    assert seam_ratio(np.zeros_like(error), cells) == 1.0
    assert seam_ratio(error, np.ones_like(cells)) is None
    assert seam_ratio(error - 1, cells) == float("inf")


@pytest.mark.data
@pytest.mark.parametrize(
    ("pattern", "cells"),
    [
        ("s2_l2a_romania_timeseries/10m/*.tif", 2),
        ("landsat_peru_timeseries/landsat_pucallpa_1985.tif", 112),
        ("modis_mato_grosso_timeseries/*.jp2", 107),
        ("s2_l1c_virginia_scene/S2_L1C_virginia_B03.tif", 30),
        ("landsat5_amazon_rstoolbox/*.tif", 9),
    ],
)
def test_real_scenes_come_back_bit_for_bit(pattern: str, cells: int) -> None:
    """Romania lies on a cell border, Peru in 112 cells; MODIS is sinusoidal: all split and join to themselves."""
    import rasterio

    files = sorted(DATA.glob(pattern))
    if not files:
        pytest.skip(f"no development data at {DATA}")
    with rasterio.open(files[0]) as file:
        pixels, t = file.read(), file.transform
        crs = f"EPSG:{file.crs.to_epsg()}" if file.crs.to_epsg() else file.crs.to_wkt()
    grid = Grid(crs, t.c, t.f, t.a, -t.e, *pixels.shape[1:])
    whole = Raster(
        pixels=pixels,
        valid=np.ones(grid.shape, bool),
        bands=bands(len(pixels), pixels.dtype.name, None),
        grid=grid,
    )
    parts = list(split(WholeScene({"10m": whole})))
    joined = join([p.raster for p in parts])
    assert grid.offset_of(joined.grid) == (0, 0)
    assert (joined.pixels == pixels).all()
    assert joined.valid.all()
    assert seam(whole, joined) == 1.0
    assert len(parts) == cells
    assert sum(int(p.raster.valid.sum()) for p in parts) == grid.height * grid.width
    assert all(gh.encode(*gh.centre(p.geohash), 5) == p.geohash for p in parts)
