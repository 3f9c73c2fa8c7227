"""What fit and status look at: every row once, every file once, and numbers that are those of a second look."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_node import COLLECTION, put, series

from geostore.collection import Policy, collection_to_dict
from geostore.node import Node
from geostore.query import messages
from geostore.settings import Settings

QUICK = Policy(mse_max=5e-4, index_mae_max=0.05, codec="klt-av1", rivals=())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node.open(str(tmp_path / "store"), settings=Settings(workers=1), create=True) as node:
        declare(node, QUICK)
        pixels, valid = series(3, 16, 24)
        for t in range(3):
            put(node, t, pixels[t], valid[t])
        yield node


def declare(node: Node, policy: Policy) -> None:
    wanted = dataclasses.replace(COLLECTION, policy=policy)
    node.answer(messages.PutCollection(collection=collection_to_dict(wanted)))


def test_one_look_tells_what_waits_and_what_misses(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond-counts of fits, under policies tightened and kept, are what `status` counts anew; a fit with nothing to do
    makes one row object a raster, and status lists the store's files once."""
    fitted = node.answer(messages.Fit()).fields
    assert (fitted["fitted"], fitted["beyond"]) == (1, 0)
    declare(node, dataclasses.replace(QUICK, mse_max=1e-9))
    seen: Counter[str] = Counter()
    rasters, walk = node.store.rasters, node.store.files.walk
    monkeypatch.setattr(node.store, "rasters", lambda *a, **k: seen.update(["rows"]) or rasters(*a, **k))
    monkeypatch.setattr(node.store.files, "walk", lambda prefix="": seen.update([f"walk {prefix}"]) or walk(prefix))
    idle = node.answer(messages.Fit()).fields
    assert seen == {"rows": 1, "walk ": 1}
    missed = node.answer(messages.Status()).fields["quality"]["missed"]
    assert seen == {"rows": 2, "walk ": 2}
    assert (idle["partitions"], idle["beyond"], idle["beyond_left"]) == (0, missed, 0)
    assert missed > 0
    again = node.answer(messages.Fit(refit=True)).fields
    assert (again["partitions"], again["beyond"]) == (1, 0)
    assert node.answer(messages.Status()).fields["quality"]["missed"] == 0


def test_rasters_without_an_original_are_counted_as_left(node: Node) -> None:
    """After a prune nothing holds the rasters exactly: all that miss a tightened policy are left as they are."""
    node.answer(messages.Fit())
    node.answer(messages.Prune(now=True))
    declare(node, dataclasses.replace(QUICK, mse_max=1e-9))
    tight = node.answer(messages.Fit(refit=True)).fields
    assert tight["left"] == 1
    assert tight["beyond"] == tight["beyond_left"] > 0
