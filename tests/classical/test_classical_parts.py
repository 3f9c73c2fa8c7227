"""The parts of klt-av1 against oracles: scale, transform, mosaic, fill."""

from __future__ import annotations

import numpy as np
import pytest
from classical_series import soft_place
from hypothesis import given
from hypothesis import strategies as st

from geostore.certificate import measure
from geostore.classical.bend import STEPS, Bend
from geostore.classical.body import error_weights
from geostore.classical.fill import fill
from geostore.classical.klt import Klt
from geostore.classical.mosaic import Mosaic
from geostore.classical.stretch import LEAST, MOST, ONE, stretched, unstretched
from geostore.errors import InvalidInput
from geostore.testing.codecs import reflectance_bands


@pytest.mark.parametrize("per_mille", [3, 30, 300])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_the_bent_scale_is_the_logarithm_and_its_whole_number_inverse_comes_near(per_mille: int, dtype: str) -> None:
    """Every stored value goes to ln(1 + reflectance / bend) and comes back within half a step of that logarithm."""
    bands = reflectance_bands(1, dtype)
    stored = np.unique(bands.to_stored(np.linspace(0, 1.5, 4000)[None, None])[0, 0])[None, None]
    scaled = Bend(bands, per_mille).forward(stored)
    reflectance = np.maximum(bands.to_physical(stored).astype(float), 0)
    np.testing.assert_allclose(scaled, np.log1p(reflectance * 1000 / per_mille) * STEPS, rtol=1e-5, atol=1e-3)
    back = Bend(bands, per_mille).inverse(np.rint(scaled).astype(np.int64))
    off = np.abs(bands.to_physical(back) - reflectance)
    assert (off <= (reflectance + per_mille / 1000) / STEPS / 1.99 + bands.items[0].scale * 0.51).all()


def test_a_logarithm_of_what_is_no_reflectance_is_refused() -> None:
    """Counts have no bend: InvalidInput says so."""
    from geostore.raster import Band, Bands

    with pytest.raises(InvalidInput, match="not all reflectance"):
        Bend(Bands((Band("ndvi", "ndvi", 10.0, kind="index"),)), 30)


@pytest.mark.parametrize("bands", [1, 2, 4, 13])
def test_the_inverse_transform_is_exact_whole_numbers(bands: int) -> None:
    """The inverse equals the same sum done with Python's integers, and undoes the forward one within its steps."""
    series = soft_place(4, bands=bands)
    bend = Bend(series.bands)
    klt = Klt.of(bend.forward(series.pixels), series.valid, bend, np.eye(bands))
    components = klt.forward(bend.forward(series.pixels[0]))
    decoded = klt.inverse(components)
    y, x = 3, 5
    for b in range(bands):
        exact = sum(int(klt.basis[b, k]) * int(components[k, y, x]) for k in range(bands)) + int(klt.offset[b])
        assert decoded[b, y, x] == exact >> 14
    step = np.abs(klt.basis / 2**14).sum(axis=1).max()
    off = np.abs(decoded.astype(int) - series.pixels[0])[:, series.valid[0]]
    assert off.max() <= step / 2 + 1.5


def test_an_error_that_an_index_does_not_see_weighs_less() -> None:
    """In logarithms red and nir may be off together; any other index, or values as stored, weigh each band it needs."""
    bands = reflectance_bands(4)
    red, nir = bands.index("red"), bands.index("nir")
    together, against = np.zeros(4), np.zeros(4)
    together[[red, nir]], against[[red, nir]] = (1, 1), (1, -1)
    weights = error_weights(bands, ("NDVI",), 8, log=True)
    np.testing.assert_allclose(weights @ together, together, atol=1e-12)
    np.testing.assert_allclose(weights @ against, 8 * against)
    for log, index in ((False, "NDVI"), (True, "SR")):  # SR = nir / red is no difference
        np.testing.assert_allclose(
            error_weights(bands, (index,), 8, log=log), np.diag([1.0, 1.0, 8.0, 8.0]), atol=1e-12
        )
    assert (error_weights(bands, (), 8, log=True) == np.eye(4)).all()


