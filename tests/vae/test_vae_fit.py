"""Fit, encode, decode: errors fall, the policy is kept, integers stand for floats, small cells work."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from geostore.certificate import measure
from geostore.codec import COARSER, Effort, Series, decode_many, decode_many_coarser, quiet
from geostore.collection import Policy
from geostore.errors import Cancelled, Corrupt, InvalidInput, UnsupportedFormat
from geostore.spectral import evaluate_index
from geostore.testing.codecs import code, reflectance_bands, synthetic_series
from geostore.vae.codec import MODEL, VaeCodec
from geostore.vae.encoding import Frame, choose_numbers
from geostore.vae.fit import choose_domain, fit_codec, goal_of, prepare
from geostore.vae.learn_prior import Lesson, learn_prior
from geostore.vae.losses import Physical, gaussian_bits, index_errors, laplace_bits, masked_mean
from geostore.vae.model import Layout, Vae
from geostore.vae.quantize import STEPS, TRAINED_STEP, IntegerDecoder, pack_decoder, unpack_decoder
from geostore.vae.refine import Wanted, refine
from geostore.vae.samples import draw
from geostore.vae.sizing import plan, sized
from geostore.vae.static import Units
from geostore.vae.train import Clock, Goal, train
from geostore.vae.weights import VERSION

FREE = Policy(mse_max=None, index_mae_max=None)


def fit_network(series, mode, **options):
    """A fit with a network, even where none would pay."""
    return fit_codec(series, mode, plan=sized(len(series.bands), 3), **options)


@pytest.fixture(scope="module")
def series():
    return synthetic_series((10, 4, 42, 37), indices=("NDVI",))


@pytest.fixture(scope="module")
def codec(series):
    return fit_network(series, "grid", policy=FREE, effort=Effort(steps=120), progress=quiet)


def mean_errors(codec, series):
    certificates = [
        measure(series.pixels[t], code(codec, series, t)[1], series.valid[t], series.bands, ("NDVI",))
        for t in range(len(series))
    ]
    return np.mean([c.mse for c in certificates]), np.mean([c.indices["NDVI"].mae for c in certificates])


def test_training_lowers_the_errors(series, codec):
    """Proves that 120 steps beat gain x static image + level alone by a third, in MSE and NDVI."""
    samples = prepare(series, "grid", FREE)
    bare = []
    for t in range(len(series)):
        predicted = samples.units.to_stored(samples.static.predict(samples.gains[t], samples.levels[t]), series.bands)
        bare.append(measure(series.pixels[t], predicted, series.valid[t], series.bands, ("NDVI",)))
    mse, ndvi = mean_errors(codec, series)
    assert mse < 0.67 * np.mean([c.mse for c in bare])
    assert ndvi < np.mean([c.indices["NDVI"].mae for c in bare])


def test_the_policy_is_kept_by_finer_layers(series, codec):
    """Proves that bounds the latents cannot hold are held by finer layers, and that tighter bounds take more bytes."""
    sizes = []
    for mse in (1e-3, 1e-4, 1e-5):
        strict = replace(codec, policy=Policy(mse_max=mse, index_mae_max=None))
        coded = [code(strict, series, t) for t in range(3)]
        for t, (_, decoded) in enumerate(coded):
            assert measure(series.pixels[t], decoded, series.valid[t], series.bands).mse <= mse * (1 + 1e-6)
        sizes.append(sum(len(encoded.payload) for encoded, _ in coded))
    assert sizes == sorted(sizes)


def test_masked_pixels_weigh_nothing(series, codec):
    """Proves that pixels under the mask change neither what is encoded nor what is fitted, whatever they hold."""
    wild = series.pixels.copy()
    wild[~np.broadcast_to(series.valid[:, None], wild.shape)] = 65535
    other = replace(series, pixels=wild)
    for t in range(3):
        assert codec.encode(wild[t], series.valid[t]).payload == codec.encode(series.pixels[t], series.valid[t]).payload
    short = Effort(steps=3)
    first = fit_network(series, "grid", policy=FREE, effort=short, progress=quiet)
    assert fit_network(other, "grid", policy=FREE, effort=short, progress=quiet).to_bytes() == first.to_bytes()


def test_integers_stand_for_floats(codec):
    """Proves that the integer decoder follows the float decoder of the same weights to 1 % of the residual's scale."""
    rng = np.random.default_rng(2)
    latents = rng.integers(-6, 7, (1, *codec.layout.latent_shape)).astype(np.int32)
    exact = codec.decoder.decode(latents, TRAINED_STEP)
    statics = tuple(torch.from_numpy(m[None].astype(np.float32)) / 1024 for m in codec.decoder.maps)
    with torch.no_grad():
        z = torch.from_numpy(latents.astype(np.float32)) * (STEPS[TRAINED_STEP] / 16)
        near = unpack_decoder(codec.layout, codec.tensors)(z, statics).numpy()
    near = near[..., : codec.layout.height, : codec.layout.width]
    assert np.abs(exact - near).max() < 0.01 * max(1.0, np.abs(near).max())


