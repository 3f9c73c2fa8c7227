"""Bases: found by band names, sliced, changed by small deltas, named by digest, decoded in whole numbers."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from geostore.certificate import measure
from geostore.codec import Effort, quiet
from geostore.collection import Policy
from geostore.errors import Corrupt, NotFound, UnsupportedFormat
from geostore.testing.codecs import synthetic_series
from geostore.vae import base as bases
from geostore.vae.adapt import Deltas, Lesson, fit_deltas
from geostore.vae.base import Base, Borrowed, changed, pack_base
from geostore.vae.borrow import borrow_codec, borrow_codecs
from geostore.vae.choose import choose_codec
from geostore.vae.codec import VaeCodec
from geostore.vae.model import Layout
from geostore.vae.quantize import BITS, LOG_STEPS, STEPS, TRAINED_STEP, IntegerDecoder, unpack_decoder, unpack_encoder
from geostore.vae.shared import CROP, Draw, Place, SharedVae, Training, base_of, loss_of, pyramid, start_linear

SMALL = Layout(mode="grid", bands=4, height=CROP, width=CROP, channels=6, widths=(8, 8, 6, 6), encoder=(6, 8), hidden=4)
SLOTS = (("blue", "swir16"), ("green",), ("red",), ("nir", "nir08"))
POLICY = Policy(mse_max=1e-3, index_mae_max=None)


@pytest.fixture(scope="module")
def base():
    """A linear codec with random layers beside it: nothing is trained, everything is there."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        vae = SharedVae(SMALL)
        start_linear(vae)
        for name in ("turn0", "turn1", "turn2", "turn3", "spread"):
            torch.nn.init.normal_(vae.decoder.biases[name], std=0.05)
        return base_of(vae, SLOTS, {"title": "random"})


@pytest.fixture
def lent(base, monkeypatch):
    """The base, as if it came with the package."""
    monkeypatch.setattr(bases, "shipped", lambda: (base,))
    return base


@pytest.fixture(scope="module")
def series():
    return synthetic_series((8, 4, 42, 37))


def maps_of(layout, seed=0):
    """Static maps of a window as whole numbers, at four scales."""
    rng = np.random.default_rng(seed)
    out = [np.rint(rng.normal(0, 1 << BITS, (layout.bands, *layout.padded)))]
    for _ in range(3):
        a = out[-1]
        out.append(np.floor((a[:, ::2, ::2] + a[:, 1::2, ::2] + a[:, ::2, 1::2] + a[:, 1::2, 1::2]) / 4))
    return tuple(out)


def test_a_base_reads_back_and_its_name_is_its_digest(base):
    """Proves that a base opens from its bytes with the same name, and that damage and newer formats are told apart."""
    again = Base.from_bytes(base.data)
    assert (again.digest, again.layout, again.slots, again.card) == (base.digest, base.layout, base.slots, base.card)
    assert pack_base(base.layout, base.slots, {"title": "other"}, base.tensors).digest != base.digest
    with pytest.raises(Corrupt, match="does not open"):
        Base.from_bytes(base.data[:200])
    with pytest.raises(UnsupportedFormat, match="newer than 1"):
        Base.from_bytes(base.data.replace(b'\\"version\\": 1', b'\\"version\\": 9'))


def test_bands_find_their_slots_by_name(base, lent):
    """Proves that bands take slots by name, in any order, each slot once, and strange or too few bands none."""
    assert base.planes_of(("nir", "red", "green", "blue")) == (3, 2, 1, 0)
    assert base.planes_of(("swir16", "nir08", "red", "green")) == (0, 3, 2, 1)
    assert base.planes_of(("blue", "swir16", "red", "nir")) is None  # both want the first slot
    assert base.planes_of(("red",)) is None
    assert bases.find(("red", "vv")) is None
    assert bases.find(("red", "green")) == (base, (2, 1))


def test_a_slice_is_the_whole_with_zeros_elsewhere(base):
    """Proves that the network over some slots gives what the whole one gives for them when the others are 0."""
    planes = (3, 1)
    layout = base.narrowed(planes, 16, 24)
    rng = np.random.default_rng(1)
    whole_maps, residual = np.zeros((1, 4, 16, 24), np.float32), np.zeros((2, 4, 16, 24), np.float32)
    whole_maps[:, planes] = rng.normal(size=(1, 2, 16, 24))
    residual[:, planes] = rng.normal(size=(2, 2, 16, 24))
    log_step = torch.zeros(1, 1, 1, 1)
    found = []
    for shape, tensors, at in (
        (base.narrowed(range(4), 16, 24), base.taken(range(4)), slice(None)),
        (layout, base.taken(planes), planes),
    ):
        statics = pyramid(torch.from_numpy(whole_maps[:, at]))
        decoder = unpack_decoder(shape, tensors)
        with torch.no_grad():
            z, _ = unpack_encoder(shape, tensors)(torch.from_numpy(residual[:, at]), statics, log_step)
            found.append((z, decoder(z, decoder.look(statics), log_step)))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1][:, planes])


