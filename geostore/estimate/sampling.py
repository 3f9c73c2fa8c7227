"""sampling: a few cells and dates of many scenes, what they measure, and how far that holds."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from geostore.codec import RawCodec, Series
from geostore.collection import Collection
from geostore.lossless import SMALL
from geostore.partition.grid import cell_grid, owned
from geostore.partition.split import Split, cut, footprint, scene_cells
from geostore.raster import Grid, stacked
from geostore.scene import Scene
from geostore.storage import pack_mask

VALUES_MAX = 24_000_000  # stored values read of one band group, over all cells looked at
DATES_MIN = 8  # rasters read of each cell looked at, however large they are


@dataclass(frozen=True, kw_only=True)
class Look:
    """One raster that was read.

    Attributes:
        covered: its pixels in the cell and the scene, with data or without. pixels: those with data.
        bytes_lzw, bytes_jxl, bytes_mask: as LZW GeoTIFF, in the lossless codec, and what its mask takes.
    """

    covered: int
    pixels: int
    bytes_lzw: int
    bytes_jxl: int
    bytes_mask: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One cell of one band group that was looked at.

    Attributes:
        geohash, dates: which cell, and how many rasters it has. looks: those that were read.
        series, grid: their pixels and where they lie; None where nothing in them has data.
    """

    geohash: str
    dates: int
    looks: tuple[Look, ...]
    seconds: float
    series: Series | None
    grid: Grid | None

    def sum(self, name: str) -> int:
        """Of one attribute over the rasters read."""
        return sum(int(getattr(look, name)) for look in self.looks)


def places_of(scenes: Sequence[Scene], group: str, precision: int) -> dict[str, list[Scene]]:
    """The scenes of each cell."""
    known: dict[Grid, list[str]] = {}
    places: dict[str, list[Scene]] = defaultdict(list)
    for scene in scenes:
        grid = scene.grids[group]
        if grid not in known:
            known[grid] = scene_cells([grid], precision)
        for geohash in known[grid]:
            places[geohash].append(scene)
    return dict(places)


def spread(items: Sequence[str], count: int) -> list[str]:
    """`count` of `items`, evenly spread, the middle one first in mind."""
    if len(items) <= count:
        return list(items)
    return [items[int((k + 0.5) * len(items) / count)] for k in range(count)]


def look_at(scenes: Sequence[Scene], geohash: str, group: str, collection: Collection, values_max: int) -> Sample:
    """Read rasters of one cell, evenly spread over its dates, up to `values_max` stored values."""
    native = scenes[0].grids[group]
    cell = cell_grid(geohash, collection.crs or native.crs, native.xres, native.yres, (native.left, native.top))
    mine = owned(geohash, cell)
    values = max(int((mine & footprint(scenes[0].grids[group], cell)).sum()) * len(collection.groups[group]), 1)
    count = max(DATES_MIN, values_max // values)
    begun = time.monotonic()
    splits, looks = [], []
    for scene in _evenly(sorted(scenes, key=lambda s: s.time_us), count):
        with contextlib.closing(scene):  # read again later, it opens again
            split = cut(scene, geohash, group, cell)
        looks.append(_measured(split, int((mine & footprint(scene.grids[group], cell)).sum())))
        splits += [(scene.time_us, split)] if split is not None else []
    seconds = time.monotonic() - begun
    series, grid = _series(splits, collection, group) if splits else (None, None)
    return Sample(geohash=geohash, dates=len(scenes), looks=tuple(looks), seconds=seconds, series=series, grid=grid)


def read_middle(
    scenes: Sequence[Scene], sample: Sample, group: str, collection: Collection, side: int, count: int
) -> Series | None:
    """The middle of a sample's box, `side` pixels at most, on up to `count` of all its dates; None without data.

    Few dates that stand in for all will not do: rasters that are the same take nothing beside one another.
    """
    if sample.series is None or sample.grid is None or len(sample.looks) == sample.dates:
        return sample.series
    (height, width), box = (min(n, side) for n in sample.grid.shape), sample.grid
    middle = box.window((box.height - height) // 2, (box.width - width) // 2, height, width)
    splits = []
    for scene in _evenly(sorted(scenes, key=lambda s: s.time_us), count):
        with contextlib.closing(scene):
            split = cut(scene, sample.geohash, group, middle)
        splits += [(scene.time_us, split)] if split is not None else []
    return _series(splits, collection, group)[0] if splits else None


def _evenly(items: Sequence[Scene], count: int) -> list[Scene]:
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))]


def _measured(split: Split | None, covered: int) -> Look:
    from geostore.scene.writer import lzw_size

    if split is None:
        return Look(covered=covered, pixels=0, bytes_lzw=0, bytes_jxl=0, bytes_mask=0)
    raster = split.raster
    visible = np.where(raster.valid, raster.pixels, np.zeros((), raster.pixels.dtype))
    lossless = RawCodec(raster.bands, effort=SMALL).encode(visible, raster.valid).payload if raster.valid.any() else b""
    pixels = int((raster.pixels != 0).any(0).sum())
    return Look(
        covered=covered,
        pixels=pixels,
        bytes_lzw=lzw_size(raster),
        bytes_jxl=len(lossless),
        bytes_mask=len(pack_mask(raster.valid)),
    )


def _series(splits: Sequence[tuple[int, Split]], collection: Collection, group: str) -> tuple[Series, Grid]:
    """The rasters on the box of them all, oldest first, and that box."""
    splits = sorted(splits, key=lambda item: item[0])
    pixels, valid = stacked([s.raster for _, s in splits], [(s.row, s.col) for _, s in splits])
    top, left = min(s.row for _, s in splits), min(s.col for _, s in splits)
    times = np.array([t for t, _ in splits], np.int64)
    indices = collection.indices_of(group)
    series = Series(pixels=pixels, valid=valid, times_us=times, bands=collection.groups[group], indices=indices)
    return series, splits[0][1].cell.window(top, left, *valid.shape[1:])


def half_interval(samples: Sequence[Sample], name: str, cells: int) -> float:
    """Half the 95 % interval of a sum that is extrapolated by pixels covered, as a share of it.

    Two-stage cluster sampling with a ratio estimator (Cochran, "Sampling Techniques", chapters 10 and 11): cells, then
    dates of a cell, both without replacement; Student's t for the number of cells looked at, 2 if that is all of them.
    Of one cell among several nothing is known about the others: they may differ by half.
    """
    total, covered = sum(s.sum(name) for s in samples), sum(s.sum("covered") for s in samples)
    if not total or not covered:
        return 0.0
    rest = [np.array([getattr(k, name) - total / covered * k.covered for k in s.looks], np.float64) for s in samples]
    within = sum(
        (1 - min(1.0, len(r) / s.dates)) * len(r) * float(r.var(ddof=1))
        for r, s in zip(rest, samples, strict=True)
        if len(r) > 1
    )
    n, left = len(samples), 1 - len(samples) / max(cells, len(samples))
    if n == 1 and left:
        return float(0.5 + 2 * within**0.5 / total)
    between = left * n / max(n - 1, 1) * sum(float(r.sum()) ** 2 for r in rest)
    wide = float(student_t.ppf(0.975, n - 1)) if left else 2.0
    return float(wide * (between + within) ** 0.5 / total)
