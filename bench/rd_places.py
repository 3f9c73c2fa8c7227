"""The series of places that the rate-distortion bench measures, real where they are here, and synthetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench.datasets import DATA
from geostore.codec import Series
from geostore.raster import Band, Bands, Grid, Mask
from geostore.scene.synthetic import GRID, Synthetic
from geostore.spectral import spectral_index

Table = Literal["reflectance", "other"]
HELD_OUT = 4  # every so-manieth date is unseen
CLEAR_CLASSES = (2, 4, 5, 6, 7)  # of Sentinel-2's scene classification: dark, vegetation, soil, water, unclassified
CLEAR_SHARE = 0.85
_DAY_US = 86_400_000_000
_FIRST_US = 1_438_387_200_000_000  # 2015-08-01, for series whose dates do not matter


@dataclass(frozen=True)
class Place:
    """One place as one partition.

    Attributes:
        name: its name in results.
        title: what it is, in words; says "synthetic" where it is.
        series: all its dates.
        table: "reflectance" is compared by MSE on n1; "other" (8-bit stretches, index series) by PSNR over the
            1-99 % range of its values.
        synthetic: True where no sensor saw it.
    """

    name: str
    title: str
    series: Series
    table: Table
    synthetic: bool = False

    @cached_property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """(T,) True for the dates that no fit sees: every fourth."""
        return np.arange(len(self.series)) % HELD_OUT == HELD_OUT - 1

    @cached_property
    def spread(self) -> float:
        """1-99 % range of the valid values, stored units: the peak of the PSNR of the other table."""
        valid = np.broadcast_to(self.series.valid[:, None], self.series.pixels.shape)
        low, high = np.percentile(self.series.pixels[valid], (1, 99))
        return float(max(high - low, 1))

    @property
    def n1_span(self) -> float:
        """Stored units that make 1 on n1."""
        band = self.series.bands.items[0]
        return 1 / band.scale if band.kind == "reflectance" else band.valid_max - band.valid_min

    def psnr_of(self, mse: float) -> float:
        """The inverse of `mse_at`, decibels."""
        return float(-10 * np.log10(mse * (self.n1_span / self.spread) ** 2))

    def mse_at(self, psnr_db: float) -> float:
        """MSE on n1 at a PSNR over the 1-99 % range, decibels."""
        return float(10 ** (-psnr_db / 10) * (self.spread / self.n1_span) ** 2)


def part(series: Series, dates: npt.NDArray[np.bool_]) -> Series:
    """Only the dates where (T,) `dates` is True."""
    return replace(series, pixels=series.pixels[dates], valid=series.valid[dates], times_us=series.times_us[dates])


FRESH = (
    "synthetic-soft-new",
    "synthetic-fields-new",
)  # that no decision was or may be taken on; see `bench.rate_distortion_fresh`


def load(name: str) -> Place | None:
    """The place `name`; None where its data are not on this machine."""
    title, make, table = _PLACES[name]
    series = make()
    if series is None:
        return None
    return Place(name, title, series, table, synthetic=title.startswith("synthetic"))


def names(*, quick: bool) -> list[str]:
    """Names of the places to measure; only a small synthetic one when `quick`."""
    return ["synthetic-small"] if quick else [n for n in _PLACES if n not in ("synthetic-small", *FRESH)]


def _series(
    pixels: npt.NDArray[np.generic], bands: Bands, valid: Mask | None = None, times_us: list[int] | None = None
) -> Series:
    count, _, height, width = pixels.shape
    times = times_us or [_FIRST_US + t * 16 * _DAY_US for t in range(count)]
    has_ndvi = set(spectral_index("NDVI").bands) <= set(bands.names) and bands.items[0].kind == "reflectance"
    return Series(
        pixels=np.ascontiguousarray(pixels),
        valid=np.ones((count, height, width), bool) if valid is None else valid,
        times_us=np.array(times, np.int64),
        bands=bands,
        indices=("NDVI",) if has_ndvi else (),
    )


def _romania(folder: str, bands: tuple[tuple[str, str], ...], side: int) -> Series | None:
    """Dates more than 85 % clear by scene class at 10 m, upper left `side` x `side` pixels, every pixel usable."""
    import rasterio

    files = sorted((DATA / "s2_l2a_romania_timeseries" / folder).glob("*.tif"))
    if not files:
        return None
    clear, pixels = [], []
    for path in files:
        with rasterio.open(DATA / "s2_l2a_romania_timeseries/10m" / path.name.replace(folder, "10m")) as file:
            clear.append(np.isin(file.read(5), CLEAR_CLASSES).mean() > CLEAR_SHARE)
        with rasterio.open(path) as file:
            pixels.append(file.read(range(1, len(bands) + 1))[:, :side, :side])
    gsd = float(folder.removesuffix("m"))
    kinds = tuple(Band(name, source, gsd, scale=1e-4) for name, source in bands)
    return _series(np.stack(pixels)[np.array(clear)], Bands(kinds))


def _romania_10m() -> Series | None:
    return _romania("10m", (("blue", "B02"), ("green", "B03"), ("red", "B04"), ("nir", "B08")), 96)


def _romania_20m() -> Series | None:
    return _romania("20m", (("green", "B03"), ("red", "B04"), ("nir08", "B8A"), ("swir16", "B11")), 48)


def _stretched(names: tuple[str, ...], gsd_m: float) -> Bands:
    return Bands(tuple(Band(n, n, gsd_m, dtype="uint8", scale=1 / 255, valid_max=255, kind="counts") for n in names))


def _stack(folder: str, rows: slice, columns: slice) -> npt.NDArray[np.generic] | None:
    import rasterio

    stack = []
    for path in sorted((DATA / folder).glob("*.tif")):
        with rasterio.open(path) as file:
            stack.append(file.read()[:, rows, columns])
    return np.stack(stack) if stack else None


def _naip() -> Series | None:
    pixels = _stack("naip_north_dakota_timeseries", slice(200, 456), slice(300, 556))
    return None if pixels is None else _series(pixels, _stretched(("red", "green", "blue", "nir"), 5.0))


def _peru(row: int, column: int) -> Series | None:
    pixels = _stack("landsat_peru_timeseries", slice(row, row + 96), slice(column, column + 96))
    return None if pixels is None else _series(pixels, _stretched(("swir16", "nir", "red", "green"), 90.0))


def _modis() -> Series | None:
    import rasterio

    path = DATA / "modis_mato_grosso_timeseries" / "MOD13Q1_sinop_ndvi_2000-2017_392dates.tif"
    if not path.exists():
        return None
    with rasterio.open(path) as file:
        pixels = file.read()[:, None]
    band = Band(
        "ndvi", "NDVI", 231.7, dtype="int16", scale=1e-4, valid_min=-2000, valid_max=10000, nodata=-3000, kind="index"
    )
    return _series(np.where(pixels == -3000, 0, pixels), Bands((band,)), pixels[:, 0] != -3000)


def _synthetic(side: int, dates: int, layout: Literal["soft", "fields"], seed: int = 0) -> Series:
    """Clear reflectance under masked clouds; dates without any usable pixel are left out, as ingest does."""
    grid = Grid(GRID.crs, GRID.left, GRID.top, GRID.xres, GRID.yres, side, side)
    made = Synthetic(seed=seed, grid=grid, dates=dates, layout=layout, cloud_share=0.15)
    seen = [d for d in made.series() if d.raster.valid.any()]
    pixels, valid = np.stack([d.raster.pixels for d in seen]), np.stack([d.raster.valid for d in seen])
    return _series(pixels, made.bands, valid, [d.time_us for d in seen])


_PLACES: dict[str, tuple[str, Callable[[], Series | None], Table]] = {
    "romania": ("Sentinel-2 L2A, Romania, forest: 71 dates, 4 bands, 96 px at 10 m", _romania_10m, "reflectance"),
    "romania-20m": (
        "Sentinel-2 L2A, the same place and dates: green, red, nir08, swir16, 48 px at 20 m",
        _romania_20m,
        "reflectance",
    ),
    "synthetic-soft": (
        "synthetic soft patches: 48 dates, 4 bands, 128 px, clouds masked",
        lambda: _synthetic(128, 48, "soft"),
        "reflectance",
    ),
    "synthetic-fields": (
        "synthetic fields, roads, town: 32 dates, 4 bands, 256 px, clouds masked",
        lambda: _synthetic(256, 32, "fields", 1),
        "reflectance",
    ),
    "naip": ("NAIP, North Dakota, 8-bit: 10 dates, 4 bands, 256 px at 5 m", _naip, "other"),
    "peru-a": ("Landsat, Pucallpa, 8-bit: 8 dates, 4 bands, 96 px at 90 m", lambda: _peru(40, 100), "other"),
    "peru-b": ("Landsat, Pucallpa, 8-bit: 8 dates, 4 bands, 96 px at 90 m", lambda: _peru(140, 300), "other"),
    "peru-c": ("Landsat, Pucallpa, 8-bit: 8 dates, 4 bands, 96 px at 90 m", lambda: _peru(240, 520), "other"),
    "modis": ("MOD13Q1 NDVI, Sinop: 392 dates, 1 band, 40 px at 232 m", _modis, "other"),
    "synthetic-soft-new": (
        "synthetic soft patches of another seed: 48 dates, 4 bands, 128 px, clouds masked",
        lambda: _synthetic(128, 48, "soft", 101),
        "reflectance",
    ),
    "synthetic-fields-new": (
        "synthetic fields, roads, town of another seed: 32 dates, 4 bands, 128 px, clouds masked",
        lambda: _synthetic(128, 32, "fields", 102),
        "reflectance",
    ),
    "synthetic-small": (
        "synthetic soft patches: 5 dates, 4 bands, 48 px, clouds masked",
        lambda: _synthetic(48, 5, "soft"),
        "reflectance",
    ),
}
