"""Spectral indices: the built-in ones by their formulas, all others by spyndex, which is the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import spyndex

from geostore.errors import BandMismatch, InvalidInput
from geostore.spectral import FLOOR, LETTERS, evaluate_index, spectral_index

BANDS = tuple(LETTERS)
REFLECTANCE = np.random.default_rng(4).uniform(0.01, 0.6, (len(BANDS), 5, 7)).astype(np.float32)
PLANES = {letter: REFLECTANCE[i].astype(np.float64) for i, letter in enumerate(LETTERS.values())}


@pytest.mark.parametrize("name", ["NDVI", "NDWI", "NDBI", "EVI", "SAVI", "MNDWI", "NBR", "GNDVI", "NDSI"])
def test_an_index_is_what_spyndex_computes(name):
    """Built in or not: equal to spyndex on twelve bands of random reflectance."""
    asked = spyndex.indices[name].bands
    needed = {b: PLANES[b] if b in PLANES else spyndex.constants[b].default for b in asked}
    np.testing.assert_allclose(
        evaluate_index(name, REFLECTANCE, BANDS), spyndex.computeIndex(name, needed), rtol=2e-5, atol=2e-6
    )


def test_dark_pixels_are_raised_to_the_floor():
    """Zero and negative reflectance divide by nothing: both bands at or below the floor give 0."""
    dark = np.array([[[0.0, -0.2, FLOOR]], [[FLOOR, 0.0, -1.0]]], np.float32)
    np.testing.assert_array_equal(evaluate_index("NDVI", dark, ("red", "nir")), np.zeros((1, 3), np.float32))


def test_a_formula_that_divides_by_zero_has_no_value():
    """EVI at 1 + nir + 6 red - 7.5 blue = 0, exact in binary, is NaN without a warning; the pixel beside it has one."""
    planes = np.array([[[0.5, 0.25]], [[0.25, 0.25]], [[1.25, 1.25]]], np.float32)
    found = evaluate_index("EVI", planes, ("blue", "red", "nir"))
    np.testing.assert_array_equal(np.isnan(found), [[True, False]])


def test_every_formula_of_spyndex_has_bands_or_is_refused():
    """Each name spyndex lists either needs bands we know, among them the built-in ones, or is refused by its name."""
    known, refused = set(), set()
    for name in spyndex.indices:
        try:
            (known if set(spectral_index(name).bands) <= set(BANDS) else refused).add(name)
        except InvalidInput as error:
            refused |= {name} if name in str(error) else set()
    assert known | refused == set(spyndex.indices)
    assert {"NDVI", "EVI", "NBR"} <= known
    assert len(known) > len(refused)


def test_unknown_names_and_missing_bands_are_told():
    """Faults: no such index; a raster without the band; a radar index."""
    with pytest.raises(InvalidInput, match="no spectral index 'NDXI'"):
        spectral_index("NDXI")
    with pytest.raises(BandMismatch, match=r"NDVI needs .*nir"):
        evaluate_index("NDVI", REFLECTANCE[:1], ("red",))
    with pytest.raises(InvalidInput, match="DpRVIVV"):
        spectral_index("DpRVIVV")
