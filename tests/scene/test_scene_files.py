"""Reading scenes from raster files of their own making."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from geostore.errors import BadScene, BandMismatch, InvalidInput, OutOfRange
from geostore.keys import from_time_us
from geostore.raster import Grid
from geostore.scene import find_scenes, open_scene

RNG = np.random.default_rng(7)
RED_NIR = """
preset = "generic"
name = "two"
indices = ["NDVI"]
bands = [{ name = "red", source = "B04" }, { name = "nir", source = "B08" }]
[band]
gsd_m = 10
scale = 1e-4
valid_max = 10000
"""
WHEN = datetime(2020, 6, 1, tzinfo=UTC)


def numbers(bands: int = 2, height: int = 24, width: int = 30, low: int = 1, high: int = 9000) -> np.ndarray:
    return RNG.integers(low, high, (bands, height, width)).astype(np.uint16)


def test_a_native_window_is_a_copy(write, declare):
    """Oracle: any aligned window equals rasterio's, outside it is not valid and 0."""
    pixels = numbers()
    path = write("a_20200601.tif", pixels, descriptions=["B04", "B08"], tags={"ACQUISITION_DATE": "2020-06-01"})
    scene = open_scene(path, declare(RED_NIR))
    native = scene.grids["10m"]
    assert np.array_equal(scene.read("10m", native).pixels, pixels)
    raster = scene.read("10m", native.window(-5, 20, 40, 30))
    assert np.array_equal(raster.pixels[:, 5:29, :10], pixels[:, :, 20:])
    assert raster.valid[5:29, :10].all()
    assert raster.valid.sum() == 240
    assert not raster.pixels[:, ~raster.valid].any()
    assert not scene.read("10m", native.window(500, 500, 3, 3)).valid.any()
    assert native == Grid("EPSG:32634", 600_000.0, 5_000_000.0, 10.0, 10.0, 24, 30)
    assert from_time_us(scene.time_us) == WHEN
    assert (scene.id, scene.platform, scene.product) == ("a_20200601", "unknown", "generic")


def test_bands_are_put_in_the_collections_order(write, declare):
    """Swapped descriptions, spelling without zeros and bands nobody asked for change nothing."""
    pixels = numbers(3)
    path = write("a.tif", pixels, descriptions=["B8 nir", "B03", "b4_dn"], tags={"ACQUISITION_DATE": "20200601"})
    scene = open_scene(path, declare(RED_NIR))
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, pixels[[2, 0]])
    assert scene.id == "a_20200601T000000"


@pytest.mark.parametrize("suffix", ["tif", "jp2"])
def test_one_file_a_band(write, declare, suffix):
    """File names tell the band, in GeoTIFF and in lossless JPEG 2000; a band nobody asked for is passed over."""
    pixels = numbers(3)
    for plane, band in zip(pixels, ("B04", "B08", "B02"), strict=True):
        folder = write(f"s/T34TEQ_20200601T093039_{band}_10m.{suffix}", plane[None]).parent
    scene = open_scene(folder, declare(RED_NIR))
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, pixels[:2])
    assert from_time_us(scene.time_us) == datetime(2020, 6, 1, 9, 30, 39, tzinfo=UTC)
    assert scene.id == "T34TEQ_20200601T093039"
    assert scene.source == str(folder)
    assert [part.split(":")[0] for part in scene.facts["files"].split()] == [f"B04_10m.{suffix}", f"B08_10m.{suffix}"]


def test_the_resolution_nearest_to_the_bands_own_is_taken(write, declare):
    """A band present at 10, 20 and 60 m is read where it is native; twice at one resolution it is ambiguous."""
    fine, coarse = numbers(), numbers(2, 12, 15)
    write("s/x_20m_20200601.tif", coarse, descriptions=["B04", "B08"], res=20)
    path = write("s/x_10m_20200601.tif", fine, descriptions=["B04", "B08"])
    collection = declare(RED_NIR.replace("name = ", 'time_pattern = "([0-9]{8})|%Y%m%d"\nname = ', 1))
    scene = open_scene(path.parent, collection)
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, fine)
    other = write("s/y_10m_20200601.tif", fine, descriptions=["B04", "B08"])
    with pytest.raises(BandMismatch, match=r"x_10m_20200601.tif band 1.*y_10m_20200601.tif band 1"):
        open_scene(_together(path, other), collection)


def _together(*paths: Path):
    from geostore.scene import SceneSource

    return SceneSource("s", tuple(map(str, paths)))


