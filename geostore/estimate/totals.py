"""totals: what was measured on a sample, and a fit in small, brought to all the scenes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from geostore.amounts import quotient
from geostore.client.steps import BATCH_BYTES
from geostore.codec import Families, RawCodec, quiet
from geostore.collection import Collection
from geostore.dht.ring import slot_of
from geostore.errors import BadScene
from geostore.estimate.sampling import VALUES_MAX, Sample, half_interval, look_at, places_of, read_middle, spread
from geostore.node.acquisition import check_one_time
from geostore.node.declared import check_families
from geostore.node.pilot import RASTERS_MAX, SIDE_MAX, Pilot, pilot
from geostore.query.messages import SCENES_MAX
from geostore.scene import Scene, SceneSource, find_scenes, open_scene

PILOT_STEPS = 200  # below that `klt-av1` does not search, and takes up to twice what it will
FIT_LOW, FIT_HIGH = 0.5, 1.8  # a whole fit against its pilot, as measured on real and synthetic series
LEAST = 0.02  # half an interval where everything was read: a fit puts rasters on the window of their partition
SLOT_BYTES = 32_768  # tables beyond payloads, after compact: a touched slot, and a raster
RASTER_BYTES = 120
COMMIT_SECONDS = 0.3  # a durable commit of one scene, or of several that share it, at 16 slots
SHARED = 1 / 8  # share of a request up to which scenes come together in one


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Expected bytes, seconds and break-even; figures are extrapolated from `cells_sampled` cells.

    An interval is a pair (low, high). Those of the baselines hold what the sample leaves open, at 95 %: between dates,
    and between cells by Student's t. Those of what a fit gives hold besides how far it may be from its pilot,
    FIT_LOW to FIT_HIGH.

    Attributes:
        collection: its name. scenes, partitions, rasters: counts, band groups apart; edge cells may be a few too many.
        rasters_sampled: rasters read.
        pixels: per band, that hold data.
        bytes_lzw, bytes_jxl: the rasters as LZW GeoTIFF and lossless JPEG XL, masked pixels 0, measured on the sample.
        bytes_lzw_interval, bytes_jxl_interval: of the two.
        bytes_embeddings: payloads after a fit, lossless where that is smaller. bytes_codecs: codecs beside them.
        bytes_stored, bytes_stored_interval: the two, masks, and networks that places share.
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
    rasters_sampled: int
    pixels: int
    bytes_lzw: int
    bytes_lzw_interval: tuple[int, int]
    bytes_jxl: int
    bytes_jxl_interval: tuple[int, int]
    bytes_embeddings: int
    bytes_codecs: int
    bytes_stored: int
    bytes_stored_interval: tuple[int, int]
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
class Group:
    """One band group extrapolated."""

    name: str
    partitions: int
    rasters: int
    pixels: float
    bytes_lzw: float
    bytes_jxl: float
    unsure: tuple[float, float]  # share of bytes_lzw and of bytes_jxl that the sample leaves open, either way
    bytes_masks: float
    bytes_embedded: float
    bytes_codec: float  # one partition's, the lossless one apart
    bytes_lossless_codec: int
    seconds_read: float
    seconds_fit: float  # one partition's
    networks: dict[str, int]  # bytes of what its codecs share, by digest
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
    pilot_steps: int = PILOT_STEPS,
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
        pilot_steps: those of the fit in small that is made of one cell of each band group.
        workers: fit processes; 0 means one a core.
        acquired: time of the scene, for files that tell none.
        progress: told (what, share).

    Raises:
        BadScene: there is no scene, or one cannot be taken in. NotInstalled: no such codec family as the policy names.
        InvalidInput: one time is given for several scenes, and one of them tells another; an ingest refuses that too.
    """
    check_families(collection, Families.installed())
    found = list(find_scenes([str(s) for s in sources], collection))
    if not found:
        raise BadScene(f"no scene found in {[str(s) for s in sources]}; name files, folders, globs or STAC items")
    scenes = [_looked_at(s, collection, acquired, len(found)) for s in found]
    groups, sampled, read = [], 0, 0
    for i, name in enumerate(collection.groups):
        places = places_of(scenes, name, collection.precision)
        samples = []
        chosen = spread(sorted(places), cells)
        for k, geohash in enumerate(chosen):
            progress(f"look at {geohash} {name}", (i + k / len(chosen)) / len(collection.groups))
            samples.append(look_at(places[geohash], geohash, name, collection, VALUES_MAX // len(chosen)))
        progress(f"fit in small {name}", (i + 0.9) / len(collection.groups))
        tried = _try(places, samples, name, collection, min(pilot_steps, steps))
        sampled, read = sampled + len(samples), read + sum(len(s.looks) for s in samples)
        groups.append(_extrapolate(name, places, samples, scenes, tried, steps / max(min(pilot_steps, steps), 1)))
    slots = {slot_of(g, 16) for g in places_of(scenes, next(iter(collection.groups)), collection.precision)}
    return _total(collection, len(scenes), groups, (sampled, read), len(slots), workers or os.cpu_count() or 1)


def _looked_at(source: SceneSource, collection: Collection, acquired: datetime | None, scenes: int) -> Scene:
    """One of so many scenes, its files closed: there may be more of them than a process may have files open."""
    scene = open_scene(source, collection, time=acquired)
    scene.close()
    check_one_time(scene, acquired, scenes)
    return scene


def _try(
    places: dict[str, list[Scene]], samples: Sequence[Sample], group: str, collection: Collection, steps: int
) -> Pilot | None:
    """A fit in small of the cell that holds most; None where there is nothing to fit."""
    best = max(samples, key=lambda s: s.sum("bytes_jxl"), default=None)
    if best is None or collection.policy.codec == "raw":
        return None
    middle = read_middle(places[best.geohash], best, group, collection, SIDE_MAX, RASTERS_MAX)
    if middle is None or not middle.valid.any():
        return None
    return pilot(middle, collection.policy, steps=steps, partitions=len(places))


def _extrapolate(
    name: str,
    places: dict[str, list[Scene]],
    samples: Sequence[Sample],
    scenes: Sequence[Scene],
    tried: Pilot | None,
    more_steps: float,
) -> Group:
    """The sample's bytes per pixel covered, over what all scenes cover; of the fit what its pilot took."""
    covered = float(sum(s.grids[name].height * s.grids[name].width for s in scenes))
    rasters = sum(len(found) for found in places.values())
    share = covered / max(sum(s.sum("covered") for s in samples), 1)
    jxl = share * sum(s.sum("bytes_jxl") for s in samples)
    fit = tried and tried.scaled(covered / max(rasters, 1), rasters / max(len(places), 1), more_steps)
    return Group(
        name=name,
        partitions=len(places),
        rasters=rasters,
        pixels=share * sum(s.sum("pixels") for s in samples),
        bytes_lzw=share * sum(s.sum("bytes_lzw") for s in samples),
        bytes_jxl=jxl,
        unsure=(half_interval(samples, "bytes_lzw", len(places)), half_interval(samples, "bytes_jxl", len(places))),
        bytes_masks=share * sum(s.sum("bytes_mask") for s in samples),
        bytes_embedded=jxl * fit.payloads if fit else jxl,
        bytes_codec=fit.codec if fit else 0.0,
        bytes_lossless_codec=len(RawCodec(scenes[0].collection.groups[name]).to_bytes()),
        seconds_read=share * sum(s.seconds for s in samples),
        seconds_fit=fit.seconds if fit else 0.0,
        networks=tried.networks if tried else {},
        learned=fit is not None,
    )


def _interval(value: float, unsure: float, low: float = 1 - LEAST, high: float = 1 + LEAST) -> tuple[int, int]:
    return round(value * low * max(0.0, 1 - unsure)), round(value * high * (1 + unsure))


def _total(
    collection: Collection, scenes: int, groups: Sequence[Group], sampled: tuple[int, int], slots: int, workers: int
) -> Estimate:
    paying = [g for g in groups if g.pays]
    rasters = sum(g.rasters for g in groups)
    lzw, jxl = sum(g.bytes_lzw for g in groups), sum(g.bytes_jxl for g in groups)
    unsure = [
        sum(g.unsure[k] * (g.bytes_lzw, g.bytes_jxl)[k] for g in groups) / (total or 1.0)
        for k, total in enumerate((lzw, jxl))
    ]
    payloads = sum(g.bytes_embedded if g.pays else g.bytes_jxl for g in groups)
    codecs = sum(g.partitions * (g.bytes_lossless_codec + g.bytes_codec * g.pays) for g in groups)
    networks = sum({k: v for g in paying for k, v in g.networks.items()}.values())
    stored = payloads + codecs + networks + sum(g.bytes_masks for g in groups)
    durable = stored + slots * SLOT_BYTES + rasters * RASTER_BYTES
    even = min((g.break_even for g in groups if g.learned), default=math.inf)
    break_even = None if math.isinf(even) else math.ceil(even)
    return Estimate(
        collection=collection.name,
        scenes=scenes,
        partitions=sum(g.partitions for g in groups),
        rasters=rasters,
        cells_sampled=sampled[0],
        rasters_sampled=sampled[1],
        pixels=round(sum(g.pixels for g in groups)),
        bytes_lzw=round(lzw),
        bytes_lzw_interval=_interval(lzw, unsure[0]),
        bytes_jxl=round(jxl),
        bytes_jxl_interval=_interval(jxl, unsure[1]),
        bytes_embeddings=round(payloads),
        bytes_codecs=round(codecs),
        bytes_stored=round(stored),
        bytes_stored_interval=_interval(stored, unsure[1], FIT_LOW, FIT_HIGH),
        bytes_durable=round(durable),
        ratio_embeddings=quotient(lzw, payloads),
        ratio_durable=quotient(lzw, durable),
        ratio_jxl_durable=quotient(jxl, durable),
        break_even_dates=break_even,
        seconds_ingest=sum(g.seconds_read for g in groups)
        + COMMIT_SECONDS * _commits(scenes, _weight(collection, groups)),
        seconds_fit=sum(math.ceil(g.partitions / min(workers, g.partitions)) * g.seconds_fit for g in paying),
        workers=workers,
        groups_fitted=tuple(g.name for g in paying),
        advice=_advice(groups, paying, break_even),
    )


def _weight(collection: Collection, groups: Sequence[Group]) -> float:
    """Bytes of pixels and masks as they are put."""
    bands = {g.name: collection.groups[g.name] for g in groups}
    return sum(g.pixels * (len(bands[g.name]) * bands[g.name].dtype.itemsize + 1) for g in groups)


def _commits(scenes: int, nbytes: float) -> int:
    """Commits that an ingest of `scenes` alike takes: small ones share one, a large one takes one a request."""
    each = nbytes / scenes / BATCH_BYTES
    return math.ceil(scenes * max(each, 1 / SCENES_MAX)) if each <= SHARED else scenes * math.ceil(each)


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
