"""estimate: what ingest and fit would cost and give, from a few cells, before anything is written."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from geostore.amounts import quotient
from geostore.codec import Series, quiet
from geostore.collection import Collection
from geostore.dht.ring import slot_of
from geostore.errors import BadScene
from geostore.partition.grid import cell_grid, owned
from geostore.partition.split import Split, cut, footprint, scene_cells
from geostore.raster import Grid
from geostore.scene import Scene, find_scenes, open_scene
from geostore.vae import sizing

DATES_SAMPLED = 16  # rasters read of each cell looked at
SLOT_BYTES = 32_768  # tables beyond payloads, after compact: a touched slot, and a raster
RASTER_BYTES = 120
COMMIT_SECONDS = 0.3  # durable commits of one scene at 16 slots


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Expected bytes, seconds and break-even; figures are extrapolated from `cells_sampled` cells.

    Attributes:
        collection: its name. scenes, partitions, rasters: counts, band groups apart; edge cells may be a few too many.
        pixels: per band, that hold data.
        bytes_lzw, bytes_jxl: the rasters as LZW GeoTIFF and lossless JPEG XL, measured on the sample.
        bytes_embeddings: payloads after a fit, lossless where that is smaller. bytes_codecs: codecs beside them.
        bytes_durable: with tables too, after prune and compact.
        ratio_embeddings, ratio_durable: against LZW. ratio_jxl_durable: against JPEG XL.
        break_even_dates: dates a cell from which codec and embeddings are smaller than the lossless rasters; None if
            never.
        seconds_ingest, seconds_fit: wall clock here, the fit with `workers` processes.
        groups_fitted: band groups where a fit is expected to pay.
        advice: one sentence.
    """

    collection: str
    scenes: int
    partitions: int
    rasters: int
    cells_sampled: int
    pixels: int
    bytes_lzw: int
    bytes_jxl: int
    bytes_embeddings: int
    bytes_codecs: int
    bytes_durable: int
    ratio_embeddings: float | None
    ratio_durable: float | None
    ratio_jxl_durable: float | None
    break_even_dates: int | None
    seconds_ingest: float
    seconds_fit: float
    workers: int
    groups_fitted: tuple[str, ...]
    advice: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One cell of one band group that was looked at; bytes and seconds are sums over its rasters, but for `fit`."""

    rasters: int
    pixels: int
    pixels_covered: int  # in the cell and the scene, with data or without
    bytes_lzw: int
    bytes_jxl: int
    seconds: float
    fit: sizing.Estimate


@dataclass(frozen=True, kw_only=True)
class Group:
    """One band group extrapolated."""

    name: str
    partitions: int
    rasters: int
    pixels: float
    bytes_lzw: float
    bytes_jxl: float
    bytes_embedded: float
    bytes_codec: float  # one partition's
    seconds_read: float
    seconds_fit: float  # one partition's
    learned: bool  # the policy asks for a learned codec

    @property
    def break_even(self) -> float:
        """Dates a cell from which a codec pays; inf if never."""
        saved = (self.bytes_jxl - self.bytes_embedded) / max(self.rasters, 1)
        return self.bytes_codec / saved if saved > 0 else math.inf

    @property
    def pays(self) -> bool:
        """True if codecs and embeddings are expected to be smaller than the lossless rasters."""
        return self.learned and self.partitions * self.bytes_codec + self.bytes_embedded < self.bytes_jxl


def estimate(
    sources: Sequence[str | Path],
    collection: Collection,
    *,
    cells: int = 3,
    steps: int = 1500,
    workers: int = 0,
    acquired: datetime | None = None,
    progress: Callable[[str, float], None] = quiet,
) -> Estimate:
    """Look at every scene's metadata and at the pixels of `cells` cells of each band group.

    Args:
        sources: files, folders, globs, STAC items or catalogues.
        collection: how they would be stored, and the policy a fit would keep.
        cells: cells looked at, spread over all.
        steps: optimiser steps per partition.
        workers: fit processes; 0 means one a core.
        acquired: time of the scene, for files that tell none.
        progress: told (what, share).

    Raises:
        BadScene: there is no scene, or one cannot be taken in.
    """
    scenes = [open_scene(s, collection, time=acquired) for s in find_scenes([str(s) for s in sources], collection)]
    if not scenes:
        raise BadScene(f"no scene found in {[str(s) for s in sources]}; name files, folders, globs or STAC items")
    groups, sampled = [], 0
    for i, name in enumerate(collection.groups):
        places = _places(scenes, name, collection.precision)
        samples = []
        for k, geohash in enumerate(_spread(sorted(places), cells)):
            progress(f"look at {geohash} {name}", (i + k / cells) / len(collection.groups))
            sample = _look(places[geohash], geohash, name, collection, steps)
            samples += [sample] if sample is not None else []
        sampled += len(samples)
        groups.append(_extrapolate(name, places, samples, scenes, collection))
    slots = {slot_of(g, 16) for g in _places(scenes, next(iter(collection.groups)), collection.precision)}
    return _total(collection, len(scenes), groups, sampled, len(slots), workers or os.cpu_count() or 1)


def _places(scenes: Sequence[Scene], group: str, precision: int) -> dict[str, list[Scene]]:
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


def _spread(items: Sequence[str], count: int) -> list[str]:
    """`count` of `items`, evenly spread, the middle one first in mind."""
    if len(items) <= count:
        return list(items)
    return [items[int((k + 0.5) * len(items) / count)] for k in range(count)]


def _look(scenes: Sequence[Scene], geohash: str, group: str, collection: Collection, steps: int) -> Sample | None:
    """Read up to DATES_SAMPLED rasters of one cell; None where the scenes hold nothing of it."""
    from geostore.scene.writer import jxl_size, lzw_size

    native = scenes[0].grids[group]
    cell = cell_grid(geohash, collection.crs or native.crs, native.xres, native.yres, (native.left, native.top))
    chosen = [scenes[i] for i in np.unique(np.linspace(0, len(scenes) - 1, DATES_SAMPLED).round().astype(int))]
    begun = time.monotonic()
    splits, covered, lzw, jxl = [], 0, 0, 0
    for scene in chosen:
        covered += int((owned(geohash, cell) & footprint(scene.grids[group], cell)).sum())
        split = cut(scene, geohash, group, cell)
        if split is None:
            continue
        splits.append((scene.time_us, split))
        lzw += lzw_size(split.raster)
        jxl += jxl_size(split.raster)
    seconds = time.monotonic() - begun
    if not splits:
        return None
    series = _series(splits, collection, group)
    return Sample(
        rasters=len(splits),
        pixels=sum(int((s.raster.pixels != 0).any(0).sum()) for _, s in splits),
        pixels_covered=covered,
        bytes_lzw=lzw,
        bytes_jxl=jxl,
        seconds=seconds * len(splits) / len(chosen),
        fit=sizing.worthwhile(series, collection.policy, steps=steps),
    )


def _series(splits: Sequence[tuple[int, Split]], collection: Collection, group: str) -> Series:
    """The rasters on the box of them all, oldest first."""
    splits = sorted(splits, key=lambda item: item[0])
    top, left = min(s.row for _, s in splits), min(s.col for _, s in splits)
    height = max(s.row + s.raster.grid.height for _, s in splits) - top
    width = max(s.col + s.raster.grid.width for _, s in splits) - left
    bands = collection.groups[group]
    pixels = np.zeros((len(splits), len(bands), height, width), bands.dtype)
    valid = np.zeros((len(splits), height, width), np.bool_)
    for i, (_, s) in enumerate(splits):
        rows = slice(s.row - top, s.row - top + s.raster.grid.height)
        cols = slice(s.col - left, s.col - left + s.raster.grid.width)
        pixels[i, :, rows, cols], valid[i, rows, cols] = s.raster.pixels, s.raster.valid
    times = np.array([t for t, _ in splits], np.int64)
    return Series(pixels=pixels, valid=valid, times_us=times, bands=bands, indices=collection.indices_of(group))


def _extrapolate(
    name: str,
    places: dict[str, list[Scene]],
    samples: Sequence[Sample],
    scenes: Sequence[Scene],
    collection: Collection,
) -> Group:
    """The sample's bytes per pixel over the pixels of all scenes."""
    seen = sum(s.pixels for s in samples)
    filled = seen / max(sum(s.pixels_covered for s in samples), 1)
    pixels = filled * sum(s.grids[name].height * s.grids[name].width for s in scenes)
    share = pixels / seen if seen else 0.0
    count = max(len(samples), 1)
    return Group(
        name=name,
        partitions=len(places),
        rasters=sum(len(found) for found in places.values()),
        pixels=pixels,
        bytes_lzw=share * sum(s.bytes_lzw for s in samples),
        bytes_jxl=share * sum(s.bytes_jxl for s in samples),
        bytes_embedded=share * sum(s.rasters * s.fit.bytes_per_raster for s in samples),
        bytes_codec=sum(s.fit.bytes_codec for s in samples) / count,
        seconds_read=share * sum(s.seconds for s in samples),
        seconds_fit=sum(s.fit.seconds for s in samples) / count,
        learned=collection.policy.codec != "raw",
    )