def test_integer_sums_do_not_depend_on_order():
    """Proves exactness: permuted channels of every layer, with the weights permuted alike, give the same integers."""
    layout = Layout(mode="grid", bands=2, height=16, width=24, channels=6, widths=(8, 8, 8, 8), encoder=(4, 4))
    torch.manual_seed(1)
    tensors = pack_decoder(Vae(layout).decoder)
    rng = np.random.default_rng(1)
    latents = rng.integers(-40, 41, (1, 6, 2, 3)).astype(np.int32)
    maps = tuple(np.floor(rng.normal(0, 2000, (2, 16 >> k, 24 >> k))) for k in range(4))
    order = rng.permutation(6)
    turned = dict(tensors)
    for name in ("head.q", "skip.q"):
        turned[name] = tensors[name].copy()
        turned[name][:, :6] = tensors[name][:, order]
    first = IntegerDecoder(layout, tensors, maps).decode(latents, TRAINED_STEP)
    np.testing.assert_array_equal(IntegerDecoder(layout, turned, maps).decode(latents[:, order], TRAINED_STEP), first)
    assert np.array_equal(first * 2**18, np.rint(first * 2**18))


@pytest.mark.parametrize("mode", ["grid", "flat", "flat-single"])
@pytest.mark.parametrize("shape", [(1, 4, 5, 30), (2, 1, 1, 1), (2, 3, 8, 9), (1, 13, 3, 70)])
def test_small_cells(mode, shape):
    """Proves that slivers, single pixels, one date and 13 bands go through a fit that is not called off."""
    small = synthetic_series(shape)
    policy = Policy(mse_max=1e-3, index_mae_max=None)
    fitted = fit_network(small, mode, policy=policy, effort=Effort(steps=2), progress=quiet)
    again = VaeCodec.from_bytes(fitted.to_bytes())
    _, decoded = code(again, small, 0)
    assert measure(small.pixels[0], decoded, small.valid[0], small.bands).mse <= 1e-3 * (1 + 1e-6)


def test_without_a_network_the_policy_is_kept(series):
    """Proves that a few small rasters get a codec of static image and detail alone, which keeps the policy."""
    few = Series(
        pixels=series.pixels[:3], valid=series.valid[:3], times_us=series.times_us[:3], bands=series.bands
    )  # fmt: skip
    policy = Policy(mse_max=1e-4, index_mae_max=None)
    assert plan(few, policy).channels == 0
    fitted = fit_codec(few, "grid", policy=policy, effort=Effort(steps=5), progress=quiet)
    again = VaeCodec.from_bytes(fitted.to_bytes())
    for t in range(3):
        encoded, decoded = code(again, few, t)
        assert measure(few.pixels[t], decoded, few.valid[t], few.bands).keeps(policy)
        assert "grid" not in encoded.layers
        assert encoded.vector.shape == (8,)


