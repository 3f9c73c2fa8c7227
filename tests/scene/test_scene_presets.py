"""Collections from presets and TOML."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import JsonValue, TypeAdapter

from geostore.collection import Collection, Files, collection_from_dict, collection_to_dict
from geostore.errors import InvalidInput, NotFound
from geostore.raster import Band
from geostore.scene import collection_from_stac, load_collection, preset_names
from geostore.storage.files import open_files
from geostore.storage.header import add_collection

PRESETS = [name for name in preset_names() if name != "generic"]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "made.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name: str) -> None:
    """Round trip: preset -> STAC Collection in JSON -> equal collection."""
    collection = load_collection(name)
    table = collection_to_dict(collection)
    TypeAdapter(dict[str, JsonValue]).validate_python(table)
    assert collection_from_dict(json.loads(json.dumps(table))) == collection
    assert collection.name == name


@pytest.mark.parametrize("name", PRESETS)
def test_a_stored_collection_is_a_stac_collection(name: str) -> None:
    """Oracle: pystac reads it as a Collection of the same id, and its STAC members say what the bands are."""
    import pystac

    found = pystac.Collection.from_dict(collection_to_dict(load_collection(name)))
    assert found.id == name
    assert len(found.extra_fields["bands"]) == sum(len(b) for b in load_collection(name).groups.values())


def test_nan_nodata_and_every_field_survive_json(tmp_path: Path) -> None:
    """Round trip: fields away from their defaults, NaN nodata among them."""
    path = written(
        tmp_path,
        """
        preset = "generic"
        precision = 6
        crs = "EPSG:3035"
        version = 3
        indices = []
        time_pattern = "([0-9]{8})|%Y%m%d"
        masks = [{ source = "QA", values = [1], bits = [3, 4] }]
        bands = [{ name = "red", nodata = nan }, { name = "nir", group = "odd", kind = "counts" }]
        [band]
        gsd_m = 5
        dtype = "float32"
        [policy]
        max_error = 0.01
        original = "keep"
        [files]
        positional = ["red", "nir"]
        nodata = "collection"
        values = "physical"
        baseline = "02.09"
        """,
    )
    collection = load_collection(path)
    again = collection_from_dict(json.loads(json.dumps(collection_to_dict(collection))))
    assert repr(again) == repr(collection)  # NaN differs from itself, its text does not
    assert list(collection.groups) == ["5m", "odd"]
    assert collection.name == "made"


def test_a_bound_may_be_given_in_decibels(tmp_path: Path) -> None:
    """A PSNR of at least 30 dB is an MSE of at most 1e-3, in place of the preset's."""
    collection = load_collection(written(tmp_path, 'preset = "modis-09"\n[policy]\npsnr_db_min = 30\n'))
    assert collection.policy.mse_max == pytest.approx(1e-3)


