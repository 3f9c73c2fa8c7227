"""Reading a scene on a grid that is not its own."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from pyproj import Transformer

from geostore.raster import Grid
from geostore.scene import open_scene, resample
from geostore.scene.names import product_of, time_from_text, words

RNG = np.random.default_rng(17)
ONE = """
preset = "generic"
indices = []
bands = [{ name = "red" }]
[band]
gsd_m = 10
scale = 1e-4
nodata = 0
valid_min = 1
valid_max = 10000
kind = "KIND"
[files]
positional = ["red"]
"""


@pytest.fixture
def opened(write, declare):
    """opened(pixels (H, W), kind) -> Scene in EPSG:32634 at 10 m."""

    def make(pixels, kind="reflectance", **place):
        path = write("a.tif", pixels[None], **place)
        return open_scene(path, declare(ONE.replace("KIND", kind)), time=datetime(2020, 6, 1, tzinfo=UTC))

    return make


def ramp(height=120, width=100):
    """A plane, so that every interpolation has one right answer."""
    rows, cols = np.mgrid[:height, :width]
    return (1000 + 20 * rows + 30 * cols).astype(np.uint16)


def test_half_a_pixel_aside_is_interpolated(opened):
    """Oracle: on a plane the value half a pixel on is the plane's, to one step; outside is not valid."""
    scene = opened(ramp())
    native = scene.grids["10m"]
    grid = Grid(native.crs, native.left + 5, native.top - 5, 10, 10, 120, 100)
    raster = scene.read("10m", grid)
    assert np.abs(raster.pixels[0, 4:-4, 4:-4].astype(int) - (ramp()[4:-4, 4:-4] + 25)).max() <= 1
    assert raster.valid[:-1, :-1].all()
    assert not raster.pixels[:, ~raster.valid].any()


def test_another_crs_is_warped(opened):
    """Oracle: pyproj says where each target pixel lies in the source, and so which value the plane has there."""
    scene = opened(ramp())
    east = Transformer.from_crs("EPSG:32634", "EPSG:3035", always_xy=True)
    left, top = east.transform(600_200, 4_999_800)
    grid = Grid("EPSG:3035", float(np.floor(left)), float(np.floor(top)), 10, 10, 50, 40)
    raster = scene.read("10m", grid)
    xs, ys = np.meshgrid(grid.left + 5 + 10 * np.arange(40), grid.top - 5 - 10 * np.arange(50))
    x, y = Transformer.from_crs("EPSG:3035", "EPSG:32634", always_xy=True).transform(xs, ys)
    wanted = 1000 + 20 * ((5_000_000 - y) / 10 - 0.5) + 30 * ((x - 600_000) / 10 - 0.5)
    inside = raster.valid
    assert inside.mean() > 0.9
    assert np.abs(raster.pixels[0][inside] - wanted[inside]).max() <= 1.01


def test_coarser_pixels_are_averages(opened):
    """Oracle: numpy's means of 3 x 3 blocks; a block is usable if half of its pixels are, over those alone."""
    pixels = RNG.integers(1, 10_000, (120, 99)).astype(np.uint16)
    pixels[:3, :2], pixels[3:6, :1] = 0, 0
    scene = opened(pixels)
    native = scene.grids["10m"]
    raster = scene.read("10m", Grid(native.crs, native.left, native.top, 30, 30, 40, 33))
    blocks = pixels.reshape(40, 3, 33, 3).astype(float)
    counted = (blocks > 0).sum((1, 3))
    wanted = blocks.sum((1, 3)) / np.maximum(counted, 1)
    assert np.array_equal(raster.valid, counted >= 4.5)
    assert np.abs(raster.pixels[0] - wanted)[raster.valid].max() <= 1


def test_categories_are_never_mixed(opened):
    """Every value on the new grid is one of the old, going down as well."""
    pixels = RNG.choice(np.array([1, 7, 9], np.uint16), (120, 100))
    scene = opened(pixels, "category")
    native = scene.grids["10m"]
    for res in (7.3, 10, 31):
        grid = Grid(native.crs, native.left + 3, native.top - 4, res, res, 30, 30)
        assert set(np.unique(scene.read("10m", grid).pixels)) <= {0, 1, 7, 9}


