"""Sentinel-2 processing baselines: one scene in any of them is stored as the same pixels."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from geostore.errors import BadScene, OutOfRange
from geostore.keys import from_time_us
from geostore.scene import open_scene

RNG = np.random.default_rng(11)
L2A = 'preset = "sentinel-2-l2a"\nmasks = []\nbands = ["red", "nir"]\n'
OLD, NEW, UNKNOWN = (f"S2A_MSIL2A_20200601T093041_N{n}_R136_T34TEQ_20230101T000000" for n in ("0209", "0510", "9999"))


def old_numbers():
    """Digital numbers as before baseline 04.00, some nodata, one saturated."""
    pixels = RNG.integers(1, 20_000, (2, 24, 30)).astype(np.uint16)
    pixels[:, :2] = 0
    pixels[1, 5, 5] = 65_535
    return pixels


def new_numbers(old):
    """The same scene as from baseline 04.00 on: 1000 more wherever something was measured."""
    return np.where((old == 0) | (old == 65_535), old, old + 1000).astype(np.uint16)


def read(path, collection, **more):
    scene = open_scene(path, collection, **more)
    return scene, scene.read("10m", scene.grids["10m"])


def test_one_scene_in_two_baselines_is_stored_alike(write, declare):
    """Oracle: the same pixels, by product name, by tag, and by the file's own offset."""
    old = old_numbers()
    new = new_numbers(old)
    named = {"descriptions": ["B04", "B08"]}
    when = datetime(2020, 6, 1, tzinfo=UTC)
    collection = declare(L2A)
    rasters = [
        read(path, collection, time=when)[1]
        for path in (
            write(f"{OLD}.tif", old, **named),
            write(f"{NEW}.tif", new, **named),
            write("tag_old.tif", old, tags={"PROCESSING_BASELINE": "03.01"}, **named),
            write("tag_new.tif", new, tags={"PROCESSING_BASELINE": "04.00"}, **named),
            write("scale.tif", old, tags={"SCALE": "0.0001"}, **named),
            write("own.tif", new, scales=[1e-4] * 2, offsets=[-0.1] * 2, **named),
        )
    ]
    for raster in rasters:
        assert np.array_equal(raster.pixels, np.where(raster.valid, new, 0))
        assert np.array_equal(raster.valid, (old != 0).all(0) & (old != 65_535).all(0))
    reflectance = rasters[0].bands.to_physical(rasters[0].pixels)[:, rasters[0].valid]
    assert np.allclose(reflectance, old[:, rasters[0].valid] * 1e-4, atol=1e-7)


def test_a_product_folder_tells_baseline_time_and_revision(write, declare):
    """Band files inside a SAFE-like tree take all from the folder's name; quality masks are passed over."""
    old = old_numbers()
    for plane, band in zip(old, ("B04", "B08"), strict=True):
        path = write(f"{OLD}.SAFE/GRANULE/IMG/R10m/T34TEQ_20200601T093041_{band}_10m.jp2", plane[None])
    write(f"{OLD}.SAFE/GRANULE/QI/MSK_DETFOO_B04.jp2", old[:1])
    scene, raster = read(path.parents[3], declare(L2A))
    assert np.array_equal(raster.pixels, np.where(raster.valid, new_numbers(old), 0))
    assert (scene.id, scene.platform, scene.baseline) == (OLD, "sentinel-2a", "02.09")
    assert from_time_us(scene.time_us) == datetime(2020, 6, 1, 9, 30, 41, tzinfo=UTC)
    assert from_time_us(scene.revision * 10**6) == datetime(2023, 1, 1, tzinfo=UTC)


