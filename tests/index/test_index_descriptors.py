"""The descriptors we ship pass the suite we ask of others; chips say where in a cell something is."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from geostore.index.descriptors import GROUP, PIXELS_MIN, chips, describe_chips
from geostore.index.descriptors.spectral import Spectral
from geostore.partition.geohash import code_of, names_of
from geostore.partition.grid import cell_codes, cell_grid
from geostore.plugins import load
from geostore.raster import Raster
from geostore.testing.codecs import reflectance_bands
from geostore.testing.descriptors import DescriptorTests

DATA = Path(os.environ.get("GEOSTORE_DATA", Path(__file__).parents[3] / "shared" / "data"))


class TestSpectral(DescriptorTests):
    """Moments and texture."""

    descriptor = Spectral()


def test_it_is_found_by_name():
    """The entry point names the class."""
    assert isinstance(load(GROUP, ["spectral"])["spectral"], Spectral)


def _raster(seed=0):
    """A whole cell at 100 m, a fifth of it masked."""
    rng = np.random.default_rng(seed)
    grid = cell_grid("u0mbr", "EPSG:32632", 100.0, 100.0)
    bands = reflectance_bands(4)
    pixels = rng.integers(1200, 4000, (4, *grid.shape)).astype(np.uint16)
    return Raster(pixels=pixels, valid=rng.random(grid.shape) < 0.8, bands=bands, grid=grid)


def test_chips_share_out_the_usable_pixels_of_a_cell():
    """Every usable pixel is in the chip of the cell that holds its centre, but for chips of too few pixels."""
    raster = _raster()
    found = list(chips(raster, 6))
    codes = cell_codes(raster.grid, 6)
    seen = np.zeros(raster.grid.shape, int)
    for chip in found:
        height, width = chip.valid.shape
        window = np.s_[chip.row : chip.row + height, chip.col : chip.col + width]
        assert (codes[window][chip.valid] == chip.code).all()
        assert chip.valid.sum() >= PIXELS_MIN
        seen[window] += chip.valid
    big = [c for c, n in zip(*np.unique(codes[raster.valid], return_counts=True), strict=True) if n >= PIXELS_MIN]
    assert [c.code for c in found] == big
    assert (seen == (raster.valid & np.isin(codes, big))).all()
    inside = [n for n in names_of([c.code for c in found], 6) if n.startswith("u0mbr")]
    assert len(inside) == 32


def test_a_raster_is_one_chip_at_its_own_precision():
    """At the cell's precision the chip is the raster without its neighbours' pixels."""
    raster = _raster()
    codes, made = describe_chips(Spectral(), raster, 5)
    at = codes.tolist().index(code_of("u0mbr"))
    mine = raster.valid & (cell_codes(raster.grid, 5) == code_of("u0mbr"))
    assert np.allclose(made[at], Spectral().describe(raster.pixels, mine, raster.bands), atol=1e-6)


def test_a_chip_that_looks_different_is_found_where_it_is():
    """A lake in one finer cell makes that chip the least like the others."""
    raster = _raster()
    lake = cell_codes(raster.grid, 6) == code_of("u0mbrs")
    raster.pixels[:, lake] = np.array([1300, 1250, 1150, 1050], np.uint16)[:, None]
    codes, made = describe_chips(Spectral(), raster, 6)
    likeness = (made @ made.T).mean(axis=1)
    assert codes[int(likeness.argmin())] == code_of("u0mbrs")


@pytest.mark.data
def test_aerial_classes_are_nearer_than_chance():
    """On real aerial images (UC Merced, 10 of each class): the nearest image is often of the same class."""
    pillow = pytest.importorskip("PIL.Image")
    folder = DATA / "ucmerced" / "train"
    if not folder.is_dir():
        pytest.skip(f"no images in {folder}; set GEOSTORE_DATA")
    bands = reflectance_bands(3, "uint8")
    made, names = [], []
    for kind in sorted(p for p in folder.iterdir() if p.is_dir()):
        for path in sorted(kind.iterdir())[:10]:
            pixels = np.moveaxis(np.asarray(pillow.open(path).convert("RGB"))[::2, ::2], 2, 0)
            made.append(Spectral().describe(np.ascontiguousarray(pixels), np.ones(pixels.shape[1:], bool), bands))
            names.append(kind.name)
    likeness = np.array(made) @ np.array(made).T
    np.fill_diagonal(likeness, -1)
    share = np.mean(np.array(names)[likeness.argmax(axis=1)] == np.array(names))
    assert share > 6 / 21, share