def test_the_flat_vae_gives_one_vector(series):
    """Proves that the paper's modes store 64 numbers a raster, or 16 a band, and that these alone decode."""
    for mode, size in (("flat", 64), ("flat-single", 16 * 4)):
        fitted = fit_network(series, mode, policy=FREE, effort=Effort(steps=2), progress=quiet)
        encoded, decoded = code(fitted, series, 0)
        assert encoded.layers == ("vector",)
        assert encoded.vector.shape == (size,)
        assert decoded.shape == series.pixels[0].shape


def test_a_parent_lends_its_weights(series, codec):
    """Proves that a fit of no steps with a parent decodes as well as the parent, and without one does not."""
    warm = fit_network(series, "grid", policy=FREE, effort=Effort(steps=1), progress=quiet, parent=codec)
    cold = fit_network(series, "grid", policy=FREE, effort=Effort(steps=1), progress=quiet)
    assert mean_errors(warm, series)[0] < 1.2 * mean_errors(codec, series)[0] < mean_errors(cold, series)[0]


def test_fitting_leaves_torch_as_it_was(series):
    """Proves that a fit neither reads nor moves the process's own random state."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = fit_network(series, "grid", policy=FREE, effort=Effort(steps=2), progress=quiet).to_bytes()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    assert fit_network(series, "grid", policy=FREE, effort=Effort(steps=2), progress=quiet).to_bytes() == first


def test_progress_may_cancel(series):
    """Proves that Cancelled raised while steps run leaves the fit within STEPS_SHOWN steps."""
    seen = []

    def progress(what, share):
        seen.append(what)
        if what == "fit":
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        fit_network(series, "grid", policy=FREE, effort=Effort(steps=1000), progress=progress)
    assert seen == ["prepare", "fit"]


def test_the_clock_stops_by_steps_or_seconds():
    """Proves, on a clock of our own, that the share follows whichever limit is nearer, and cools early when told."""
    now = [100.0]
    clock = Clock(Effort(steps=100, seconds=10), now=lambda: now[0])
    clock.step = 20
    assert clock.share() == pytest.approx(0.2)
    now[0] = 105.0
    assert clock.share() == pytest.approx(0.5)
    now[0] = 111.0
    assert clock.share() > 1
    steps = Clock(Effort(steps=1000))
    steps.step = 130
    steps.cool_early()
    assert steps.steps == 200


def test_a_raster_of_another_shape_is_refused(codec):
    """Proves that pixels that do not fill the codec's window raise InvalidInput and say both sizes."""
    with pytest.raises(InvalidInput, match="42 x 37"):
        codec.encode(np.zeros((4, 8, 8), np.uint16), np.ones((8, 8), bool))
    with pytest.raises(InvalidInput):
        codec.decode(b"", np.ones((8, 8), bool))


def test_unknown_payload_kinds_are_corrupt(codec, series):
    """Proves that a payload whose first byte names no layer raises Corrupt."""
    with pytest.raises(Corrupt):
        codec.decode(b"\xf0abc", series.valid[0])


