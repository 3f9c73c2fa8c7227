"""Estimates before a fit: near what is stored, monotone in the bound, and the paper's scores beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geostore.codec import Effort, RawCodec, Series, quiet
from geostore.collection import Policy
from geostore.testing.codecs import synthetic_series
from geostore.vae import VaeFamily
from geostore.vae.complexity import foresee, of_index, of_mse
from geostore.vae.fit import fit_codec
from geostore.vae.scores import gzip_ratio, kernel_pca_components, pca_components, water_filling_bits
from geostore.vae.sizing import SIZES, network_plan, sized, weights_bytes, worthwhile


def first(series, dates):
    return replace(series, pixels=series.pixels[:dates], valid=series.valid[:dates], times_us=series.times_us[:dates])


def test_complexity_grows_as_the_bound_tightens():
    """Proves that water-filling bits and the gzip ratio at the target step grow as the error allowed falls."""
    series = synthetic_series((6, 4, 48, 40))
    bits = [water_filling_bits(series, Policy(mse_max=m, index_mae_max=None)) for m in (1e-2, 1e-3, 1e-4, 1e-5)]
    assert bits == sorted(bits)
    ratios = [gzip_ratio(series, step) for step in (400.0, 100.0, 10.0, 1.0)]
    assert ratios == sorted(ratios)


def test_water_filling_is_exact_for_white_noise():
    """Proves against theory that white noise of variance v needs log2(v / d) / 2 bits a value at error d."""
    rng = np.random.default_rng(0)
    template = synthetic_series((8, 1, 64, 64))
    noise = template.bands.to_stored(0.5 + rng.normal(0, 0.04, template.pixels.shape))
    series = Series(pixels=noise, valid=np.ones_like(template.valid), times_us=template.times_us, bands=template.bands)
    bits = water_filling_bits(series, Policy(mse_max=1e-4, index_mae_max=None))
    assert bits == pytest.approx(0.5 * np.log2(0.04**2 * 7 / 8 / 1e-4), rel=0.08)  # the mean image takes 1/8 out


def test_the_estimate_is_near_what_is_stored():
    """Proves that codec and embeddings of a fit are within a factor of 2 of the estimate, which took no fit."""
    series = synthetic_series((6, 4, 48, 40))
    policy = Policy(mse_max=1e-4, index_mae_max=None)
    estimate = worthwhile(series, policy)
    codec = VaeFamily().fit(series, policy=policy, effort=Effort(steps=5), progress=quiet)
    rasters = sum(len(codec.encode(p, v).payload) for p, v in zip(series.pixels, series.valid, strict=True))
    expected = estimate.bytes_codec + estimate.rasters * estimate.bytes_per_raster
    assert 0.5 < (len(codec.to_bytes()) + rasters) / expected < 2


def test_what_does_not_pay_is_kept_lossless():
    """Proves that a single pixel and a wholly masked series are given the lossless codec without a fit."""
    tiny = synthetic_series((2, 1, 1, 1))
    blind = replace(tiny, valid=np.zeros_like(tiny.valid))
    for series in (tiny, blind):
        assert not worthwhile(series, Policy()).worthwhile
        fitted = VaeFamily().fit(series, policy=Policy(), effort=Effort(), progress=quiet)
        assert isinstance(fitted, RawCodec)


def test_break_even_is_where_bytes_cross():
    """Proves the arithmetic: at the break-even number of dates lossless bytes exceed codec and embeddings."""
    estimate = worthwhile(synthetic_series((6, 4, 48, 40)), Policy(mse_max=1e-3, index_mae_max=None))
    per_lossless = estimate.bytes_lossless / estimate.rasters
    dates = estimate.break_even
    assert dates is not None
    assert estimate.bytes_codec + dates * estimate.bytes_per_raster <= dates * per_lossless


def test_the_papers_scores():
    """Proves PCA and kernel PCA counts against what is known: copies of one raster need 1, independent noise many."""
    series = synthetic_series((8, 2, 24, 24))
    two = replace(series, pixels=series.pixels[np.array([0, 1] * 4)])
    assert pca_components(two) == 1
    noise = np.random.default_rng(1).integers(0, 5000, series.pixels.shape).astype(np.uint16)
    assert pca_components(replace(series, pixels=noise)) >= 6
    assert kernel_pca_components(replace(series, pixels=noise)) >= 6
    assert kernel_pca_components(two) == 1


def test_foreseen_bits_grow_as_bounds_tighten_and_never_beyond_rounding():
    """Proves that what is foreseen grows as either error falls, lies in its interval, and never exceeds gzip."""
    series = synthetic_series((6, 4, 48, 40), indices=("NDVI",))
    found = [foresee(series, mse=mse, indices={}) for mse in (1e-2, 1e-3, 3e-4, 1e-4, 1e-5)]
    assert [f.bits for f in found] == sorted(f.bits for f in found)
    assert all(f.low <= f.bits <= f.high for f in found)
    assert found[-1].high <= of_mse(series, 1e-5)
    tight = [foresee(series, mse=1e-3, indices={"NDVI": error}) for error in (0.05, 0.01)]
    assert found[1].bits <= tight[0].bits < tight[1].bits


def test_masked_pixels_weigh_nothing_in_what_is_foreseen():
    """Proves that scores are the same whatever lies under a mask."""
    series = synthetic_series((6, 4, 48, 40), indices=("NDVI",))
    noise = np.random.default_rng(0).integers(1, 9000, series.pixels.shape).astype(np.uint16)
    other = replace(series, pixels=np.where(series.valid[:, None], series.pixels, noise))
    assert of_mse(series, 1e-4) == of_mse(other, 1e-4)
    assert of_index(series, "NDVI", 0.02) == of_index(other, "NDVI", 0.02)
    assert of_mse(replace(series, valid=np.zeros_like(series.valid)), 1e-4) == 0


def test_networks_widen_with_what_embeddings_take():
    """Proves that the size planned never falls as embeddings take more, from the least to the widest, at any bands."""
    for bands in (1, 4, 10):
        plans = [network_plan(bands, embeddings) for embeddings in np.geomspace(10, 1e8, 60)]
        sizes = [[sized(bands, size) for size in range(len(SIZES))].index(plan) for plan in plans]
        assert sizes == sorted(sizes)
        assert (sizes[0], sizes[-1]) == (0, len(SIZES) - 1)
        assert len({plan.channels for plan in plans}) == 1


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_weights_take_what_was_said(size):
    """Proves that the bytes a network is planned with are within a sixth, or 500 bytes, of those that are stored."""
    series, policy, plan = synthetic_series((3, 4, 24, 24)), Policy(mse_max=1e-3, index_mae_max=None), sized(4, size)
    codec = fit_codec(series, "grid", policy=policy, effort=Effort(steps=3), progress=quiet, plan=plan)
    stored = len(codec.to_bytes()) - len(replace(codec, tensors={}, prior=None).to_bytes())
    assert stored == pytest.approx(weights_bytes(4, plan), rel=1 / 6, abs=500)


def test_an_estimate_says_how_far_it_may_be_off():
    """Proves that foreseen bytes lie in an interval, and that counted ones are a point."""
    series = synthetic_series((6, 4, 48, 40))
    for mse in (1e-3, 1e-6):
        found = worthwhile(series, Policy(mse_max=mse, index_mae_max=None))
        low, high = found.bytes_per_raster_interval
        assert low <= found.bytes_per_raster <= high
        assert (low < high) == (found.seconds > 0)
