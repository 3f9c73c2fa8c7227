"""Scenes behind http: STAC catalogues, items and assets by address, read over loopback as if they were files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geostore.collection import Collection, Files
from geostore.errors import BadScene
from geostore.raster import Band, Bands
from geostore.scene import find_scenes, open_scene, stac

SIZE = 300
BANDS = Bands((Band("red", "B04", 10.0), Band("nir", "B08", 10.0)))
COLLECTION = Collection(name="far", groups={"10m": BANDS}, files=Files(positional=("red", "nir")))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address: a catalogue of one item with one asset."""
    folder = tmp_path / "served"
    (folder / "items").mkdir(parents=True)
    pixels = np.random.default_rng(1).integers(1, 9000, (2, SIZE, SIZE), dtype=np.uint16)
    profile = {"count": 2, "height": SIZE, "width": SIZE, "dtype": "uint16", "crs": "EPSG:32634", "tiled": True}
    where = Affine(10, 0, 604_000, 0, -10, 5_003_000)
    with rasterio.open(folder / "items" / "far_20200601.tif", "w", driver="GTiff", transform=where, **profile) as file:
        file.write(pixels)
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "far_20200601",
        "geometry": {"type": "Point", "coordinates": [22.3, 45.1]},
        "properties": {"datetime": "2020-06-01T10:30:00Z", "platform": "far-1"},
        "links": [],
        "assets": {"data": {"href": "./far_20200601.tif", "type": "image/tiff; application=geotiff"}},
    }
    link = {"rel": "item", "href": "./items/far.json"}
    top = {"type": "Catalog", "stac_version": "1.0.0", "id": "top", "description": "-", "links": [link]}
    (folder / "items" / "far.json").write_text(json.dumps(item))
    (folder / "catalog.json").write_text(json.dumps(top))
    command = [sys.executable, str(Path(__file__).with_name("range_server.py")), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield folder, f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


@pytest.mark.parametrize("name", ["catalog.json", "items/far.json"])
def test_a_remote_item_is_the_local_one(served: tuple[Path, str], name: str) -> None:
    """Catalogue and item by address give the scene that the files give: facts, grids and every pixel."""
    folder, address = served
    ((far, near),) = zip(
        find_scenes([f"{address}/{name}"], COLLECTION), find_scenes([folder / name], COLLECTION), strict=True
    )
    with_far, with_near = (open_scene(s, COLLECTION) for s in (far, near))
    assert (with_far.id, with_far.time_us, with_far.platform) == (with_near.id, with_near.time_us, with_near.platform)
    assert with_far.source == f"{address}/items/far.json"
    assert with_far.grids == with_near.grids
    grid = with_near.grids["10m"].window(40, 30, 200, 100)
    assert np.array_equal(with_far.read("10m", grid).pixels, with_near.read("10m", grid).pixels)
    for scene in (with_far, with_near):
        scene.close()


def test_what_a_server_does_not_give_is_a_bad_scene(served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that is not there, one whose asset is gone, one that is too large, nobody who answers: each is named."""
    folder, address = served
    with pytest.raises(BadScene, match=r"none\.json cannot be read"):
        find_scenes([f"{address}/none.json"], COLLECTION)
    (folder / "items" / "far_20200601.tif").unlink()
    with pytest.raises(BadScene, match=r"far_20200601\.tif"):
        open_scene(f"{address}/items/far.json", COLLECTION)
    monkeypatch.setattr(stac, "JSON_BYTES_MAX", 100)
    with pytest.raises(BadScene, match="larger than 100 bytes"):
        find_scenes([f"{address}/items/far.json"], COLLECTION)
    with pytest.raises(BadScene, match="cannot be read"):
        find_scenes(["http://127.0.0.1:9/item.json"], COLLECTION)
