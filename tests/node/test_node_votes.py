"""Cells by the votes of their parts on a real store: small things are found, levels go as fine as pixels allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from search_store import BANDS, COLLECTION, key, new_node, when

from geostore.collection import Collection, collection_to_dict
from geostore.errors import InvalidInput
from geostore.node import Node
from geostore.node.search.describe import PIXELS_FINE, finer
from geostore.node.search.levels import CHIP, FINE, RASTER
from geostore.partition.geohash import children, code_of
from geostore.partition.grid import cell_codes, cell_grid, owned
from geostore.query import messages
from geostore.query.messages import Piece, Put, Reply, SceneFields
from geostore.raster import Raster

CELLS = children("u8hk")
LAKES = {"u8hk3": "u8hk3d", "u8hkd": "u8hkd5", "u8hkq": "u8hkqm"}  # cell, and the chip that a small lake fills
DAYS = ("2020-01-10", "2020-07-10")
WATER = np.array([300, 400, 300, 200])


def ground(cell: str, day: str, resolution: float = 100.0) -> Raster:
    """Fields and towns in shares of its own; in three cells a lake of one chip, 3 % of the cell."""
    grid = cell_grid(cell, "EPSG:32634", resolution, resolution, (0.0, 0.0))
    place = CELLS.index(cell) if cell in CELLS else 0
    rng = np.random.default_rng([place, int(day[5:7])])
    own = np.random.default_rng(place)
    field, town = np.array([400, 700, 500, 3500]), np.array([1800, 2000, 2200, 2600])
    y, x = np.mgrid[0 : grid.height, 0 : grid.width] * (100 / resolution)
    built = np.sin(x / own.uniform(2, 9)) * np.cos(y / own.uniform(2, 9)) > own.uniform(-0.8, 0.8)
    pixels = np.where(built, town[:, None, None], field[:, None, None]) * own.uniform(0.7, 1.3)
    if cell in LAKES:
        pixels = np.where(cell_codes(grid, 6) == code_of(LAKES[cell]), WATER[:, None, None], pixels)
    pixels = np.clip(pixels + rng.normal(0, 20, pixels.shape), 1, 20_000).astype(np.uint16)
    return Raster(pixels=pixels, valid=owned(cell, grid), bands=BANDS, grid=grid)


def put(node: Node, cell: str, day: str, *, collection: str = "farm", resolution: float = 100.0) -> None:
    raster = ground(cell, day, resolution)
    grid = messages.GridFields.model_validate(raster.grid, from_attributes=True)
    piece = Piece(geohash=cell, group="100m", cell=grid, row=0, col=0, pixels=0, valid=1)
    scene = SceneFields(id=f"{cell}-{day}", time_us=when(day), platform="sentinel-2a")
    request = Put(collection=collection, scene=scene, pieces=[piece])
    node.answer(request, [raster.pixels, raster.valid.view(np.uint8)])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with new_node(tmp_path_factory.mktemp("votes") / "store") as made:
        for cell in CELLS:
            for day in DAYS:
                put(made, cell, day)
        yield made


def asked(node: Node, cell: str | None = None, **fields: object) -> Reply:
    """What is like the first lake's cell, or a chip of it."""
    example = messages.Example(key=key("u8hk3", DAYS[0]), cell=cell)
    return node.answer(messages.Similar.model_validate({"like": [example], **fields}))


def test_a_small_lake_is_found_by_votes_and_not_by_whole_rasters(node: Node) -> None:
    """Synthetic: asked for one lake, votes name cells and chips of the others first; whole rasters do not."""
    by_votes = asked(node, "u8hk3d", level="cell", k=5)
    assert [h["cell"] for h in by_votes.fields["hits"][:2]] in (["u8hkd", "u8hkq"], ["u8hkq", "u8hkd"])
    for hit in by_votes.fields["hits"][:2]:
        first = hit["votes"][0]
        assert first["cell"] == LAKES[hit["cell"]]
        assert {name: first[name] for name in ("geohash", "time_us")} == {n: hit[n] for n in ("geohash", "time_us")}
        assert first["weight"] > 0.9
        assert sum(v["weight"] for v in hit["votes"]) == pytest.approx(1, abs=1e-5)
    whole = asked(node, "u8hk3d", k=6, wanted={"within": {"geohashes": sorted(set(CELLS) - {"u8hk3"})}})
    assert not {"u8hkd", "u8hkq"} & {h["cell"] for h in whole.fields["hits"]}
    assert by_votes.arrays[1][1] > by_votes.arrays[1][2] + 0.1


