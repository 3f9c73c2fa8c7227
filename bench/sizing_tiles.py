"""Small partitions of every real place at hand, and what each takes at an error, for the sizing bench."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bench.datasets import DATA
from bench.rd_places import load
from geostore.certificate import measure
from geostore.classical.av1 import CRF_MAX, CRF_MIN
from geostore.classical.codec import KltAv1Codec
from geostore.classical.fit import Scale, make_codec
from geostore.classical.quality import CRF
from geostore.codec import Series
from geostore.collection import Policy
from geostore.raster import Band, Bands

_TRIES = 6
_BEND = 30  # of klt-av1's scale for an index, in 1/1000 of reflectance
_SENTINEL = (("blue", "B02"), ("green", "B03"), ("red", "B04"), ("nir", "B08"))
_SCENES = {  # folder, scale
    "virginia": ("s2_l1c_virginia_scene", 1e-4),
    "laos": ("s2_l2a_laos_scene", 1e-4),
}


@dataclass(frozen=True)
class Target:
    """An error asked for: mean squared on n1, or mean absolute of NDVI."""

    name: str
    mse: float | None = None
    ndvi: float | None = None

    @property
    def policy(self) -> Policy:
        """It as a policy."""
        return Policy(mse_max=self.mse, index_mae_max=self.ndvi)


@dataclass(frozen=True)
class Tile:
    """One small partition; tiles of one ground, whatever the sensor, have the same `place`."""

    place: str
    name: str
    series: Series


@dataclass(frozen=True)
class Need:
    """What a tile takes at a target: bits a value, and klt-av1's quality for it."""

    bits: float
    crf: float


def tiles(*, quick: bool) -> Iterator[Tile]:
    """All tiles; of a small synthetic series when `quick`."""
    if quick:
        for name in ("a", "b", "c"):
            found = load("synthetic-small")
            assert found is not None
            yield from _cut(name, found.series, 24, 1, 3)
        return
    for place, series, side, runs, count in (
        ("romania", "romania", 48, 3, 12),
        ("romania", "romania-20m", 24, 3, 12),
        ("naip", "naip", 64, 1, 16),
        ("peru", "peru-a", 48, 1, 4),
        ("peru", "peru-b", 48, 1, 4),
        ("peru", "peru-c", 48, 1, 4),
        ("modis", "modis", 40, 8, 8),
    ):
        found = load(series)
        if found is not None:
            yield from _cut(place, found.series, side, runs, count)
    for place, (folder, scale) in _SCENES.items():
        scene = _scene(folder, scale)
        if scene is not None:
            yield from _cut(place, scene, 128, 1, 16)
    wales = _wales()
    if wales is not None:
        yield from _cut("wales", wales, 128, 1, 16)


def _cut(place: str, series: Series, side: int, runs: int, most: int) -> Iterator[Tile]:
    """At most `most` windows of `side` pixels, evenly chosen, by as many runs of dates."""
    height, width = series.pixels.shape[2:]
    corners = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    parts = np.array_split(np.arange(len(series)), runs)
    chosen = [(run, y, x) for run in parts for y, x in corners]
    for i in np.unique(np.linspace(0, len(chosen) - 1, min(most, len(chosen))).round().astype(int)):
        run, y, x = chosen[i]
        window = (slice(y, y + side), slice(x, x + side))
        cut = replace(
            series,
            pixels=np.ascontiguousarray(series.pixels[(run, slice(None), *window)]),
            valid=series.valid[(run, *window)],
            times_us=series.times_us[run],
        )
        if cut.valid.any():
            yield Tile(place, f"{place}-{i}", cut)


def _series(pixels: npt.NDArray[np.generic], bands: Bands) -> Series:
    ones = np.ones((1, *pixels.shape[1:]), bool)
    return Series(pixels=pixels[None], valid=ones, times_us=np.zeros(1, np.int64), bands=bands, indices=("NDVI",))


def _scene(folder: str, scale: float) -> Series | None:
    import rasterio

    planes = []
    for _, source in _SENTINEL:
        for path in sorted((DATA / folder).glob(f"*_{source}.tif")):
            with rasterio.open(path) as file:
                planes.append(file.read(1))
    if len(planes) != len(_SENTINEL):
        return None
    bands = Bands(tuple(Band(name, source, 10.0, scale=scale) for name, source in _SENTINEL))
    return _series(np.stack(planes).astype(np.uint16), bands)


def _wales() -> Series | None:
    import rasterio

    path = DATA / "s2_wales_landcover" / "S2_aberystwyth_20210527.tif"
    if not path.exists():
        return None
    with rasterio.open(path) as file:
        pixels = file.read((1, 2, 3, 7))
    bands = Bands(tuple(Band(name, source, 10.0, scale=1e-3) for name, source in _SENTINEL))
    return _series(pixels.astype(np.uint16), bands)


def coder(tile: Tile, target: Target) -> KltAv1Codec:
    """The classical codec of a tile, all dates in one group, on the scale that suits the target."""
    return make_codec(tile.series, target.policy, Scale(0 if target.ndvi is None else _BEND, 1))


def missed(codec: KltAv1Codec, tile: Tile, target: Target, crf: float) -> tuple[float, float]:
    """(log of pooled error over target, bits a value) at a quality."""
    series = tile.series
    dates = np.flatnonzero(series.valid.any(axis=(1, 2)))
    stream, seen = codec.code(codec.planes(series)[dates], crf)
    errors = []
    for t, parts in zip(dates.tolist(), seen, strict=True):
        found = measure(series.pixels[t], codec.klt.inverse(parts), series.valid[t], series.bands, series.indices)
        errors.append(found.mse if target.ndvi is None else found.indices["NDVI"].mae)
    values = float(series.valid.sum()) * len(series.bands)
    return math.log(max(float(np.mean(errors)), 1e-12) / (target.mse or target.ndvi or 1)), 8 * len(stream) / values


def need(tile: Tile, target: Target) -> Need | None:
    """By the secant rule; None where even the coarsest quality is better than asked for, or the finest worse."""
    codec, crf = coder(tile, target), 40.0
    seen: dict[float, float] = {}
    sizes: dict[float, float] = {}
    for _ in range(_TRIES):
        seen[crf], sizes[crf] = missed(codec, tile, target, crf)
        exact = CRF.at_bound(seen)
        crf = float(round(exact))
        if crf in seen:
            break
    near, *others = sorted(seen, key=lambda c: abs(seen[c]))[:2]
    if abs(seen[near]) > 0.2 or not others or not CRF_MIN < exact < CRF_MAX:
        return None
    slope = (math.log(sizes[near]) - math.log(sizes[others[0]])) / (seen[near] - seen[others[0]] or 1e-9)
    return Need(sizes[near] * math.exp(-seen[near] * min(max(slope, -3.0), 0.0)), exact)
