"""What the latents of a base are expected to be, learned over some of the places the base was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from bench.base_places import NAMES, counts, naip, peru, reflectance, seasons, synthetic, virginia
from geostore.codec import Effort, Series
from geostore.collection import Policy
from geostore.raster import Bands
from geostore.vae.base import Base
from geostore.vae.borrow import borrow_codec
from geostore.vae.codec import CHAIN
from geostore.vae.encoding import Frame, choose_numbers
from geostore.vae.learn_prior import Lesson, learn_prior
from geostore.vae.prior import Prior

HIDDEN = 24  # units: shared by every place, so more than a place of its own could pay for
_EACH = 3  # places of each kind


def base_prior(base: Base, seed: int) -> Prior:
    """The prior, from rasters encoded at bounds drawn at random, in chains."""
    rng = np.random.default_rng(seed)
    lessons = [each for series in _series(base.layout.bands, rng) for each in _lessons(base, series, rng)]
    return learn_prior(lessons, base.layout.channels, seed=seed, hidden=HIDDEN)


def _series(bands: int, rng: np.random.Generator) -> Iterator[Series]:
    if bands == 4:
        for stack in [*islice(naip(), 0, None, 13), *islice(peru(), 0, None, 7)]:
            yield _made(stack, counts(NAMES[4]))
    seen = reflectance(NAMES[bands])
    kept = [NAMES[13].index(n) for n in seen.names]
    for image in islice(virginia(bands, rng), 2 * _EACH):
        stored = reflectance(NAMES[13]).to_stored(np.stack([*seasons(rng, image, NAMES[13], CHAIN)]))
        yield _made(stored[:, kept], seen)
    names = NAMES[4] if bands == 4 else tuple(n for n in NAMES[13] if n != "cirrus")
    for seed in range(1000, 1000 + _EACH):
        yield _made(synthetic(seed, names, bands)[:CHAIN], seen)


def _made(stored: np.ndarray, bands: Bands) -> Series:
    times = np.arange(len(stored), dtype=np.int64)
    return Series(pixels=stored, valid=np.ones((len(stored), *stored.shape[2:]), np.bool_), times_us=times, bands=bands)


def _lessons(base: Base, series: Series, rng: np.random.Generator) -> Iterator[Lesson]:
    """Two chains of one place, at two bounds about what its gains and levels leave."""
    codec = borrow_codec(series, policy=Policy(), effort=Effort(steps=0), held=[base])
    assert codec is not None
    for share in np.exp(rng.uniform(np.log(0.1), np.log(0.5), 2)):
        policy = Policy(mse_max=float(share * codec.scale**2), index_mae_max=None)
        bound = borrow_codec(series, policy=policy, effort=Effort(steps=0), held=[base])
        assert bound is not None
        frames = [Frame(bound, p, v) for p, v in zip(series.pixels[:CHAIN], series.valid[:CHAIN], strict=True)]
        yield Lesson([choose_numbers(frames)], bound.static_features)
