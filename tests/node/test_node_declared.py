"""What a node cannot fit is refused when it is declared; of what a store holds already a fit names the collection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from search_store import BANDS, CELLS, COLLECTION, MONTHS, put

from geostore.client import Client
from geostore.collection import Collection, IndexBounds, Policy, collection_to_dict
from geostore.connection import Local
from geostore.errors import GeostoreError, InvalidInput, NotInstalled
from geostore.node import Node
from geostore.query import messages
from geostore.query.messages import PutCollection
from geostore.raster import Bands
from geostore.settings import Settings

NARROW = Bands(BANDS.items[2:])  # red and nir


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """An empty store."""
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1, fit_steps=0), create=True) as node:
        yield node


def unlooked(monkeypatch: pytest.MonkeyPatch, **given: object) -> Collection:
    """A collection as a version that did not look at indices made it."""
    with monkeypatch.context() as patched:
        patched.setattr(Collection, "check_indices", lambda self: None)
        return Collection(name="ill", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"indices": ("FOO",)}, "collection 'ill': no spectral index 'FOO'"),
        ({"indices": ("NDVI", "NDWI")}, "NDWI needs green, nir in one band group"),
        ({"indices": (), "policy": Policy(index_p99_max=0.1)}, "index_p99_max bounds no index"),
        ({"indices": ("NDWI",), "policy": Policy(index={"NDWI": IndexBounds(mae_max=0.1)})}, "NDWI needs green"),
    ],
)
def test_what_cannot_be_measured_is_refused_over_the_wire(
    node: Node, monkeypatch: pytest.MonkeyPatch, given: dict, why: str
) -> None:
    """A request of a client that did not look: InvalidInput, and nothing is declared."""
    made = unlooked(monkeypatch, groups={"100m": NARROW}, **given)
    with pytest.raises(InvalidInput, match=why):
        node.answer(PutCollection(collection=collection_to_dict(made)))
    assert node.store.collections() == []


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (
            Policy(codec="nope"),
            "collection 'farm': policy codec names 'nope', no codec family here; it has klt",
        ),
        (
            Policy(rivals=("klt-avl",)),
            "policy rivals names 'klt-avl', .*; the nearest is klt-av1; it has .*: declare",
        ),
        (Policy(codec="raw", rivals=("nope",)), "policy rivals names 'nope'"),
    ],
)
def test_codec_families_are_those_of_the_node(node: Node, policy: Policy, why: str) -> None:
    """Python makes any policy, for a node may have what a client lacks; the node refuses what it lacks itself."""
    with pytest.raises(NotInstalled, match=why):
        Client(Local(node)).put_collection(replace(COLLECTION, policy=policy))
    assert node.store.collections() == []


def test_a_plug_in_of_the_node_alone_is_taken(node: Node) -> None:
    """A family that only the node has: no list in the client's process is asked."""
    node.families.items["theirs"] = node.families.items["raw"]
    try:
        made = Client(Local(node)).put_collection(replace(COLLECTION, policy=Policy(codec="theirs")))
    finally:
        del node.families.items["theirs"]
    assert made.policy.codec == "theirs"


@pytest.mark.parametrize(
    ("given", "kind", "why"),
    [
        ({"indices": ("FOO",)}, InvalidInput, "collection 'ill': no spectral index 'FOO'.*fit --collection NAME"),
        ({"policy": Policy(codec="nope")}, NotInstalled, "collection 'ill': policy codec names 'nope'.*--collection"),
    ],
)
def test_a_fit_names_the_collection_that_is_at_fault(
    node: Node, monkeypatch: pytest.MonkeyPatch, given: dict, kind: type[GeostoreError], why: str
) -> None:
    """A store from before: it reads, the whole fit says which collection, others fit alone, a mended one fits too."""
    well = replace(COLLECTION, policy=Policy(codec="raw"))
    with monkeypatch.context() as patched:
        patched.setattr(Collection, "check_indices", lambda self: None)
        ill = Collection(name="ill", groups={"100m": BANDS}, **given)
        node.store.put_collection(well)
        node.store.put_collection(ill)
    assert node.store.collection("ill") == ill
    client = Client(Local(node))
    assert [c.name for c in client.collections()] == ["farm", "ill"]
    put(node, CELLS[0], MONTHS[0])
    put(node, CELLS[1], MONTHS[0], collection="ill")
    with pytest.raises(kind, match=why):
        client.fit()
    assert node.answer(messages.Status()).fields["tiers"] == {"waiting": 2}
    assert client.fit(collection="farm")["partitions"] == 1
    client.put_collection(Collection(name="ill", groups={"100m": BANDS}, policy=Policy(codec="raw")))
    assert client.fit()["partitions"] == 1