def test_a_preset_is_changed_band_by_band(tmp_path: Path) -> None:
    """Names select bands of the preset, tables change or add them, [policy] is laid over key by key."""
    path = written(
        tmp_path,
        """
        preset = "sentinel-2-l2a"
        name = "fields"
        bands = ["red", { name = "nir", valid_max = 20000 }, { name = "cloud", source = "CLD", gsd_m = 20 }]
        [policy]
        mse_max = 1e-3
        """,
    )
    collection = load_collection(path)
    assert [b.name for g in collection.groups.values() for b in g] == ["red", "nir", "cloud"]
    assert collection.groups["10m"].items[1].valid_max == 20000
    assert collection.groups["10m"].items[1].source == "B08"
    assert collection.policy.mse_max == 1e-3
    assert collection.policy.index_mae_max == 0.05
    assert collection.masks[0].source == "SCL"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('preset = "sentinel-2"', ["preset = 'sentinel-2'", "sentinel-2-l2a"]),
        ('name = "x"', ["no preset", "generic"]),
        ('preset = "generic"', ["no bands", "[[bands]]"]),
        ('preset = "modis-09"\ncolour = 1', ["'colour'", "time_pattern"]),
        ('preset = "modis-09"\n[policy]\nmse = 1', ["policy", "'mse'", "mse_max"]),
        ('preset = "modis-09"\n[policy]\npsnr_db_min = "high"', ["psnr_db_min = 'high'", "decibels"]),
        ('preset = "modis-09"\n[policy]\npsnr_db_min = 30\nmse_max = 1', ["psnr_db_min and mse_max", "one of them"]),
        ('preset = "modis-09"\n[policy]\nmse_max = "low"', ["mse_max = 'low'", "number"]),
        ('preset = "modis-09"\n[policy]\ncodec = false', ["codec = False", "text in quotes"]),
        ('preset = "modis-09"\n[policy]\nrivals = "klt-av1"', ["rivals = 'klt-av1'", "list"]),
        ('preset = "modis-09"\n[policy]\nrivals = false', ["rivals = False", "list"]),
        ('preset = "modis-09"\n[policy]\noriginal = false', ["original = False", "text in quotes"]),
        ('preset = "modis-09"\n[policy]\nmse_max = true', ["mse_max = True", "number"]),
        ('preset = "modis-09"\nindices = ["FOO"]', ["made.toml", "'FOO'", "known"]),
        ('preset = "modis-09"\n[policy]\nmse_max = -1', ["mse_max = -1", "positive"]),
        ('preset = "modis-09"\n[policy]\nmse_max = 1e-40', ["mse_max = 1e-40", "1e-12", "raw"]),
        ('preset = "modis-09"\n[policy]\noriginal = "lose"', ["original = 'lose'", "drop"]),
        ('preset = "modis-09"\n[files]\nbaseline = "2.9"', ["baseline = '2.9'", "02.09"]),
        ('preset = "modis-09"\n[files]\nnodata = "none"', ["nodata = 'none'", "collection"]),
        ('preset = "modis-09"\n[files]\nvalues = "x"', ["values = 'x'", "physical"]),
        ('preset = "modis-09"\n[files]\npositional = ["pink"]', ["pink", "red"]),
        ('preset = "modis-09"\nmasks = [{ source = "x", value = [1] }]', ["masks", "'value'", "values"]),
        ('preset = "modis-09"\nmasks = [{ values = [1] }]', ["masks", "source"]),
        ('preset = "modis-09"\nmasks = [{ source = "x", bits = ["1"] }]', ["bits", "int"]),
        ('preset = "modis-09"\nprecision = 9', ["precision 9", "1 to 8"]),
        ('preset = "modis-09"\nprecision = "5"', ["precision = '5'", "number"]),
        ('preset = "modis-09"\nprecision = 5.5', ["precision = 5.5", "whole"]),
        ('preset = "modis-09"\nproduct = 5', ["product = 5", "text"]),
        ('preset = "modis-09"\nbands = ["pink"]', ["pink", "red"]),
        ('preset = "modis-09"\nbands = [{ name = "red", dtype = "int64" }]', ["int64", "uint16"]),
        ('preset = "modis-09"\nbands = [{ name = "red", kind = "colour" }]', ["colour", "reflectance"]),
        ('preset = "modis-09"\nbands = [{ name = "red", scale = 0 }]', ["scale = 0"]),
        ('preset = "modis-09"\nbands = [{ name = "new" }]', ["new", "gsd_m"]),
        ('preset = "modis-09"\nbands = [{ name = "red", width = 1 }]', ["red", "'width'", "wavelength_um"]),
        ('preset = "modis-09"\nbands = 5', ["bands", "list"]),
        ('preset = "modis-09"\npolicy = 5', ["policy", "table"]),
        ('preset = "modis-09"\nindices = ["ndvi"]', ["'ndvi'", "nearest is NDVI"]),
        ('preset = "sentinel-2-l2a"\nindices = ["NDBI"]', ["NDBI needs swir16, nir", "10m: blue", "gsd_m"]),
        ('preset = "modis-13q1-ndvi"\n[policy]\nindex_mae_max = 0.02', ["index_mae_max bounds no index"]),
        ("preset = modis", ["not TOML"]),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    """Fault: each mistake is InvalidInput that gives the key or value seen and what is allowed."""
    with pytest.raises(InvalidInput) as caught:
        load_collection(written(tmp_path, text))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_name_lists_the_presets() -> None:
    """Fault: neither a file nor a preset."""
    with pytest.raises(NotFound, match="sentinel-2-l2a"):
        load_collection("sentinel-9")


