"""Policies: bounds of single indices beside those of every index, the domain, plain values and TOML, bad input."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from geostore.certificate import Certificate, SpectralError
from geostore.cli.collections import bounds
from geostore.collection import Collection, collection_from_dict, collection_to_dict
from geostore.errors import InvalidInput
from geostore.policy import IndexBounds, Policy
from geostore.raster import Band, Bands
from geostore.scene.presets import load_collection

FREE = Policy(mse_max=None, index_mae_max=None)
OWN = Policy(
    mse_max=None,
    index_mae_max=0.05,
    index_max=0.4,
    index={"NDVI": IndexBounds(mae_max=0.02), "NDWI": IndexBounds(p99_max=0.1, max_error=math.inf)},
)
BANDS = Bands(tuple(Band(name, name, 10.0, dtype="uint16", scale=1e-4) for name in ("green", "red", "nir")))
TOML = """
preset = "sentinel-2-l2a"
name = "fields"
bands = ["blue", "green", "red", "nir"]
indices = ["NDVI", "NDWI"]

[policy]
mse_max = false
mae_max = 0.004
p99_max = 0.02
domain = "log"

[policy.index.NDVI]
mae_max = 0.02

[policy.index.NDWI]
mae_max = false
p99_max = 0.1
"""


def test_an_index_has_its_own_bounds_before_those_of_every_index():
    """Proves that what a table does not state is as for every index, and that infinity asks for nothing."""
    assert OWN.index_bounds("NDVI") == IndexBounds(mae_max=0.02, max_error=0.4)
    assert OWN.index_bounds("NDWI") == IndexBounds(mae_max=0.05, p99_max=0.1)
    assert OWN.index_bounds("NDBI") == IndexBounds(mae_max=0.05, max_error=0.4)
    assert OWN.index_limit(("NDVI", "NDWI")) == 0.4
    assert OWN.index_limit(("NDWI",)) is None


def test_a_certificate_is_held_to_the_bounds_of_each_index():
    """Proves each index's bound is looked at by itself, met exactly and missed by a thousandth."""
    free = replace(FREE, index={"NDVI": IndexBounds(mae_max=0.02), "NDWI": IndexBounds(mae_max=0.05)})
    seen = Certificate(9, 0.1, 0.5, {"NDVI": SpectralError(0.02, 0.3, 0.9), "NDWI": SpectralError(0.05, 0.3, 0.9)})
    assert seen.keeps(free)
    for name, error in (("NDVI", 0.02), ("NDWI", 0.05)):
        tighter = {**free.index, name: IndexBounds(mae_max=error * 0.999)}
        assert not seen.keeps(replace(free, index=tighter))


@pytest.mark.parametrize(
    ("policy", "asks", "bounded"),
    [
        (FREE, False, False),
        (replace(FREE, mae_max=0.01), True, False),
        (replace(FREE, p99_max=0.01), True, False),
        (replace(FREE, index={"NDVI": IndexBounds(p99_max=0.1)}), True, False),
        (replace(FREE, index={"NDVI": IndexBounds(max_error=0.1)}), True, True),
        (replace(FREE, index={"NDVI": IndexBounds(max_error=math.inf)}), False, False),
        (Policy(max_error=0.1), True, True),
    ],
)
def test_what_a_policy_asks_for(policy, asks, bounded):
    """Proves that bounds count wherever they stand."""
    assert (policy.asks, policy.bounded) == (asks, bounded)


@pytest.mark.parametrize("policy", [Policy(), OWN, replace(FREE, domain="linear", p99_max=0.1, rivals=("klt-dct",))])
def test_plain_values_give_the_policy_back(policy):
    """Proves the round trip through JSON, and that a policy of before is stated as it was then."""
    fields = json.loads(json.dumps(policy.to_fields(), allow_nan=False))
    assert Policy.from_fields(fields) == policy
    older = ("mse_max", "max_error", "index_mae_max", "index_p99_max", "index_max", "original", "codec", "rivals")
    assert tuple(Policy().to_fields()) == older


def test_a_collection_keeps_them():
    """Proves the round trip through the JSON a store keeps; a policy that says nothing new looks as it did."""
    made = Collection(name="s2", groups={"10m": BANDS}, indices=("NDVI", "NDWI"), policy=replace(OWN, domain="log"))
    table = json.loads(json.dumps(collection_to_dict(made), allow_nan=False))
    own = {"NDVI": {"mae_max": 0.02}, "NDWI": {"p99_max": 0.1, "max_error": False}}
    assert table["geostore:policy"]["index"] == own
    assert collection_from_dict(table) == made
    assert "geostore:policy" not in collection_to_dict(replace(made, policy=Policy()))


def test_toml_declares_them(tmp_path):
    """Proves that a file says it all, and that `collections` shows it."""
    path = tmp_path / "fields.toml"
    path.write_text(TOML)
    policy = load_collection(path).policy
    assert (policy.mse_max, policy.mae_max, policy.p99_max, policy.domain) == (None, 0.004, 0.02, "log")
    assert policy.index_bounds("NDVI") == IndexBounds(mae_max=0.02)
    assert policy.index_bounds("NDWI") == IndexBounds(p99_max=0.1)
    said = bounds(load_collection(path))
    assert "mean error <= 0.004, p99 <= 0.02" in said
    assert "NDVI mean <= 0.02, NDWI p99 <= 0.1, domain log" in said


@pytest.mark.parametrize(
    ("line", "instead", "why"),
    [
        ("[policy.index.NDVI]", "[policy.index.NDBI]", "the policy bounds NDBI, which `indices` does not name"),
        ("p99_max = 0.1", "median = 0.1", "policy, index NDWI: unknown key 'median'"),
        ("p99_max = 0.1", "p99_max = 'small'", "p99_max = 'small'; give a number"),
        ("p99_max = 0.1", "p99_max = 0", "policy p99_max of an index = 0; use a positive number"),
        ("mae_max = 0.004", "mae_max = -1", "policy mae_max = -1; use a positive number"),
        ('domain = "log"', 'domain = "cube"', "policy domain = 'cube'; use one of auto, linear, log"),
        ('domain = "log"', 'domain = "log"\nindex = 3', "index = 3; give a table"),
        ('domain = "log"', "domain = 1", "domain = 1; give a text"),
    ],
)
def test_what_means_nothing_is_refused(tmp_path, line, instead, why):
    """Proves that a file with a mistake is refused with the value seen."""
    text = TOML.replace(line, instead)
    if "index = 3" in instead:
        text = text[: text.index("[policy.index.NDVI]")]
    path = tmp_path / "fields.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        load_collection(path)
    assert why in str(refused.value)


def test_an_index_without_its_bands_is_refused(tmp_path):
    """Proves that a bound on an index that no band group can measure is not passed over."""
    path = tmp_path / "fields.toml"
    path.write_text(TOML.replace('"green", ', ""))
    with pytest.raises(InvalidInput, match="NDWI needs"):
        load_collection(path)


def test_logarithms_are_of_reflectance():
    """Proves that the domain is refused where no band has a logarithm, and that tables are not taken for bounds."""
    counts = Bands(tuple(replace(band, kind="counts", scale=1.0) for band in BANDS))
    with pytest.raises(InvalidInput, match="its bands are counts"):
        Collection(name="c", groups={"10m": counts}, indices=(), policy=Policy(domain="log"))
    with pytest.raises(InvalidInput, match="give an IndexBounds"):
        Policy(index={"NDVI": {"mae_max": 0.02}})