def test_whole_numbers_stand_for_floats_at_every_step(base):
    """Proves that the integer decoder follows the float one closely at every step, and gives whole multiples."""
    layout = base.narrowed(range(4), 21, 30)
    tensors, maps = base.taken(range(4)), maps_of(layout)
    exact = IntegerDecoder(layout, tensors, maps)
    floats = unpack_decoder(layout, tensors)
    latents = np.random.default_rng(2).integers(-3, 4, (2, *layout.latent_shape)).astype(np.int32)
    statics = tuple(torch.from_numpy(m[None].astype(np.float32) / (1 << BITS)) for m in maps)
    for step, size in enumerate(STEPS):
        got = exact.decode(latents, step)
        assert (got * (1 << 18) == np.rint(got * (1 << 18))).all()
        with torch.no_grad():
            log_step = torch.full((1, 1, 1, 1), LOG_STEPS[step] / (1 << BITS))
            z = torch.from_numpy(latents.astype(np.float32)) * (size / 16)
            want = floats(z, floats.look(statics), log_step).numpy()[..., :21, :30]
        assert np.abs(got - want).max() < 0.02


def test_what_layers_take_from_the_maps_is_worked_out_once(base):
    """Proves that decoding rasters one by one or together gives the same, though the branch on the maps ran once."""
    layout = base.narrowed(range(4), 16, 16)
    latents = np.random.default_rng(3).integers(-5, 6, (3, *layout.latent_shape)).astype(np.int32)
    exact = IntegerDecoder(layout, base.taken(range(4)), maps_of(layout))
    together = exact.decode(latents, TRAINED_STEP)
    seen = exact.seen()
    alone = [exact.decode(latents[i : i + 1], TRAINED_STEP)[0] for i in range(3)]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert exact.seen() is seen


def lesson(layout, seed):
    """A place whose residual is twice what the base decodes well: scales alone can mend much of it."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (5, layout.bands, layout.padded[0] // 8, layout.padded[1] // 8))
    residual = np.kron(coarse, np.ones((1, 1, 8, 8))).astype(np.float32)
    mask = np.ones((5, 1, *layout.padded), np.float32)
    return Lesson(residual=residual, mask=mask, map=np.zeros((layout.bands, *layout.padded), np.float32), log_step=-1.0)


def error_of(layout, tensors, place):
    """Mean squared error of a place's rasters, encoded and decoded in float."""
    encoder, decoder = unpack_encoder(layout, tensors), unpack_decoder(layout, tensors)
    log_step = torch.full((1, 1, 1, 1), place.log_step)
    statics = pyramid(torch.from_numpy(place.map[None]))
    with torch.no_grad():
        mu, _ = encoder(torch.from_numpy(place.residual), statics, log_step)
        z = torch.round(mu / 2**place.log_step) * 2**place.log_step
        return float(((decoder(z, decoder.look(statics), log_step).numpy() - place.residual) ** 2).mean())


@pytest.mark.parametrize("whole", [False, True])
def test_deltas_of_places_fitted_together_lower_each_ones_error(base, whole):
    """Proves that each of three deltas fitted in one pass, rounded as stored, lowers the error of its own place."""
    layout = base.narrowed(range(4), 16, 16)
    tensors = base.taken(range(4))
    places = [lesson(layout, seed) for seed in range(3)]
    deltas = fit_deltas(layout, tensors, places, whole=whole, steps=50, seed=0, progress=quiet)
    for place, delta in zip(places, deltas, strict=True):
        assert error_of(layout, changed(tensors, delta), place) < 0.97 * error_of(layout, tensors, place)


def test_a_fitted_delta_is_what_is_stored(base):
    """Proves that the network a delta is fitted in computes what the stored, rounded delta makes of the base."""
    layout = base.narrowed(range(4), 16, 16)
    tensors = base.taken(range(4))
    deltas = Deltas(layout, tensors, 2, whole=True)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (p for p in deltas.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.05)
    z, maps = torch.randn(4, *layout.latent_shape, generator=rng), torch.randn(2, 4, 16, 16, generator=rng)
    log_step = torch.zeros(1, 1, 1, 1)
    with torch.no_grad():
        together = deltas(z, deltas.decoder.look(pyramid(maps)), log_step)
        for place in range(2):
            one = unpack_decoder(layout, changed(tensors, deltas.stored(place)))
            alone = one(z[2 * place : 2 * place + 2], one.look(pyramid(maps[place : place + 1])), log_step)
            torch.testing.assert_close(together[2 * place : 2 * place + 2], alone, atol=0.01, rtol=0.01)


def test_a_borrowing_codec_holds_the_digest_not_the_network(base, lent, series):
    """Proves that a codec on a base decodes the same after its bytes were read, which hold no weights of the base."""
    codec = borrow_codec(series, policy=POLICY, effort=Effort(steps=2), delta="whole")
    assert codec is not None
    stored = codec.to_bytes()
    again = VaeCodec.from_bytes(stored)
    assert again.to_bytes() == stored
    encoded, valid = codec.encode(series.pixels[2], series.valid[2]), series.valid[2]
    np.testing.assert_array_equal(again.decode(encoded.payload, valid), codec.decode(encoded.payload, valid))
    bare = replace(codec, borrowed=replace(codec.borrowed, delta={}))
    assert len(stored) - len(bare.to_bytes()) < 1500
    assert len(stored) < 6000
    assert again.borrowed.header()["digest"] == base.digest


