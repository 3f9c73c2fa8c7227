"""Static image, detail and residual layers: exact whole numbers, bounds that hold on every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.certificate import measure
from geostore.coding import residual
from geostore.collection import Policy
from geostore.errors import Corrupt
from geostore.testing.codecs import reflectance_bands, synthetic_series
from geostore.vae.detail import add_detail, coarsest
from geostore.vae.static import Static, Units, code_static, code_wavelet, mean_image

NOTHING = {"mse_max": None, "index_mae_max": None}


def hostile(seed, dtype="uint16", shape=(4, 19, 13)):
    """Pixels with texture, clouds that are not masked, zeros, saturation, and a mask that touches the edges."""
    rng = np.random.default_rng(seed)
    bands = reflectance_bands(shape[0], dtype)
    top = bands.items[0].valid_max
    pixels = rng.normal(0.03, 0.01, shape).cumsum(axis=2) * 0.5 + 0.1
    pixels[:, 3:6, 2:7] = 0.95
    stored = bands.to_stored(pixels)
    stored[:, 0, 0], stored[:, -1, -1], stored[0, 1, 1] = top, 0, top
    valid = rng.random(shape[1:]) < 0.9
    valid[:, -2:] = seed % 2 == 0
    return stored, valid, bands


def every_way(found, near, valid, bands):
    """What a bounded raster decodes to, from an image and from planes in context, near something or not."""
    shape = (len(bands), *valid.shape)
    if image := found.as_image():
        yield residual.unpack_steps(image, shape, found.base, bands)
    for beside in (None, near):
        if planes := found.as_planes(beside, valid, bands):
            yield residual.unpack_in_context(planes, beside, found.base, valid, bands)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bound=st.floats(1e-4, 0.3),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    over=st.booleans(),
)
def test_no_value_breaks_the_bound(seed, bound, dtype, over):
    """Proves that 0 valid values are off by more than max_error, alone or over a base, clouds and all."""
    pixels, valid, bands = hostile(seed, dtype)
    noise = np.random.default_rng(seed).normal(0, 0.05, pixels.shape)
    base = bands.to_stored(bands.to_physical(pixels) + noise) if over else None
    found = residual.tightest(pixels, valid, base, bands, Policy(**NOTHING, max_error=bound), ())
    assert found is not None
    for decoded in every_way(found, bands.to_stored(bands.to_physical(pixels) + noise), valid, bands):
        off = np.abs(pixels.astype(float) - decoded.astype(float))[:, valid] * bands.items[0].scale
        assert int((off > bound * (1 + 1e-6)).sum()) == 0  # certificates are float32


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), bound=st.floats(0.005, 0.3))
def test_no_pixel_breaks_the_index_bound(seed, bound):
    """Proves that 0 valid pixels miss NDVI by more than index_max, though dark ones need finer steps than bright."""
    pixels, valid, bands = hostile(seed)
    found = residual.tightest(pixels, valid, None, bands, Policy(**NOTHING, index_max=bound), ("NDVI",))
    assert found is not None
    near = np.random.default_rng(seed).integers(0, 20000, pixels.shape).astype(pixels.dtype)
    for decoded in every_way(found, near, valid, bands):
        assert measure(pixels, decoded, valid, bands, ("NDVI",)).indices["NDVI"].max <= bound


def test_steps_relative_to_reflectance_are_smaller_than_equal_ones():
    """Proves that an index bound costs fewer bytes by steps in the logarithm than by equal steps."""
    series = synthetic_series((1, 4, 48, 48), indices=("NDVI",))
    pixels, valid, bands = series.pixels[0, 2:], series.valid[0], series.bands.select(["red", "nir"])
    policy = Policy(**NOTHING, index_max=0.05)
    relative = residual.tightest(pixels, valid, None, bands, policy, ("NDVI",))
    equal = residual.tightest(pixels, valid, np.zeros_like(pixels), bands, policy, ("NDVI",))
    assert relative is not None
    assert equal is not None
    assert len(relative.as_image()) < len(equal.as_image())


def test_a_base_stays_where_it_keeps_the_index_bound():
    """Proves that steps over a good base are 0 where NDVI needs none, and in all bands that NDVI does not need."""
    series = synthetic_series((1, 4, 48, 48), indices=("NDVI",))
    pixels, valid, bands = series.pixels[0], series.valid[0], series.bands
    base = pixels + np.random.default_rng(0).integers(-300, 301, pixels.shape).astype(pixels.dtype)
    found = residual.tightest(pixels, valid, base, bands, Policy(**NOTHING, index_max=0.05), ("NDVI",))
    assert found is not None
    assert not found.steps[:2].any()
    assert 0 < (found.steps[2:] != 0).mean() < 0.5
    assert len(found.as_sparse(valid)) < len(found.as_planes(None, valid, bands) or b"")


def test_what_no_rounding_can_keep_is_none():
    """Proves that a bound finer than float32 steps of 16 bits can code gives None, not a wrong layer."""
    pixels, valid, bands = hostile(1, "float32")
    found = residual.tightest(pixels, valid, None, bands, Policy(**NOTHING, max_error=1e-9), ())
    assert found is None or (found.as_image() is None and found.as_planes(None, valid, bands) is None)


@pytest.mark.parametrize("data", [b"", b"x" * 30, bytes(40)])
def test_damaged_layers_are_corrupt(data):
    """Proves that bytes that are no layer raise Corrupt."""
    with pytest.raises(Corrupt):
        residual.unpack_steps(data, (1, 4, 4), None, reflectance_bands(1))
    with pytest.raises(Corrupt):
        residual.unpack_in_context(data[:5], None, None, np.ones((4, 4), bool), reflectance_bands(1))
    with pytest.raises(Corrupt):
        add_detail(data, np.zeros((1, 4, 4), np.uint16), reflectance_bands(1), np.ones(1))
    with pytest.raises(Corrupt):
        Static.from_bytes(data, (1, 4, 4))
    with pytest.raises(Corrupt):
        Static.from_bytes(data, (1, 4, 4), "av1")


def test_detail_is_as_coarse_as_allowed():
    """Proves that detail keeps the bound it was asked for, and that a looser bound takes fewer bytes."""
    series = synthetic_series((1, 3, 40, 33))
    pixels, valid, bands = series.pixels[0], series.valid[0], series.bands
    base = np.full_like(pixels, int(np.median(pixels)))
    sizes = []
    for bound in (1e-3, 1e-4, 1e-5):

        def keeps(decoded, bound=bound):
            return measure(pixels, decoded, valid, bands).mse <= bound

        stream = coarsest(pixels, valid, base, bands, np.ones(3), keeps)
        assert stream is not None
        assert keeps(add_detail(stream, base, bands, np.ones(3)))
        sizes.append(len(stream))
    assert sizes == sorted(sizes)


def test_the_static_image_keeps_its_error_and_decodes_to_itself():
    """Proves, of both ways to code it, that errors are within what was asked, and that bytes give the same integers."""
    series = synthetic_series((8, 4, 37, 50))
    image = mean_image(series.pixels, series.valid, Units.of(series.bands))
    for coded in (code_static, code_wavelet):
        for asked in (np.full(4, 1e-3), np.array([1e-4, 1e-4, 1e-5, 1e-4])):
            static = coded(image, asked)
            used = ((static.image - image) ** 2).mean(axis=(1, 2)) / asked
            assert (used.mean() if static.coding == "av1" else used.max()) <= 1
            again = Static.from_bytes(static.data, image.shape, static.coding)
            np.testing.assert_array_equal(again.image, static.image)
            assert np.array_equal(again.image * 4096, np.rint(again.image * 4096))


def test_a_static_image_beyond_av1_is_coded_all_the_same():
    """Proves that an error that 10 bits cannot keep, and a picture wider than AV1's, fall back to the wavelet."""
    image = np.random.default_rng(0).uniform(0, 1, (2, 8, 24))
    assert code_static(image, np.full(2, 1e-4)).coding == "av1"
    assert code_static(image, np.full(2, 1e-9)).coding == "wavelet"
    assert code_static(np.zeros((1, 8, 8200)), np.full(1, 1e-4)).coding == "wavelet"


