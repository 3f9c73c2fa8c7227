"""Bad input: a clear error of the right kind, and a store that is as it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from fault_check import digests
from fault_scenes import BANDS, collection, pixels, scene_name, write_scenes, write_tif
from fault_victim import SETTINGS, put_request

from geostore.client import Client
from geostore.collection import Collection, collection_to_dict
from geostore.connection import Local
from geostore.errors import (
    BadRequest,
    BadScene,
    BandMismatch,
    GeostoreError,
    InvalidInput,
    NotFound,
    OutOfRange,
)
from geostore.ingest import ingest
from geostore.node import Node
from geostore.query.messages import parse
from geostore.raster import Band, Bands

SIZE = 96
NEXT = scene_name(40)  # a date the store does not hold
COLLECTION = collection()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A store with two good scenes of the collection `faults`."""
    folder = tmp_path_factory.mktemp("bad")
    write_scenes(folder / "scenes", 71, 2, size=SIZE)
    with Node.open(str(folder / "store"), settings=SETTINGS, create=True, slots=4) as node:
        ingest(Client(Local(node)), [folder / "scenes"], collection())
        yield node


def content(node: Node) -> str:
    """One digest over every row of the store and its collections."""
    name = hashlib.sha256()
    for kind in ("raster", "embedding", "codec", "scene"):
        name.update(repr(sorted(map(repr, node.store.table(kind).to_pylist()))).encode())
    name.update(repr(node.store.collections()).encode())
    return name.hexdigest()


def good(**profile: object) -> Callable[[Path], Path]:
    """Writes a scene that only `profile` makes bad."""
    return lambda folder: write_tif(folder / NEXT, pixels(72, 0, size=SIZE), **profile)


def changed(change: Callable[[np.ndarray], np.ndarray], **profile: object) -> Callable[[Path], Path]:
    """Writes a scene whose pixels went through `change`."""
    return lambda folder: write_tif(folder / NEXT, change(pixels(72, 0, size=SIZE)), **profile)


def described(*names: str) -> Callable[[Path], Path]:
    """Writes a scene whose bands say that they are `names`."""

    def write(folder: Path) -> Path:
        path = good()(folder)
        with rasterio.open(path, "r+") as target:
            target.descriptions = names
        return path

    return write


def with_value(value: int) -> Callable[[np.ndarray], np.ndarray]:
    """Puts one pixel to `value`."""

    def change(planes: np.ndarray) -> np.ndarray:
        planes[0, 3, 4] = value
        return planes

    return change


