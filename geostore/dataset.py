"""Stored rasters as a lazy xarray Dataset: nothing is decoded until it is looked at."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyproj
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from geostore.errors import InvalidInput
from geostore.query.budget import Within, in_words
from geostore.query.facts import RasterInfo
from geostore.raster import Band, Grid, Raster

Fetch = Callable[[Sequence[RasterInfo]], list[Raster]]  # decodes the chosen bands, in order
CACHE_BYTES = 256 * 2**20
BATCH_BYTES = 32 * 2**20  # stored values asked for at once
_SURFACE = ("l2", "mod09", "myd09", "surface")
_TOP = ("l1", "toa")


def build(
    infos: Sequence[RasterInfo],
    fetch: Fetch,
    *,
    bands: Sequence[str] | None = None,
    product: str = "",
    within: Within | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> xr.Dataset:
    """A Dataset over rasters of one partition.

    Args:
        infos: at least one raster; all of one collection, geohash and group.
        fetch: decodes rasters, with the bands of this dataset in its order.
        bands: names or source names; all, if None.
        product: the collection's product family; tells surface from top-of-atmosphere reflectance.
        within: the error budget by which `infos` were chosen, for the attributes.
        cache_bytes: decoded rasters kept, oldest use dropped first.

    Returns:
        Dimensions time, y, x (y downwards). One float32 variable a band in physical units, NaN where a pixel may not
        be used; `valid` bool; coordinate `spatial_ref` with the CRS; along time the certificate (`mse`, `psnr_db`,
        `max_error`, `mae`, `p99`, `ndvi_mae`, ...) and `tier`, `layers`, `codec`, `generation`, `platform`, `scene`.

    Raises:
        InvalidInput: no raster, or rasters of several partitions.
    """
    infos = sorted(infos, key=lambda i: i.key)
    if len({i.key.partition for i in infos}) != 1:
        raise InvalidInput(f"a dataset is of one partition, not {len({i.key.partition for i in infos})}; choose one")
    names = infos[0].bands.names if bands is None else infos[0].bands.select(list(bands)).names
    loader = _Loader(infos, fetch, union([i.grid for i in infos]), cache_bytes)
    variables: dict[str, Any] = {
        name: _lazy(_Values(loader, position), *_describe(infos[0].bands.items[infos[0].bands.index(name)], product))
        for position, name in enumerate(names)
    }
    valid = {"long_name": "pixel may be used", "grid_mapping": "spatial_ref"}
    variables["valid"] = _lazy(_Valid(loader), valid, {})
    key = infos[0].key
    about = {
        "Conventions": "CF-1.11",
        "title": f"{key.collection} {key.geohash} {key.group}",
        "comment": "decoded from embeddings" if not all(i.exact for i in infos) else "decoded without loss",
        "geohash": key.geohash,
        "collection": key.collection,
        "band_group": key.group,
        "tiers": ", ".join(f"{tier} {count}" for tier, count in sorted(Counter(i.tier for i in infos).items())),
        **({"within": in_words(within)} if within else {}),
    }
    return xr.Dataset(variables, {**_space(loader.grid), **_times(infos)}, about)


def union(grids: Sequence[Grid]) -> Grid:
    """The smallest grid that holds all of them; they share one lattice."""
    first = grids[0]
    offsets = [first.offset_of(g) for g in grids]
    if any(o is None for o in offsets):
        raise InvalidInput("these rasters do not share one grid; decode their partitions one by one")
    rows, cols = [o[0] for o in offsets if o], [o[1] for o in offsets if o]
    bottom = max(r + g.height for r, g in zip(rows, grids, strict=True))
    right = max(c + g.width for c, g in zip(cols, grids, strict=True))
    return first.window(min(rows), min(cols), bottom - min(rows), right - min(cols))


class _Loader:
    """Decodes rasters in batches and keeps the last ones used."""

    def __init__(self, infos: Sequence[RasterInfo], fetch: Fetch, grid: Grid, cache_bytes: int) -> None:
        self.infos, self.grid = infos, grid
        self._fetch, self._cache_bytes = fetch, cache_bytes
        self._kept: OrderedDict[int, Raster] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._batch = max(1, BATCH_BYTES // max(i.bytes_decoded for i in infos))

    def rasters(self, positions: Sequence[int]) -> Iterator[tuple[Raster, tuple[slice, slice]]]:
        """Each raster with its rows and columns in `grid`."""
        for start in range(0, len(positions), self._batch):
            chosen = positions[start : start + self._batch]
            with self._lock:
                found = self._get(chosen)
            for raster in found:
                row, col = self.grid.offset_of(raster.grid) or (0, 0)
                yield raster, (slice(row, row + raster.grid.height), slice(col, col + raster.grid.width))

    def _get(self, positions: Sequence[int]) -> list[Raster]:
        missing = [i for i in dict.fromkeys(positions) if i not in self._kept]
        fresh = dict(zip(missing, self._fetch([self.infos[i] for i in missing]), strict=True)) if missing else {}
        found = [fresh[i] if i in fresh else self._kept[i] for i in positions]
        for i, raster in fresh.items():
            self._kept[i] = raster
            self._bytes += raster.pixels.nbytes + raster.valid.nbytes
        for i in positions:
            self._kept.move_to_end(i)
        while self._bytes > self._cache_bytes and self._kept:
            _, raster = self._kept.popitem(last=False)
            self._bytes -= raster.pixels.nbytes + raster.valid.nbytes
        return found


class _Lazy(BackendArray):
    """(time, y, x) values made from rasters when they are indexed."""

    dtype: np.dtype[Any]

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self.shape = (len(loader.infos), *loader.grid.shape)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        return found

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[Any]:
        times = np.arange(self.shape[0])[key[0]]
        planes = []
        for raster, (rows, cols) in self._loader.rasters(np.atleast_1d(times).tolist()):
            plane = self._empty(self.shape[1:])
            plane[rows, cols] = self._values(raster)
            planes.append(plane[key[1]][..., key[2]])
        if np.ndim(times) == 0:
            return np.asarray(planes[0])
        return np.stack(planes) if planes else np.asarray(self._empty(self.shape)[key[0]][:, key[1]][..., key[2]])

    def _empty(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        raise NotImplementedError

    def _values(self, raster: Raster) -> npt.NDArray[Any]:
        raise NotImplementedError


class _Values(_Lazy):
    """One band in physical units, NaN where it may not be used."""

    dtype = np.dtype("float32")

    def __init__(self, loader: _Loader, position: int) -> None:
        super().__init__(loader)
        self._position = position

    def _empty(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        return np.full(shape, np.nan, np.float32)

    def _values(self, raster: Raster) -> npt.NDArray[Any]:
        band = raster.bands.select([raster.bands.names[self._position]])
        plane = band.to_physical(raster.pixels[self._position : self._position + 1])[0]
        return np.where(raster.valid, plane, np.float32(np.nan))


class _Valid(_Lazy):
    """Which pixels may be used."""

    dtype = np.dtype("bool")

    def _empty(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        return np.zeros(shape, np.bool_)

    def _values(self, raster: Raster) -> npt.NDArray[Any]:
        return raster.valid


def _lazy(array: _Lazy, attrs: dict[str, Any], encoding: dict[str, Any]) -> xr.Variable:
    return xr.Variable(("time", "y", "x"), indexing.LazilyIndexedArray(array), attrs, encoding)


def _describe(band: Band, product: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """CF attributes of a band, and the encoding that writes it back as it was stored."""
    attrs: dict[str, Any] = {"units": "1", "long_name": f"{band.name} {band.kind}", "grid_mapping": "spatial_ref"}
    if band.source:
        attrs["source_band"] = band.source
    if band.wavelength_um is not None:
        attrs["radiation_wavelength"] = band.wavelength_um
        attrs["radiation_wavelength_unit"] = "um"
    if band.kind == "reflectance" and (name := _standard_name(product)):
        attrs["standard_name"] = name
    encoding: dict[str, Any] = {"_FillValue": np.float32(np.nan)}
    if band.nodata is not None and np.dtype(band.dtype).kind in "iu":
        fill = np.dtype(band.dtype).type(band.nodata)
        encoding = {
            "dtype": band.dtype,
            "scale_factor": band.scale,
            "add_offset": band.offset,
            "_FillValue": fill,
        }
    return attrs, encoding


def _standard_name(product: str) -> str:
    """The CF standard name of the product's reflectance, or "" where the product does not tell."""
    text = product.lower()
    if any(word in text for word in _SURFACE):
        return "surface_bidirectional_reflectance"
    return "toa_bidirectional_reflectance" if any(word in text for word in _TOP) else ""


