"""A base of a store's own places: what a lab trains for bands that no base takes, or that one takes poorly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore.amounts import counted
from geostore.client import Client
from geostore.codec import Series
from geostore.collection import Collection, Policy
from geostore.dataset import union
from geostore.durable import write_whole
from geostore.errors import BandMismatch, InvalidInput, NotFound
from geostore.query.facts import RasterInfo
from geostore.raster import Bands, Raster, stacked

if TYPE_CHECKING:
    from geostore.vae.base import Base
    from geostore.vae.shared import Place, Training

SUFFIX = ".safetensors"
PLACES, SECONDS = 200, 3600.0
_CODEC = "vae"  # the family that borrows bases
_SIDE, _TRIES = 128, 8  # pixels of a place that are learned from, at most; windows looked at where it is larger
_DATES = (3, 24)  # of a place: fewer teach nothing; more are left
_VALUES_MAX = 2**28  # that are learned from in all, of 2 bytes each in memory
_HELD_OUT = 8  # one in so many places is kept from the training
_LOOKED = 8  # of those, and of the others for what latents are expected to be
_KIND = "store"
_BOUND = Policy(mse_max=3e-4, index_mae_max=None)  # at which bytes are told where the collection bounds nothing
_READING, _TRAINING = 0.05, 0.9  # of the progress that is shown, when each ends
Progress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class TrainedBase:
    """A base as `train_base` left it.

    Attributes:
        base: as it was written.
        places, rasters, exact: that it was trained on; of the rasters those that are still kept bit for bit.
        held_out: places it never saw, as many as were looked at.
        policy: kept at those places, on this base, on the one that ships and without a network, nothing fitted.
        bytes_a_raster: that each of the three takes.
        steps, seconds: of the optimiser, in all runs together; processor time.
        state: the file from which more `seconds` would go on.
    """

    base: Base
    places: int
    rasters: int
    exact: int
    held_out: int
    policy: Policy
    bytes_a_raster: dict[str, float]
    steps: int
    seconds: float
    state: Path


def state_of(out: Path) -> Path:
    """Where the state of the training lies whose base is written to `out`."""
    return out.with_suffix(".state")


def train_base(
    client: Client,
    collection: Collection,
    out: Path,
    *,
    group: str | None = None,
    geohash: str | None = None,
    places: int = PLACES,
    seconds: float = SECONDS,
    seed: int = 0,
    progress: Progress = lambda _, __: None,
) -> TrainedBase:
    """Train a base on what a store holds of one band group, and write it to `out`.

    Resumable: the state lies beside `out` and is written every minute and where the call is interrupted; the same call
    goes on, with more `seconds` too. A place that was held out is never trained on by a later call, nor the other way
    round, whatever was put in between.

    Args:
        client: of the store or daemon.
        collection: whose places it learns from.
        out: the file, *.safetensors; a folder of such files is what the setting `bases` names.
        group: of bands; may be left out where there is one.
        geohash: a prefix; everywhere, if None.
        places: at most, drawn at random; one in 8 of them is held out. Fewer where that would be over 2**28 values.
        seconds: processor time on one core.
        seed: everything random follows from it, but for how many steps the time allows.
        progress: told now and then; may raise to stop.

    Raises:
        InvalidInput: too few places have dates enough, several groups, a policy under which no fit borrows a base,
            `out` is no *.safetensors, or the state beside it is of another training. BandMismatch: no such group.
    """
    from geostore.vae import teach

    name = _group_of(collection, group)
    _check(collection, out, places, seconds)
    bands, state = collection.groups[name], state_of(out)
    about = {"collection": collection.name, "group": name, "geohash": geohash or "", "seed": seed}
    out.parent.mkdir(parents=True, exist_ok=True)
    training = teach.taken_up(teach.layout_of(len(bands)), seed, state, about)
    infos = client.rasters(geohash, collection=collection.name, group=name)
    taught = _gather(client, _spots(infos, places, seed), collection, name, progress)
    if not taught.places or not taught.held_out:
        found = counted(len(taught.places) + len(taught.held_out), "place")
        raise InvalidInput(
            f"{found} of {collection.name!r} with {_DATES[0]} usable dates or more; two are needed, one of them to be "
            "held out: ingest more scenes"
        )
    return _trained(training, taught, collection.policy, bands, out, about, seconds, progress)


def _group_of(collection: Collection, group: str | None) -> str:
    names = sorted(collection.groups)
    if group is None and len(names) > 1:
        raise InvalidInput(f"{collection.name!r} has band groups {', '.join(names)}; name one with group")
    if group is not None and group not in names:
        raise BandMismatch(f"{collection.name!r} has no band group {group!r}; there are {', '.join(names)}")
    return group or names[0]


def _check(collection: Collection, out: Path, places: int, seconds: float) -> None:
    policy = collection.policy
    if out.suffix != SUFFIX:
        raise InvalidInput(f"{out} does not end in {SUFFIX}, by which the setting `bases` finds its files; name it so")
    if places < 2 or seconds <= 0:
        raise InvalidInput(f"{places} places for {seconds} s; give 2 places or more, and some time")
    if _CODEC not in policy.codecs:
        raise InvalidInput(
            f"the policy of {collection.name!r} has codecs {', '.join(policy.codecs)}, none of which borrows a base; "
            f"declare it with codec or rivals {_CODEC}"
        )
    if policy.domain == "log":
        raise InvalidInput(
            f"the policy of {collection.name!r} has domain log, and bases work in reflectance; declare it with auto"
        )


@dataclass(frozen=True)
class _Spot:
    """A place: its number, which follows from its name and the seed alone, whether it is held out, its rasters."""

    number: int
    held_out: bool
    infos: Sequence[RasterInfo]


def _spots(infos: Sequence[RasterInfo], places: int, seed: int) -> list[_Spot]:
    """So many places in the order of their numbers, the first and one in _HELD_OUT held out.

    A place that comes later moves none to the side it was not on: it may be a new first, which was never trained on.
    """
    found = []
    for partition, rasters in groupby((i for i in infos if i.tier != "empty"), key=lambda i: i.key.partition):
        number = int.from_bytes(hashlib.sha256(f"{seed} {partition}".encode()).digest()[:8], "little")
        found.append((number, list(rasters)))
    found = sorted((f for f in found if len(f[1]) >= _DATES[0]), key=lambda f: f[0])[:places]
    return [_Spot(number, at == 0 or number % _HELD_OUT == 0, each) for at, (number, each) in enumerate(found)]


@dataclass(frozen=True)
class _Taught:
    """Places that are learned from, some of them as series too, series that are held out; rasters, and exact ones."""

    places: list[Place]
    examples: list[Series]
    held_out: list[Series]
    rasters: int
    exact: int


def _gather(client: Client, spots: Sequence[_Spot], collection: Collection, group: str, progress: Progress) -> _Taught:
    from geostore.vae import teach

    places: list[Place] = []
    examples, held_out, counts, room = list[Series](), list[Series](), [0, 0], _VALUES_MAX
    for at, spot in enumerate(spots):
        progress("reading places", _READING * at / len(spots))
        if spot.held_out and len(held_out) == _LOOKED:
            continue
        rng = np.random.default_rng(spot.number)
        rasters = _decoded(client, _run(spot.infos, rng))
        series = _window(rasters, collection, group, rng)
        if series is None:
            continue
        if spot.held_out:
            held_out.append(series)
            continue
        room -= series.pixels.size
        if room < 0:
            break
        places.append(teach.some_place(_KIND, series, rng))
        examples += [series] if len(examples) < _LOOKED else []
        counts[0] += len(series.usable)
        counts[1] += sum(rasters[t][0].exact for t in series.usable)
    return _Taught(places, examples, held_out, *counts)


def _run(infos: Sequence[RasterInfo], rng: np.random.Generator) -> Sequence[RasterInfo]:
    """As many dates as are learned from, one after the other, as codecs chain them."""
    first = int(rng.integers(max(1, len(infos) - _DATES[1] + 1)))
    return infos[first : first + _DATES[1]]


def _decoded(client: Client, infos: Sequence[RasterInfo]) -> list[tuple[RasterInfo, Raster]]:
    """As they were put, where all of them are still kept so; what is kept of them, if not."""
    try:
        return client.decode_rasters(infos, tier="original")
    except NotFound:
        return client.decode_rasters(infos)


def _window(
    rasters: Sequence[tuple[RasterInfo, Raster]], collection: Collection, group: str, rng: np.random.Generator
) -> Series | None:
    """Of some windows at random the one with the most usable pixels; None where too few dates have any."""
    grid = union([raster.grid for _, raster in rasters])
    corners = [grid.offset_of(raster.grid) or (0, 0) for _, raster in rasters]
    pixels, valid = stacked([raster for _, raster in rasters], corners)
    starts = [tuple(int(rng.integers(max(1, n - _SIDE + 1))) for n in grid.shape) for _ in range(_TRIES)]
    cuts = [np.s_[..., top : top + _SIDE, left : left + _SIDE] for top, left in starts]
    cut = max(cuts, key=lambda c: int(valid[c].sum()))
    series = Series(
        pixels=pixels[cut],
        valid=valid[cut],
        times_us=np.array([info.key.time_us for info, _ in rasters], np.int64),
        bands=collection.groups[group],
        indices=collection.indices_of(group),
    )
    return series if len(series.usable) >= _DATES[0] else None


def _trained(
    training: Training,
    taught: _Taught,
    policy: Policy,
    bands: Bands,
    out: Path,
    about: dict[str, Any],
    seconds: float,
    progress: Progress,
) -> TrainedBase:
    from geostore.vae import teach
    from geostore.vae.shared import Draw

    seed, state = about["seed"], state_of(out)
    draw = Draw(taught.places, {_KIND: 1.0}, np.random.default_rng((seed, training.steps)))

    def watch() -> None:
        share = _READING + (_TRAINING - _READING) * training.seconds / seconds
        progress(f"training, loss {training.shown['loss']:.3f}", share)

    teach.train(training, draw, seconds, state, about, watch)
    progress("what latents are like", _TRAINING)
    card = {
        "title": f"{', '.join(bands.names)}, trained on a store",
        "trained_on": {**about, "places": len(taught.places), "rasters": taught.rasters, "exact": taught.exact},
        "held_out": f"the first of the store's places by number, and one in {_HELD_OUT}",
        "steps": training.steps,
        "core_seconds": round(training.seconds),
        "loss": {name: round(value, 4) for name, value in training.shown.items()},
        "command": "geostore base train",
    }
    base = teach.finished(training, [(name,) for name in bands.names], card, taught.examples, seed)
    write_whole(out, lambda stream: stream.write(base.data))
    progress("places held out", (1 + _TRAINING) / 2)
    bound = policy if policy.asks else _BOUND
    return TrainedBase(
        base=base,
        places=len(taught.places),
        rasters=taught.rasters,
        exact=taught.exact,
        held_out=len(taught.held_out),
        policy=bound,
        bytes_a_raster=teach.bytes_a_raster(base, taught.held_out, bound),
        steps=training.steps,
        seconds=training.seconds,
        state=state,
    )
