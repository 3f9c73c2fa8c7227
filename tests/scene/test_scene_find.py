"""Finding scenes in files, folders, globs, STAC items and catalogues."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from geostore.connection import connect
from geostore.errors import BadScene, BandMismatch
from geostore.ingest import ingest
from geostore.scene import SceneSource, find_scenes, load_collection, open_scene
from geostore.scene.names import scene_stem
from geostore.scene.stac import read_item
from geostore.settings import Settings

RNG = np.random.default_rng(13)
L2A = 'preset = "sentinel-2-l2a"\nbands = ["red", "nir", "swir16"]\n'
NAMES = [f"S2B_MSIL2A_202006{d:02d}T093041_N0510_R136_T34TEQ_20230101T000000" for d in (1, 11, 21)]


@pytest.fixture
def scenes(write, tmp_path) -> Path:
    """A folder of three Sentinel-2 scenes, one file a band, and a static catalogue of them beside it."""
    for name in NAMES:
        for band, size in (("B04", 24), ("B08", 24), ("B11", 12), ("SCL", 12)):
            low, high, kind = (0, 11, np.uint8) if band == "SCL" else (1001, 9000, np.uint16)
            pixels = RNG.integers(low, high, (1, size, size)).astype(kind)
            write(f"s/{name}/{name}_{band}.tif", pixels, res=240 / size)
    _catalogue(tmp_path)
    return tmp_path / "s"


def item_of(name: str, folder: str = "../../s") -> dict[str, Any]:
    day = f"2020-06-{name[17:19]}T09:30:41Z"
    bands = {"B04": ("red", 10), "B08": ("nir", 10), "B11": ("swir16", 20), "SCL": (None, 20)}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "geometry": {"type": "Point", "coordinates": [22, 45]},
        "bbox": [22, 45, 22, 45],
        "properties": {"datetime": day, "platform": "Sentinel-2B", "s2:processing_baseline": "05.10"},
        "links": [],
        "assets": {
            **{
                f"asset-{i}": {
                    "href": f"{folder}/{name}/{name}_{band}.tif",
                    "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                    **({"eo:bands": [{"name": band, "common_name": common}]} if common else {}),
                }
                for i, (band, (common, _)) in enumerate(bands.items())
            },
            "thumbnail": {"href": "./gone.tif", "type": "image/tiff", "roles": ["thumbnail"]},
            "meta": {"href": "./gone.xml", "type": "application/xml"},
        },
    }


def _catalogue(root: Path) -> None:
    """catalog.json -> a collection -> three items."""
    (root / "c" / "inner").mkdir(parents=True)
    link = {"rel": "child", "href": "./inner/collection.json"}
    top = {"type": "Catalog", "stac_version": "1.0.0", "id": "top", "description": "-", "links": [link]}
    items = [{"rel": "item", "href": f"./{name}.json"} for name in NAMES]
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    inner = {**top, "type": "Collection", "id": "i", "license": "other", "extent": extent, "links": items}
    (root / "c" / "catalog.json").write_text(json.dumps(top))
    (root / "c" / "inner" / "collection.json").write_text(json.dumps(inner))
    for name in NAMES:
        (root / "c" / "inner" / f"{name}.json").write_text(json.dumps(item_of(name)))


def test_folder_glob_files_and_stac_give_the_same_scenes(scenes, declare, tmp_path):
    """Five ways to the same three scenes: equal ids, times, platforms, baselines, grids, footprints and pixels."""
    collection = declare(L2A)
    files = sorted(map(str, scenes.rglob("*.tif")))
    ways = {
        "folder": [scenes],
        "glob": [f"{scenes}/**/*.tif"],
        "files": files[::-1],
        "items": [f"{tmp_path}/c/inner/S2B*.json"],
        "catalogue": [tmp_path / "c"],
    }
    opened = {
        way: [open_scene(s, collection) for s in find_scenes(sources, collection)] for way, sources in ways.items()
    }
    for way, found in opened.items():
        assert [s.id for s in found] == NAMES, way
        for scene, first in zip(found, opened["folder"], strict=True):
            blank = {"source": "", "planes": None, "calibrations": None}
            assert replace(scene, **blank) == replace(first, **blank), way
            for group, grid in first.grids.items():
                ours, theirs = scene.read(group, grid), first.read(group, grid)
                assert np.array_equal(ours.pixels, theirs.pixels)
                assert np.array_equal(ours.valid, theirs.valid)
    assert opened["items"][0].source.endswith(f"{NAMES[0]}.json")


def test_stac_folder_and_glob_make_equal_stores(scenes, declare, tmp_path):
    """The same scenes by folder, glob and catalogue: every column of every row is equal, payloads too."""
    collection = replace(declare(L2A), precision=4)
    ways = ([scenes], [f"{scenes}/**/*.tif"], [tmp_path / "c"])
    stores = []
    for i, sources in enumerate(ways):
        with connect(tmp_path / f"store{i}", create=True, settings=Settings(workers=1)) as client:
            assert ingest(client, sources, collection).scenes == 3
            rows = client.table("raster").drop_columns(["seq"]).to_pylist()
            rows = sorted(rows, key=lambda r: (r["geohash"], r["band_group"], r["time_us"]))
            facts = [(s["id"], s["time_us"], s["platform"], s["baseline"]) for s in client.scenes(collection.name)]
            stores.append((rows, facts))
    assert stores[0] == stores[1] == stores[2]
    assert len(stores[0][0]) == 6  # two band groups a date


def test_a_scene_named_twice_is_found_once(scenes, declare):
    """Files given again, and by the folder that holds them."""
    found = list(find_scenes([scenes, scenes / NAMES[0], f"{scenes}/*/*_B04.tif"], declare(L2A)))
    assert [f.name for f in found] == NAMES
    assert [len(f.files) for f in found] == [4, 4, 4]


def test_what_is_not_one_scene_is_not_opened_as_one(scenes, declare):
    """Fault: a folder of three scenes opened as one."""
    with pytest.raises(BadScene, match="hold 3 scenes"):
        open_scene(scenes, declare(L2A))


def test_sources_that_hold_nothing_are_refused(tmp_path, declare):
    """Faults: a missing file, an empty folder, an empty glob, JSON that is no STAC, broken JSON."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.json").write_text('{"type": "Polygon"}')
    (tmp_path / "y.json").write_text('{"type": ')
    (tmp_path / "z.json").write_text("[1]")
    cases = [
        ("gone.tif", "gone.tif does not exist"),
        ("empty", "holds no scene; wanted files .tif"),
        ("*.jp2", "holds no scene"),
        ("x.json", "x.json is type 'Polygon'"),
        ("y.json", "y.json is not JSON"),
        ("z.json", "z.json holds list"),
    ]
    for name, words in cases:
        with pytest.raises(BadScene, match=words):
            find_scenes([tmp_path / name], declare(L2A))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"properties": {}}, "has no datetime"),
        ({"properties": {"datetime": "yesterday"}}, "has no datetime .'yesterday'"),
        ({"properties": None}, "is not a STAC item"),
        ({"geometry": None}, "has no geometry"),
        ({"assets": {}}, "has no raster asset"),
        ({"assets": {"a": {}}}, "asset 'a' has no href"),
        ({"assets": {"B04": {"href": "gone.tif"}}}, "gone.tif does not exist"),
    ],
)
def test_half_an_item_is_refused(scenes, declare, tmp_path, change, words):
    """Faults: each missing part of a STAC item is named, with the item or the file."""
    path = tmp_path / "half.json"
    path.write_text(json.dumps({**item_of(NAMES[0], "s"), **change}))
    with pytest.raises(BadScene, match=words):
        open_scene(path, declare(L2A))


