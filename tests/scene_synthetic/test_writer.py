import errno
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from imagecodecs import jpegxl_encode
from rasterio.io import MemoryFile

from geostore.errors import BadScene, InvalidInput, StorageFull
from geostore.raster import Band, Bands, Grid, Raster
from geostore.scene import writer
from geostore.scene.writer import Hidden, cog_bytes, jxl_size, lzw_size, read_cog, write_cog

SINUSOIDAL = "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m +no_defs"


def _raster(dtype: str, *, size: int = 40, nodata: float | None = 0, crs: str = "EPSG:32633", low: float = 1) -> Raster:
    rng = np.random.default_rng(3)
    items = tuple(
        Band(n, n.upper(), 10.0, dtype=dtype, scale=1e-4, offset=-0.1, nodata=nodata, valid_min=low, valid_max=255)
        for n in ("red", "nir")
    )
    base = rng.integers(2, 100, (2, size, size)).cumsum(2) // 50 + 2
    valid = rng.random((size, size)) > 0.1
    grid = Grid(crs, 500_000.1, 5_500_000.7, 10, 10, size, size)
    return Raster(pixels=base.astype(dtype), valid=valid, bands=Bands(items), grid=grid)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("crs", ["EPSG:32633", SINUSOIDAL])
def test_a_kept_cog_gives_the_pixels_back(dtype: str, crs: str) -> None:
    """Bit for bit with masked values and the grid, in every stored dtype, with and without an authority code."""
    raster = _raster(dtype, crs=crs)
    pixels, grid = read_cog(cog_bytes(raster, {"scene": "one"}))
    assert np.array_equal(pixels, raster.pixels)
    assert pixels.dtype == raster.pixels.dtype
    assert grid == raster.grid
    assert cog_bytes(raster) == cog_bytes(raster)


def test_a_cog_to_hand_out_says_what_it_is(tmp_path: Path) -> None:
    """rasterio reads names, scale, offset, nodata, tags, overviews, layout; hidden pixels are nodata."""
    raster = _raster("uint16", size=600)
    size = write_cog(tmp_path / "out.tif", raster, {"GEOSTORE_TIER": "embedding"})
    assert (tmp_path / "out.tif").stat().st_size == size
    assert [p.name for p in tmp_path.iterdir()] == ["out.tif"]
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.descriptions == ("red", "nir")
        assert file.scales == (1e-4, 1e-4)
        assert file.offsets == (-0.1, -0.1)
        assert file.nodata == 0
        assert file.tags()["GEOSTORE_TIER"] == "embedding"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.profile["compress"] == "zstd"
        assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        assert file.overviews(1) == [2, 4]
        assert (file.dataset_mask() != 0).tolist() == raster.valid.tolist()
        assert np.array_equal(file.read(), np.where(raster.valid, raster.pixels, 0))


@pytest.mark.parametrize("hidden", ["nodata", "keep"])
def test_a_cog_is_laid_out_as_one(tmp_path: Path, hidden: Hidden) -> None:
    """GDAL's own check, by offsets in the file: directories first, overviews before the tiles of what they are of."""
    path = tmp_path / "out.tif"
    write_cog(path, _raster("uint16", size=1300), hidden=hidden)
    directories, tiles = [], []
    for level in (None, 0, 1, 2):
        with rasterio.open(path, **({} if level is None else {"overview_level": level})) as file:
            assert file.block_shapes[0] == (256, 256)
            directories.append(int(file.get_tag_item("IFD_OFFSET", "TIFF", bidx=1)))
            rows, cols = (-(-n // 256) for n in file.shape)
            places = [(row, col) for row in range(rows) for col in range(cols)]
            tiles.append([int(file.get_tag_item(f"BLOCK_OFFSET_{c}_{r}", "TIFF", bidx=1)) for r, c in places])
    assert directories == sorted(directories)
    assert directories[-1] < min(map(min, tiles))
    assert all(offsets == sorted(offsets) for offsets in tiles)
    assert [min(offsets) for offsets in tiles] == sorted((min(offsets) for offsets in tiles), reverse=True)


@pytest.mark.parametrize(
    ("dtype", "nodata", "low", "declared"),
    [("uint16", None, 1, 0), ("uint8", None, 0, None), ("uint16", None, 0, 65535), ("float32", None, 1, np.nan)],
)
def test_nodata_is_a_value_no_pixel_has(dtype: str, nodata: float | None, low: float, declared: float | None) -> None:
    """A value outside the valid range, NaN for float, and where none is free a mask: valid pixels are never lost."""
    raster = _raster(dtype, nodata=nodata, low=low)
    with MemoryFile(cog_bytes(raster, hidden="nodata")) as memory, memory.open() as file:
        assert file.nodata == declared or (np.isnan(declared) and np.isnan(file.nodata))
        assert ((file.dataset_mask() != 0) == raster.valid).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_lzw_baseline_is_a_file_anyone_can_write(dtype: str) -> None:
    """The figure is the size of a real GeoTIFF with the masked pixels at 0, and the smaller of its kind."""
    raster = _raster(dtype, size=300)
    files = [writer._lzw_bytes(raster, how) for how in ("band", "pixel")]
    assert lzw_size(raster) == min(len(f) for f in files)
    for data in files:
        with MemoryFile(data) as memory, memory.open() as file:
            assert file.profile["compress"] == "lzw"
            assert file.block_shapes[0] == (256, 256)
            assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == ("3" if dtype == "float32" else "2")
            assert file.dtypes[0] == dtype
            assert np.array_equal(file.read(), np.where(raster.valid, raster.pixels, 0))


def test_masked_pixels_count_for_nothing() -> None:
    """Whatever lies under the mask, both baselines are the same size; JPEG XL is that of its planes."""
    raster = _raster("uint16")
    noisy = raster.pixels.copy()
    noisy[:, ~raster.valid] = np.random.default_rng(9).integers(0, 65535, (2, int((~raster.valid).sum())))
    other = Raster(pixels=noisy, valid=raster.valid, bands=raster.bands, grid=raster.grid)
    assert lzw_size(other) == lzw_size(raster)
    assert jxl_size(other) == jxl_size(raster)
    planes = np.where(raster.valid, raster.pixels, 0).astype(np.uint16)
    assert jxl_size(raster) == sum(len(jpegxl_encode(p, lossless=True, effort=5, numthreads=1)) for p in planes)
    assert jxl_size(_raster("int16")) > 0
    assert jxl_size(_raster("float32")) > 0


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the flush finds no room the error says so, the old file stands, and no part is left behind."""
    path = tmp_path / "out.tif"
    write_cog(path, _raster("uint8"))
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="no room"):
        write_cog(path, _raster("uint16"))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out.tif"]


def test_bad_places_and_bad_bytes(tmp_path: Path) -> None:
    """A folder that is not there, and bytes that are no file or cut short, are errors of the caller's input."""
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_cog(tmp_path / "missing" / "out.tif", _raster("uint8"))
    for data in (b"", b"nothing", cog_bytes(_raster("uint16", size=300))[:5000]):
        with pytest.raises(BadScene):
            read_cog(data)