def test_an_index_of_spyndex_by_its_name(tmp_path: Path) -> None:
    """EVI is measured in the group that has its bands; NDBI where B8A is taken for nir, beside swir16."""
    nir = '{ name = "nir", source = "B8A", gsd_m = 20 }'
    text = f'preset = "sentinel-2-l2a"\nbands = ["swir16", {nir}, "nir08"]\nindices = ["NDBI"]'
    assert load_collection(written(tmp_path, text)).indices_of("20m") == ("NDBI",)
    text = 'preset = "sentinel-2-l2a"\nindices = ["NDVI", "EVI"]'
    assert load_collection(written(tmp_path, text)).indices_of("10m") == ("NDVI", "EVI")


def test_a_collection_out_of_a_store_is_a_collection_file(tmp_path: Path) -> None:
    """The JSON that a store keeps, with its check, declares the same collection elsewhere."""
    declared = load_collection("modis-09")
    add_collection(open_files(tmp_path / "store"), declared)
    assert load_collection(tmp_path / "store" / "collections" / "modis-09" / "1.json") == declared


def test_unknown_members_of_a_stored_collection_are_refused() -> None:
    """Fault: a member nobody knows, a missing one, a band without its group."""
    table = collection_to_dict(load_collection("modis-09"))
    with pytest.raises(InvalidInput, match="geostore:colour"):
        collection_from_dict({**table, "geostore:colour": 1})
    with pytest.raises(InvalidInput, match="bands"):
        collection_from_dict({k: v for k, v in table.items() if k != "bands"})
    with pytest.raises(InvalidInput, match="geostore:group"):
        collection_from_dict({**table, "bands": [{"name": "red", "gsd": 5}]})


def test_a_foreign_stac_collection_gives_its_bands(tmp_path: Path) -> None:
    """A Collection that geostore did not write is read from its bands; without them it is refused."""
    foreign = {
        "type": "Collection",
        "id": "drone",
        "links": [],
        "summaries": {"gsd": [0.5]},
        "bands": [{"name": "R", "eo:common_name": "red", "data_type": "uint8", "nodata": 0, "raster:scale": 0.01}],
    }
    path = tmp_path / "collection.json"
    path.write_text(json.dumps(foreign))
    collection = load_collection(path)
    assert isinstance(collection, Collection)
    band = collection.groups["0.5m"].items[0]
    assert (band.name, band.source, band.dtype, band.nodata, band.scale) == ("red", "R", "uint8", 0.0, 0.01)
    with pytest.raises(InvalidInput, match="no bands"):
        collection_from_stac({"type": "Collection", "id": "x"})
    with pytest.raises(InvalidInput, match="no gsd"):
        collection_from_stac({"type": "Collection", "id": "x", "bands": [{"name": "R"}]})
    with pytest.raises(InvalidInput, match="Catalog"):
        collection_from_stac({"type": "Catalog", "id": "x"})


def test_the_guides_examples_load(tmp_path: Path) -> None:
    """Every TOML block of the guide to collections loads, and the guide names every preset and key."""
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "collections.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    loaded = [load_collection(written(tmp_path, text)).name for text in examples]
    assert loaded == ["fields", "pucallpa", "orchards", "sinop"]
    words = [*preset_names(), *(f.name for f in fields(Files)), *(f.name for f in fields(Band))]
    assert [w for w in words if f"`{w}`" not in guide and f"{w} =" not in guide] == []


@pytest.mark.parametrize(
    ("line", "told"),
    [("", "scale 1; give the scale, as scale = 0.0001"), ("scale = -0.1", "scale -0.1; give a number above 0")],
)
def test_a_forgotten_or_impossible_scale_is_refused(tmp_path: Path, line: str, told: str) -> None:
    """Whole numbers of reflectance with scale 1 would all be clipped to 1: refused by band, unless they are counts."""
    path = tmp_path / "a.toml"
    text = f'preset = "generic"\nbands = [{{ name = "red" }}]\n[band]\ngsd_m = 10\n{line}\n'
    path.write_text(text)
    with pytest.raises(InvalidInput, match=f"band 'red' .*{re.escape(told)}"):
        load_collection(path)
    path.write_text(text.replace(line, "") + 'kind = "counts"\n')
    assert load_collection(path).groups["10m"].items[0].kind == "counts"