def test_an_item_without_a_band_is_refused(scenes, declare, tmp_path):
    """Fault: an asset is missing; the band is named. A start time serves where datetime is null."""
    item = item_of(NAMES[0], "s")
    item["properties"].update(datetime=None, start_datetime="2020-06-01T09:30:41Z")
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item))
    assert open_scene(path, declare(L2A)).id == NAMES[0]
    del item["assets"]["asset-1"]
    path.write_text(json.dumps(item))
    with pytest.raises(BandMismatch, match=r"nir \(B08\)"):
        open_scene(path, declare(L2A))


def test_one_damaged_scene_does_not_hide_the_others(scenes, declare, tmp_path):
    """A broken item is found like the others, and refused when it is opened."""
    (tmp_path / "c" / "inner" / f"{NAMES[1]}.json").write_text('{"type": "Feature"}')
    found = list(find_scenes([tmp_path / "c"], declare(L2A)))
    assert [str(Path(f.item).stem) for f in found] == NAMES
    assert open_scene(found[2], declare(L2A)).id == NAMES[2]
    with pytest.raises(BadScene, match="not a STAC item"):
        open_scene(found[1], declare(L2A))


def test_a_broken_catalogue_is_refused(tmp_path, declare):
    """Faults: a catalogue that is none, a child that is missing or an item."""
    top = {"type": "Catalog", "stac_version": "1.0.0", "id": "t", "description": "-", "links": []}
    path = tmp_path / "catalog.json"
    for child in ("gone.json", "item.json"):
        (tmp_path / "item.json").write_text(json.dumps(item_of(NAMES[0])))
        path.write_text(json.dumps({**top, "links": [{"rel": "child", "href": f"./{child}"}]}))
        with pytest.raises(BadScene, match=child):
            find_scenes([path], declare(L2A))


