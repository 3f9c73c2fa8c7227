"""A reader's budget against certificates: what it exceeds in words, and what was not measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geostore.certificate import Certificate, SpectralError
from geostore.errors import InvalidInput
from geostore.node.facts import certificate_fields
from geostore.query.budget import beyond
from geostore.query.facts import read_certificate

SEEN = Certificate(100, 1e-4, 0.05, {"NDVI": SpectralError(0.01, 0.02, 0.04)}, mae=0.008, p99=0.03)
BEFORE = replace(SEEN, mae=None, p99=None)  # as stored before these were measured


@pytest.mark.parametrize(
    ("name", "error"),
    [("mse", 1e-4), ("max_error", 0.05), ("mae", 0.008), ("p99", 0.03), ("ndvi", 0.01), ("ndvi_max", 0.04)],
)
def test_every_error_has_a_budget(name, error):
    """Proves that each name stands for its error: kept when met exactly, told with both numbers when not."""
    assert beyond(SEEN, {name: error}) == ""
    assert beyond(SEEN, {name: error * 0.9}) == f"{name} {error:.3g} where {error * 0.9:g} is wanted"


@pytest.mark.parametrize("name", ["mae", "p99"])
def test_what_was_not_measured_is_not_taken_for_kept(name):
    """Proves that only the largest error speaks for it, and that the words name the next step."""
    assert beyond(BEFORE, {name: 0.05}) == ""
    said = beyond(BEFORE, {name: 0.04})
    assert said.startswith(
        f"{name} not measured when it was stored (the largest error is 0.05; fit it again) where 0.04"
    )


def test_a_budget_of_what_nobody_measured_is_refused():
    """Proves that the refusal names all there are."""
    with pytest.raises(InvalidInput, match="use mse, max_error, mae, p99, ndvi, ndvi_mae"):
        beyond(SEEN, {"evi": 0.1})


@pytest.mark.parametrize("certificate", [SEEN, BEFORE, Certificate.without_error(7)])
def test_certificates_travel_whole(certificate):
    """Proves a round trip through the fields of a reply, errors that were not measured as None."""
    assert read_certificate(certificate_fields(certificate)) == certificate


def test_what_an_older_daemon_answers_has_no_such_errors():
    """Proves that fields without them are read as not measured."""
    fields = {k: v for k, v in certificate_fields(SEEN).items() if k not in ("mae", "p99")}
    assert read_certificate(fields) == BEFORE