def test_newer_codecs_are_unsupported(codec):
    """Proves that a codec of a newer version raises UnsupportedFormat, and any flipped bit Corrupt."""
    data = bytearray(codec.to_bytes())
    data[5] = VERSION + 1
    with pytest.raises(UnsupportedFormat):
        VaeCodec.from_bytes(bytes(data))
    rng = np.random.default_rng(0)
    for _ in range(30):
        flipped = bytearray(codec.to_bytes())
        at = int(rng.integers(6, len(flipped)))
        flipped[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(Corrupt):
            VaeCodec.from_bytes(bytes(flipped))


def test_laplace_bits_are_the_discrete_distribution():
    """Proves against the distribution function that the bits of integers add up to probabilities that sum to 1."""
    z = torch.arange(-60, 61, dtype=torch.float32).reshape(1, 1, 1, -1)
    bits = laplace_bits(z, torch.tensor([0.7]), torch.ones(1, 1, 1, 1))
    probability = torch.pow(2.0, -bits).flatten()
    assert float(probability.sum()) == pytest.approx(1.0, abs=1e-4)
    law = torch.distributions.Laplace(0.0, float(np.exp(0.7)))
    wanted = law.cdf(z.flatten()[50:71] + 0.5) - law.cdf(z.flatten()[50:71] - 0.5)
    assert torch.allclose(probability[50:71], wanted, rtol=1e-4)


def test_gaussian_bits_are_the_divergence():
    """Proves against torch's own KL divergence that the flat VAE's term is right, in bits."""
    mu, logvar = torch.randn(50), torch.randn(50)
    wanted = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, torch.exp(0.5 * logvar)), torch.distributions.Normal(0.0, 1.0)
    )
    assert torch.allclose(gaussian_bits(mu, logvar), wanted / np.log(2), rtol=1e-4, atol=1e-5)


def test_index_loss_is_the_certificates_error():
    """Proves that the loss's NDVI term equals the mean error a certificate measures, and that gradients flow."""
    rng = np.random.default_rng(9)
    truth = rng.uniform(0.0, 0.6, (2, 3, 8, 8)).astype(np.float32)
    seen = torch.from_numpy(truth + rng.normal(0, 0.02, truth.shape).astype(np.float32)).requires_grad_()
    mask = torch.from_numpy((rng.random((2, 1, 8, 8)) < 0.8).astype(np.float32))
    names = ("green", "red", "nir")
    found = index_errors(torch.from_numpy(truth), seen, mask, names, ("NDVI",))["NDVI"]
    for i in range(2):
        error = np.abs(
            evaluate_index("NDVI", truth[i], names) - evaluate_index("NDVI", seen.detach().numpy()[i], names)
        )
        assert float(found[i].detach()) == pytest.approx(float(error[mask[i, 0].numpy() > 0].mean()), rel=1e-4)
    found.mean().backward()
    assert float(seen.grad.abs().sum()) > 0


def test_an_index_without_a_value_weighs_nothing_in_the_loss():
    """Proves of EVI, where its formula divides by zero in the original, that term and gradients stay finite."""
    truth = torch.tensor([[[0.5, 0.25]], [[0.25, 0.25]], [[1.25, 1.25]]])[None]  # (1, 3, 1, 2), the first has no EVI
    seen = (truth + torch.tensor([0.0, 0.125, 0.0])[None, :, None, None]).requires_grad_()
    names = ("blue", "red", "nir")
    found = index_errors(truth, seen, torch.ones(1, 1, 1, 2), names, ("EVI",))["EVI"]
    alone = index_errors(truth[..., 1:], seen[..., 1:].detach(), torch.ones(1, 1, 1, 1), names, ("EVI",))["EVI"]
    assert float(found.detach()) == pytest.approx(float(alone))
    found.mean().backward()
    assert bool(seen.grad.isfinite().all())


def test_masked_mean_of_nothing_is_zero():
    """Proves that a raster whose mask is empty adds 0, not NaN."""
    assert masked_mean(torch.ones(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)).tolist() == [0.0, 0.0]


def test_batches_are_crops_on_whole_latents():
    """Proves that a batch of a wide window holds 64 x 64 crops whose statics have the matching sizes."""
    wide = synthetic_series((3, 2, 70, 150))
    samples = prepare(wide, "grid", FREE)
    layout = Layout(mode="grid", bands=2, height=70, width=150, channels=4, widths=(8, 8, 8, 8), encoder=(4, 4))
    batch = draw(samples, layout, np.arange(3), np.random.default_rng(0), torch.device("cpu"))
    assert batch.residual.shape == (4, 2, 64, 64)
    assert [s.shape[2:] for s in batch.statics] == [(64 >> k, 64 >> k) for k in range(4)]


