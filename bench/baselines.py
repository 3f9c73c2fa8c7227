"""What users would pick instead: the same rasters as GeoTIFF, JPEG 2000, JPEG XL and LERC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.io import MemoryFile

from geostore.certificate import to_n1
from geostore.raster import Grid, Pixels, Raster
from geostore.scene.writer import lzw_size
from geostore.spectral import FLOOR, evaluate_index
from geostore.storage import pack_mask

ZSTD_LEVEL = 9
JXL_EFFORT = 7
_JXL_EFFORTS = (3, 7)  # noisy 16-bit planes are often smaller at 3
TILE = 256
_STEPS = 9  # of the search for a quality
Plane = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Errors:
    """Errors over all usable pixels of a set of rasters, pooled.

    Attributes:
        mse: on n1. max_error: physical units.
        ndvi_mae, ndvi_p99, ndvi_max: None where the bands have no NDVI.
    """

    mse: float
    max_error: float
    ndvi_mae: float | None
    ndvi_p99: float | None
    ndvi_max: float | None

    @property
    def psnr_db(self) -> float | None:
        """For a peak of 1; None where nothing is wrong."""
        return float(-10 * np.log10(self.mse)) if self.mse else None


class Pool:
    """Gathers the errors of rasters decoded one by one."""

    def __init__(self) -> None:
        self._squares, self._values, self._largest = 0.0, 0, 0.0
        self._ndvi: list[Floats] = []

    def add(self, original: Raster, decoded: Pixels) -> None:
        """Compare one raster's (B, H, W) stored values with what came back."""
        bands, valid = original.bands, original.valid
        if not valid.any():
            return
        truth, seen = bands.to_physical(original.pixels), bands.to_physical(decoded)
        difference = (to_n1(truth, bands) - to_n1(seen, bands))[:, valid].astype(np.float64)
        self._squares += float((difference**2).sum())
        self._values += difference.size
        self._largest = max(self._largest, float(np.abs(truth[:, valid] - seen[:, valid]).max()))
        if all(n in bands.names and bands.items[bands.index(n)].kind == "reflectance" for n in ("red", "nir")):
            needed = [bands.index("red"), bands.index("nir")]
            usable = valid & (truth[needed] >= FLOOR).any(axis=0)
            ndvi = evaluate_index("NDVI", truth, bands.names) - evaluate_index("NDVI", seen, bands.names)
            self._ndvi.append(np.abs(ndvi[usable]))

    def errors(self) -> Errors:
        """Of everything added."""
        mse = self._squares / self._values if self._values else 0.0
        if not self._ndvi or not sum(e.size for e in self._ndvi):
            return Errors(mse, self._largest, None, None, None)
        ndvi = np.concatenate(self._ndvi)
        return Errors(
            mse,
            self._largest,
            float(ndvi.mean(dtype=np.float64)),
            float(np.percentile(ndvi, 99)),
            float(ndvi.max()),
        )


def visible(raster: Raster) -> Pixels:
    """(B, H, W) stored values with every pixel that is not usable set to 0."""
    return np.where(raster.valid, raster.pixels, np.zeros((), raster.pixels.dtype))


# --- lossless ------------------------------------------------------------------------------------------------------


def tif_bytes(pixels: Pixels, grid: Grid, **options: Any) -> bytes:
    """(B, H, W) as a tiled GeoTIFF with predictor 2."""
    with rasterio.Env(GDAL_NUM_THREADS=1), MemoryFile() as memory:
        with memory.open(**profile(pixels, grid, **options)) as file:
            file.write(pixels)
        return bytes(memory.getbuffer())