@pytest.mark.parametrize(
    ("properties", "asset", "dn", "stored"),
    [
        ({"earthsearch:boa_offset_applied": True}, {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]}, 500, 1500),
        ({"earthsearch:boa_offset_applied": False}, {"raster:bands": [{"scale": 1e-4, "offset": 0}]}, 1500, 1500),
        ({}, {}, 1500, 1500),
        ({"s2:processing_baseline": "02.08"}, {}, 500, 1500),
        ({}, {"raster:bands": [{"scale": 1e-4, "offset": 0}]}, 500, 1500),
        ({}, {"raster:scale": 1e-4, "raster:offset": -0.1}, 1500, 1500),
    ],
)
def test_the_offset_a_stac_item_states(write, declare, tmp_path, properties, asset, dn, stored):
    """Harmonised, not harmonised, by baseline, and stated in either version of the raster extension."""
    write("s/2020/B04.tif", np.full((1, 24, 24), dn, np.uint16))
    item = item_of(NAMES[0])
    item["properties"].update(properties)
    item["assets"] = {"red": {"href": "s/2020/B04.tif", **asset}}
    (tmp_path / "item.json").write_text(json.dumps(item))
    red = declare('preset = "sentinel-2-l2a"\nmasks = []\nbands = ["red"]\nindices = []')
    scene = open_scene(tmp_path / "item.json", red)
    assert (scene.read("10m", scene.grids["10m"]).pixels == stored).all()
    assert scene.id == "2020_20200601T093041"


def test_stac_bands_of_both_versions_name_stacked_planes(write, declare, tmp_path):
    """A stacked asset whose file names no bands: eo:bands (1.0) or bands (1.1) do; Landsat's nir08 is our nir."""
    pixels = RNG.integers(7000, 9000, (2, 24, 24)).astype(np.uint16)
    write("stack.tif", pixels)
    collection = declare('preset = "landsat-c2-l2"\nmasks = []\nbands = ["red", "nir"]')
    for bands in (
        {"eo:bands": [{"name": "OLI_B5", "common_name": "nir08"}, {"name": "OLI_B4", "common_name": "red"}]},
        {"bands": [{"name": "SR_B5", "eo:common_name": "nir08"}, {"name": "SR_B4", "eo:common_name": "red"}]},
    ):
        item = item_of(NAMES[0])
        item["properties"]["platform"] = "landsat-8"
        item["assets"] = {"data": {"href": "stack.tif", **bands}}
        (tmp_path / "item.json").write_text(json.dumps(item))
        scene = open_scene(tmp_path / "item.json", collection)
        assert np.array_equal(scene.read("30m", scene.grids["30m"]).pixels, pixels[::-1])
    item["properties"]["platform"] = "landsat-5"
    (tmp_path / "item.json").write_text(json.dumps(item))
    with pytest.raises(BadScene, match="landsat-c2-l2-tm"):
        open_scene(tmp_path / "item.json", collection)