def test_terms_are_returned(series):
    """Proves that training returns every term: bits, squared error and each index."""
    samples = prepare(series, "grid", FREE)
    layout = Layout(mode="grid", bands=4, height=42, width=37, channels=4, widths=(8, 8, 8, 8), encoder=(4, 4))
    torch.manual_seed(0)
    terms = train(Vae(layout), samples, goal=Goal(mse=1e-4, index=0.02), effort=Effort(steps=3), progress=quiet)
    assert set(terms) == {"rate", "mse", "index_NDVI", "steps"}
    assert terms["steps"] == 3


def test_goals_lie_below_the_bounds():
    """Proves that a fit aims below what every single raster must keep."""
    goal = goal_of(Policy(mse_max=1e-3, index_mae_max=0.04, index_p99_max=0.05), "grid")
    assert goal.mse < 1e-3
    assert goal.index < 0.05 / 3


def test_other_kinds_than_reflectance(series):
    """Proves that bands whose kind is an index or counts are coded on their declared range."""
    bands = tuple(replace(b, kind="counts", scale=1.0, offset=0.0, valid_max=20000.0) for b in series.bands)
    counts = Series(
        pixels=np.minimum(series.pixels, 20000),
        valid=series.valid,
        times_us=series.times_us,
        bands=type(series.bands)(bands),
    )
    policy = Policy(mse_max=1e-4, index_mae_max=None)
    fitted = fit_network(counts, "grid", policy=policy, effort=Effort(steps=5), progress=quiet)
    _, decoded = code(fitted, counts, 1)
    assert measure(counts.pixels[1], decoded, counts.valid[1], counts.bands).keeps(policy)


def test_refined_latents_never_take_more(series, codec):
    """Proves that rasters whose latents are refined keep the policy, in no more bytes than the encoder's own."""
    policy = Policy(mse_max=1e-3, index_mae_max=0.05)
    for t in range(1, 3):
        sizes = []
        for rounds in (0, 8):
            fitted = replace(codec, policy=policy, rounds=rounds)
            encoded, decoded = code(fitted, series, t)
            assert measure(series.pixels[t], decoded, series.valid[t], series.bands, ("NDVI",)).keeps(policy)
            sizes.append(len(encoded.payload))
        assert sizes[1] <= sizes[0]


def test_refinement_saves_bits_at_the_same_error():
    """Proves on a linear decoder, whose atoms overlap, that descent beats rounding in bits, within its error."""
    rng = np.random.default_rng(4)
    atoms = torch.from_numpy(rng.normal(0, 0.3, (24, 64)).astype(np.float32))

    def decode(z):
        return (z.flatten(1) @ atoms).reshape(len(z), 1, 8, 8)

    truth = torch.from_numpy(rng.laplace(0, 0.7, (3, 24, 1, 1)).astype(np.float32))
    same = Physical(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), 0.0)
    residual = decode(truth) + 0.1 * torch.from_numpy(rng.normal(size=(3, 1, 8, 8)).astype(np.float32))
    wanted = Wanted(residual, torch.ones(3, 1, 8, 8), torch.zeros(3, 1, 8, 8), 1.0, same, ("red",), ())

    def rate(z):
        return (2 + 2 * z.abs()).clamp(max=30).mul(torch.tanh(4 * z.abs())).flatten(1).sum(dim=1) + 1

    plain = torch.round(truth)
    bound = float(wanted.errors(decode(plain))["mse"].max())
    found = refine(truth, wanted, decode, lambda _: rate, {"mse": bound}, rounds=60)
    assert bool((wanted.errors(decode(found))["mse"] <= bound).all())
    assert float(rate(found).sum()) < float(rate(plain).sum())