def _total(
    collection: Collection, scenes: int, groups: Sequence[Group], sampled: int, slots: int, workers: int
) -> Estimate:
    paying = [g for g in groups if g.pays]
    rasters = sum(g.rasters for g in groups)
    lzw, jxl = sum(g.bytes_lzw for g in groups), sum(g.bytes_jxl for g in groups)
    payloads = sum(g.bytes_embedded if g.pays else g.bytes_jxl for g in groups)
    codecs = sum(g.partitions * g.bytes_codec for g in paying)
    durable = payloads + codecs + slots * SLOT_BYTES + rasters * RASTER_BYTES
    even = min((g.break_even for g in groups if g.learned), default=math.inf)
    break_even = None if math.isinf(even) else math.ceil(even)
    return Estimate(
        collection=collection.name,
        scenes=scenes,
        partitions=sum(g.partitions for g in groups),
        rasters=rasters,
        cells_sampled=sampled,
        pixels=round(sum(g.pixels for g in groups)),
        bytes_lzw=round(lzw),
        bytes_jxl=round(jxl),
        bytes_embeddings=round(payloads),
        bytes_codecs=round(codecs),
        bytes_durable=round(durable),
        ratio_embeddings=quotient(lzw, payloads),
        ratio_durable=quotient(lzw, durable),
        ratio_jxl_durable=quotient(jxl, durable),
        break_even_dates=break_even,
        seconds_ingest=sum(g.seconds_read for g in groups) + scenes * COMMIT_SECONDS,
        seconds_fit=sum(math.ceil(g.partitions / min(workers, g.partitions)) * g.seconds_fit for g in paying),
        workers=workers,
        groups_fitted=tuple(g.name for g in paying),
        advice=_advice(groups, paying, break_even),
    )


def _advice(groups: Sequence[Group], paying: Sequence[Group], break_even: int | None) -> str:
    dates = max((g.rasters / max(g.partitions, 1) for g in groups), default=0.0)
    if paying:
        names = ", ".join(g.name for g in paying)
        return f"fit: embeddings and codecs are expected to be smaller than lossless in {names}"
    if not any(g.learned for g in groups):
        return "the policy asks for the lossless codec; a fit changes nothing"
    if break_even is None:
        return "keep it lossless: at this policy embeddings are not expected to be smaller"
    return f"keep it lossless for now: {dates:.0f} dates a cell here, a codec pays from about {break_even}"
