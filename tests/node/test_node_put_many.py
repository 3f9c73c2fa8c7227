"""A put of several scenes: one commit, and the same store as of one put each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from geostore.collection import Collection, collection_to_dict
from geostore.errors import InvalidInput
from geostore.node import Node
from geostore.partition.grid import cell_grid
from geostore.query import messages
from geostore.query.messages import GridFields, Piece, Put, PutCollection, SceneFields, ScenePieces
from geostore.raster import Band, Bands
from geostore.settings import Settings

CELLS = ("u8hks", "u8hkt")
DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
BANDS = Bands((Band("red", "red", 10.0, valid_max=20_000), Band("nir", "nir", 10.0, valid_max=20_000)))
WEST = [[20.0, 45.0], [20.03, 45.0], [20.03, 45.02], [20.0, 45.02], [20.0, 45.0]]
EAST = [[20.025, 45.0], [20.05, 45.0], [20.05, 45.02], [20.025, 45.02], [20.025, 45.0]]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Two empty stores with the collection."""
    made = [Node.open(str(tmp_path / n), settings=Settings(), create=True, slots=1) for n in ("one", "many")]
    for node in made:
        node.answer(PutCollection(collection=collection_to_dict(Collection(name="farm", groups={"10m": BANDS}))))
    yield made
    for node in made:
        node.close()


def scene(name: str, time_us: int, footprint: list[list[float]] = WEST) -> SceneFields:
    return SceneFields(id=name, time_us=time_us, platform="sentinel-2a", footprint=footprint)


def put(
    scenes: list[SceneFields], cells: tuple[str, ...] = CELLS, *, shift: float = 0.0
) -> tuple[Put, list[np.ndarray]]:
    """A raster of each scene in each cell; one scene's lie beside the other's."""
    arrays, parts = [], []
    for number, facts in enumerate(scenes):
        pieces = []
        for geohash in cells:
            grid = cell_grid(geohash, "EPSG:32634", 10.0, 10.0, (shift, 0.0))
            rng = np.random.default_rng([number, ord(geohash[-1])])
            arrays += [rng.integers(1, 9000, (2, 20, 30), dtype=np.uint16), np.ones((20, 30), np.uint8)]
            fields = GridFields.model_validate(grid, from_attributes=True)
            at = {"pixels": len(arrays) - 2, "valid": len(arrays) - 1}
            pieces.append(Piece(geohash=geohash, group="10m", cell=fields, row=0, col=20 * number, **at))
        parts.append(ScenePieces(scene=facts, pieces=pieces))
    return Put(collection="farm", scene=parts[0].scene, pieces=parts[0].pieces, more=parts[1:]), arrays


def alone(request: Put) -> Iterator[Put]:
    """The same scenes, a request each."""
    for part in request.scenes:
        yield Put(collection="farm", scene=part.scene, pieces=part.pieces)


def contents(node: Node) -> list[object]:
    """Every raster with its pixels, and every scene's facts."""
    found = []
    for row in node.answer(messages.Rasters(collection="farm")).fields["rasters"]:
        key = {n: row[n] for n in ("collection", "geohash", "group", "time_us", "platform")}
        reply = node.answer(messages.Decode(keys=[key]))  # type: ignore[list-item]
        found.append((key, row["scene"], row["grid"], *(a.tobytes() for a in reply.arrays)))
    facts = [{**s, "put_us": 0} for s in node.answer(messages.Scenes(collection="farm")).fields["scenes"]]
    return [found, facts]


def test_many_scenes_are_one_commit_and_the_same_store(nodes: list[Node]) -> None:
    """Five dates in one request and in five: the same answers, one version of the table against five."""
    request, arrays = put([scene(f"s{d}", d * DAY_US) for d in range(5)])
    one, many = nodes
    reply = many.answer(request, arrays)
    assert reply.fields == {"stored": 10, "unchanged": 0, "cells": 2}
    for single in alone(request):
        one.answer(single, arrays)
    assert contents(one) == contents(many)
    assert (many.store.tables[0].latest(), one.store.tables[0].latest()) == (0, 4)
    assert many.answer(request, arrays).fields == {"stored": 0, "unchanged": 10, "cells": 0}
    assert many.store.tables[0].latest() == 0


def test_scenes_that_meet_see_each_other(nodes: list[Node]) -> None:
    """Two pieces of one overpass and one scene twice in one request: mosaicked as in requests of their own."""
    facts = [scene("a", 0), scene("b", MINUTE_US, EAST), scene("other", DAY_US), scene("a", 0)]
    request, arrays = put(facts)
    for single in alone(request):
        nodes[0].answer(single, arrays)
    nodes[1].answer(request, arrays)
    assert contents(nodes[0]) == contents(nodes[1])
    assert {r.scene for p in nodes[1].store.partitions() for r in nodes[1].store.rasters(p)} == {"a+b", "other"}


def test_a_refused_piece_refuses_the_request(nodes: list[Node]) -> None:
    """One scene of five on another grid, or with a value out of range: nothing of the request is stored."""
    node = nodes[0]
    request, arrays = put([scene(f"s{d}", d * DAY_US) for d in range(5)])
    other, _ = put([scene("x", 9 * DAY_US)], shift=3.0)
    wrong = request.model_copy(update={"more": [*request.more, ScenePieces(scene=other.scene, pieces=other.pieces)]})
    with pytest.raises(InvalidInput, match="its grid is"):
        node.answer(wrong, arrays)
    high = [*arrays[:-2], np.full_like(arrays[-2], 30_000), arrays[-1]]
    with pytest.raises(InvalidInput, match="declared"):
        node.answer(request, high)
    assert node.store.partitions() == []
    assert node.store.scenes() == []


def test_a_request_has_a_largest_number_of_pieces() -> None:
    """The limit counts the pieces of all scenes together."""
    request, _ = put([scene("s", 0)], CELLS[:1])
    several = ScenePieces(scene=request.scene, pieces=request.pieces * (messages.PIECES_MAX // 2))
    with pytest.raises(ValidationError, match="pieces in one put"):
        Put(collection="farm", scene=request.scene, pieces=request.pieces, more=[several, several])
