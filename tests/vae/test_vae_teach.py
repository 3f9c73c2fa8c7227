"""Teaching a base: what it learns from, that a training is taken up whole, and only its own."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from geostore.collection import Policy
from geostore.errors import InvalidInput
from geostore.testing.codecs import synthetic_series
from geostore.vae import teach
from geostore.vae.base import Base, shipped
from geostore.vae.fit import prepare
from geostore.vae.shared import CROP, Draw, SharedVae, loss_of, start_linear

POLICY = Policy(mse_max=3e-4, index_mae_max=None)
ABOUT = {"bands": "blue,green,red,nir", "seed": 3}


@pytest.fixture(scope="module")
def cloudy():
    """Smaller than a crop, and a third of it masked on every date but the second, which is masked whole."""
    series = synthetic_series((6, 4, 41, 70))
    valid = np.ones_like(series.valid)
    valid[:, :, :23] = False
    valid[1] = False
    return replace(series, valid=valid)


@pytest.fixture(scope="module")
def place(cloudy):
    return teach.place_of("store", prepare(cloudy, "grid", POLICY))


def test_the_bases_that_ship_have_the_layouts_that_are_trained():
    """Proves that a training makes a base of the same shape as those that ship."""
    for base in shipped():
        assert replace(base.layout, height=CROP, width=CROP) == teach.layout_of(base.layout.bands)


def test_a_place_is_mirrored_to_a_crop_with_its_mask(cloudy, place):
    """Proves that a place smaller than a crop is mirrored, that dates without a pixel go, and that masks go along."""
    assert place.residual.shape == (5, 4, CROP, 70)
    assert place.map.shape == (4, CROP, 70)
    np.testing.assert_array_equal(place.valid[:, 41:], place.valid[:, 40:17:-1])
    np.testing.assert_array_equal(place.valid[:, :41], cloudy.valid[[0, 2, 3, 4, 5]])
    assert (place.residual[np.broadcast_to(~place.valid[:, None], place.residual.shape)] == 0).all()
    assert place.residual[:, :, :41][np.broadcast_to(place.valid[:, None, :41], (5, 4, 41, 70))].std() > 0


def test_masked_pixels_weigh_nothing(place):
    """Proves that the error is that of the pixels that count alone, whatever decodes elsewhere."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = SharedVae(teach.layout_of(4))
        start_linear(vae)
        batch = Draw([place], {"store": 1.0}, np.random.default_rng(1)).batch()
        with torch.no_grad():
            decoded, _ = vae(*batch[:3])
            _, error, _ = loss_of(vae, *batch)
    residual, counted = batch[0], batch[4]
    assert 0 < counted.mean() < 1
    assert set(np.unique(counted)) == {0.0, 1.0}
    assert (residual * (1 - counted)).abs().max() == 0
    expected = (((decoded - residual) * counted) ** 2).mean(dim=(1, 2, 3))
    torch.testing.assert_close(error, expected)
    assert (error < ((decoded - residual) ** 2).mean(dim=(1, 2, 3))).any()


def test_a_training_is_taken_up_and_only_its_own(place, tmp_path):
    """Proves that a later run goes on from the state, and that one of other bands, or a damaged one, is refused."""
    saved, layout = tmp_path / "base.state", teach.layout_of(4)
    training = teach.taken_up(layout, 3, saved, ABOUT)
    draw = Draw([place], {"store": 1.0}, np.random.default_rng(2))
    teach.train(training, draw, 0.5, saved, ABOUT, lambda: None)
    assert training.steps > 0
    again = teach.taken_up(layout, 3, saved, ABOUT)
    assert (again.steps, again.seconds) == (training.steps, training.seconds)
    assert all(torch.equal(a, b) for a, b in zip(again.kept.parameters(), training.kept.parameters(), strict=True))
    teach.train(again, draw, 0.5, saved, ABOUT, lambda: None)
    assert again.steps == training.steps  # its time is spent
    with pytest.raises(InvalidInput, match="of another training: seed was 3, is 4; delete it"):
        teach.taken_up(layout, 4, saved, {**ABOUT, "seed": 4})
    for damaged in (saved.read_bytes()[:100], packed({"about": ABOUT}), packed(torch.zeros(2))):
        saved.write_bytes(damaged)
        with pytest.raises(InvalidInput, match="does not read as the state of a training"):
            teach.taken_up(layout, 3, saved, ABOUT)


def packed(what):
    """As torch writes it."""
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


def test_what_was_trained_before_an_interrupt_is_kept(place, tmp_path):
    """Proves that a training which is stopped leaves its state, and torch's threads and randomness as they were."""
    training = teach.taken_up(teach.layout_of(4), 3, tmp_path / "state", ABOUT)
    draw = Draw([place], {"store": 1.0}, np.random.default_rng(2))
    before = torch.get_num_threads(), torch.random.get_rng_state()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach.train(training, draw, 600.0, tmp_path / "state", ABOUT, stop)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert teach.taken_up(teach.layout_of(4), 3, tmp_path / "state", ABOUT).steps == training.steps > 0


def test_a_trained_base_reads_back_and_says_what_it_saves(cloudy, place, tmp_path):
    """Proves that what is trained is a base with a prior, and that bytes are told on it, the shipped one and none."""
    training = teach.taken_up(teach.layout_of(4), 0, tmp_path / "state", ABOUT)
    teach.train(training, Draw([place], {"store": 1.0}, np.random.default_rng(2)), 0.3, tmp_path / "state", ABOUT, str)
    slots = [(name,) for name in cloudy.bands.names]
    base = Base.from_bytes(teach.finished(training, slots, {"title": "ours"}, [cloudy], seed=0).data)
    assert (base.slots, base.card) == (tuple(slots), {"title": "ours"})
    assert any(name.startswith("prior.") for name in base.tensors)
    told = teach.bytes_a_raster(base, [cloudy], POLICY)
    assert list(told) == ["this base", "the base that ships", "no network"]
    assert all(size > 0 for size in told.values())
