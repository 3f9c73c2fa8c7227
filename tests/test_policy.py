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
        (Policy(mse_max=math.inf, index_mae_max=math.inf, max_error=math.inf), False, False),
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
    said = bounds(load_collection(path).policy)
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


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"rivals": "klt-av1"}, r"rivals = 'klt-av1'; give the names of codec families, as \('klt-av1',\)"),
        ({"rivals": (1,)}, r"rivals = \(1,\); give the names"),
        ({"rivals": None}, "rivals = None; give the names"),
        ({"codec": None}, "codec = None; give the name of one codec family"),
        ({"codec": ""}, "codec = ''; give the name"),
        ({"mse_max": "5e-4"}, "mse_max = '5e-4'; give a plain number above 0"),
        ({"mse_max": True}, "mse_max = True; give a plain number"),
        ({"index_max": [0.1]}, r"index_max = \[0.1\]; give a plain number"),
        ({"max_error": math.nan}, "max_error = nan; use a positive number"),
        ({"index": None}, "index = None; give bounds by name"),
        ({"index": ("NDVI",)}, r"index = \('NDVI',\); give bounds by name"),
    ],
)
def test_a_policy_of_wrong_types_is_refused(given, why):
    """Proves that Python's constructor tells the value seen and the one wanted, as files and the wire do."""
    with pytest.raises(InvalidInput, match=why):
        Policy(**given)


@pytest.mark.parametrize("bound", [True, "0.02"])
def test_bounds_of_an_index_are_numbers(bound):
    """Proves the same of one index's bounds."""
    with pytest.raises(InvalidInput, match=f"mae_max of an index = {bound!r}; give a plain number"):
        IndexBounds(mae_max=bound)


def test_rivals_may_be_a_list():
    """Proves that a list says what a tuple does, in a policy that still equals and hashes as the other."""
    assert Policy(rivals=["klt-dct"]) == Policy(rivals=("klt-dct",))
    assert hash(Policy(rivals=["klt-dct"])) == hash(Policy(rivals=("klt-dct",)))


NARROW = Bands(BANDS.items[1:])  # without green, which NDWI needs
UNMEASURED = [
    ({"indices": ("FOO",)}, ": no spectral index 'FOO'"),
    ({"indices": ("ndvi",)}, "nearest is NDVI"),
    ({"indices": ("NDVI", "NDWI")}, "NDWI needs green, nir in one band group; there are 10m: red, nir"),
    ({"indices": ("NDWI",), "policy": Policy(index={"NDWI": IndexBounds(max_error=0.1)})}, "NDWI needs green, nir"),
    ({"indices": (), "policy": Policy(index_max=0.1)}, "index_max bounds no index"),
    ({"indices": (), "policy": Policy(index_mae_max=0.02)}, "index_mae_max bounds no index"),
]


@pytest.mark.parametrize(("given", "why"), UNMEASURED)
def test_what_nothing_measures_is_refused_where_it_is_made(given, why):
    """Proves that no collection promises what no band group of it can measure."""
    with pytest.raises(InvalidInput, match=why):
        Collection(name="c", groups={"10m": NARROW}, **given)


@pytest.mark.parametrize("indices", ["NDVI", None, 3, (3,)])
def test_indices_are_names(indices):
    """Proves that one text is not taken for the indices of its letters."""
    with pytest.raises(InvalidInput, match="give a tuple of names"):
        Collection(name="c", groups={"10m": BANDS}, indices=indices)


def test_the_default_index_may_be_without_its_bands():
    """Proves that NDVI, where nobody asked for it, is passed over with the default bound; a stated one is not."""
    water = Bands(BANDS.items[:1])
    assert Collection(name="c", groups={"10m": water}).indices_of("10m") == ()
    own = Policy(index={"NDVI": IndexBounds(mae_max=0.02)})
    with pytest.raises(InvalidInput, match="NDVI needs nir, red"):
        Collection(name="c", groups={"10m": water}, policy=own)


@pytest.mark.parametrize(("given", "why"), UNMEASURED)
def test_json_of_a_collection_is_refused_like_python(tmp_path, given, why, monkeypatch):
    """Proves that a file as a store keeps it is held to the same, and that reading it alone is not."""
    with monkeypatch.context() as unlooked:
        unlooked.setattr(Collection, "check_indices", lambda self: None)
        made = Collection(name="c", groups={"10m": NARROW}, **given)
    table = collection_to_dict(made)
    assert collection_from_dict(table) == made
    path = tmp_path / "c.json"
    path.write_text(json.dumps(table))
    with pytest.raises(InvalidInput, match=why):
        load_collection(path)
