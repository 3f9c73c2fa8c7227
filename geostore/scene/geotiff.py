"""Raster files as rasterio reads them: what they declare, and windows of their pixels."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from rasterio.env import hasenv
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from geostore.errors import BadScene
from geostore.raster import Grid, Mask, Pixels

BLOCK_CACHE_BYTES = 64 * 2**20  # decoded blocks GDAL may hold, all files together
HTTP_TIMEOUT_S, HTTP_TRIES = 30, 3  # of one request to a server that holds a scene
OPEN_FILES_MAX = 32  # files one scene keeps open
_OPENING = threading.Lock()  # Python's warning filters belong to all threads
SUFFIXES = (".tif", ".tiff", ".jp2", ".img", ".vrt", ".nc")
_VARIABLE = "netcdf:"  # how GDAL begins the name of one variable of a netCDF file


@dataclass(frozen=True, kw_only=True)
class RasterFile:
    """What one raster file declares.

    Attributes:
        href: path or URL; of one variable of a netCDF file "netcdf:PATH:VARIABLE".
        grid: its pixels on the ground.
        dtypes, descriptions, scales, offsets, nodata: one entry a band, in file order; a description may be "".
        masked: True if the file carries its own validity mask.
        tags: the file's metadata, names in upper case.
        band_tags: the same of each band.
        size_bytes: size on disk, -1 where unknown.
    """

    href: str
    grid: Grid
    dtypes: tuple[str, ...]
    descriptions: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    nodata: tuple[float | None, ...]
    masked: bool
    tags: dict[str, str]
    band_tags: tuple[dict[str, str], ...]
    size_bytes: int

    @property
    def name(self) -> str:
        """File name without its folder."""
        return self.href.rstrip("/").rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """File name without folder and suffix; of a variable its own name behind it."""
        name, _, variable = self.name.partition(":") if self.href.startswith(_VARIABLE) else (self.name, "", "")
        stem = name.rsplit(".", 1)[0] if "." in name else name
        return f"{stem}_{variable}" if variable else stem


def path_of(href: str) -> str:
    """The file that `href` names: of a variable the file it lies in."""
    return href[len(_VARIABLE) :].rpartition(":")[0] if href.startswith(_VARIABLE) else href


def environment() -> Any:
    """A context with a bounded block cache, and bounded patience with servers; one the thread is in already is kept.

    Entering GDAL takes longer than reading a small window, so whoever reads many enters once.
    """
    remote = {"GDAL_HTTP_TIMEOUT": HTTP_TIMEOUT_S, "GDAL_HTTP_MAX_RETRY": HTTP_TRIES - 1, "GDAL_HTTP_RETRY_DELAY": 1}
    return nullcontext() if hasenv() else rasterio.Env(GDAL_CACHEMAX=BLOCK_CACHE_BYTES, **remote)


@contextmanager
def reading(href: str) -> Iterator[None]:
    """Inside: an `environment`, and every fault of `href` raised as BadScene."""
    try:
        with environment():
            yield
    except (RasterioError, OSError) as error:
        exists = "://" in href or href.startswith("/vsi") or Path(path_of(href)).exists()
        why = f"cannot be read as a raster: {error}" if exists else "does not exist"
        raise BadScene(f"{href} {why}; give a whole GeoTIFF, COG or JPEG 2000 file") from error


def _declared(data: Any, href: str) -> RasterFile:
    return RasterFile(
        href=href,
        grid=_grid(data, href),
        dtypes=tuple(data.dtypes),
        descriptions=tuple(d or "" for d in data.descriptions),
        scales=tuple(data.scales),
        offsets=tuple(data.offsets),
        nodata=tuple(data.nodatavals),
        masked=any(rasterio.enums.MaskFlags.per_dataset in f for f in data.mask_flag_enums),
        tags=_upper(data.tags()),
        band_tags=tuple(_upper(data.tags(i)) for i in data.indexes),
        size_bytes=path.stat().st_size if (path := Path(path_of(href))).is_file() else -1,
    )


def _upper(tags: dict[str, Any]) -> dict[str, str]:
    return {k.upper(): str(v) for k, v in tags.items()}


def _opened(href: str) -> Any:
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # such a file is refused by name
        return rasterio.open(href)


@lru_cache(maxsize=256)
def crs_name(crs: Any) -> str:
    """A rasterio CRS as a Grid names it: "EPSG:32634" where an authority code exists, else WKT2."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt(version="WKT2_2019"))


def _grid(data: Any, href: str) -> Grid:
    if data.crs is None:
        raise BadScene(f"{href} has no CRS; set one with `gdal_edit.py -a_srs EPSG:... FILE`")
    if data.transform.is_identity:
        raise BadScene(
            f"{href} does not say where its pixels lie (no geotransform); set it with `gdal_edit.py -a_ullr`"
        )
    a, b, left, d, e, top = tuple(data.transform)[:6]
    if abs(b) > 1e-9 * abs(a) or abs(d) > 1e-9 * abs(e):
        raise BadScene(f"{href} has a rotated grid {tuple(data.transform)[:6]}; warp it north-up with `gdalwarp`")
    if not (a > 0 and e < 0):
        raise BadScene(f"{href} is not north-up (pixel size {a}, {e}); warp it with `gdalwarp`")
    return Grid(crs_name(data.crs), left, top, a, -e, data.height, data.width)


class Reader:
    """Windows of raster files, with a bounded number of files kept open; one thread reads at a time."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def inspect(self, href: str) -> RasterFile:
        """What the file at `href` declares; no pixel is read, and the file stays open for the reading.

        Raises:
            BadScene: it does not exist, is no raster, has no CRS, or its grid is rotated or not north-up.
        """
        with self._lock, reading(href):
            return _declared(self._dataset(href), href)

    def parts(self, href: str) -> list[str]:
        """The variables of a netCDF file that holds several; else `href` alone.

        Raises:
            BadScene: it does not exist, or is no raster.
        """
        with self._lock, reading(href):
            return list(self._dataset(href).subdatasets) or [href]

    def read(self, href: str, indexes: list[int], row: int, col: int, height: int, width: int) -> Pixels:
        """(len(indexes), height, width) pixels of the file's bands (1-based), its own dtype; all inside the file.

        Raises:
            BadScene: the file is truncated or damaged.
        """
        with self._lock, reading(href):
            window = Window(col, row, width, height)
            return np.asarray(self._dataset(href).read(indexes, window=window))

    def mask(self, href: str, row: int, col: int, height: int, width: int) -> Mask:
        """(height, width) bool, True where the file's own mask says the pixels hold data."""
        with self._lock, reading(href):
            window = Window(col, row, width, height)
            return np.asarray(self._dataset(href).read_masks(1, window=window)) > 0

    def _dataset(self, href: str) -> Any:
        if href not in self._open:
            if len(self._open) >= OPEN_FILES_MAX:
                self._open.popitem(last=False)[1].close()
            self._open[href] = _opened(href)
        self._open.move_to_end(href)
        return self._open[href]

    def close(self) -> None:
        """Close every file; a later read opens it again."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
