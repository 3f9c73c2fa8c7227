"""Views are what stored rasters and chips decode to, turned, described like them; kept while an upgrade runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from search_store import CELLS, fill, key, new_node

from geostore.index import kernel
from geostore.index.views import turned
from geostore.keys import RasterKey
from geostore.node import Node
from geostore.node.decode import read_row
from geostore.node.search import sampling, viewing
from geostore.node.search.models import SearchModel, plain_head
from geostore.node.search.viewing import Viewing
from geostore.query import messages
from geostore.raster import Bands, Mask, Pixels

DAYS = ("2020-01-10", "2020-07-10")


class Strips:
    """Means of the usable pixels of four strips from top to bottom: it sees which way its pixels lie."""

    name, version = "strips", 1

    def width(self, bands: Bands) -> int:
        return 4 * len(bands)

    def digest(self, bands: Bands) -> str:
        return "0" * 32

    def describe(self, pixels: Pixels, valid: Mask, bands: Bands) -> np.ndarray:
        strips = np.array_split(np.where(valid, pixels, 0).astype(np.float64), 4, axis=1)
        made = np.concatenate([strip.mean(axis=(1, 2)) for strip in strips])
        return np.asarray(made / max(np.linalg.norm(made), 1e-9), np.float32)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Two cells of one label and two of another."""
    with new_node(tmp_path_factory.mktemp("viewing") / "store") as node:
        fill(node, DAYS)
        for cell in CELLS:
            keys = [key(cell, day) for day in DAYS]
            name = "water" if cell < "u8hku" else "field"
            node.answer(messages.Label(keys=keys, labels=[name], legend="own", who="kim", reason="seen"))
        yield node


def viewed(node: Node, folder: Path, *, seeing: bool = True) -> Viewing:
    """Everything that is stored, described by `Strips`, or as it is."""
    model, partitions = next(iter(node.following.models().values()))
    if seeing:
        model = SearchModel(model.bands, Strips(), plain_head(4 * len(model.bands)), 0)
    levels = node.following.level(model, lambda *_: None, partitions=partitions)
    rows = sampling.described(levels, node.following.spoken().labelling)
    return Viewing(node, folder, model, rows, lambda *_: None)


def test_views_describe_decoded_pixels_turned(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a raster is one of its seven other ways; chips have theirs too; what is kept is read again."""
    found = viewed(node, tmp_path)
    chosen, _, _ = sampling.samples(found.rows, sampling.LABELS, seed=0)
    made = found.views(chosen, seed=0)
    assert len(made) == 7 * len(chosen)
    assert set(made.of.tolist()) == set(chosen.tolist())
    whole = np.flatnonzero(found.rows.whole)
    for number, stored in zip(whole.tolist(), found.rows.keys(whole), strict=True):
        row = node.store.raster(RasterKey.from_bytes(stored))
        _, raster = read_row(node, row)
        ways = [
            Strips().describe(turned(raster.pixels, way), turned(raster.valid, way), raster.bands)
            for way in range(1, 8)
        ]
        mine = made.vectors[made.of == number]
        assert sorted(v.tolist() for v in mine) == sorted(w.tolist() for w in ways)
    monkeypatch.setattr(viewing, "decoded", lambda *_: pytest.fail("these views were kept"))
    later = replace(found, model=replace(found.model, generation=1))  # as after a kill behind the commit
    again = later.views(chosen, seed=0)
    assert (again.vectors == made.vectors).all()
    assert (again.of == made.of).all()
    assert (np.sort(made.among(chosen[:3]).of) == np.repeat(np.arange(3), 7)).all()


def test_room_bounds_views_and_a_blind_descriptor_has_none(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a head has room for; none at all of `spectral`, and an upgrade by labels says so."""
    found = viewed(node, tmp_path)
    chosen, _, _ = sampling.samples(found.rows, sampling.LABELS, seed=0)
    for room, expected in ((5, 5), (0, 0), (-3, 0)):
        monkeypatch.setattr(viewing, "ANCHORS_MAX", len(chosen) + room)
        assert len(found.views(chosen, seed=0)) == expected
    monkeypatch.undo()
    assert len(viewed(node, tmp_path, seeing=False).views(chosen, seed=0)) == 0
    monkeypatch.setattr(kernel, "GROUPS_MIN", 2)
    made = node.answer(messages.IndexUpgrade(bits=32, by="labels")).fields["indexes"][0]
    assert (made["method"], made["rows"], made["views"]) == ("kernel", len(chosen), 0)


def test_a_head_of_an_upgrade_learns_from_views(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was drawn of the rows that count, and not of those held out."""
    from geostore.node.search import learning

    monkeypatch.setattr(kernel, "GROUPS_MIN", 2)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        learning, "train", lambda _, points, __, views, *___, **____: asked.append((len(points), len(views))) or b"head"
    )
    found = viewed(node, tmp_path)
    made = learning.Learning(found, messages.IndexUpgrade(bits=32, by="labels"), lambda *_: None)
    _, facts = made.head()
    among = np.arange(len(found.rows.sets)) % 3 > 0
    made._trained(sampling.LABELS, among)
    assert asked == [(facts["rows"], 7 * facts["rows"]), (among.sum(), 7 * among.sum())]
    assert facts["views"] == 7 * facts["rows"]