def test_groups_keep_their_own_grids(write, declare):
    """10 and 20 m bands whose edges differ by some metres are two groups, each copied exactly."""
    fine, coarse = numbers(1), numbers(1, 13, 16)
    write("s/v_B04.tif", fine)
    path = write("s/v_B11.tif", coarse, res=20, left=599_990)
    text = RED_NIR.replace('{ name = "nir", source = "B08" }', '{ name = "swir16", source = "B11", gsd_m = 20 }')
    text = text.replace('["NDVI"]', "[]")
    scene = open_scene(path.parent, declare(text), time=WHEN)
    assert list(scene.grids) == ["10m", "20m"]
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, fine)
    assert np.array_equal(scene.read("20m", scene.grids["20m"]).pixels, coarse)
    with pytest.raises(BandMismatch, match="60m"):
        scene.read("60m", scene.grids["10m"])


def test_bands_of_one_group_must_share_a_grid(write, declare):
    """Fault: one group whose files are shifted against each other."""
    write("s/v_B04.tif", numbers(1))
    path = write("s/v_B08.tif", numbers(1), left=600_010)
    with pytest.raises(BandMismatch, match="share a grid"):
        open_scene(path.parent, declare(RED_NIR), time=WHEN)


def test_positions_count_only_if_the_collection_says_so(write, declare):
    """Files without names are refused, or read in the stated order; a wrong number of bands is refused."""
    pixels = numbers()
    path = write("a.tif", pixels)
    with pytest.raises(BandMismatch, match="positional"):
        open_scene(path, declare(RED_NIR), time=WHEN)
    ordered = declare(RED_NIR + '[files]\npositional = ["nir", "red"]')
    scene = open_scene(path, ordered, time=WHEN)
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, pixels[::-1])
    with pytest.raises(BandMismatch, match=r"3 bands.*order 2"):
        open_scene(write("b.tif", numbers(3)), ordered, time=WHEN)


def test_a_missing_band_is_named(write, declare):
    """Fault: the message gives the band, what the files hold and the next step."""
    path = write("a.tif", numbers(), descriptions=["B04", "B03"])
    with pytest.raises(BandMismatch, match=r"needs nir \(B08\).*a.tif: B04, B03.*give the missing"):
        open_scene(path, declare(RED_NIR), time=WHEN)


CLASSES = RED_NIR.replace(
    "bands =", 'masks = [{ source = "SCL", values = [3, 8] }, { source = "QA", bits = [1, 4] }]\nbands ='
)


def test_class_and_bit_masks_make_pixels_unusable_and_keep_their_values(write, declare):
    """Oracle: numpy on the same classes, one at 20 m for bands at 10 m, one on their own grid."""
    pixels, classes = numbers(), RNG.integers(0, 12, (1, 12, 15)).astype(np.uint8)
    bits = RNG.integers(0, 32, (1, 24, 30)).astype(np.uint16)
    write("s/v_20m_SCL.tif", classes, res=20)
    write("s/v_QA.tif", bits)
    path = write("s/v.tif", pixels, descriptions=["B04", "B08"])
    scene = open_scene(path.parent, declare(CLASSES), time=WHEN)
    raster = scene.read("10m", scene.grids["10m"].window(1, 3, 20, 21))
    classes = np.kron(classes[0], np.ones((2, 2), np.uint8))
    want = ~(np.isin(classes, [3, 8]) | ((bits[0] & 0b10010) > 0))
    assert np.array_equal(raster.valid, want[1:21, 3:24])
    assert np.array_equal(raster.pixels, pixels[:, 1:21, 3:24])


def test_a_mask_band_must_be_there_and_lie_over_the_bands(write, declare):
    """Faults: no SCL; one of another CRS; one of another place."""
    collection = declare(CLASSES.replace(', { source = "QA", bits = [1, 4] }', ""))
    path = write("s/v.tif", numbers(), descriptions=["B04", "B08"])
    with pytest.raises(BandMismatch, match="mask SCL"):
        open_scene(path, collection, time=WHEN)
    classes = np.zeros((1, 24, 30), np.uint8)
    for place, words in (({"crs": "EPSG:32635"}, "another CRS"), ({"left": 700_000.0}, "does not cover")):
        write("s/v_SCL.tif", classes, **place)
        scene = open_scene(path.parent, collection, time=WHEN)
        with pytest.raises(BandMismatch, match=words):
            scene.read("10m", scene.grids["10m"])


def test_nodata_of_band_and_file(write, declare):
    """A pixel without a measurement in one band is not valid and 0 in all; the file's tag counts unless told not."""
    pixels = numbers(low=100)
    pixels[0, 2, 3], pixels[1, 5, 5], pixels[1, 7, 7] = 0, 77, 0
    path = write("a.tif", pixels, descriptions=["B04", "B08"], nodata=77)

    def read(text):
        scene = open_scene(path, declare(text), time=WHEN)
        return scene.read("10m", scene.grids["10m"])

    by_file = read(RED_NIR)
    assert np.argwhere(~by_file.valid).tolist() == [[5, 5]]
    assert not by_file.pixels[:, 5, 5].any()
    by_both = read(RED_NIR.replace("scale =", "nodata = 0\nscale ="))
    assert np.argwhere(~by_both.valid).tolist() == [[2, 3], [5, 5], [7, 7]]
    assert read(RED_NIR + '[files]\nnodata = "collection"').valid.all()


