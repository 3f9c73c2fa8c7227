"""Every family keeps every bound a policy may have, measured here by NumPy alone, and works in the domain asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geostore.certificate import measure
from geostore.classical import KltAv1Family
from geostore.codec import Effort, quiet
from geostore.coding import residual
from geostore.dct import KltDctFamily
from geostore.node.encode import fit_series
from geostore.policy import IndexBounds, Policy
from geostore.testing.codecs import decode, synthetic_series
from geostore.vae import VaeFamily
from geostore.vae.borrow import borrow_codec
from geostore.vae.fit import choose_domain, fit_codec, goal_of
from geostore.vae.refine import bounds_of
from geostore.vae.sizing import mse_bound, sized

FREE = Policy(mse_max=None, index_mae_max=None)
POLICIES = {
    "mean": replace(FREE, mae_max=0.006),
    "p99": replace(FREE, p99_max=0.025),
    "mean beside others": Policy(mae_max=0.006, p99_max=0.03),
    "single indices": replace(FREE, index={"NDVI": IndexBounds(mae_max=0.02), "NDWI": IndexBounds(mae_max=0.05)}),
    "one index apart": replace(FREE, index_mae_max=0.05, index={"NDVI": IndexBounds(mae_max=0.02, p99_max=0.1)}),
    "log": Policy(mse_max=2e-3, index_mae_max=None, domain="log"),
    "linear": replace(FREE, index_mae_max=0.05, domain="linear"),
}
EFFORT = Effort(steps=4, seed=1)
FLOOR = 0.001  # of reflectance, where an index is measured


@pytest.fixture(scope="module")
def series():
    return synthetic_series((4, 4, 30, 26), seed=3, indices=("NDVI", "NDWI"))


def network(series, policy):
    """The grid codec with a network, even where none would pay."""
    plan = sized(len(series.bands), 3)
    return fit_codec(series, "grid", policy=policy, effort=EFFORT, progress=quiet, plan=plan)


def fitted(name, series, policy):
    """A codec of the family, and who reads it."""
    families = {"vae": VaeFamily(), "network": VaeFamily(), "klt-av1": KltAv1Family(), "klt-dct": KltDctFamily()}
    if name == "network":
        return families[name], network(series, policy)
    return families[name], families[name].fit(series, policy=policy, effort=EFFORT, progress=quiet)


def errors(series, date, pixels):
    """Absolute errors of values and of indices at the pixels that count, by NumPy."""
    truth, seen = (v[:, series.valid[date]] * 1e-4 - 0.1 for v in (series.pixels[date], pixels))
    names, found = series.bands.names, {"values": np.abs(truth - seen).ravel()}
    for index, (up, down) in {"NDVI": ("nir", "red"), "NDWI": ("green", "nir")}.items():
        a, b = names.index(up), names.index(down)
        ratio = [
            (np.maximum(v[a], FLOOR) - np.maximum(v[b], FLOOR)) / (np.maximum(v[a], FLOOR) + np.maximum(v[b], FLOOR))
            for v in (truth, seen)
        ]
        found[index] = np.abs(ratio[0] - ratio[1])[(truth[[a, b]] >= FLOOR).any(axis=0)]
    return found


@pytest.mark.parametrize(
    ("name", "which"),
    [
        *((name, which) for name in ("klt-av1", "klt-dct") for which in POLICIES),
        *(("vae", "mean beside others"), ("vae", "one index apart"), ("vae", "log")),
        *(("network", "mean"), ("network", "single indices")),
    ],
)
def test_every_family_keeps_every_bound(series, name, which):
    """Fitted, stored, read back and decoded, every raster errs by no more than each bound says."""
    policy = POLICIES[which]
    family, codec = fitted(name, series, policy)
    again = family.from_bytes(codec.to_bytes())
    assert (again.policy, again.to_bytes()) == (codec.policy, codec.to_bytes())
    for date, encoded in enumerate(again.encode_series(series)):
        found = errors(series, date, decode(codec, encoded, series.valid[date]))
        slack = 1 + 1e-4  # of float32, in which reflectance is measured
        if policy.mae_max is not None:
            assert found["values"].mean() <= policy.mae_max * slack
        if policy.p99_max is not None:
            assert np.percentile(found["values"], 99) <= policy.p99_max * slack
        for index in ("NDVI", "NDWI"):
            wanted = policy.index_bounds(index)
            assert found[index].mean() <= (wanted.mae_max or np.inf) * slack
            assert np.percentile(found[index], 99) <= (wanted.p99_max or np.inf) * slack


@pytest.mark.parametrize("name", ["klt-av1", "klt-dct"])
def test_families_work_in_the_domain_asked(series, name):
    """Against what they choose for themselves: reflectance where indices count, logarithms where values do."""

    def bend(policy):
        return fitted(name, series, policy)[1].klt.bend.per_mille

    of_indices, of_values = replace(FREE, index_mae_max=0.05), Policy(mse_max=2e-3, index_mae_max=None)
    assert bend(of_indices) > 0 == bend(replace(of_indices, domain="linear"))
    assert bend(replace(of_values, domain="log")) > 0 == bend(of_values)


def test_networks_work_in_the_domain_asked(series):
    """The same choice as made for the grid codec; the flat VAE of the paper knows reflectance alone."""
    of_indices, of_values = replace(FREE, index_mae_max=0.05), Policy(mse_max=2e-3, index_mae_max=None)
    found = [choose_domain(series, "grid", p) for p in (of_indices, of_values)]
    asked = [choose_domain(series, "grid", replace(p, domain="linear")) for p in (of_indices, of_values)]
    assert (found, asked) == (["log", "linear"], ["linear", "linear"])
    assert choose_domain(series, "grid", replace(of_values, domain="log")) == "log"
    assert choose_domain(series, "flat", replace(of_values, domain="log")) == "linear"


@pytest.mark.parametrize("domain", ["linear", "log"])
def test_a_search_of_scales_stays_in_the_domain(series, domain):
    """With patience, klt-av1 and klt-dct try many scales: all of the domain asked for."""
    policy = Policy(mse_max=2e-3, index_mae_max=0.05, domain=domain)
    for family in (KltAv1Family(), KltDctFamily()):
        codec = family.fit(series, policy=policy, effort=Effort(steps=200), progress=quiet)
        assert (codec.klt.bend.per_mille > 0) == (domain == "log")


def test_a_base_is_not_for_logarithms(series):
    """Bases work in reflectance: a place that asks for logarithms gets a codec of its own."""
    policy = Policy(mse_max=2e-3, index_mae_max=None)
    assert borrow_codec(series, policy=policy, effort=Effort()) is not None
    assert borrow_codec(series, policy=replace(policy, domain="log"), effort=Effort()) is None
    codec = VaeFamily().fit(series, policy=replace(policy, domain="log"), effort=EFFORT, progress=quiet)
    assert codec.bend
    assert codec.borrowed is None


def test_what_is_no_reflectance_has_no_logarithm(series):
    """Counts are coded as they are, whatever the domain."""
    bands = type(series.bands)(tuple(replace(b, kind="counts") for b in series.bands))
    counts = replace(series, bands=bands, indices=())
    policy = Policy(mse_max=2e-3, index_mae_max=None, domain="log")
    assert choose_domain(counts, "grid", policy) == "linear"
    for name in ("klt-av1", "klt-dct"):
        assert fitted(name, counts, policy)[1].klt.bend.per_mille == 0


def test_what_cannot_be_kept_is_lossless(series):
    """A bound on the mean below what any loss allows: every raster is kept bit for bit, and says so."""
    policy = replace(FREE, mae_max=1e-7, codec="klt-av1", rivals=())
    found = fit_series("klt-av1", None, series, policy, EFFORT, quiet)
    assert all(raster.lossless and raster.certificate.mae == 0 for raster in found.rasters)


@pytest.mark.parametrize("date", [0, 1])
def test_the_largest_error_of_a_single_index_is_bounded(series, date):
    """Residuals hold NDVI at every pixel and leave NDWI, which has no bound, as it falls."""
    policy = replace(FREE, index={"NDVI": IndexBounds(max_error=0.02)})
    pixels, valid = series.pixels[date], series.valid[date]
    base = np.maximum(pixels.astype(np.int64) + np.random.default_rng(date).integers(-300, 300, pixels.shape), 1001)
    for near in (None, base.astype(np.uint16)):
        found = residual.tightest(pixels, valid, near, series.bands, policy, series.indices)
        stream = found.as_planes(None, valid, series.bands)
        decoded = residual.unpack_in_context(stream, None, near, valid, series.bands)
        seen = measure(pixels, decoded, valid, series.bands, series.indices)
        assert seen.indices["NDVI"].max <= 0.02
        assert near is None or seen.indices["NDWI"].max > 0.02


def test_goals_follow_the_bounds():
    """Training and refining aim at each index's own bound, and at a squared error that a mean error implies."""
    policy = replace(FREE, index_mae_max=0.05, index={"NDVI": IndexBounds(mae_max=0.02)}, mae_max=0.004)
    targets = goal_of(policy, "grid").targets(("NDVI", "NDWI"))
    assert targets["index_NDVI"] / 0.02 == pytest.approx(targets["index_NDWI"] / 0.05)
    assert 0.004**2 < mse_bound(policy) < (2 * 0.004) ** 2
    assert bounds_of(policy, ("NDVI", "NDWI")) == {"mae": 0.004, "index_NDVI": 0.02, "index_NDWI": 0.05}
    assert bounds_of(Policy(), ("NDVI",)) == {"mse": 5e-4, "index_NDVI": 0.05}