def test_a_missing_base_is_named(base, lent, series, monkeypatch):
    """Proves that a codec whose base nobody has says which, and that a store which lends it is enough."""
    codec = borrow_codec(series, policy=POLICY, effort=Effort())
    stored = codec.to_bytes()
    monkeypatch.setattr(bases, "shipped", tuple)
    with pytest.raises(NotFound, match=f"blobs/models/{base.digest}.safetensors"):
        VaeCodec.from_bytes(stored)
    again = VaeCodec.from_bytes(stored, {base.digest: base.data}.__getitem__)
    assert again.borrowed.base.digest == base.digest


def test_deltas_that_do_not_fit_their_base_are_corrupt(base, lent):
    """Proves that a delta of the wrong length, or of an unknown size, is corrupt and not a wrong network."""
    header = Borrowed(base=base, planes=(0, 1, 2, 3), delta={}).header()
    with pytest.raises(Corrupt, match=base.digest):
        Borrowed.read({**header, "delta": "whole"}, {"delta": np.zeros(5, np.int8)})
    with pytest.raises(Corrupt, match=base.digest):
        Borrowed.read({**header, "delta": "half"}, {})
    with pytest.raises(Corrupt, match=base.digest):
        Borrowed.read({**header, "planes": [0, 9]}, {})


def test_series_of_one_kind_are_borrowed_for_together(lent, series):
    """Proves that several series get a codec each, of their own window and static image, and other bands none."""
    other = synthetic_series((6, 4, 33, 50), seed=3)
    codecs = borrow_codecs([series, other], policy=POLICY, effort=Effort(steps=3), delta="few")
    assert [(c.layout.height, c.layout.width) for c in codecs] == [(42, 37), (33, 50)]
    assert all(len(c.borrowed.tensors()["delta"]) == 16 for c in codecs)
    assert borrow_codecs([synthetic_series((3, 1, 16, 16))], policy=POLICY, effort=Effort()) == []


def test_training_goes_on_where_it_was_left():
    """Proves that training lowers the loss, and that a saved state is taken up whole."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.normal(size=(6, 4, 9, 9)), np.ones((1, 1, 8, 8)))
    place = Place("real", coarse.astype(np.float16), rng.normal(size=(4, 72, 72)).astype(np.float16))
    first = Training(SMALL, 0)
    batch = Draw([place], {"real": 1.0}, np.random.default_rng(9)).batch()
    with torch.no_grad():
        before = float(loss_of(first.vae, *batch)[0])
    draw = Draw([place], {"real": 1.0}, np.random.default_rng(1), subsets=[(0, 1, 2, 3), (1, 2)])
    for _ in range(25):
        first.step(draw, 0.0)
    with torch.no_grad():
        assert float(loss_of(first.vae, *batch)[0]) < before
    second = Training(SMALL, 1)
    second.take_up(first.state())
    states = [[*t.vae.parameters(), *t.kept.parameters(), *moments(t)] for t in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    assert (second.steps, second.shown) == (first.steps, first.shown)
    second.step(draw, 0.5)


def moments(training):
    """What the optimiser remembers of every parameter."""
    return [v for state in training.optimiser.state.values() for v in state.values()]


def test_no_steps_fit_nothing(lent, series):
    """Proves that a fit of 0 steps trains neither delta nor network, and that what it gives keeps the policy."""
    said = set()
    codec = choose_codec(series, policy=POLICY, effort=Effort(steps=0), progress=lambda what, share: said.add(what))
    assert "fit" not in said
    assert codec.borrowed is None or not codec.borrowed.delta
    pixels, valid = series.pixels[1], series.valid[1]
    decoded = codec.decode(codec.encode(pixels, valid).payload, valid)
    assert measure(pixels, decoded, valid, series.bands, ()).keeps(POLICY)


GOLDEN = {
    "four-bands": "c153c686acb8fb4040306716711d7d27",
    "many-bands": "fcbbfa5217033f5ec613bcd56c766586",
}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_shipped_bases_decode_to_the_same_bits(name):
    """Proves that each shipped base decodes given latents to the bits it always did, at one thread and at two."""
    shipped = {str(b.layout.bands): b for b in bases.shipped()}
    base = shipped["4" if name == "four-bands" else "13"]
    planes = range(base.layout.bands)
    layout = base.narrowed(planes, 21, 30)
    latents = np.random.default_rng(4).integers(-6, 7, (2, *layout.latent_shape)).astype(np.int32)
    before, seen = torch.get_num_threads(), set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        exact = IntegerDecoder(layout, base.taken(planes), maps_of(layout))
        decoded = np.stack([exact.decode(latents, step) for step in (0, TRAINED_STEP, len(STEPS) - 1)])
        seen.add(hashlib.sha256(decoded.astype("<f8").tobytes()).hexdigest()[:32])
    torch.set_num_threads(before)
    assert seen == {GOLDEN[name]}