def test_a_files_own_mask_counts(write, declare):
    """A GeoTIFF with a validity mask of its own."""
    path = write("a.tif", numbers(), descriptions=["B04", "B08"])
    shown = np.ones((24, 30), np.uint8) * 255
    shown[:4] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as data:
        data.write_mask(shown)
    scene = open_scene(path, declare(RED_NIR), time=WHEN)
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).valid, shown > 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_physical_values_are_stored_by_scale(write, declare, dtype):
    """Reflectance 0..1 becomes stored integers with values = "physical", NaN nodata is not valid; else refused."""
    physical = RNG.random((2, 24, 30)).astype(dtype)
    physical[0, 1, 1] = np.nan
    path = write("a.tif", physical, descriptions=["B04", "B08"], nodata=float("nan"))
    with pytest.raises(BadScene, match=r"float.*stores uint16.*physical"):
        open_scene(path, declare(RED_NIR), time=WHEN)
    scene = open_scene(path, declare(RED_NIR + '[files]\nvalues = "physical"'), time=WHEN)
    raster = scene.read("10m", scene.grids["10m"])
    assert not raster.valid[1, 1]
    assert raster.valid.sum() == 719
    wanted = np.where(raster.valid, np.rint(physical.astype(np.float64) / 1e-4), 0)
    assert np.abs(raster.pixels - wanted).max() <= 1  # one step where the quotient lies between two


def test_float_values_are_kept_as_they_are(write, declare):
    """A float32 collection copies float32 files bit for bit."""
    physical = RNG.random((2, 24, 30)).astype(np.float32)
    path = write("a.tif", physical, descriptions=["B04", "B08"])
    text = RED_NIR.replace("scale = 1e-4", 'dtype = "float32"').replace("10000", "1")
    scene = open_scene(path, declare(text), time=WHEN)
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, physical)


def test_scale_and_offset_of_the_file_are_honoured(write, declare):
    """Band scale and offset, or SCALE and OFFSET tags, against a collection that stores another scale."""
    pixels = numbers(high=900)
    want = pixels * 10 + 200
    told = write("a.tif", pixels, descriptions=["B04", "B08"], scales=[1e-3] * 2, offsets=[0.02] * 2)
    tagged = write("b.tif", pixels, descriptions=["B04", "B08"], tags={"SCALE": "0.001", "OFFSET": "0.02"})
    for path in (told, tagged):
        scene = open_scene(path, declare(RED_NIR), time=WHEN)
        assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, want)
    with pytest.raises(BadScene, match="SCALE 'high'"):
        open_scene(
            write("c.tif", pixels, descriptions=["B04", "B08"], tags={"SCALE": "high"}), declare(RED_NIR), time=WHEN
        )


@pytest.mark.parametrize(("value", "dtype"), [(10_001, "uint16"), (float("nan"), "float32"), (-0.1, "float32")])
def test_values_out_of_range_are_refused(write, declare, value, dtype):
    """Faults: too large, NaN, too small; band, value, range and file are named, and masked pixels are not asked."""
    text = RED_NIR if dtype == "uint16" else RED_NIR.replace("scale = 1e-4", 'dtype = "float32"')
    pixels = np.ones((2, 24, 30), dtype)
    pixels[1, 3, 4] = value
    path = write("s/v.tif", pixels, descriptions=["B04", "B08"])
    scene = open_scene(path, declare(text), time=WHEN)
    with pytest.raises(OutOfRange, match=rf"v.tif: band 'nir' holds {value:g} .* wanted 0 to 10000"):
        scene.read("10m", scene.grids["10m"])
    classes = np.zeros((1, 24, 30), np.uint8)
    classes[0, 3, 4] = 3
    write("s/v_SCL.tif", classes)
    masked = declare(text.replace("bands =", 'masks = [{ source = "SCL", values = [3] }]\nbands ='))
    scene = open_scene(path.parent, masked, time=WHEN)
    raster = scene.read("10m", scene.grids["10m"])
    assert raster.valid.sum() == 719
    assert np.isfinite(raster.pixels).all()


def test_a_smaller_dtype_is_refused(write, declare):
    """Fault: an 8-bit stretch is no 16-bit reflectance; a wider integer whose values fit is taken."""
    eight = write("a.tif", numbers(high=255).astype(np.uint8), descriptions=["B04", "B08"])
    with pytest.raises(BadScene, match="uint8, the collection stores uint16"):
        open_scene(eight, declare(RED_NIR), time=WHEN)
    wide = write("b.tif", numbers().astype(np.int32), descriptions=["B04", "B08"])
    scene = open_scene(wide, declare(RED_NIR), time=WHEN)
    assert scene.read("10m", scene.grids["10m"]).pixels.dtype == np.uint16