@pytest.mark.parametrize("bend", [0, 20])
def test_units_are_inverted_to_the_last_digit(bend):
    """Proves that stored values come back from units, a log's within half of its step, and that tensors agree."""
    bands = reflectance_bands(2)
    units, stored = Units.of(bands, bend), np.arange(1000, 10000, 7, dtype=np.uint16).reshape(1, 1, -1).repeat(2, 0)
    inside, truth = units.from_stored(stored), bands.to_physical(stored)
    away = bands.to_physical(units.to_stored(inside, bands)) - truth
    assert np.abs(away).max() <= (1e-6 if not bend else 1e-4 + 0.51 / 1024 * (1 + bend / 1000))
    np.testing.assert_allclose(units.to_physical(inside), truth, rtol=1e-5, atol=1e-6)
    physical = Physical.of(units)
    tensor = torch.from_numpy(inside.astype(np.float32))
    np.testing.assert_allclose(physical(tensor).numpy(), truth, rtol=1e-4, atol=1e-6)
    moved = physical.away(tensor, torch.full_like(tensor, 0.001))
    np.testing.assert_allclose(moved.numpy(), (physical(tensor + 0.001) - physical(tensor)).numpy(), atol=1e-6)


def test_indices_alone_are_fitted_in_the_log(series):
    """Proves that a bound on NDVI alone is kept by a codec in logarithms, which reads back as it was."""
    policy = Policy(mse_max=None, index_mae_max=0.05)
    fitted = fit_network(series, "grid", policy=policy, effort=Effort(steps=60), progress=quiet)
    assert fitted.bend
    assert choose_domain(series, "grid", Policy(mse_max=1e-3, index_mae_max=0.05)) == "linear"
    again = VaeCodec.from_bytes(fitted.to_bytes())
    for t, encoded in enumerate(fitted.encode_series(series)):
        decoded = again.decode(encoded.payload, series.valid[t], encoded.shared)
        seen = measure(series.pixels[t], decoded, series.valid[t], series.bands, series.indices)
        assert not series.valid[t].any() or seen.keeps(policy)


def test_chained_rasters_decode_alone_and_together(series, codec):
    """Proves that every raster of a chain decodes to the same pixels by itself, in its group, and read back."""
    frames = [Frame(codec, p, v) for p, v in zip(series.pixels, series.valid, strict=True)]
    prior = learn_prior([Lesson([choose_numbers(frames[:8])], codec.static_features)], codec.layout.channels, seed=0)
    for policy in (FREE, Policy(mse_max=1e-5, index_mae_max=None)):
        chained = replace(codec, tables=None, prior=prior, policy=policy)
        encoded = chained.encode_series(series)
        again = VaeCodec.from_bytes(chained.to_bytes())
        assert len({e.shared for e in encoded} - {b""}) == 2
        items = [(e.shared, (e.payload, v)) for e, v in zip(encoded, series.valid, strict=True)]
        for decoded, (shared, (payload, valid)) in zip(decode_many(chained, items), items, strict=True):
            np.testing.assert_array_equal(again.decode(payload, valid, shared), decoded)
        _first_layers_decode_alone(again, items)


def _first_layers_decode_alone(codec, items):
    """The embedding is what a payload without its last layer decodes to, the preview what its gains and levels say."""
    found = {tier: decode_many_coarser(codec, tier, items) for tier in COARSER}
    for i, (shared, (payload, valid)) in enumerate(items):
        preview, embedding = found["preview"][i], found["embedding"][i]
        if not payload or not payload[0] & 15:
            continue
        numbers = list(islice(codec._chain(shared), payload[0] & 15))[-1]
        gains, levels = np.split(numbers.head, 2)
        np.testing.assert_array_equal(preview, codec.units.to_stored(codec.static.predict(gains, levels), codec.bands))
        assert (embedding is None) == (payload[0] >> 4 == MODEL)
        if embedding is not None:
            bare = bytes([MODEL << 4 | payload[0] & 15])
            np.testing.assert_array_equal(embedding, codec.decode(bare, valid, shared))
