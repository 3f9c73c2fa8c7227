"""Certificates against brute force: every error recomputed pixel by pixel in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geostore.certificate import NO_VALUE, Certificate, SpectralError, measure, percentile_99
from geostore.collection import Policy
from geostore.raster import Band, Bands

NAMES = (("green", "B3"), ("red", "B4"), ("nir", "B8"))
BANDS = Bands(tuple(Band(name, source, 10.0, scale=1e-4, offset=-0.1) for name, source in NAMES))


def brute(original, decoded, valid):
    """(mse, max error, NDVI errors) by loops over pixels, in double precision."""
    squares, largest, ndvi = [], 0.0, []
    for row, column in zip(*np.nonzero(valid), strict=True):
        a = [float(v) * 1e-4 - 0.1 for v in original[:, row, column]]
        b = [float(v) * 1e-4 - 0.1 for v in decoded[:, row, column]]
        for x, y in zip(a, b, strict=True):
            squares.append((min(max(x, 0.0), 1.0) - min(max(y, 0.0), 1.0)) ** 2)
            largest = max(largest, abs(x - y))
        if a[1] >= 0.001 or a[2] >= 0.001:
            (r, n), (s, m) = (max(a[1], 0.001), max(a[2], 0.001)), (max(b[1], 0.001), max(b[2], 0.001))
            ndvi.append(abs((n - r) / (n + r) - (m - s) / (m + s)))
    return math.fsum(squares) / len(squares), largest, ndvi


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from((1, 2, 50, 101, 7_000)), steps=st.integers(1, 300))
def test_the_99th_percentile_is_that_of_numpy(seed, size, steps):
    """Proves it for any count, for errors of few different values, and for errors in ascending order."""
    rng = np.random.default_rng(seed)
    for errors in (rng.random(size), rng.integers(0, steps, size) / 64, np.sort(rng.random(size)), np.zeros(size)):
        assert percentile_99(errors) == pytest.approx(np.percentile(errors, 99), rel=1e-12)


def test_mean_and_percentile_are_of_all_values_in_physical_units():
    """Proves that they count every band at every usable pixel, unclipped, and are 0 where nothing differs."""
    original = np.full((3, 10, 10), 3000, np.uint16)
    decoded = original.copy()
    decoded[0, 0, :6] += 2000
    seen = measure(original, decoded, np.ones((10, 10), bool), BANDS, ())
    assert (seen.mae, seen.p99) == (pytest.approx(6 * 0.2 / 300, abs=1e-8), pytest.approx(0.2, abs=1e-7))
    assert measure(original, original, np.ones((10, 10), bool), BANDS, ()) == Certificate.without_error(100)


def test_what_was_not_measured_counts_as_the_largest_error():
    """Proves that a certificate of before keeps a bound on the mean only where its largest error does."""
    before = Certificate(9, 1e-4, 0.02)
    free = {"mse_max": None, "index_mae_max": None}
    assert before.keeps(Policy(**free, mae_max=0.02, p99_max=0.02))
    assert not before.keeps(Policy(**free, mae_max=0.01))
    assert not before.keeps(Policy(**free, p99_max=0.01))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.integers(1, 8000))
def test_errors_equal_brute_force(seed, spread):
    """Proves that MSE on n1, largest error and NDVI errors equal loops in plain Python, on any pixels and masks."""
    rng = np.random.default_rng(seed)
    original = rng.integers(0, 14000, (3, 6, 5)).astype(np.uint16)
    decoded = np.clip(original.astype(int) + rng.integers(-spread, spread + 1, original.shape), 0, 65535).astype(
        np.uint16
    )
    valid = rng.random((6, 5)) < 0.7
    valid[0, 0] = True
    seen = measure(original, decoded, valid, BANDS, ("NDVI",))
    mse, largest, ndvi = brute(original, decoded, valid)
    assert seen.pixels == int(valid.sum())
    assert seen.mse == pytest.approx(mse, rel=1e-4, abs=1e-12)
    assert seen.max_error == pytest.approx(largest, abs=1e-6)
    if ndvi:
        assert seen.indices["NDVI"].mae == pytest.approx(np.mean(ndvi), abs=2e-4)
        assert seen.indices["NDVI"].max == pytest.approx(max(ndvi), abs=2e-3)
        assert seen.indices["NDVI"].p99 == pytest.approx(np.percentile(ndvi, 99), abs=2e-3)


def test_masked_pixels_weigh_nothing():
    """Proves that an error of any size under the mask changes no figure."""
    original = np.full((3, 4, 4), 3000, np.uint16)
    decoded = original.copy()
    decoded[:, 1, 1] = 60000
    valid = np.ones((4, 4), bool)
    valid[1, 1] = False
    seen = measure(original, decoded, valid, BANDS, ("NDVI",))
    assert (seen.mse, seen.max_error, seen.indices["NDVI"].max, seen.pixels) == (0.0, 0.0, 0.0, 15)
    assert seen.psnr_db == math.inf


def test_nothing_valid_measures_nothing():
    """Proves that a wholly masked raster gives zero errors over zero pixels, which keep any policy."""
    pixels = np.zeros((3, 2, 2), np.uint16)
    seen = measure(pixels, pixels, np.zeros((2, 2), bool), BANDS, ("NDVI",))
    assert seen.pixels == 0
    assert seen.keeps(Policy(mse_max=1e-9))


def test_psnr_follows_from_mse():
    """Proves the definition: an MSE of 1e-3 is 30 dB for a peak of 1."""
    assert Certificate(1, 1e-3, 0.0).psnr_db == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("bound", "value"),
    [
        *(("mse_max", 0.02), ("max_error", 0.3), ("mae_max", 0.01), ("p99_max", 0.02)),
        *(("index_mae_max", 0.04), ("index_p99_max", 0.05), ("index_max", 0.06)),
    ],
)
def test_each_bound_is_looked_at(bound, value):
    """Proves that each bound of a policy, alone, is kept when met exactly and missed when a thousandth tighter."""
    nothing = {"mse_max": None, "index_mae_max": None}
    seen = Certificate(9, 0.02, 0.3, {"NDVI": SpectralError(0.04, 0.05, 0.06)}, mae=0.01, p99=0.02)
    assert seen.keeps(Policy(**{**nothing, bound: value}))
    assert not seen.keeps(Policy(**{**nothing, bound: value * 0.999}))


def test_dark_pixels_are_left_out_of_the_index():
    """Proves that a pixel whose red and nir both lie below the floor does not count for NDVI."""
    original = np.full((3, 1, 2), 1000, np.uint16)  # reflectance 0
    original[:, 0, 1] = 4000
    decoded = original.copy()
    decoded[2, 0, 0] = 9000
    seen = measure(original, decoded, np.ones((1, 2), bool), BANDS, ("NDVI",))
    assert seen.indices["NDVI"].max == 0.0
    assert seen.max_error == pytest.approx(0.8)


def test_pixels_where_the_index_has_no_value_are_left_out():
    """Proves it of EVI where the original divides by zero, and that what divides by zero only as decoded is missed."""
    bands = Bands(tuple(Band(name, name, 10.0, scale=0.25) for name in ("blue", "red", "nir")))
    original = np.array([[[2, 1]], [[1, 1]], [[5, 5]]], np.uint16)  # the first pixel has no EVI
    valid = np.ones((1, 2), bool)
    same = measure(original, original, valid, bands, ("EVI",))
    assert same.indices["EVI"] == SpectralError(0.0, 0.0, 0.0)
    swapped = measure(original, original[:, :, ::-1], valid, bands, ("EVI",))
    assert swapped.indices["EVI"].max == NO_VALUE
    assert not swapped.keeps(Policy(index_mae_max=1.0))
    assert np.isfinite(swapped.indices["EVI"].p99)