def test_bad_files_are_refused_by_name(write, declare, tmp_path):
    """Faults: missing, no raster, no CRS, rotated, south-up, no time, all nodata; the file and the step are named."""
    collection = declare(RED_NIR.replace("scale =", "nodata = 0\nscale ="))
    told = {"descriptions": ["B04", "B08"]}
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    cases = [
        (tmp_path / "gone.tif", "gone.tif does not exist"),
        (text, "text.tif cannot be read as a raster"),
        (write("nocrs.tif", numbers(), crs=None, **told), "nocrs.tif has no CRS; set one"),
        (write("turned.tif", numbers(), transform=Affine(10, 1, 0, 1, -10, 0), **told), "rotated"),
        (write("south.tif", numbers(), transform=Affine(10, 0, 0, 0, 10, 0), **told), "not north-up"),
        (write("notime.tif", numbers(), **told), "notime.tif has no time.*time_pattern.*--time"),
    ]
    for path, words in cases:
        with pytest.raises(BadScene, match=words):
            open_scene(path, collection)
    with pytest.raises(BadScene, match=r"empty.tif is all nodata"):
        open_scene(write("empty.tif", np.zeros((2, 24, 30), np.uint16), **told), collection, time=WHEN)


@pytest.mark.parametrize("suffix", ["tif", "jp2"])
def test_a_truncated_file_is_refused(write, declare, suffix):
    """Fault: half of the bytes are gone; opening or reading raises BadScene naming the file."""
    path = write(f"v_B04.{suffix}", RNG.integers(1, 9000, (1, 300, 300)).astype(np.uint16))
    write(f"v_B08.{suffix}", RNG.integers(1, 9000, (1, 300, 300)).astype(np.uint16))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(BadScene, match=f"v_B04.{suffix} cannot be read"):
        _read_all(path.parent, declare(RED_NIR))


def _read_all(folder, collection):
    scene = open_scene(next(iter(find_scenes([folder], collection))), collection, time=WHEN)
    return scene.read("10m", scene.grids["10m"])


def test_times_by_pattern(write, declare):
    """The collection's pattern reads the file name; a pattern that is none, or finds no time, is refused."""
    path = write("x_D2020153.tif", numbers(), descriptions=["B04", "B08"])

    def with_pattern(pattern):
        return declare(f"time_pattern = '{pattern}'\n" + RED_NIR)

    assert from_time_us(open_scene(path, with_pattern("D([0-9]{7})|%Y%j")).time_us) == WHEN
    for bad in ("D([0-9]{7})", "([0-9]|%Y", "[0-9]+|%Y", "D([0-9]{7})|%Y%m"):
        with pytest.raises(InvalidInput, match="time"):
            open_scene(path, with_pattern(bad))
    with pytest.raises(BadScene, match="has no time"):
        open_scene(path, with_pattern("E([0-9]{7})|%Y%j"))


def test_files_of_two_days_are_not_one_scene(write, declare):
    """Fault: bands whose tags tell two dates."""
    write("s/v_B04.tif", numbers(1), tags={"ACQUISITION_DATE": "20200601"})
    path = write("s/v_B08.tif", numbers(1), tags={"ACQUISITION_DATE": "20200602"})
    with pytest.raises(BadScene, match=r"2020-06-01.*2020-06-02"):
        open_scene(path.parent, declare(RED_NIR))


def test_closing_a_scene_lets_it_be_read_again(write, declare):
    """`close` frees the files, nothing else."""
    pixels = numbers()
    scene = open_scene(write("a.tif", pixels, descriptions=["B04", "B08"]), declare(RED_NIR), time=WHEN)
    scene.close()
    assert np.array_equal(scene.read("10m", scene.grids["10m"]).pixels, pixels)


def test_a_crs_without_a_code_is_kept_as_wkt(write, declare):
    """The MODIS sinusoidal grid: WKT2 in the Grid, footprint in longitude and latitude."""
    sinusoidal = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m"
    path = write("a.tif", numbers(), descriptions=["B04", "B08"], crs=sinusoidal, left=-6_073_798, top=-1_278_279)
    scene = open_scene(path, declare(RED_NIR), time=WHEN)
    assert scene.grids["10m"].crs.startswith("PROJCRS[")
    lon, lat = scene.footprint[0]
    assert (round(lon, 3), round(lat, 3)) == (-55.741, -11.496)
    assert scene.footprint[0] == scene.footprint[-1]
