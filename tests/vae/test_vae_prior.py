"""Conditional coding of latents: exact round trips, tables of whole numbers, and fewer bytes than static tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.coding import rangecoder
from geostore.errors import Corrupt
from geostore.vae.learn_prior import HIDDEN, Lesson, learn_prior
from geostore.vae.prior import Prior, static_features
from geostore.vae.stream import Numbers, Shape, join, pack_chain, split, unpack_chain


def chain(seed, count=8, shape=(3, 6, 5), spread=2.0, head=8):
    """Rasters whose latents drift from date to date and vary smoothly over the cell."""
    rng = np.random.default_rng(seed)
    now = rng.normal(0, spread, shape)
    found = []
    for _ in range(count):
        now = 0.9 * now + rng.normal(0, 0.4 * spread, shape)
        latents = np.clip(np.rint(now), -255, 255).astype(np.int32)
        found.append(Numbers(int(rng.integers(4, 8)), rng.integers(-60, 60, head).astype(np.int32), latents))
    return found


def statics(shape=(3, 6, 5)):
    """Static features of a made-up mean image."""
    maps = np.random.default_rng(1).normal(0, 900, (2, shape[1] * 8, shape[2] * 8)).round()
    coarse = np.floor(maps.reshape(2, shape[1], 8, shape[2], 8).mean(axis=(2, 4)))
    return static_features((maps, coarse))


CHAINS = [chain(seed) for seed in range(8)]


@pytest.fixture(scope="module")
def prior():
    return learn_prior([Lesson(CHAINS, statics())], 3, seed=0, hidden=HIDDEN)


def unpacked(stream, prior, count, head=8, shape=(3, 6, 5)):
    found = unpack_chain(stream, prior, statics(), Shape(head, shape))
    return [next(found) for _ in range(count)]


def same(first, second):
    return all(
        a.step == b.step and np.array_equal(a.head, b.head) and np.array_equal(a.latents, b.latents)
        for a, b in zip(first, second, strict=True)
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(1, 8), spread=st.floats(0.05, 200.0))
def test_any_chain_comes_back(prior, seed, count, spread):
    """Proves that chains the prior has never seen, however wild, decode to the same numbers, whole or in part."""
    rasters = chain(seed, count, spread=spread)
    stream = pack_chain(rasters, prior, statics())
    assert same(rasters, unpacked(stream, prior, count))
    assert same(rasters[:1], unpacked(stream, prior, 1))


def test_a_chain_is_smaller_than_its_rasters_alone(prior):
    """Proves that leaning on the raster before saves a tenth, and that the learned network saves a tenth too."""
    rasters = chain(77)
    together = len(pack_chain(rasters, prior, statics()))
    alone = sum(len(pack_chain([r], prior, statics())) for r in rasters)
    plain = learn_prior([Lesson(CHAINS, statics())], 3, seed=0, hidden=0)
    assert together < 0.9 * alone
    assert together < 0.9 * len(pack_chain(rasters, plain, statics()))


def test_a_prior_is_its_arrays(prior):
    """Proves that a prior read back from its arrays makes the same bytes, and that these follow from integers."""
    again = Prior.from_tensors(prior.to_tensors())
    assert pack_chain(chain(3), again, statics()) == pack_chain(chain(3), prior, statics())
    count = 8 + 2 * 3 + 6 + len(statics()) + 1
    fixed = Prior(
        np.full((2, count), 3, np.int8), np.full((3, 2), 100, np.int16), np.full((2, 2), 9, np.int8),
        np.full((3, 2), 512, np.int16), np.tile(np.array([20, 3, 30, -4, 5, 44], np.int16), (2, 8, 1)),
    )  # fmt: skip
    rasters = [Numbers(6, np.arange(8, dtype=np.int32), np.arange(-45, 45, dtype=np.int32).reshape(3, 6, 5))] * 2
    assert pack_chain(rasters, fixed, statics())[:12].hex() == "7ef382936a9c67c29abaf3b7"


def test_tables_are_laplace_masses():
    """Proves against the distribution function that every table adds up, holds no zero, and is Laplace."""
    tables = rangecoder.tables()
    assert (np.diff(tables, axis=2) > 0).all()
    assert (tables[:, :, -1] == 1 << 16).all()
    scale = 2.0 ** ((np.arange(rangecoder.SCALES) - rangecoder.ONE_QUANTUM) / rangecoder.OCTAVE)
    edges = np.arange(-20, 22) - 0.5

    def below(x):
        return np.where(x < 0, 0.5 * np.exp(np.minimum(x, 0)), 1 - 0.5 * np.exp(-np.maximum(x, 0)))

    for s in range(0, rangecoder.SCALES, 7):
        for part in (0, 5, 8, 16):
            mean = (part - 8) / 16
            masses = np.diff(below((edges - mean) / scale[s]))
            held = np.diff(tables[s, part])[63 - 20 : 63 + 21] / 65536
            assert np.abs(held - masses)[masses > 1e-4].max() < 2.5e-3 if masses.max() > 0.99 else 2e-4


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_damaged_chains_never_crash(prior, cut):
    """Proves that streams cut anywhere, or of noise, give numbers within their limits or Corrupt, and end."""
    noise = np.random.default_rng(cut).integers(0, 256, 80, dtype=np.uint8).tobytes()
    for data in (pack_chain(chain(5), prior, statics())[:cut], noise[: cut + 1]):
        try:
            for numbers in unpacked(data, prior, 8):
                assert np.abs(numbers.latents).max() <= 255
        except Corrupt:
            continue


@given(stream=st.binary(max_size=300), layer=st.binary(max_size=50))
def test_streams_and_layers_are_told_apart(stream, layer):
    """Proves that what lies on top of a stream comes back beside it."""
    assert split(join(stream, layer)) == (stream, layer)


def test_a_stream_shorter_than_it_says_is_corrupt():
    """Proves that a size beyond the payload raises Corrupt."""
    with pytest.raises(Corrupt):
        split(b"\x09abc")
    with pytest.raises(Corrupt):
        split(b"\xff\xff\xff\xff\xff\xff")