def test_the_answer_says_how_many_cells_were_read(node: Node) -> None:
    """Exact counts: cells that meet the conditions, those read; the plan of every segment; an empty answer is one."""
    reply = asked(node, "u8hk3d", level="cell", k=2, explain=True)
    assert reply.fields["count"] == len(CELLS)
    assert 2 <= reply.fields["read"] <= len(CELLS) - 1
    levels = node.following.level(node.following.model(BANDS))
    rows = sum(len(index) for index in levels.indexes.values())
    assert sum(p["left"] for p in reply.fields["plan"]) == rows
    winter = asked(
        node, level="cell", k=40, wanted={"seasons": ["winter"], "within": {"geohashes": ["u8hkd", "u8hkf"]}}
    )
    assert winter.fields["count"] == len(winter.fields["hits"]) == 2
    assert {v["time_us"] for h in winter.fields["hits"] for v in h["votes"]} == {when(DAYS[0])}
    nothing = asked(node, level="cell", wanted={"sensors": ["spot"]})
    assert (nothing.fields["hits"], nothing.fields["count"], nothing.fields["read"]) == ([], 0, 0)
    with pytest.raises(InvalidInput, match="leave it out"):
        asked(node, level="cell", radius=9)


def test_a_whole_raster_is_looked_for_by_its_parts(node: Node) -> None:
    """Each chip of the example has voters of its own, so more parts vote than for the example as one."""
    parts = asked(node, level="cell", k=3).fields["hits"]
    lone = asked(node, "u8hk3d", level="cell", k=3).fields["hits"]
    assert all(h["cell"] != "u8hk3" for h in parts + lone)
    assert min(len(h["votes"]) for h in parts) > max(len(h["votes"]) for h in lone)


def test_large_cells_have_finer_chips(tmp_path: Path) -> None:
    """A cell with 1,024 pixels a chip two letters down, and only such, is cut that far; its chips are examples."""
    small, large = (cell_grid("u8hks", "EPSG:32634", r, r, (0.0, 0.0)) for r in (5.0, 4.0))
    assert small.height * small.width < PIXELS_FINE * 1024 < large.height * large.width
    assert (finer("u8hks", small), finer("u8hks", large)) == ([CHIP], [CHIP, FINE])
    assert finer("u8hks0000000", large) == []
    with new_node(tmp_path / "store") as node:
        sharp = Collection(name="sharp", groups={"100m": BANDS}, policy=COLLECTION.policy)
        node.answer(messages.PutCollection(collection=collection_to_dict(sharp)))
        put(node, "u8hk3", DAYS[0], collection="sharp", resolution=4.0)
        levels = node.following.level(node.following.model(BANDS))
        counts = {name: len(index) for name, index in levels.indexes.items()}
        assert counts[RASTER, 5] == 1
        assert counts[CHIP, 6] == 32
        assert counts[FINE, 7] == 1024
        rows = levels.indexes[FINE, 7].everything()
        assert rows is not None
        assert 0.9 < float(rows.numbers["valid_fraction"].min()) <= 1
        status = node.answer(messages.IndexStatus()).fields["indexes"][0]
        assert status["chips"] == 32 + 1024
        assert status["bytes"] == levels.size() < 400 * (1 + 32 + 1024)
        example = messages.Example(key=key("u8hk3", DAYS[0]).model_copy(update={"collection": "sharp"}), cell="u8hk3d7")
        hits = node.answer(messages.Similar(like=[example], level="chip", k=5)).fields["hits"]
        assert hits[0]["cell"] == "u8hk3d"