def test_unusable_pixels_weigh_nothing(opened):
    """A dark nodata half does not darken its neighbours, and overshoot stays inside the valid range."""
    pixels = np.full((60, 60), 10_000, np.uint16)
    pixels[:, 30:] = 0
    scene = opened(pixels)
    native = scene.grids["10m"]
    raster = scene.read("10m", Grid(native.crs, native.left + 4, native.top - 4, 10, 10, 58, 58))
    assert (raster.pixels[0][raster.valid] == 10_000).all()
    assert raster.valid.sum() == 58 * 30


@pytest.mark.parametrize("crs", ["EPSG:32634", "EPSG:32635"])
def test_parts_agree_with_the_whole(opened, monkeypatch, crs):
    """Cells read one by one, and small steps inside one read, give one read of all: on noise of 10,000 steps equal
    where the CRS is the same, within 3 steps where it is another (the warper places pixels to some 1e-4).
    """
    scene = opened(RNG.integers(1, 10_000, (120, 100)).astype(np.uint16))
    left, top = 600_000, 5_000_000
    if crs == "EPSG:32635":
        left, top = Transformer.from_crs("EPSG:32634", crs, always_xy=True).transform(left, top)
    grid = Grid(crs, round(left) + 3.0, round(top) + 4.0, 12, 12, 90, 80)
    whole = scene.read("10m", grid)
    monkeypatch.setattr(resample, "SOURCE_PIXELS_MAX", 40)
    stepped = scene.read("10m", grid)
    cell = scene.read("10m", grid.window(30, 20, 40, 30))
    apart = 0 if crs == "EPSG:32634" else 3
    assert np.abs(stepped.pixels.astype(int) - whole.pixels).max() <= apart
    assert np.abs(cell.pixels.astype(int) - whole.pixels[:, 30:70, 20:50]).max() <= apart
    assert np.array_equal(stepped.valid, whole.valid)
    assert np.array_equal(cell.valid, whole.valid[30:70, 20:50])
    assert whole.valid.any()


def test_a_grid_elsewhere_is_empty(opened):
    """Another continent, in another CRS: nothing valid, no error."""
    raster = opened(ramp()).read("10m", Grid("EPSG:32755", 500_000, 6_000_000, 10, 10, 8, 9))
    assert raster.pixels.shape == (1, 8, 9)
    assert not raster.valid.any()
    assert not raster.pixels.any()


def test_product_names_tell_time_platform_and_processing():
    """Sentinel-2, Landsat and MODIS names as they are published; other names say nothing."""
    modis = product_of("MOD09A1.A2013257.h12v10.061.2021235014500_sur_refl_b01.tif")
    assert (modis.time, modis.platform) == (datetime(2013, 9, 14, tzinfo=UTC), "terra")
    assert modis.made_s == int(datetime(2021, 8, 23, 1, 45, tzinfo=UTC).timestamp())
    landsat = product_of("/x/LC08_L1TP_013032_20180131.tif")
    assert (landsat.family, landsat.platform, landsat.baseline) == ("landsat-l1tp", "landsat-8", "")
    assert landsat.time == datetime(2018, 1, 31, tzinfo=UTC)
    assert product_of("a_20200601.tif").time is None


@pytest.mark.parametrize(
    "text", ["2020-06-01", "20200601", "2020:06:01 00:00:00", "2020-06-01T00:00:00Z", "2020-06-01T02:00:00+02:00"]
)
def test_times_in_metadata(text):
    """The ways metadata write one moment."""
    assert time_from_text(text) == datetime(2020, 6, 1, tzinfo=UTC)
    assert time_from_text("soon " + text) is None


def test_words_compare_band_names():
    """B04, b4 and B4 are one name; B8A, B11 and B10 stay themselves."""
    assert words("b04") == words("B4") == ("B4",)
    assert words("SR_B04 x-y") == ("SR", "B4", "X", "Y")
    assert words("B8A.B10.B11") == ("B8A", "B10", "B11")