def test_weighed_bands_come_back_and_their_index_comes_nearest() -> None:
    """At a weight of 8 for NDVI the transform still undoes itself, and what is lost is hardly in NDVI."""
    series = soft_place(4)
    bend = Bend(series.bands, 10)
    values = bend.forward(series.pixels)
    away = []
    for weight in (1, 8):
        klt = Klt.of(values, series.valid, bend, error_weights(series.bands, ("NDVI",), weight, log=True))
        np.testing.assert_allclose(klt.back() @ klt.basis / 2**14, np.eye(4), atol=1e-6)
        coarse = klt.forward(values[0]) // 32 * 32 + 16
        away.append(measure(series.pixels[0], klt.inverse(coarse), series.valid[0], series.bands, ("NDVI",)))
    assert away[1].indices["NDVI"].mae < 0.8 * away[0].indices["NDVI"].mae
    assert away[1].mse > away[0].mse


@pytest.mark.parametrize("stretch", [LEAST, 13, ONE, 37, MOST])
def test_stretched_pictures_come_back(stretch: int) -> None:
    """A picture comes back to within its steps, exactly where it was made larger, and the first one is itself."""
    rng = np.random.default_rng(3)
    first = rng.integers(400, 600, (1, 8, 8)).astype(np.uint16)
    picture = (first + rng.integers(-90, 90, first.shape)).astype(np.uint16)
    there = stretched(np.concatenate([first, picture]), first[0], np.array([ONE, stretch]))
    np.testing.assert_array_equal(there[0], first[0])
    off = np.abs(unstretched(there[1], first[0], stretch).astype(int) - picture[0])
    assert off.max() <= (0 if stretch >= ONE else ONE / stretch / 2 + 0.5)


def test_dropped_components_take_their_middle() -> None:
    """The transform of the first components decodes as the whole one does with the others at their middle."""
    series = soft_place(3)
    bend = Bend(series.bands)
    klt = Klt.of(bend.forward(series.pixels), series.valid, bend, np.eye(4))
    components = klt.forward(bend.forward(series.pixels[0]))
    middle = np.concatenate([components[:2], np.full_like(components[2:], 512)])
    np.testing.assert_array_equal(klt.first(2).inverse(components[:2]), klt.inverse(middle))


@given(st.integers(1, 13), st.integers(1, 200), st.integers(1, 200))
def test_components_come_out_of_the_mosaic_as_they_went_in(components: int, height: int, width: int) -> None:
    """Any number of components of any size: split undoes join, and the picture is of even sides from 64 up."""
    mosaic = Mosaic(components, height, width)
    planes = np.random.default_rng(0).integers(0, 1024, (components, height, width), dtype=np.uint16)
    picture = mosaic.join(planes)
    assert picture.shape == mosaic.shape
    assert min(mosaic.shape) >= 64
    assert not any(side % 2 for side in mosaic.shape)
    np.testing.assert_array_equal(mosaic.split(picture), planes)


def test_tall_mosaics_go_on_beside_and_too_large_ones_are_refused() -> None:
    """Components that do not fit one column take several; a raster too large for a picture is InvalidInput."""
    mosaic = Mosaic(13, 1000, 24)
    planes = np.random.default_rng(0).integers(0, 1024, (13, 1000, 24), dtype=np.uint16)
    assert mosaic.columns == 2
    np.testing.assert_array_equal(mosaic.split(mosaic.join(planes)), planes)
    with pytest.raises(InvalidInput, match="do not fit"):
        Mosaic(4, 10, 8200)


def test_masked_pixels_take_the_line_between_their_neighbours_in_time() -> None:
    """Against a loop over pixels: interpolated in time, held at the ends, and nearest in space if never seen."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(6, 2, 5, 7)).astype(np.float32)
    valid = rng.random((6, 5, 7)) > 0.5
    valid[:, 2, 3] = False
    out = fill(values, valid)
    np.testing.assert_array_equal(np.moveaxis(out, 1, -1)[valid], np.moveaxis(values, 1, -1)[valid])
    for y, x in np.argwhere(valid.any(axis=0)):
        dates = np.flatnonzero(valid[:, y, x])
        for b in range(2):
            line = np.interp(np.arange(6), dates, values[dates, b, y, x])
            np.testing.assert_allclose(out[:, b, y, x], line, rtol=1e-5, atol=1e-6)
    beside = [out[:, :, y, x] for y, x in ((1, 3), (3, 3), (2, 2), (2, 4))]
    assert any(np.array_equal(out[:, :, 2, 3], near) for near in beside)