def _space(grid: Grid) -> dict[str, Any]:
    """Coordinates x and y of pixel centres, and `spatial_ref`."""
    crs = pyproj.CRS.from_user_input(grid.crs)
    places = {axis["axis"].lower(): axis for axis in crs.cs_to_cf() if "axis" in axis}
    turn = " ".join(repr(v) for v in (grid.left, grid.xres, 0.0, grid.top, 0.0, -grid.yres))
    return {
        "x": ("x", grid.left + (np.arange(grid.width) + 0.5) * grid.xres, places.get("x", {"axis": "X"})),
        "y": ("y", grid.top - (np.arange(grid.height) + 0.5) * grid.yres, places.get("y", {"axis": "Y"})),
        "spatial_ref": ((), 0, {**crs.to_cf(), "crs_wkt": crs.to_wkt(), "GeoTransform": turn}),
    }


def _times(infos: Sequence[RasterInfo]) -> dict[str, Any]:
    """Coordinates along time: when, the certificate, and what was stored."""
    found: dict[str, Any] = {
        "time": np.array([i.key.time_us for i in infos], "datetime64[us]").astype("datetime64[ns]"),
        "mse": np.array([i.certificate.mse for i in infos]),
        "psnr_db": np.array([i.certificate.psnr_db for i in infos]),
        "max_error": np.array([i.certificate.max_error for i in infos]),
        **{name: _known(infos, name) for name in ("mae", "p99")},
        "generation": np.array([i.generation for i in infos], np.int32),
        "tier": np.array([i.tier for i in infos]),
        "layers": np.array([i.layers for i in infos]),
        "codec": np.array([i.codec for i in infos]),
        "platform": np.array([i.key.platform for i in infos]),
        "scene": np.array([i.scene for i in infos]),
    }
    for name in sorted({n for i in infos for n in i.certificate.indices}):
        for part in ("mae", "p99", "max"):
            errors = [i.certificate.indices.get(name) for i in infos]
            values = [0.0 if i.exact else np.nan for i in infos]
            found[f"{name.lower()}_{part}"] = np.array(
                [getattr(e, part) if e else v for e, v in zip(errors, values, strict=True)]
            )
    units = {"mse": "1", "psnr_db": "dB", "max_error": "1", "mae": "1", "p99": "1"}
    return {k: ("time", v, {"units": units[k]} if k in units else {}) for k, v in found.items()}


def _known(infos: Sequence[RasterInfo], name: str) -> npt.NDArray[np.float64]:
    """An error of each raster's certificate, NaN where it was not measured."""
    found = [0.0 if i.exact else getattr(i.certificate, name) for i in infos]
    return np.array([np.nan if error is None else error for error in found])
