"""Scenes of the development data set, against rasterio's own reading of the same files."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geostore.errors import BadScene, OutOfRange
from geostore.keys import from_time_us
from geostore.scene import find_scenes, load_collection, open_scene

pytestmark = pytest.mark.data
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "collections.md"


def raw(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read()


def test_romania_masks_and_offset(data, declare):
    """140 dates in two files each: SCL masks as numpy does, the old offset is raised by 1000, native copies."""
    collection = declare('preset = "sentinel-2-l2a"\nbands = ["blue", "green", "red", "nir", "nir08", "swir16"]')
    root = data / "s2_l2a_romania_timeseries"
    found = list(find_scenes([root / "10m", root / "20m"], collection))
    assert len(found) == 140
    for source in found[::35]:
        scene = open_scene(source, collection)
        fine, coarse = (raw(Path(f)) for f in source.files)
        ten, twenty = (scene.read(g, scene.grids[g]) for g in ("10m", "20m"))
        assert np.array_equal(ten.valid, ~np.isin(fine[4], [0, 1, 3, 8, 9, 10]) & (fine[:4] > 0).all(0))
        assert np.array_equal(twenty.valid, ~np.isin(coarse[4], [0, 1, 3, 8, 9, 10]) & (coarse[2:4] > 0).all(0))
        assert np.array_equal(ten.pixels[:, ten.valid], fine[:4, ten.valid] + 1000)
        assert np.array_equal(twenty.pixels[:, twenty.valid], coarse[2:4, twenty.valid] + 1000)
        assert f"{from_time_us(scene.time_us):%Y%m%d}" == source.files[0][-12:-4]


def test_peru_by_the_guides_collection(data, tmp_path):
    """The guide's second example reads the series: positional bands, years from names, 0 is a measurement."""
    text = re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    (tmp_path / "peru.toml").write_text(text)
    collection = load_collection(tmp_path / "peru.toml")
    scenes = [open_scene(s, collection) for s in find_scenes([data / "landsat_peru_timeseries"], collection)]
    assert [from_time_us(s.time_us).year for s in scenes] == list(range(1985, 2021, 5))
    for scene in scenes[::3]:
        raster = scene.read("90m", scene.grids["90m"])
        assert raster.valid.all()
        assert np.array_equal(raster.pixels, raw(Path(scene.source)))


def test_virginia_groups_differ_by_metres(data, declare):
    """13 bands in three groups on their own grids, copied exactly but for the shift of the old baseline."""
    collection = declare('preset = "sentinel-2-l1c"\n[files]\nbaseline = "02.09"')
    folder = data / "s2_l1c_virginia_scene"
    with pytest.raises(BadScene, match="has no time"):
        open_scene(folder, collection)
    scene = open_scene(folder, collection, time=datetime(2017, 1, 1, tzinfo=UTC))
    assert {g: grid.shape for g, grid in scene.grids.items()} == {
        "10m": (1947, 1933),
        "20m": (973, 967),
        "60m": (324, 322),
    }
    for group, bands in collection.groups.items():
        raster = scene.read(group, scene.grids[group].window(100, 90, 200, 210))
        for band, plane in zip(bands, raster.pixels, strict=True):
            want = raw(folder / f"S2_L1C_virginia_{band.source}.tif")[0, 100:300, 90:300].astype(int) + 1000
            assert np.array_equal(plane[raster.valid], want[raster.valid])


@pytest.mark.parametrize(
    ("place", "masks", "time"),
    [
        ("s2_l2a_laos_scene", '[{ source = "cloud_mask", values = [1, 2, 3] }]', "2020-02-23T03:27:39"),
        ("format_samples/BigEarthNet/BigEarthNet-S2", "[]", "2017-06-13T10:10:31"),
    ],
)
def test_unknown_baselines(data, declare, place, masks, time):
    """Products N9999 are refused until the collection says their baseline."""
    text = f'preset = "sentinel-2-l2a"\nmasks = {masks}\n'
    with pytest.raises(BadScene, match="N9999"):
        open_scene(data / place, declare(text))
    scene = open_scene(data / place, declare(text + '[files]\nbaseline = "02.09"'))
    assert from_time_us(scene.time_us).isoformat() == f"{time}+00:00"
    red = scene.read("10m", scene.grids["10m"]).pixels[2]
    file = next((data / place).rglob("*_B04.tif"))
    assert np.array_equal(red, raw(file)[0] + 1000)


