"""Search through a client: in process, over TCP and CURVE the same; what a user may give, and what is refused."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from daemon_process import Daemon
from small_store import CELL, DATES, DAY_US, fill, piece

from geostore import AtLeast, Circle, Exactly, Some
from geostore.client import Client
from geostore.connection import connect, connect_async
from geostore.errors import (
    BadRequest,
    BandMismatch,
    Forbidden,
    InvalidInput,
    NotComparable,
    NotFound,
    NotInstalled,
)
from geostore.partition.geohash import bounds
from geostore.query.auth import new_client_key, new_server_key, read_pair
from geostore.scene.writer import write_cog

FIRST = (CELL, "1970-01-01")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "store"
    with connect(path, create=True) as client:
        fill(client)
        client.label([(CELL, f"1970-01-0{d}") for d in (1, 2, 3)], ["dry", "bare"], who="kim")
        client.label([(CELL, "1970-01-04")], ["wet"])
    return path


@pytest.fixture(scope="module")
def client(store: Path):
    with connect(store, readonly=True) as client:
        yield client


def answers(client: Client) -> dict[str, object]:
    """Everything a reader can ask of similarity, in comparable form."""
    raster = piece(0, "10m").raster
    found = {
        "key": client.similar(FIRST, explain=True),
        "chips": client.similar(FIRST, level="chip", k=7),
        "raster": client.similar(raster, radius=30),
        "dataset": client.similar(client.decode(CELL, time="1970-01-02")),
        "several": client.similar(like=[FIRST, raster], unlike=[(CELL, "1970-01-05")]),
        "labels": client.similar(FIRST, labels=AtLeast("dry", "bare"), sensor="s2", season="winter"),
        "nothing": client.similar(FIRST, within=(-70, -10, -60, 0)),
        "cell": client.similar(raster, level="cell", explain=True),
        "words": client.similar(words="dry winter"),
        "text": client.similar(text="wet", k=1),
        "near": client.similar(near=(0.5, 0.5), k=3, level="chip"),
    }
    comparable = {n: (h.to_dict(), h.count, h.space, h.vector.tobytes()) for n, h in found.items()}
    pixels = [(i, r.pixels.tobytes()) for i, r in found["several"].decode()]
    changes = client.changes(CELL, to=FIRST, time=slice("1970-01-02", None)).to_dict()
    status = {k: v for k, v in client.index_status().items() if k != "path"}
    return {**comparable, "pixels": pixels, "changes": changes, "status": status}


def test_in_process_tcp_and_curve_give_identical_answers(store: Path, client: Client, tmp_path: Path) -> None:
    """Hits, scores, plans, vectors, decoded hits, changes and status, three ways and awaited; none differs by a bit."""
    new_server_key(tmp_path / "keys")
    new_client_key(tmp_path / "keys", "reader", "read")
    here = answers(client)
    assert here["key"][1] == DATES
    assert here["cell"][0]["hits"][0]["votes"][0]["weight"] > 0
    assert here["text"][0]["hits"][0]["labels"] == ["wet"]
    with Daemon(store) as daemon, connect(daemon.address) as far:
        over_tcp = answers(far)
        assert asyncio.run(awaited(daemon.address)) == here["key"][0]
    server_key = read_pair(tmp_path / "keys" / "server.key").public
    with (
        Daemon(store, "--keys", str(tmp_path / "keys")) as daemon,
        connect(daemon.address, key=tmp_path / "keys" / "reader.key", server_key=server_key) as far,
    ):
        over_curve = answers(far)
        for verb in (lambda: far.label([FIRST], ["x"]), far.index_build, far.index_upgrade):
            with pytest.raises(Forbidden, match="needs role"):
                verb()
    for name, answer in here.items():
        assert over_tcp[name] == answer, name
        assert over_curve[name] == answer, name


async def awaited(address: str) -> dict:
    """The first question, asked with a coroutine."""
    async with connect_async(address) as client:
        hits = await client.similar(FIRST, explain=True)
        assert len(await client.changes(CELL)) == DATES
        assert (await client.index_status())["labelled"] == 4
        return hits.to_dict()


def test_every_kind_of_example_finds_the_same(client: Client, tmp_path: Path) -> None:
    """A place and time, a key, facts, a hit, a raster, a GeoTIFF, a Dataset, a vector: the same order of the others."""
    info = client.rasters(CELL, group="10m", time="1970-01-01")[0]
    wanted = [h.key for h in client.similar(info)]
    raster = piece(0, "10m").raster
    path = tmp_path / "new.tif"
    write_cog(path, raster, {})
    hit = client.similar((CELL, "1970-01-02"), k=100).rows
    itself = next(h for h in hit if h.key == info.key)
    for example in (FIRST, info.key, itself):
        assert [h.key for h in client.similar(example)] == wanted
    for example in (raster, path, str(path), client.decode(CELL, time="1970-01-01")):
        assert [h.key for h in client.similar(example)] == [info.key, *wanted]
    for example in (client.similar(FIRST), client.similar(FIRST).vector):
        assert [h.key for h in client.similar(example)] == [info.key, *wanted]
    assert len(wanted) == DATES - 1
    chip = client.similar(FIRST, level="chip", k=1)[0]
    like_it = client.similar(chip, level="chip", k=100)
    assert (chip.key, chip.cell) not in [(h.key, h.cell) for h in like_it]
    assert like_it.count == len(like_it) + 1


def test_areas_and_conditions_as_users_write_them(client: Client) -> None:
    """Each form of the same area, and conditions alone and together, give the counts that a look at the store gives."""
    west, south, east, north = bounds(CELL)
    box = shapely.box(west, south, east, north)
    middle = Circle((west + east) / 2, (south + north) / 2, 0.1)
    ring = [(west, south), (east, south), (east, north), (west, north)]
    for area in (CELL, [CELL, "9q"], bounds(CELL), box, box.__geo_interface__, ring, middle):
        assert client.similar(FIRST, within=area).count == DATES, area
    far = shapely.Polygon([(170, -5), (-170, -5), (-170, 5), (170, 5)])
    assert client.similar(FIRST, within=far).count == 0
    for text in ('{"type": "Polygon"}', "area.geojson"):
        with pytest.raises(InvalidInput, match="give what `json"):
            client.similar(FIRST, within=text)
    counts = {
        DATES: [{"sensor": "s2"}, {"season": ["winter"]}, {"certificate": {"mse": 0.0}}, {"collection": "farm"}],
        3: [{"labels": Some("dry")}, {"labels": Exactly("dry", "bare")}, {"time": slice("1970-01-03", "1970-01-05")}],
        0: [{"labels": Exactly("dry")}, {"sensor": "landsat"}, {"season": "summer"}, {"valid_fraction": 0.9}],
        2: [{"labels": Some("dry", "wet"), "time": slice("1970-01-03", None)}],
    }
    for count, conditions in counts.items():
        for condition in conditions:
            assert client.similar(FIRST, **condition).count == count, condition


def test_hits_can_be_drawn_decoded_and_handed_on(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as JSON, pixels as put, a figure with a picture a hit; geopandas where it is, else a clear error."""
    hits = client.similar(FIRST, k=3)
    for hit, (info, raster) in zip(hits, hits.decode(), strict=True):
        put = piece(hit.key.time_us // DAY_US, "10m").raster
        assert info.key == hit.key
        np.testing.assert_array_equal(raster.pixels, put.pixels)
    assert [len(f.axes) for f in (hits.plot(), client.similar(FIRST, k=4, level="chip").plot(most=2))] == [3, 2]
    assert client.similar(FIRST, within="9q").plot().axes == []
    assert len(client.changes(CELL).plot().axes) == 2
    row = hits.to_dict()["hits"][0]
    assert (row["geohash"], row["cell"], row["labels"]) == (CELL, CELL, list(hits[0].labels))
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(NotInstalled, match="pip install geopandas"):
        hits.to_geodataframe()


def test_a_hit_becomes_a_row_with_its_cell(client: Client) -> None:
    """With geopandas: one row a hit, the cell's box in longitude and latitude."""
    pytest.importorskip("geopandas")
    frame = client.similar(FIRST, k=3).to_geodataframe()
    assert frame.crs.to_epsg() == 4326
    assert list(frame.geometry.iloc[0].bounds) == list(bounds(CELL))
    assert len(frame) == 3
    empty = client.similar(FIRST, within="9q").to_geodataframe()
    assert (len(empty), list(empty.columns)) == (0, list(frame.columns))
    assert empty.dtypes.tolist() == frame.dtypes.tolist()
    cells = client.similar(FIRST, level="cell", k=1).to_geodataframe()
    assert [part.startswith(CELL) for part in cells.votes.str.split(",").iloc[0]]
    with pytest.raises(InvalidInput, match="no CRS"):
        client.similar(FIRST, within=frame.set_crs(None, allow_override=True))


REFUSED = [
    (None, {}, InvalidInput, "nothing to look for"),
    ("no-such.tif", {}, InvalidInput, "no file"),
    (object(), {}, InvalidInput, "cannot be looked for"),
    ((CELL, "1999"), {}, NotFound, "no raster"),
    ((CELL, "1970-01"), {}, InvalidInput, "means 8 rasters"),
    ([1.0, math.nan], {}, NotComparable, r"2 numbers; .* 26 \(swir16\) or 47 \(red, nir\)"),
    ([1.0, 2.0], {"collection": "farm", "group": "10m"}, NotComparable, r"shape \(2,\)"),
    (FIRST, {"labels": Some("dyr")}, InvalidInput, "did you mean 'dry'"),
    (FIRST, {"labels": "dry"}, InvalidInput, "use Some"),
    (FIRST, {"within": [(0, 0), (1, 1), (1, 0), (0, 1)]}, InvalidInput, "cross"),
    (FIRST, {"within": [(0, 0), (1, 1)]}, InvalidInput, "three points"),
    (FIRST, {"within": 7}, InvalidInput, "no area"),
    (FIRST, {"season": "monsoon"}, InvalidInput, "no season"),
    (FIRST, {"cloud": 30}, InvalidInput, "from 0 to 1"),
    (FIRST, {"certificate": {"mse": math.nan}}, InvalidInput, "finite"),
    (FIRST, {"certificate": {"beauty": 1}}, InvalidInput, "no column"),
    (FIRST, {"seasn": "summer"}, InvalidInput, "no condition"),
    (FIRST, {"time": "yesterday"}, InvalidInput, "not a time"),
    (FIRST, {"cloud": "0.1"}, InvalidInput, "from 0 to 1"),
    (FIRST, {"certificate": ["mse"]}, InvalidInput, "by name"),
    (FIRST, {"certificate": {"mse": "low"}}, InvalidInput, "finite"),
    (FIRST, {"sensor": 2}, InvalidInput, "a name was wanted"),
    (FIRST, {"within": [(0, 0), (1, math.nan), (1, 0)]}, InvalidInput, "not all finite"),
    (FIRST, {"collection": "fram"}, NotFound, "no collection 'fram'"),
    (FIRST, {"unlike": FIRST}, InvalidInput, "is one example"),
    (None, {"like": "new.tif"}, InvalidInput, "is one example"),
    ([FIRST, FIRST], {}, InvalidInput, "go into `like`"),
    ([1j, 2j], {}, InvalidInput, "cannot be looked for"),
]


@pytest.mark.parametrize(("given", "filters", "error", "match"), REFUSED)
def test_what_means_nothing_is_refused(client: Client, given: object, filters: dict, error: type, match: str) -> None:
    """Each message says what was given and what was wanted."""
    with pytest.raises(error, match=match):
        client.similar(given, **filters)


def test_refusals_travel(store: Path, client: Client) -> None:
    """Over TCP every refusal has the kind and the message it has in process; so have NaN, and other bands."""
    raster = piece(0, "10m").raster
    red = dataclasses.replace(raster, bands=raster.bands.select(["red"]), pixels=raster.pixels[:1])
    rows = client.similar(FIRST).vector.size
    more = [([math.nan] * rows, {}, InvalidInput, "not finite"), (red, {}, NotComparable, "this store has red, nir")]
    with Daemon(store) as daemon, connect(daemon.address) as far:
        for given, filters, error, match in (*REFUSED, *more):
            said = []
            for asked in (client, far):
                with pytest.raises(error, match=match) as refused:
                    asked.similar(given, **filters)
                said.append((refused.value.kind, str(refused.value)))
            assert said[0] == said[1]


def test_rasters_of_other_bands_are_refused(client: Client) -> None:
    """A 20 m raster beside a 10 m one, and bands the store does not have, are not comparable."""
    with pytest.raises(NotComparable):
        client.similar(like=[piece(0, "10m").raster, piece(0, "20m").raster])
    raster = piece(0, "10m").raster
    red = dataclasses.replace(raster, bands=raster.bands.select(["red"]), pixels=raster.pixels[:1])
    with pytest.raises(NotComparable, match="this store has red, nir; swir16"):
        client.similar(red)
    with pytest.raises(BandMismatch, match="name collection and group"):
        client.similar(client.decode(CELL, time="1970-01-01").rename({"red": "rouge"}))
    with pytest.raises(InvalidInput, match="8 dates"):
        client.similar(client.decode(CELL))


def test_limits_hold_against_hostile_requests(store: Path) -> None:
    """Too many examples, rasters, labels, too large a k, an array that is not there: bad-request; the daemon lives."""
    from geostore.query.messages import parse

    key = {"collection": "farm", "geohash": CELL, "group": "10m", "time_us": 0, "platform": "s2a"}
    example = {"key": key}
    for verb, fields in (
        ("similar", {"like": [example] * 65}),
        ("similar", {"like": []}),
        ("similar", {"like": [{}]}),
        ("similar", {"like": [{"key": key, "vector": 0}]}),
        ("similar", {"like": [example], "k": 10_001}),
        ("similar", {"like": [example], "radius": 257}),
        ("similar", {"like": [example], "level": "pixel"}),
        ("similar", {"like": [example], "wanted": {"within": {}}}),
        ("similar", {"like": [example], "wanted": {"within": {"box": [0, 0, 1, math.inf]}}}),
        ("similar", {"like": [example], "wanted": {"numbers": {"mse": [math.nan, None]}}}),
        ("label", {"keys": [key] * 4097, "labels": ["x"]}),
        ("label", {"keys": [key], "labels": ["x" * 65]}),
        ("index-upgrade", {"bits": 8}),
    ):
        with pytest.raises(BadRequest, match="PROTOCOL"):
            parse(verb, fields)
    with Daemon(store) as daemon, connect(daemon.address) as far:
        request = parse("similar", {"like": [{"pixels": 5, "valid": 6, "bands": [{"name": "x"}]}]})
        with pytest.raises(BadRequest):
            far.ask(request)
        deep: dict = {"type": "GeometryCollection", "geometries": []}
        for _ in range(200):
            deep = {"type": "GeometryCollection", "geometries": [deep]}
        assert (
            far.ask(parse("similar", {"like": [example], "wanted": {"within": {"geojson": deep}}})).fields["count"] == 0
        )
        assert far.similar(FIRST).count == DATES


def test_labels_upgrade_and_build_through_a_daemon(store: Path, tmp_path: Path) -> None:
    """A label counts at the next question; an upgrade is a job, and the store answers by the new head afterwards."""
    shutil.copytree(store, tmp_path / "store")
    with Daemon(tmp_path / "store") as daemon, connect(daemon.address) as far:
        hits = far.similar(FIRST, k=2)
        assert far.label(hits, ["twin"], who="kim", reason="looks like it") == {"labelled": 2, "unchanged": 0}
        assert {h.key for h in far.similar(FIRST, labels=Some("twin"))} == {h.key for h in hits}
        made = far.index_upgrade(head="rotation", bits=64)
        assert {i["space"]["generation"] for i in made["indexes"]} == {1}
        assert [h.key for h in far.similar(FIRST, k=2)] == [h.key for h in hits]
        assert far.similar(FIRST).space["bits"] == 64
        assert far.index_build(anew=True)["rasters"] == 2 * DATES
        assert {j["verb"]: j["state"] for j in far.jobs()} == {"index-upgrade": "done", "index-build": "done"}


def test_a_brought_encoder_goes_through_a_daemon(store: Path, tmp_path: Path) -> None:
    """Its files travel once, the upgrade is a job, bands it cannot take stay as they are; then texts are asked afar."""
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    sys.path.insert(0, str(Path(__file__).parents[1] / "index"))
    from tiny_encoder import write_encoder

    folder = write_encoder(tmp_path / "tiny")
    declared = json.loads((folder / "encoder.json").read_text())
    declared["image"]["bands"] = ["red", "nir", "red"]
    (folder / "encoder.json").write_text(json.dumps(declared))
    shutil.copytree(store, tmp_path / "store")

    async def upgraded(address: str) -> dict:
        async with connect_async(address) as client:
            return await client.index_upgrade(encoder=folder, head="rotation")

    with Daemon(tmp_path / "store") as daemon, connect(daemon.address) as far:
        made = asyncio.run(upgraded(daemon.address))["indexes"]
        assert [(m["space"]["encoder"], m["space"]["bands"]) for m in made] == [("tiny", ["red", "nir"])]
        hits = far.similar(text="lake", k=3)
        assert (len(hits), hits.space["encoder"], hits.space["sides"]) == (3, "tiny", ["image", "text", "location"])
        assert [h.key for h in far.similar(hits, k=3)] == [h.key for h in hits]
        assert far.similar(location=(21.5, 47.0), k=1).space["name"] == hits.space["name"]
        assert far.similar(words="wet", k=1)[0].labels == ("wet",)
