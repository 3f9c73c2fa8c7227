"""Rasters as GeoTIFF bytes: COGs to hand out and keep, and the plain files that ratios are measured against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from rasterio.io import MemoryFile
from rasterio.shutil import copy as copy_dataset

from geostore import durable
from geostore.errors import BadScene, InvalidInput
from geostore.raster import Band, Bands, Grid, Pixels, Raster

Hidden = Literal["nodata", "keep"]
Interleaving = Literal["band", "pixel"]

TILE = 256  # pixels
_TILE_MULTIPLE = 16  # what TIFF asks of a tile's side
_ZSTD_LEVEL = 9
_JXL_EFFORT = 5
_CRS_TAG = "GEOSTORE_CRS"  # the CRS as the store spells it; GeoTIFF rewrites WKT


def cog_bytes(raster: Raster, tags: Mapping[str, str] | None = None, *, hidden: Hidden = "keep") -> bytes:
    """The raster as a cloud-optimised GeoTIFF: lossless, ZSTD with predictor, overviews.

    Bands carry their name as description, their scale and offset, and the spectral names of the collection.

    Args:
        raster: what to write; pixels keep their stored values.
        tags: where it comes from (collection, time, certificate ...), written as GeoTIFF metadata.
        hidden: what a pixel that is not valid holds. "nodata": the bands' nodata value, which the file declares;
            where the bands leave no value free for that, 0 under a mask. "keep": its own value, under a mask, so
            that `read_cog` gives the pixels back bit for bit: what a kept original is.

    Returns:
        The file's bytes; the same for the same raster and tags.
    """
    pixels, nodata = raster.pixels, _free_value(raster.bands) if hidden == "nodata" else None
    if hidden == "nodata":
        pixels = np.where(raster.valid, pixels, np.asarray(0 if nodata is None else nodata, pixels.dtype))
    options = {"driver": "GTiff", "tiled": True, "blockxsize": TILE, "blockysize": TILE, "BIGTIFF": "IF_SAFER"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_NUM_THREADS=1), MemoryFile() as plain, MemoryFile() as cog:
        with plain.open(**options, **_profile(raster, nodata)) as file:
            file.write(pixels)
            _describe(file, raster.bands, {_CRS_TAG: raster.grid.crs, **(tags or {})})
            if nodata is None:
                file.write_mask(raster.valid)
        with plain.open() as file:
            copy_dataset(file, cog.name, driver="COG", **_cog_options(raster.bands))
        return bytes(cog.getbuffer())


def write_cog(
    path: str | PathLike[str],
    raster: Raster,
    tags: Mapping[str, str] | None = None,
    *,
    hidden: Hidden = "nodata",
) -> int:
    """Write `cog_bytes` to a file to hand out, which appears whole or not at all; its size in bytes.

    Raises:
        StorageFull: the disk is full; an older file of that name is untouched.
        InvalidInput: the folder does not exist or may not be written to.
    """
    data = cog_bytes(raster, tags, hidden=hidden)
    write_whole(Path(path), data)
    return len(data)


def write_whole(path: Path, data: bytes) -> None:
    """Put `data` at `path`, whole and flushed, or leave what is there.

    Raises:
        StorageFull: the disk is full; an older file of that name is untouched.
        InvalidInput: the folder does not exist or may not be written to.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; name a file in it")
    try:
        durable.write_whole(path, lambda stream: stream.write(data))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}; choose another place") from error


def read_cog(data: bytes) -> tuple[Pixels, Grid]:
    """(bands, height, width) stored values and their grid, as `cog_bytes` wrote them.

    Raises:
        BadScene: the bytes are no GeoTIFF, or are cut short.
    """
    if not data:
        raise BadScene("0 bytes do not read as a GeoTIFF; restore the file")
    try:
        with MemoryFile(data) as memory, memory.open() as file:
            return file.read(), _grid_of(file)
    except rasterio.errors.RasterioError as error:
        raise BadScene(f"{len(data)} bytes do not read as a GeoTIFF: {error}; restore the file") from error


def lzw_size(raster: Raster, interleavings: Sequence[Interleaving] = ("band", "pixel")) -> int:
    """Bytes of the raster as a plain GeoTIFF: LZW, predictor 2 (3 for float), 256 pixel tiles, its own dtype.

    The baseline of every ratio, made so that nothing inflates it: pixels that are not valid are 0, a raster smaller
    than a tile gets a tile of its size, and of the `interleavings` tried the smaller file counts.
    """
    return min(len(_lzw_bytes(raster, interleave)) for interleave in interleavings)


