"""Teach a base: what its network learns from, for how long, what it expects of latents, and how it does elsewhere."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from geostore.codec import Effort, Series, quiet
from geostore.collection import Policy
from geostore.durable import write_whole
from geostore.errors import InvalidInput, PolicyMissed
from geostore.vae.base import Base, pack_base, shipped
from geostore.vae.borrow import borrow_codec
from geostore.vae.choose import Candidate
from geostore.vae.codec import CHAIN
from geostore.vae.encoding import Frame, choose_numbers
from geostore.vae.fit import fit_codec, prepare
from geostore.vae.learn_prior import Lesson, learn_prior
from geostore.vae.model import Layout, padded
from geostore.vae.prior import Prior
from geostore.vae.samples import STATIC_BITS, Samples
from geostore.vae.shared import CROP, Draw, Place, Training, base_of
from geostore.vae.sizing import NO_NETWORK

D = TypeVar("D", bound=np.generic)
HIDDEN = 24  # units of the prior: shared by every place, so more than a place of its own could pay for
MSE = (1e-4, 1e-3)  # bounds that places are prepared at: they decide how well the static image is kept
_FEW_BANDS = 6  # up to which the smaller network does
_SAVED_S = 60.0  # between two checkpoints
_WATCHED = 100  # steps between two looks


def layout_of(bands: int) -> Layout:
    """The network of a base over so many bands."""
    few = bands <= _FEW_BANDS
    return Layout(
        mode="grid",
        bands=bands,
        height=CROP,
        width=CROP,
        channels=min(2 * bands, 12),
        widths=(64, 48, 32, 16 if few else 24),
        encoder=(32 if few else 40, 48),
        hidden=16,
    )


def place_of(kind: str, samples: Samples) -> Place:
    """What a codec leaves to its network at one place; mirrored at its lower and right edge to CROP pixels a side."""
    dates, (height, width) = samples.series.usable, samples.series.pixels.shape[2:]
    static = samples.static.maps(STATIC_BITS, padded(height, width))[0][:, :height, :width] / (1 << STATIC_BITS)
    residual = np.stack([samples.residual(int(t)) for t in dates]).astype(np.float16)
    valid = samples.series.valid[dates]
    return Place(kind, _tall(residual), _tall(static.astype(np.float16)), None if valid.all() else _tall(valid))


def _tall(values: npt.NDArray[D]) -> npt.NDArray[D]:
    """(..., H, W), mirrored below and to the right to at least CROP pixels a side."""
    short = [(0, max(0, CROP - n)) for n in values.shape[-2:]]
    return np.pad(values, [(0, 0)] * (values.ndim - 2) + short, mode="symmetric")


def some_place(kind: str, series: Series, rng: np.random.Generator) -> Place:
    """The place of `series`, prepared at a bound on MSE n1 that is drawn evenly among logarithms."""
    bound = float(np.exp(rng.uniform(*np.log(MSE))))
    return place_of(kind, prepare(series, "grid", Policy(mse_max=bound, index_mae_max=None)))


def train(
    training: Training, draw: Draw, seconds: float, saved: Path, about: Mapping[str, Any], watch: Callable[[], None]
) -> None:
    """Train until `seconds` of a core have been spent in all runs together; `saved` is what the next run takes up.

    Args:
        training: changed in place.
        draw: what it learns from, and what noise follows from.
        seconds: processor time of one thread, spread over all runs; the learning rate falls to nothing at its end.
        saved: written every minute and however this ends, whole or not at all.
        about: kept with it, for `taken_up` to compare.
        watch: called now and then; may raise to stop.
    """
    last, unsaved, threads = time.process_time(), 0.0, torch.get_num_threads()

    def save() -> None:
        write_whole(saved, lambda stream: torch.save({**training.state(), "about": dict(about)}, stream))

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(draw.rng.integers(2**31)))
        try:
            while training.seconds < seconds:
                training.step(draw, training.seconds / seconds)
                now = time.process_time()
                training.seconds, unsaved, last = training.seconds + now - last, unsaved + now - last, now
                if training.steps % _WATCHED == 0:
                    watch()
                if unsaved > _SAVED_S:
                    save()
                    unsaved = 0.0
        finally:
            torch.set_num_threads(threads)
            if unsaved:
                save()


def taken_up(layout: Layout, seed: int, saved: Path, about: Mapping[str, Any]) -> Training:
    """A training as `saved` left it, or a new one.

    Raises:
        InvalidInput: `saved` is of another training, or damaged.
    """
    with torch.random.fork_rng(devices=[]):
        training = Training(layout, seed)
    if not saved.exists():
        return training
    again = "delete it to begin anew, or name another place"
    damage = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError)
    try:
        state = torch.load(saved, weights_only=True)
        was = dict(state["about"])
        if was == dict(about):
            training.take_up(state)
    except damage as error:
        raise InvalidInput(f"{saved} does not read as the state of a training ({error}); {again}") from error
    for name, wanted in about.items():
        if was.get(name) != wanted:
            raise InvalidInput(f"{saved} is of another training: {name} was {was.get(name)!r}, is {wanted!r}; {again}")
    return training


def finished(
    training: Training, slots: Sequence[Sequence[str]], card: Mapping[str, Any], series: Iterable[Series], seed: int
) -> Base:
    """The averaged weights as a base, with a prior learned over `series`, which are some of what it was trained on."""
    bare = base_of(training.kept, slots, card)
    return pack_base(bare.layout, bare.slots, card, {**bare.tensors, **prior_over(bare, series, seed).to_tensors()})


def prior_over(base: Base, series: Iterable[Series], seed: int) -> Prior:
    """What the latents of `base` are expected to be, from rasters in chains, encoded at bounds drawn at random."""
    rng = np.random.default_rng(seed)
    lessons = [lesson for one in series for lesson in _lessons(base, one, rng)]
    return learn_prior(lessons, base.layout.channels, seed=seed, hidden=HIDDEN)


def _lessons(base: Base, series: Series, rng: np.random.Generator) -> list[Lesson]:
    """Two chains of one place, at two bounds about what its gains and levels leave."""
    codec = borrow_codec(series, policy=Policy(), effort=Effort(steps=0), held=[base])
    assert codec is not None
    found = []
    for share in np.exp(rng.uniform(np.log(0.1), np.log(0.5), 2)):
        policy = Policy(mse_max=float(share * codec.scale**2), index_mae_max=None)
        bound = borrow_codec(series, policy=policy, effort=Effort(steps=0), held=[base])
        assert bound is not None
        dates = series.usable[:CHAIN]
        frames = [Frame(bound, series.pixels[t], series.valid[t]) for t in dates]
        found.append(Lesson([choose_numbers(frames)], bound.static_features))
    return found


def bytes_a_raster(base: Base, series: Sequence[Series], policy: Policy) -> dict[str, float]:
    """What places take on `base`, on the base that ships for their bands, and without a network: bytes a raster.

    The mean over places; nothing is fitted to any of them, and no base's own bytes are counted. Places that one of the
    ways cannot keep within `policy` are left out; nothing is told where that leaves none.
    """
    found = [each for one in series if (each := _bytes_a_raster(base, one, policy)) is not None]
    return {way: math.fsum(sizes[way] for sizes in found) / len(found) for way in (found[0] if found else {})}


def _bytes_a_raster(base: Base, series: Series, policy: Policy) -> dict[str, float] | None:
    effort, names = Effort(steps=0), series.bands.names
    ways = {"this base": [base], "the base that ships": [b for b in shipped() if b.planes_of(names) is not None][:1]}
    codecs = {way: borrow_codec(series, policy=policy, effort=effort, held=held) for way, held in ways.items() if held}
    still = fit_codec(series, "grid", policy=policy, effort=effort, progress=quiet, plan=NO_NETWORK)
    try:
        return {
            way: Candidate.of(codec, series, effort).total / len(series.usable)
            for way, codec in {**codecs, "no network": still}.items()
            if codec is not None
        }
    except PolicyMissed:
        return None