def test_our_reading_of_an_item_agrees_with_pystac(scenes, tmp_path):
    """Oracle: pystac's datetime, platform and absolute asset addresses."""
    path = tmp_path / "c" / "inner" / f"{NAMES[0]}.json"
    ours, theirs = read_item(str(path)), pystac.Item.from_file(str(path))
    assert ours.time == theirs.datetime
    assert ours.platform == theirs.properties["platform"].lower()
    wanted = {key: asset.get_absolute_href() for key, asset in theirs.assets.items() if key.startswith("asset")}
    assert {a.key: a.href for a in ours.assets} == wanted


def test_cloud_cover_is_kept_where_an_item_or_a_file_tells_it(write, declare, tmp_path):
    """Percent of a STAC item wins over a file's tag; what is no percentage is not kept."""
    pixels = RNG.integers(7000, 9000, (2, 24, 24)).astype(np.uint16)
    write("stack.tif", pixels, tags={"CLOUD_COVERAGE_ASSESSMENT": "12.50"})
    collection = declare('preset = "landsat-c2-l2"\nmasks = []\nbands = ["red", "nir"]')
    bands = {"eo:bands": [{"name": "OLI_B5", "common_name": "nir08"}, {"name": "OLI_B4", "common_name": "red"}]}
    for told, kept in ((37.25, "37.25"), (None, "12.5"), ("cloudy", "12.5"), (float("nan"), "12.5"), (0, "0")):
        item = item_of(NAMES[0])
        item["properties"] |= {"platform": "landsat-8", "eo:cloud_cover": told}
        item["assets"] = {"data": {"href": "stack.tif", **bands}}
        (tmp_path / "item.json").write_text(json.dumps(item))
        assert open_scene(tmp_path / "item.json", collection).facts["eo:cloud_cover"] == kept
    write("stack.tif", pixels)
    del item["properties"]["eo:cloud_cover"]
    (tmp_path / "item.json").write_text(json.dumps(item))
    assert "eo:cloud_cover" not in open_scene(tmp_path / "item.json", collection).facts


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [
        ("S2_L2A_romania_20m_20150801", "S2_L2A_romania_20150801"),
        ("T34TEQ_20200601T093041_B8A_20m", "T34TEQ_20200601T093041"),
        ("LC08_L2SP_185029_20200601_20200801_02_T1_SR_B4", "LC08_L2SP_185029_20200601_20200801_02_T1"),
        ("B04", ""),
        ("m_4709963_se_14_1_20090818", "m_4709963_se_14_1_20090818"),
    ],
)
def test_scene_names(stem, wanted):
    """What is left of file names without bands and resolutions."""
    assert scene_stem(stem, ["B04", "B8A", "SR_B4"]) == wanted


def test_a_source_says_where_it_is():
    """`str` of a source is what a message shows."""
    assert str(SceneSource("a", ("/x/a.tif",))) == "/x/a.tif"
    assert str(SceneSource("a", ("1", "2"))) == "a (2 files)"
    assert str(SceneSource("a", item="/x/a.json")) == "/x/a.json"


def test_a_cloud_mask_beside_the_bands_is_part_of_their_scene(write: Any, tmp_path: Path) -> None:
    """A file named for its cloud mask joins the bands of its scene, asked for or not."""
    one = np.ones((1, 4, 4), np.uint16)
    for name in ("scene_20200101_B02.tif", "scene_20200101_B04.tif", "scene_20200101_cloud_mask.tif"):
        write(name, one)
    (found,) = find_scenes([tmp_path], load_collection("sentinel-2-l2a"))
    assert len(found.files) == 3
