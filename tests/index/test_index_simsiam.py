"""Trained descriptors pass the suite we ask of others, learn what belongs together, and need NumPy alone afterwards."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from geostore.codec import Series
from geostore.errors import Cancelled, Corrupt, InvalidInput, NotComparable
from geostore.index.descriptors import GROUP, Trainable, Trained
from geostore.index.descriptors import training as trainer
from geostore.index.descriptors.simsiam import SimCLR, SimSiam
from geostore.plugins import load
from geostore.testing.codecs import reflectance_bands, synthetic_series
from geostore.testing.descriptors import DescriptorTests


@cache
def trained(kind):
    """A descriptor that learned for some seconds from six places."""
    torch.set_num_threads(1)
    return kind().train([synthetic_series((3, 4, 40, 37), seed=s) for s in range(6)], steps=12, device="cpu")


class TestSimSiam(DescriptorTests):
    """Brought together."""

    bands_counts = (4,)

    @property
    def descriptor(self):
        """Trained once."""
        return trained(SimSiam)


class TestSimCLR(DescriptorTests):
    """Brought together, and others kept apart."""

    bands_counts = (4,)
    near = 0.5

    @property
    def descriptor(self):
        """Trained once."""
        return trained(SimCLR)


def _meadows(dates=1, seed=0):
    """(Series of 4 bands, (64, 64) bool): smooth and striped land of the same colours, in blocks of 16."""
    rng = np.random.default_rng(seed)
    striped = (np.arange(64)[:, None] // 16 + np.arange(64)[None] // 16) % 2 == 1
    stripes = np.where(np.arange(64) % 2, 0.05, -0.05)[None] * striped
    physical = np.full((dates, 4, 64, 64), 0.2) + stripes + rng.normal(0, 0.004, (dates, 4, 64, 64))
    bands = reflectance_bands(4)
    valid = np.ones((dates, 64, 64), bool)
    times = np.arange(dates, dtype=np.int64)
    return Series(pixels=bands.to_stored(physical), valid=valid, times_us=times, bands=bands), striped


def test_it_learns_from_a_place_what_its_parts_have_in_common():
    """Blocks of one kind of land are nearer to each other than to the other kind, seen nowhere by a label."""
    series, striped = _meadows()
    made = SimSiam().train([series], steps=15, device="cpu")
    blocks = [(r, c) for r in range(0, 64, 16) for c in range(0, 64, 16)]
    whole = np.ones((16, 16), bool)
    points = np.array(
        [made.describe(series.pixels[0, :, r : r + 16, c : c + 16], whole, series.bands) for r, c in blocks]
    )
    kinds = np.array([striped[r, c] for r, c in blocks])
    likeness, same = points @ points.T, kinds[:, None] == kinds[None]
    assert likeness[same].mean() > likeness[~same].mean() + 0.2


def test_what_describes_is_what_was_trained():
    """NumPy alone gives the numbers that torch gave, to rounding."""
    series, _ = _meadows(seed=3)
    places, mean, spread = trainer._standardised([series])
    torch.manual_seed(0)
    model = trainer._model(4)
    model.train()
    views = trainer._views(places, np.random.default_rng(0), np.float32(1) / spread)
    for _ in range(3):
        model(torch.from_numpy(views))
    model.eval()
    network = trainer._exported(model, trained(SimSiam).network.bands, mean, spread)
    valid = series.valid[0].copy()
    valid[5:30, 10:21] = False
    seen = np.concatenate([places[0].values[0] * valid, valid[None]]).astype(np.float32)
    wanted = model(torch.from_numpy(seen[None])).detach().numpy()[0]
    made = SimSiam(network).describe(series.pixels[0], valid, series.bands)
    assert np.allclose(made, wanted / np.linalg.norm(wanted), atol=1e-4)


def test_masked_pixels_teach_nothing():
    """Whatever lies under the mask, the same weights come out."""
    series = synthetic_series((3, 4, 40, 37))
    junk = np.random.default_rng(1).integers(0, 9000, series.pixels.shape).astype(series.pixels.dtype)
    other = replace(series, pixels=np.where(series.valid[:, None], series.pixels, junk))
    assert not series.valid.all()
    first, second = (SimSiam().train([s], steps=2, seed=4, device="cpu") for s in (series, other))
    assert first.to_bytes() == second.to_bytes()
    assert first.to_bytes() != SimSiam().train([series], steps=2, seed=5, device="cpu").to_bytes()


def test_small_rasters_and_large_ones_train_together():
    """A raster smaller than the smallest view counts with what it has."""
    series = [synthetic_series((1, 4, 6, 5)), synthetic_series((2, 4, 70, 66), seed=1)]
    made = SimCLR().train(series, steps=3, device="cpu")
    assert np.isfinite(made.describe(series[0].pixels[0], series[0].valid[0], series[0].bands)).all()


def test_weights_turn_round_and_damage_is_seen():
    """Bytes give the same descriptor; each byte missing or wrong in the head is refused."""
    made, series = trained(SimSiam), synthetic_series((1, 4, 40, 37))
    data = made.to_bytes()
    again = SimSiam().from_bytes(data)
    assert again.digest(series.bands) == made.digest(series.bands)
    args = series.pixels[0], series.valid[0], series.bands
    assert (again.describe(*args) == made.describe(*args)).all()
    for wrong in (data[:-4], b"x" + data[1:], data[:12] + b"}" + data[13:], b""):
        with pytest.raises(Corrupt):
            SimSiam().from_bytes(wrong)


def test_without_weights_and_for_other_bands_it_refuses():
    """The registered instance says how to get weights; bands it was not trained on are not comparable."""
    found = load(GROUP, ["simsiam", "simclr"])
    assert all(isinstance(f, Trainable) for f in found.values())
    assert isinstance(trained(SimSiam), Trained)
    with pytest.raises(InvalidInput, match="no weights yet"):
        found["simsiam"].width(reflectance_bands(4))
    with pytest.raises(NotComparable, match="trained on bands"):
        trained(SimSiam).width(reflectance_bands(5))


def test_what_cannot_teach_is_refused_and_training_can_be_stopped():
    """Nothing usable, bands that differ, a loss or device that is not there; a progress that raises ends it."""
    series = synthetic_series((1, 4, 40, 37))
    with pytest.raises(InvalidInput, match="no usable pixel"):
        SimSiam().train([replace(series, valid=np.zeros_like(series.valid))])
    with pytest.raises(InvalidInput, match="one kind"):
        SimSiam().train([series, synthetic_series((1, 3, 40, 37))])
    with pytest.raises(InvalidInput, match="use simsiam or simclr"):
        trainer.train_network([series], loss="best")
    with pytest.raises(InvalidInput, match="auto, cpu or cuda"):
        SimSiam().train([series], device="tpu")

    def stop(what, share):
        raise Cancelled(what)

    with pytest.raises(Cancelled):
        SimSiam().train([series], progress=stop, device="cpu")


@pytest.mark.gpu
def test_a_gpu_trains_as_a_cpu_does():
    """With the same seed the two descriptors of a place are alike."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    series, _ = _meadows()
    made = [SimSiam().train([series], steps=10, device=d) for d in ("cpu", "cuda")]
    args = series.pixels[0], series.valid[0], series.bands
    assert float(made[0].describe(*args) @ made[1].describe(*args)) > 0.95