def profile(pixels: Pixels, grid: Grid, **options: Any) -> dict[str, Any]:
    """What rasterio needs to write `pixels`; a raster smaller than a tile gets a tile of its size."""
    count, height, width = pixels.shape
    where = {"crs": rasterio.crs.CRS.from_user_input(grid.crs), "transform": rasterio.Affine(*grid.transform)}
    shape = {"count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    tiles = {"tiled": True, "blockxsize": _tile_side(width), "blockysize": _tile_side(height)}
    return {"driver": "GTiff", "predictor": 2, "interleave": "band", **shape, **where, **tiles, **options}


def _tile_side(size: int) -> int:
    return min(TILE, -(-size // 16) * 16)


def zstd_size(raster: Raster) -> int:
    """ZSTD GeoTIFF, predictor 2."""
    return len(tif_bytes(visible(raster), raster.grid, compress="zstd", zstd_level=ZSTD_LEVEL))


def jpeg2000_size(raster: Raster) -> int:
    """JPEG 2000, reversible 5/3, band by band."""
    return sum(len(jpeg2000_lossless(plane)) for plane in visible(raster))


def jpeg2000_lossless(plane: Plane) -> bytes:
    """One plane as JPEG 2000, reversible 5/3."""
    return bytes(imagecodecs.jpeg2k_encode(plane, level=0, reversible=True, numthreads=1, resolutions=_levels(plane)))


def jpegxl_size(raster: Raster) -> int:
    """JPEG XL lossless, band by band, each at the effort that makes it smallest."""
    planes = visible(raster)
    return sum(min(len(_jpegxl_lossless(p, effort)) for effort in _JXL_EFFORTS) for p in planes)


def _jpegxl_lossless(plane: Plane, effort: int) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(plane, lossless=True, effort=effort, numthreads=1))


LOSSLESS: dict[str, Callable[[Raster], int]] = {
    "LZW GeoTIFF, predictor 2": lzw_size,
    f"ZSTD {ZSTD_LEVEL} GeoTIFF, predictor 2": zstd_size,
    "JPEG 2000 lossless 5/3": jpeg2000_size,
    "JPEG XL lossless, better of efforts 3 and 7": jpegxl_size,
}


def _levels(plane: Plane) -> int:
    """Wavelet levels that a plane of this size has room for."""
    return max(1, min(6, int(np.log2(max(min(plane.shape), 2)))))


# --- lossy, at a given error ---------------------------------------------------------------------------------------

Lossy = Callable[[Plane, float], tuple[int, Plane]]  # (plane, quality) -> (bytes, decoded)


@dataclass(frozen=True)
class Spent:
    """What a codec needs for a set of rasters at one quality: bytes with masks, and the errors."""

    quality: float
    nbytes: int
    errors: Errors


def stretched(plane: Plane) -> tuple[Plane, int, int]:
    """The plane over the whole range of its dtype, its lowest value and its step: perceptual codecs expect that."""
    low, high = int(plane.min()), int(plane.max())
    step = max(1, int(np.iinfo(plane.dtype).max) // max(1, high - low))
    return ((plane - low) * step).astype(plane.dtype), low, step


def restored(plane: Plane, low: int, step: int, dtype: np.dtype[Any]) -> Plane:
    """The inverse of `stretched`."""
    return np.asarray(np.clip(np.rint(plane / step) + low, 0, np.iinfo(dtype).max), dtype)


def jpegxl_lossy(plane: Plane, quality: float) -> tuple[int, Plane]:
    """JPEG XL at a distance of 1 / quality."""
    wide, low, step = stretched(plane)
    distance = float(np.clip(1 / quality, 0.01, 25))
    data = imagecodecs.jpegxl_encode(wide, distance=distance, effort=JXL_EFFORT, numthreads=1)
    return len(data), restored(imagecodecs.jpegxl_decode(data, numthreads=1), low, step, plane.dtype)


def jpeg2000_lossy(plane: Plane, quality: float) -> tuple[int, Plane]:
    """JPEG 2000, irreversible 9/7, at a root mean square error of 1 / quality, stored units."""
    wide, low, step = stretched(plane)
    level = 20 * np.log10(float(np.iinfo(plane.dtype).max) * quality / step)
    options: dict[str, Any] = {"level": float(np.clip(level, 1, 200)), "reversible": False, "numthreads": 1}
    data = imagecodecs.jpeg2k_encode(wide, resolutions=_levels(plane), **options)
    return len(data), restored(imagecodecs.jpeg2k_decode(data, numthreads=1), low, step, plane.dtype)


def lerc(plane: Plane, quality: float) -> tuple[int, Plane]:
    """LERC with zstd, at a largest error of 1 / quality, stored units."""
    data = imagecodecs.lerc_encode(plane, level=1 / quality, compression="zstd")
    return len(data), np.asarray(imagecodecs.lerc_decode(data)).astype(plane.dtype)


LOSSY: dict[str, tuple[Lossy, float, float]] = {  # encoder, worst and best quality
    "JPEG 2000 9/7": (jpeg2000_lossy, 1e-3, 4.0),
    f"JPEG XL lossy, effort {JXL_EFFORT}": (jpegxl_lossy, 0.04, 100.0),
    "LERC zstd": (lerc, 2e-4, 2.0),
}


def spend(rasters: Sequence[Raster], codec: Lossy, quality: float) -> Spent:
    """Encode and decode every usable raster at `quality`.

    Unlike the lossless codecs, these get masked pixels filled with the plane's mean, which is kinder to them than a
    hole of zeros, and pay for the mask by the bytes it takes in the store.
    """
    pool, total = Pool(), 0
    for raster in rasters:
        if not raster.valid.any():
            continue
        decoded = np.empty_like(raster.pixels)
        for i, plane in enumerate(raster.pixels):
            mean = plane[raster.valid].mean().astype(plane.dtype)
            size, decoded[i] = codec(np.ascontiguousarray(np.where(raster.valid, plane, mean)), quality)
            total += size
        total += len(pack_mask(raster.valid))
        pool.add(raster, decoded)
    return Spent(quality, total, pool.errors())


def at_error(
    rasters: Sequence[Raster], name: str, target: float, of: Callable[[Errors], float], *, steps: int = _STEPS
) -> Spent:
    """The coarsest quality of codec `name` at which `of(errors)` does not exceed `target`, found by bisection."""
    codec, low, high = LOSSY[name]
    attempt = partial(spend, rasters, codec)
    best = attempt(high)
    for _ in range(steps):
        middle = float(np.sqrt(low * high))
        tried = attempt(middle)
        if of(tried.errors) <= target:
            best, high = tried, middle
        else:
            low = middle
    return best


# --- files to read back ----------------------------------------------------------------------------------------------


def write_tif(path: Path, raster: Raster) -> None:
    """The raster as an LZW GeoTIFF file, predictor 2."""
    path.write_bytes(tif_bytes(visible(raster), raster.grid, compress="lzw"))


def read_tif(path: Path) -> Pixels:
    """(B, H, W) of a GeoTIFF file."""
    with rasterio.open(path) as file:
        pixels: Pixels = file.read()
    return pixels


def write_jpeg2000(path: Path, raster: Raster) -> None:
    """The raster's planes as lossless JPEG 2000, one file a band: `path` with .0.j2k, .1.j2k ..."""
    for i, plane in enumerate(visible(raster)):
        path.with_suffix(f".{i}.j2k").write_bytes(jpeg2000_lossless(plane))


def read_jpeg2000(path: Path, count: int) -> list[Plane]:
    """The `count` planes that `write_jpeg2000` wrote."""
    files = [path.with_suffix(f".{i}.j2k") for i in range(count)]
    return [imagecodecs.jpeg2k_decode(file.read_bytes(), numthreads=1) for file in files]