def test_the_mean_image_leaves_masked_pixels_out():
    """Proves against a masked mean by numpy that clouds do not enter; never-valid pixels take the band's mean."""
    series = synthetic_series((7, 2, 12, 9))
    valid = series.valid.copy()
    valid[:, 4, 4] = False
    units = Units.of(series.bands)
    image = mean_image(series.pixels, valid, units)
    hidden = np.broadcast_to(~valid[:, None], series.pixels.shape)
    expected = np.ma.array(units.from_stored(series.pixels), mask=hidden).mean(axis=0)
    np.testing.assert_allclose(image[:, valid.any(axis=0)], expected[:, valid.any(axis=0)].filled(-1), rtol=1e-9)
    np.testing.assert_allclose(image[:, 4, 4], expected.reshape(2, -1).mean(axis=1).filled(-1), rtol=1e-6)


def test_gain_and_level_are_found():
    """Proves that a date made as gain x image + level is predicted to within the quantiser's half step."""
    series = synthetic_series((8, 4, 32, 32))
    image = mean_image(series.pixels, series.valid, Units.of(series.bands))
    static = code_static(image, np.full(4, 1e-6))
    centre = static.centre[:, None, None]
    date = (static.image - centre) * 1.75 + centre + 0.125
    valid = np.ones((32, 32), bool)
    gains, levels = static.fit_date(date, valid)
    assert gains.tolist() == [24] * 4
    assert np.abs(static.predict(gains, levels) - date).max() <= 1 / 1024 + 1e-9