def truncated(folder: Path) -> Path:
    """A GeoTIFF that lost its second half."""
    path = good()(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def text_file(folder: Path) -> Path:
    """A text file that calls itself a GeoTIFF."""
    path = folder / NEXT
    path.write_text("these are not pixels\n")
    return path


def nowhere(folder: Path) -> Path:
    """A file that is not there."""
    return folder / NEXT


def nameless(folder: Path) -> Path:
    """A good scene whose name tells no time."""
    return good()(folder).rename(folder / "scene.tif")


def rotated(folder: Path) -> Path:
    """A grid turned by ten degrees."""
    turned = Affine(9.8, 1.7, 5e5, 1.7, -9.8, 5.1e6)
    return good(transform=turned)(folder)


def half_item(folder: Path) -> Path:
    """The first half of a STAC item's text."""
    text = json.dumps(_item(folder))
    path = folder / "item.json"
    path.write_text(text[: len(text) // 2])
    return path


def item_without(*keys: str) -> Callable[[Path], Path]:
    """A STAC item that lacks what `keys` lead to."""

    def write(folder: Path) -> Path:
        item = _item(folder)
        inner = item
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        path = folder / "item.json"
        path.write_text(json.dumps(item))
        return path

    return write


def item_of_nothing(folder: Path) -> Path:
    """A STAC item whose asset is not there."""
    path = item_without("links")(folder)
    (folder / NEXT).unlink()
    return path


def _item(folder: Path) -> dict:
    good()(folder)
    bands = [{"name": b.source, "eo:common_name": b.name} for b in BANDS]
    ring = [[21.0, 46.0], [21.01, 46.0], [21.01, 46.01], [21.0, 46.0]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "half",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [21.0, 46.0, 21.01, 46.01],
        "properties": {"datetime": "2021-03-04T10:00:00Z"},
        "links": [],
        "assets": {"data": {"href": f"./{NEXT}", "type": "image/tiff; application=geotiff", "bands": bands}},
    }


@dataclass(frozen=True)
class Case:
    """One bad input: how it is written, which error it must raise, and words the error must hold."""

    write: Callable[[Path], Path]
    error: type[GeostoreError]
    words: tuple[str, ...]
    collection: Collection = COLLECTION


FLOATS = replace(
    collection(),
    name="floats",
    groups={"10m": Bands(tuple(Band(b.name, b.source, 10.0, "float32", valid_max=2.0) for b in BANDS))},
)
UNNAMED = replace(collection(), files=replace(collection().files, positional=()))
FRACTIONS = changed(lambda planes: planes + 0.25, dtype="float64")
WIDE = changed(lambda planes: planes.astype(np.int32) - 70_000, dtype="int32")
NAN = changed(lambda planes: np.where(planes == planes[0, 5, 5], np.nan, 0.5).astype(np.float32), dtype="float32")

SCENES = {
    "no CRS": Case(good(crs=None), BadScene, (NEXT, "CRS", "gdal_edit")),
    "a missing band": Case(changed(lambda p: p[:1], count=1), BandMismatch, (NEXT, "1 band")),
    "a band too many": Case(changed(lambda p: np.concatenate([p, p[:1]]), count=3), BandMismatch, (NEXT, "3 bands")),
    "wrong bands": Case(described("B11", "B12"), BandMismatch, ("B11", "red"), UNNAMED),
    "a band twice": Case(described("B04", "B04"), BandMismatch, ("B04",), UNNAMED),
    "fractions": Case(FRACTIONS, InvalidInput, (NEXT, "float64")),
    "negative numbers": Case(WIDE, InvalidInput, (NEXT, "-6")),
    "out of range": Case(changed(with_value(23_456)), OutOfRange, ("23456", "20000", "red")),
    "NaN": Case(NAN, OutOfRange, ("nan",), FLOATS),
    "all nodata": Case(changed(np.zeros_like), BadScene, (NEXT, "nodata")),
    "truncated": Case(truncated, BadScene, (NEXT, "whole")),
    "no raster": Case(text_file, BadScene, (NEXT, "GeoTIFF")),
    "no file": Case(nowhere, BadScene, (NEXT, "does not exist")),
    "rotated": Case(rotated, BadScene, (NEXT, "rotated", "gdalwarp")),
    "no time": Case(nameless, BadScene, ("scene.tif", "time")),
    "half a STAC item": Case(half_item, BadScene, ("item.json", "JSON", "whole")),
    "an item without time": Case(item_without("properties", "datetime"), BadScene, ("item.json", "datetime")),
    "an item without geometry": Case(item_without("geometry"), BadScene, ("item.json", "geometry")),
    "an item without assets": Case(item_without("assets"), BadScene, ("item.json", "asset")),
    "an asset without href": Case(item_without("assets", "data", "href"), BadScene, ("item.json", "href")),
    "an asset that is gone": Case(item_of_nothing, BadScene, (NEXT, "does not exist")),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_bad_scene_is_refused_and_nothing_changes(node: Node, tmp_path: Path, name: str) -> None:
    """Ingest raises the kind that fits, with the value seen and a next step; the store verifies, with the same rows."""
    case = SCENES[name]
    source = case.write(tmp_path)
    Client(Local(node)).put_collection(case.collection)
    before = content(node)
    with pytest.raises(case.error) as caught:
        ingest(Client(Local(node)), [source], case.collection)
    _tells(caught.value, case.words)
    assert content(node) == before
    assert node.store.verify() == []


def _tells(error: GeostoreError, words: tuple[str, ...]) -> None:
    """The message holds `words`, and after a semicolon what to do next."""
    text = str(error)
    assert [w for w in words if w not in text] == [], text
    assert ";" in text, f"no next step in {text!r}"
    assert type(error).kind != "internal"


def test_keep_going_takes_the_good_and_names_the_bad(node: Node, tmp_path: Path) -> None:
    """With `keep_going` a bad scene among good ones is noted by name, and the good ones are stored."""
    write_tif(tmp_path / scene_name(60), pixels(73, 0, size=SIZE))
    text_file(tmp_path)
    summary = ingest(Client(Local(node)), [tmp_path], collection(), keep_going=True)
    assert summary.scenes == 1
    assert [NEXT in line for line in summary.errors] == [True]
    assert node.store.verify() == []


REQUESTS = {
    "an unknown partition": (lambda c: c.rasters("u00000"), NotFound, ("u00000",)),
    "a word that is no geohash": (lambda c: c.rasters("ailo"), GeostoreError, ("ailo",)),
    "an unknown partition to decode": (lambda c: c.decode("u00000"), NotFound, ("u00000",)),
    "an unknown collection": (lambda c: c.rasters(collection="nope"), NotFound, ("nope",)),
    "cells of an unknown collection": (lambda c: c.cells("nope"), NotFound, ("nope",)),
    "an unknown collection to fit": (lambda c: c.fit(collection="nope"), NotFound, ("nope",)),
    "an unknown partition to fit": (lambda c: c.fit(geohash="u00000"), NotFound, ("u00000",)),
    "an unknown scene": (lambda c: c.withdraw("faults", "nope"), NotFound, ("nope",)),
    "an unknown verb": (lambda c: parse("paint", {}), BadRequest, ("paint", "decode")),
    "a mistyped field": (lambda c: parse("fit", {"steps": "many"}), BadRequest, ("steps",)),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_bad_request_is_refused_and_nothing_changes(node: Node, name: str) -> None:
    """Asking for what is not there names it and says what to do; the store keeps its rows."""
    ask, error, words = REQUESTS[name]
    before = content(node)
    with pytest.raises(error) as caught:
        ask(Client(Local(node)))
    _tells(caught.value, words)
    assert content(node) == before


PUTS: dict[str, tuple[Callable[..., object], type[GeostoreError], tuple[str, ...]]] = {
    "another collection": (lambda r, a: (r.model_copy(update={"collection": "nope"}), a), NotFound, ("nope",)),
    "another group": (lambda r, a: (_piece(r, group="20m"), a), InvalidInput, ("20m", "10m")),
    "another precision": (lambda r, a: (_piece(r, geohash="u2ed1"), a), InvalidInput, ("u2ed1", "6")),
    "no geohash": (lambda r, a: (_piece(r, geohash="u2edaa"), a), InvalidInput, ("u2edaa",)),
    "outside its cell": (lambda r, a: (_piece(r, row=50), a), InvalidInput, ("50", "cell")),
    "another dtype": (lambda r, a: (r, [a[0].astype(np.int16), *a[1:]]), InvalidInput, ("int16", "uint16")),
    "another shape": (lambda r, a: (r, [a[0][:, 1:], *a[1:]]), InvalidInput, ("(2, 79, 90)", "(2, 80, 90)")),
    "a band missing": (lambda r, a: (r, [a[0][:1], *a[1:]]), InvalidInput, ("(1, 80, 90)", "(2, 80, 90)")),
    "flat pixels": (lambda r, a: (r, [a[0].ravel(), *a[1:]]), BadRequest, ("1 axes",)),
    "no such array": (lambda r, a: (_piece(r, pixels=99), a), BadRequest, ("99",)),
    "out of range": (lambda r, a: (r, [a[0] + np.uint16(20_000), *a[1:]]), OutOfRange, ("20000", "red")),
}


def _piece(request, **fields):
    first, *rest = request.pieces
    return request.model_copy(update={"pieces": [first.model_copy(update=fields), *rest]})


@pytest.mark.parametrize("name", PUTS)
def test_a_bad_put_is_refused_and_nothing_changes(node: Node, name: str) -> None:
    """A put that does not fit its collection, cell or arrays is refused whole: none of its pieces is stored."""
    spoil, error, words = PUTS[name]
    before = content(node)
    request, arrays = spoil(*put_request(74, 0))
    with pytest.raises(error) as caught:
        node.answer(request, arrays)
    _tells(caught.value, words)
    assert content(node) == before
    assert node.store.verify() == []


COMMANDS = {
    "a truncated scene": (truncated, 2, "whole"),
    "a rotated scene": (rotated, 2, "gdalwarp"),
    "no scene": (nowhere, 2, "does not exist"),
    "half a STAC item": (half_item, 2, "JSON"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_line_refuses_a_bad_scene(tmp_path: Path, name: str) -> None:
    """`geostore ingest` ends with the exit code of the kind, says why on stderr and shows no traceback."""
    write, code, word = COMMANDS[name]
    (tmp_path / "in").mkdir()
    source = write(tmp_path / "in")
    declared = tmp_path / "faults.json"
    declared.write_text(json.dumps(collection_to_dict(COLLECTION)))
    command = [sys.executable, "-m", "geostore.cli", "ingest", str(source), "--collection", str(declared)]
    done = subprocess.run([*command, "--store", str(tmp_path / "store")], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert word in " ".join(done.stderr.split())


def test_the_command_line_names_what_is_not_there(node: Node) -> None:
    """Decoding an unknown cell ends with exit code 4 and names cells that are there."""
    command = [sys.executable, "-m", "geostore.cli", "decode", "u00000", "--store", node.store.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (4, False), done.stderr
    assert "u00000" in done.stderr


def test_a_scene_refused_half_way_is_taken_in_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad pixel in the last cell stops a scene whose first cells are stored: it stays incomplete, nothing else
    changes, and the mended file completes it bit for bit as if it had come whole."""
    from geostore.client import steps

    monkeypatch.setattr(steps, "BATCH_BYTES", 4096)
    good = pixels(75, 0, size=SIZE)
    bad = good.copy()
    bad[0, -1, -1] = 23_456
    stores = {}
    for name, first in (("mended", bad), ("whole", good)):
        with Node.open(str(tmp_path / name), settings=SETTINGS, create=True, slots=4) as node:
            client = Client(Local(node))
            if first is bad:
                with pytest.raises(OutOfRange, match="23456"):
                    ingest(client, [write_tif(tmp_path / NEXT, bad)], COLLECTION)
                assert not any(s["complete"] for s in client.scenes("faults"))
                assert node.store.verify() == []
            assert ingest(client, [write_tif(tmp_path / NEXT, good)], COLLECTION).scenes == 1
            assert [s["complete"] for s in client.scenes("faults")] == [True]
            stores[name] = digests(node)
    assert stores["mended"] == stores["whole"]