def test_other_scales(data, declare):
    """Reflectance times 1000 (Wales) and as floats 0..1 (Amazon) through generic collections."""
    head = 'preset = "generic"\nbands = [{ name = "red", source = "B04" }, { name = "nir", source = "B08" }]\n[band]\n'
    wales = open_scene(
        data / "s2_wales_landcover" / "S2_aberystwyth_20210527.tif",
        declare(head + "gsd_m = 10\nscale = 1e-3\nnodata = 0\nvalid_max = 5000"),
    )
    raster = wales.read("10m", wales.grids["10m"])
    numbers = raw(data / "s2_wales_landcover" / "S2_aberystwyth_20210527.tif")[[2, 6]]
    assert np.array_equal(raster.pixels, np.where((numbers == 0).any(0), 0, numbers))
    amazon = open_scene(
        data / "s2_amazon_rstoolbox" / "S2_amazon_reflectance.tif",
        declare(head + 'gsd_m = 10\nscale = 1e-4\nvalid_max = 10000\n[files]\nvalues = "physical"'),
        time=datetime(2017, 1, 1, tzinfo=UTC),
    )
    raster = amazon.read("10m", amazon.grids["10m"])
    floats = raw(data / "s2_amazon_rstoolbox" / "S2_amazon_reflectance.tif")[[3, 7]]
    assert np.abs(raster.bands.to_physical(raster.pixels) - floats).max() <= 0.5001e-4


def test_modis_index_series(data):
    """JPEG 2000 in the sinusoidal CRS by the preset alone; where lossy coding smeared nodata, the date is refused."""
    collection = load_collection("modis-13q1-ndvi")
    found = list(find_scenes([f"{data}/modis_mato_grosso_timeseries/*.jp2"], collection))
    assert len(found) == 12
    scene = open_scene(found[0], collection)
    raster = scene.read("250m", scene.grids["250m"])
    assert f"{from_time_us(scene.time_us):%Y-%m-%d}" == "2013-09-14"
    assert np.array_equal(raster.pixels[:, raster.valid], raw(Path(found[0].files[0]))[:, raster.valid])
    smeared = open_scene(found[1], collection)
    with pytest.raises(OutOfRange, match=r"2013-10-16.jp2: band 'ndvi' holds -[23]"):
        smeared.read("250m", smeared.grids["250m"])


def test_landsat_stacks(data, declare):
    """19 stacks with their own band names; time and platform from the product names, BQA bits as a mask."""
    collection = declare(
        'preset = "generic"\nmasks = [{ source = "BQA", bits = [4] }]\n'
        'bands = [{ name = "red", source = "B4" }, { name = "nir", source = "B5" }]\n'
        '[band]\ngsd_m = 3000\nkind = "counts"\nnodata = 0'
    )
    found = list(find_scenes([data / "landsat8_newyork_overview_timeseries"], collection))
    scenes = [open_scene(s, collection) for s in found]
    assert len({s.id for s in scenes}) == 19
    assert {s.platform for s in scenes} == {"landsat-8"}
    raster = scenes[0].read("3000m", scenes[0].grids["3000m"])
    numbers = raw(Path(scenes[0].source))
    wanted = (numbers[[3, 4]] > 0).all(0) & ((numbers[10] & 16) == 0)
    assert np.array_equal(raster.valid, wanted)


MEMORY = """
import resource, sys
from datetime import datetime
from geostore.scene import load_collection, open_scene
collection = load_collection(sys.argv[2])
scene = open_scene(sys.argv[1], collection, time=datetime(2017, 1, 1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for group, grid in scene.grids.items():
    side = round(4900 / grid.xres)
    for row in range(0, grid.height, side):
        for col in range(0, grid.width, side):
            scene.read(group, grid.window(row, col, side, side))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_reading_cell_by_cell_stays_small(data, tmp_path):
    """The 1933 x 1947 x 13 scene, read in cells by a fresh process, adds less than 120 MB to what opening it takes."""
    (tmp_path / "v.toml").write_text('preset = "sentinel-2-l1c"\n[files]\nbaseline = "02.09"')
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(data / "s2_l1c_virginia_scene"), str(tmp_path / "v.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout) < 120, f"{ran.stdout} MB"