def test_an_unknown_baseline_is_the_collections_or_refused(write, declare):
    """N9999, or none at all: the collection says, else the message asks for it; a known one is not overruled."""
    old = old_numbers()
    named = {"descriptions": ["B04", "B08"]}
    unknown = write(f"{UNKNOWN}.tif", old, **named)
    none = write("scene.tif", old, **named)
    known = write(f"{NEW}.tif", new_numbers(old), **named)
    with pytest.raises(BadScene, match=r'N9999.*baseline = "02.09".*\[files\]'):
        open_scene(unknown, declare(L2A))
    with pytest.raises(BadScene, match="no processing baseline"):
        open_scene(none, declare(L2A), time=datetime(2020, 6, 1, tzinfo=UTC))
    collection = declare(L2A + '[files]\nbaseline = "02.09"')
    for path in (unknown, none, known):
        _, raster = read(path, collection, time=datetime(2020, 6, 1, tzinfo=UTC))
        assert np.array_equal(raster.pixels, np.where(raster.valid, new_numbers(old), 0))


def test_raising_does_not_wrap_around(write, declare):
    """Fault: a number that does not fit 16 bits after the shift is refused, not folded to a dark pixel."""
    old = old_numbers()
    old[0, 10, 10] = 65_000
    path = write(f"{OLD}.tif", old, descriptions=["B04", "B08"])
    with pytest.raises(OutOfRange, match="'red' holds 66000"):
        read(path, declare(L2A))


def test_another_level_or_sensor_is_refused(write, declare):
    """Faults: L1C into an L2A collection; Landsat 7, whose SR_B4 is nir, into the preset of Landsat 8."""
    path = write(f"{OLD.replace('L2A', 'L1C')}.tif", old_numbers(), descriptions=["B04", "B08"])
    with pytest.raises(BadScene, match="sentinel-2-l1c"):
        open_scene(path, declare(L2A))
    path = write("LC08_L1TP_013032_20180131.tif", old_numbers(), descriptions=["SR_B4", "SR_B5"])
    with pytest.raises(BadScene, match=r"is landsat-l1tp.*leave it out"):
        open_scene(path, declare('preset = "landsat-c2-l2"\nmasks = []\nbands = ["red", "nir"]'))
    landsat = 'preset = "landsat-c2-l2"\nmasks = []\nbands = ["red", "nir"]'
    for band in ("SR_B4", "SR_B5", "SR_B3"):
        path = write(f"l/LE07_L2SP_185029_20200601_20200801_02_T1_{band}.TIF", old_numbers()[:1])
    with pytest.raises(BadScene, match="use preset 'landsat-c2-l2-tm'"):
        open_scene(path.parent, declare(landsat))
    scene = open_scene(path.parent, declare(landsat.replace("l2", "l2-tm")))
    assert (scene.platform, scene.baseline) == ("landsat-7", "02")
    assert scene.planes.bands["red"].file.name.endswith("SR_B3.TIF")


def test_landsat_qa_bits_mask(write, declare):
    """Landsat 8 files as they come: scale and offset of the preset, QA_PIXEL bits make pixels unusable."""
    stem = "l/LC08_L2SP_185029_20200601_20200801_02_T1_"
    pixels, bits = RNG.integers(7000, 40_000, (2, 24, 30)).astype(np.uint16), np.full((1, 24, 30), 21_824, np.uint16)
    bits[0, 0, :4] = [1, 22_280, 23_888, 54_596]  # fill, cloud, cloud shadow, cirrus and dilated cloud
    for plane, band in zip((*pixels, bits[0]), ("SR_B4", "SR_B5", "QA_PIXEL"), strict=True):
        path = write(f"{stem}{band}.TIF", plane[None], res=30)
    scene = open_scene(path.parent, declare('preset = "landsat-c2-l2"\nbands = ["red", "nir"]'))
    raster = scene.read("30m", scene.grids["30m"])
    assert np.array_equal(raster.pixels, pixels)
    assert np.argwhere(~raster.valid).tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert (scene.id, scene.platform) == ("LC08_L2SP_185029_20200601_20200801_02_T1", "landsat-8")
    assert np.allclose(raster.bands.to_physical(raster.pixels), pixels * 2.75e-5 - 0.2, atol=1e-6)
