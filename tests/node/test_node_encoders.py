"""Words, places and a brought encoder on a real store: texts and locations find what the encoder says they mean."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from search_store import CELLS, hits, key, new_node, put, similar

from geostore.connection import connect
from geostore.errors import BadRequest, Corrupt, InvalidInput, NotComparable, NotFound, NotInstalled
from geostore.index.encoders.folder import bundle
from geostore.index.encoders.static import installed
from geostore.node import Node
from geostore.node.search.ordering import words_encoder
from geostore.partition.geohash import centre
from geostore.query import messages

sys.path.insert(0, str(Path(__file__).parents[1] / "index"))
pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

KINDS = {"u8hks": "water", "u8hkt": "field", "u8hku": "town", "u8hkv": "water"}
LABELS = {"u8hks": "Lake", "u8hkt": "Wheat", "u8hku": "Town"}
DAYS = ("2020-01-10", "2020-07-10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_encoder import write_encoder

    return write_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("encoders") / "store"
    with new_node(found) as made:
        for cell in CELLS:
            for day in DAYS:
                put(made, cell, day)
        for cell, name in LABELS.items():
            made.answer(messages.Label(keys=[key(cell, day) for day in DAYS], labels=[name]))
    return found


@pytest.fixture
def node(path: Path) -> Iterator[Node]:
    with Node.open(str(path)) as made:
        yield made


def asked(node: Node, **fields: object) -> messages.Reply:
    return node.answer(messages.Similar.model_validate(fields))


def test_words_are_looked_for_in_labels_and_facts(node: Node) -> None:
    """Season and label together come first; the answer says what compared them; a text alone means words here."""
    reply = asked(node, words="summer wheat fields", k=3, explain=True)
    assert hits(reply)[0] == ("u8hkt", "2020-07-10")
    assert reply.fields["space"]["descriptor"] == f"words: {words_encoder().name}"
    assert (reply.fields["count"], [p["left"] for p in reply.fields["plan"]]) == (8, [8])
    assert reply.arrays[1][0] > reply.arrays[1][1]
    by_text = asked(node, like=[{"text": "summer wheat fields"}], k=3)
    assert by_text.fields["hits"] == reply.fields["hits"]
    labelled = asked(node, words="lake", wanted={"seasons": ["winter"]})
    assert hits(labelled)[0] == ("u8hks", "2020-01-10")
    if installed():
        assert hits(asked(node, words="city", k=1))[0][0] == "u8hku"
    assert words_encoder("lexical").name == "lexical"
    with pytest.raises(NotInstalled):
        words_encoder("nothing")
    for wrong in ({"level": "cell"}, {"radius": 3}):
        with pytest.raises(InvalidInput, match="rasters or chips"):
            asked(node, words="lake", **wrong)


def test_near_puts_cells_in_the_order_of_their_distance(node: Node) -> None:
    """The cell around the place, the newest date first; scores are less the kilometres; chips too."""
    reply = asked(node, near=centre("u8hku"), k=8)
    assert hits(reply)[:2] == [("u8hku", "2020-07-10"), ("u8hku", "2020-01-10")]
    assert reply.arrays[1][:2].tolist() == [0, 0]
    assert (np.diff(reply.arrays[1]) <= 0).all()
    assert -30 < reply.arrays[1][-1] < 0
    chip = asked(node, near=centre("u8hku7"), level="chip", k=1).fields["hits"][0]
    assert chip["cell"] == "u8hku7"
    for wrong in ({"near": (181, 0)}, {"near": (0, 0), "words": "x"}, {}, {"unlike": [{"text": "x"}], "words": "y"}):
        with pytest.raises(ValueError, match="Similar"):
            asked(node, **wrong)


def test_a_location_or_a_text_needs_an_encoder(node: Node) -> None:
    """Where rasters are described by their spectra a location, or a text beside a raster, is not comparable."""
    with pytest.raises(NotComparable, match="location side"):
        asked(node, like=[{"location": (20.0, 45.0)}])
    with pytest.raises(NotComparable, match="no text or location"):
        asked(node, like=[{"text": "lake"}, {"key": key("u8hks", DAYS[0])}])


def test_a_brought_encoder_describes_the_store_and_its_texts_find_rasters(
    path: Path, folder: Path, tmp_path: Path
) -> None:
    """Put, upgraded by name, asked by text, location, text less raster; other spaces are refused; then reopened."""
    shutil.copytree(path, tmp_path / "store")
    with Node.open(str(tmp_path / "store")) as node:
        before = similar(node, key("u8hks", DAYS[0])).arrays[2]
        put_reply = node.answer(messages.PutEncoder(), [np.frombuffer(bundle(folder), np.uint8)])
        assert put_reply.fields["sides"] == ["image", "text", "location"]
        assert put_reply.fields == node.answer(messages.PutEncoder(), [np.frombuffer(bundle(folder), np.uint8)]).fields
        made = node.answer(messages.IndexUpgrade(head="rotation", encoder="tiny")).fields["indexes"]
        assert [(m["space"]["generation"], m["space"]["encoder"]) for m in made] == [(1, "tiny")]
        for word, cells in (("a LAKE", {"u8hks", "u8hkv"}), ("meadow", {"u8hkt"}), ("city", {"u8hku"})):
            reply = asked(node, like=[{"text": word}], k=2 * len(cells))
            assert {cell for cell, _ in hits(reply)} == cells
            assert reply.arrays[1].min() > 0.9
            assert reply.fields["space"]["sides"] == ["image", "text", "location"]
        assert {c for c, _ in hits(asked(node, like=[{"location": (23.0, 45.0)}], k=2))} == {"u8hku"}
        parts = asked(node, like=[{"text": "water"}], level="cell", k=2).fields["hits"]
        assert {h["cell"] for h in parts} == {"u8hks", "u8hkv"}
        both = hits(asked(node, like=[{"text": "lake"}, {"key": key("u8hks", DAYS[0])}], unlike=[{"text": "city"}]))
        assert (both[0][0], both[-1][0], len(both)) in (("u8hks", "u8hku", 7), ("u8hkv", "u8hku", 7))
        with pytest.raises(NotComparable, match="a vector"):
            node.answer(messages.Similar(like=[messages.Example(vector=0)]), [before])
        assert hits(asked(node, words="wheat", k=1))[0][0] == "u8hkt"
        for wrong, kind, match in (
            ({"encoder": "nothing"}, NotInstalled, "put into this store: tiny"),
            ({"encoder": "tiny", "descriptor": "spectral"}, InvalidInput, "name one of them"),
        ):
            with pytest.raises(kind, match=match):
                node.answer(messages.IndexUpgrade(**wrong))
        with pytest.raises(BadRequest, match="one of uint8"):
            node.answer(messages.PutEncoder())
        with pytest.raises(Corrupt, match="no bundle"):
            node.answer(messages.PutEncoder(), [np.zeros(9, np.uint8)])
        node.answer(messages.Prune(now=True))
        assert node.answer(messages.Verify()).fields["ok"]
    with Node.open(str(tmp_path / "store"), readonly=True) as reader:
        assert {c for c, _ in hits(asked(reader, like=[{"text": "field"}], k=2))} == {"u8hkt"}


def test_an_encoder_that_wants_other_bands_is_refused(path: Path, folder: Path, tmp_path: Path) -> None:
    """No set of bands has what it wants: not-comparable; a program that does not run; nothing of either is kept."""
    shutil.copytree(path, tmp_path / "store")
    torn = shutil.copytree(folder, tmp_path / "torn")
    (torn / "image.pt2").write_bytes(b"no program")
    folder = shutil.copytree(folder, tmp_path / "thermal")
    found = json.loads((folder / "encoder.json").read_text())
    found["image"]["bands"] = ["red", "green", "thermal"]
    (folder / "encoder.json").write_text(json.dumps(found))
    with connect(tmp_path / "store") as gs:
        with pytest.raises(NotComparable, match="thermal"):
            gs.index_upgrade(encoder=folder, head="rotation")
        with pytest.raises(NotFound, match="declares"):
            gs.index_upgrade(encoder=tmp_path)
        with pytest.raises(Corrupt, match="no archive of torch"):
            gs.index_upgrade(encoder=torn, head="rotation")
        assert not any("tiny" in str(row["body"]) for row in gs.table("event").to_pylist())
        assert gs.similar(words="wheat", k=1)[0].key.geohash == "u8hkt"
        assert gs.similar(text="wheat", k=1)[0].score > 0.3
        assert gs.similar(near=centre("u8hkt"), k=1)[0].score == 0
        with pytest.raises(InvalidInput, match="nothing to look for"):
            gs.similar()