def lzw_size_near(raster: Raster) -> int:
    """`lzw_size(raster, ("band",))` without making the file: what `put` can wait for.

    Every tile is compressed; the rest of the file is measured once on one of the same make-up. A quarter of the time
    for small rasters, where GDAL's own work counts. On satellite scenes it is a byte or two a tile off; on planes that
    compress tenfold, where coders differ in when they forget what they have seen, 2 % at most.
    """
    from imagecodecs import delta_encode, lzw_encode

    pixels = _visible(raster)
    if pixels.dtype.kind == "f":
        return lzw_size(raster, ("band",))
    count, height, width = pixels.shape
    side = _tile_side(height), _tile_side(width)
    rows, cols = -(-height // side[0]), -(-width // side[1])
    padded = np.zeros((count, rows * side[0], cols * side[1]), pixels.dtype)
    padded[:, :height, :width] = pixels
    tiles = padded.reshape(count * rows, side[0], cols, side[1]).swapaxes(1, 2).reshape(-1, *side)
    sizes = (len(lzw_encode(tile.tobytes())) for tile in delta_encode(np.ascontiguousarray(tiles), axis=-1))
    return _lzw_rest(raster.grid.crs, pixels.dtype.name, count, rows, cols, side) + sum(sizes)


@lru_cache(maxsize=1024)
def _lzw_rest(crs: str, dtype: str, count: int, rows: int, cols: int, side: tuple[int, int]) -> int:
    """Bytes of an LZW GeoTIFF of so many tiles besides the tiles."""
    from imagecodecs import lzw_encode

    height, width = rows * side[0], cols * side[1]
    bands = Bands(tuple(Band(f"b{i}", f"b{i}", 10.0, dtype=dtype) for i in range(count)))
    pixels, valid = np.zeros((count, height, width), dtype), np.ones((height, width), np.bool_)
    empty = Raster(pixels=pixels, valid=valid, bands=bands, grid=Grid(crs, 0.0, 0.0, 10.0, 10.0, height, width))
    return len(_lzw_bytes(empty, "band")) - count * rows * cols * len(lzw_encode(np.zeros(side, dtype).tobytes()))


def _lzw_bytes(raster: Raster, interleave: Interleaving) -> bytes:
    options = {
        "driver": "GTiff",
        "compress": "lzw",
        "predictor": _predictor(raster.pixels),
        "tiled": True,
        "blockxsize": _tile_side(raster.grid.width),
        "blockysize": _tile_side(raster.grid.height),
        "interleave": interleave,
    }
    with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile() as memory:
        with memory.open(**options, **_profile(raster, None)) as file:
            file.write(_visible(raster))
        return bytes(memory.getbuffer())


def jxl_size(raster: Raster) -> int:
    """Bytes of the raster as lossless JPEG XL, band by band; pixels that are not valid are 0."""
    from imagecodecs import jpegxl_encode

    planes = [_unsigned(plane) for plane in _visible(raster)]
    return sum(len(jpegxl_encode(p, lossless=True, effort=_JXL_EFFORT, numthreads=1)) for p in planes)


def _unsigned(plane: Pixels) -> Pixels:
    """Signed integers shifted to unsigned, which JPEG XL takes; other values as they are."""
    if plane.dtype.kind != "i":
        return np.ascontiguousarray(plane)
    bias = 1 << (8 * plane.dtype.itemsize - 1)
    return (plane.astype(np.int32) + bias).astype(f"u{plane.dtype.itemsize}")


def _visible(raster: Raster) -> Pixels:
    return np.where(raster.valid, raster.pixels, np.zeros((), raster.pixels.dtype))


def _tile_side(size: int) -> int:
    return min(TILE, -(-size // _TILE_MULTIPLE) * _TILE_MULTIPLE)


def _predictor(pixels: Pixels) -> int:
    return 3 if pixels.dtype.kind == "f" else 2


def _profile(raster: Raster, nodata: float | None) -> dict[str, Any]:
    grid = raster.grid
    return {
        "height": grid.height,
        "width": grid.width,
        "count": len(raster.bands),
        "dtype": raster.pixels.dtype.name,
        "crs": rasterio.crs.CRS.from_user_input(grid.crs),
        "transform": rasterio.Affine(*grid.transform),
        "nodata": nodata,
    }


def _cog_options(bands: Bands) -> dict[str, str]:
    categories = any(b.kind == "category" for b in bands)
    return {
        "COMPRESS": "ZSTD",
        "LEVEL": str(_ZSTD_LEVEL),
        "PREDICTOR": "YES",
        "BLOCKSIZE": str(TILE),
        "OVERVIEW_RESAMPLING": "NEAREST" if categories else "AVERAGE",
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": "1",
    }


def _describe(file: Any, bands: Bands, tags: Mapping[str, str]) -> None:
    file.descriptions = bands.names
    file.scales = tuple(b.scale for b in bands)
    file.offsets = tuple(b.offset for b in bands)
    file.update_tags(**{k: str(v) for k, v in sorted(tags.items())})
    for i, band in enumerate(bands, start=1):
        facts = {"source": band.source, "gsd_m": f"{band.gsd_m:g}", "kind": band.kind}
        if band.wavelength_um is not None:
            facts["wavelength_um"] = f"{band.wavelength_um:g}"
        file.update_tags(i, **facts)


def _free_value(bands: Bands) -> float | None:
    """A stored value that no valid pixel has: what all bands declare, else NaN, else one outside every range."""
    declared = {b.nodata for b in bands}
    if len(declared) == 1 and None not in declared:
        return declared.pop()
    if bands.dtype.kind == "f":
        return float("nan")
    info = np.iinfo(bands.dtype)
    if all(b.valid_min > info.min for b in bands):
        return float(info.min)
    return float(info.max) if all(b.valid_max < info.max for b in bands) else None


def _grid_of(file: Any) -> Grid:
    t = file.transform
    crs = file.tags().get(_CRS_TAG) or file.crs.to_string()
    return Grid(crs, t.c, t.f, t.a, -t.e, file.height, file.width)
