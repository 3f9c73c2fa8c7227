"""An upgrade that was killed goes on: what it trained and described is taken up again, by the same upgrade alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from search_store import CELLS, COLLECTION, contents, fill, new_node, picture, put, when

from geostore.collection import Collection, collection_to_dict
from geostore.node import Node, index
from geostore.node.search import following, learning, parts, training
from geostore.query import messages
from geostore.query.messages import Piece, Put, SceneFields
from geostore.raster import Bands
from geostore.settings import Settings

DAYS = ("2020-01-10", "2021-01-10")
UPGRADE = {"descriptor": "simsiam", "head": "milan", "bits": 32, "steps": 2}
KILLED = """
import os
from geostore.node import Node
from geostore.node.search import learning, training
from geostore.query import messages
from geostore.settings import Settings

training._apart = lambda what, progress, work, *arguments: work(*arguments)
train = learning.train
heads = []
def dying(*arguments, **named):
    if len(heads) == {heads}:
        os._exit(9)
    heads.append(train(*arguments, **named))
    return heads[-1]

learning.train = dying
if __name__ == "__main__":
    Node.open({store!r}, settings=Settings(workers=1)).answer(messages.IndexUpgrade(**{upgrade!r}))
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of bands: those of the farm, and two of these alone."""
    path = tmp_path_factory.mktemp("resuming") / "store"
    with new_node(path) as node:
        fill(node, DAYS)
        few = Bands(tuple(COLLECTION.groups["100m"])[:2])
        node.answer(messages.PutCollection(collection=collection_to_dict(Collection(name="few", groups={"100m": few}))))
        for cell in CELLS[:2]:
            put_few(node, cell)
        node.answer(messages.IndexBuild())
    return path


def put_few(node: Node, cell: str) -> None:
    """One raster of two bands."""
    raster = picture(cell, "2020-01-10")
    grid = messages.GridFields.model_validate(raster.grid, from_attributes=True)
    piece = Piece(geohash=cell, group="100m", cell=grid, row=0, col=0, pixels=0, valid=1)
    scene = SceneFields(id=f"few-{cell}", time_us=when("2020-01-10"), platform="sentinel-2a", revision=0)
    node.answer(Put(collection="few", scene=scene, pieces=[piece]), [raster.pixels[:2], raster.valid.view(np.uint8)])


class Counted:
    """How often each thing was made; trainings run in this process, which spares seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        monkeypatch.setattr(training, "_apart", lambda what, progress, work, *arguments: work(*arguments))
        for module, name in ((index, "train_descriptor"), (learning, "train"), (following, "gather")):
            monkeypatch.setattr(module, name, self._counting(name, getattr(module, name)))

    def _counting(self, name: str, work):
        def counted(*arguments, **named):
            self.made.append(name)
            return work(*arguments, **named)

        return counted


def killed(path: Path, heads: int) -> None:
    """Kill an upgrade as it begins to train the head after `heads` of them."""
    code = KILLED.format(store=str(path), heads=heads, upgrade=UPGRADE)
    script = path.parent / "killed.py"
    script.write_text(code)
    assert subprocess.run([sys.executable, str(script)], check=False, timeout=120).returncode == 9


def test_a_killed_upgrade_goes_on_from_what_it_had(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the second set of bands: nothing of the first is made again, nor the second's descriptor and rows."""
    path = tmp_path / "store"
    shutil.copytree(filled, path)
    killed(path, 1)
    with Node.open(str(path), settings=Settings(workers=1)) as node:
        counted = Counted(monkeypatch)
        node.answer(messages.IndexBuild())  # which leaves what the upgrade will need
        made = node.answer(messages.IndexUpgrade(**UPGRADE)).fields["indexes"]
        assert counted.made == ["train"]
        assert [m["space"]["generation"] for m in made] == [1, 1]
        assert not (node.following.root / parts.FOLDER).exists()
        grown, counted.made = contents(node), []
        node.answer(messages.IndexBuild(anew=True))
        assert contents(node) == grown
        assert node.answer(messages.Verify()).fields["ok"]


@pytest.mark.parametrize("other", ["seed", "training set"])
def test_parts_of_another_upgrade_are_not_taken(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Another seed, or a raster more: everything is trained anew."""
    path = tmp_path / "store"
    shutil.copytree(filled, path)
    killed(path, 0)
    with Node.open(str(path), settings=Settings(workers=1)) as node:
        assert len(list((node.following.root / parts.FOLDER).iterdir())) == 1
        if other == "training set":
            put(node, "u8hkv", "2020-10-10")
        counted = Counted(monkeypatch)
        node.answer(messages.IndexUpgrade(**UPGRADE, seed=int(other == "seed")))
        assert [name for name in counted.made if name != "gather"] == ["train_descriptor", "train"] * 2


def test_a_part_that_rotted_is_made_again(tmp_path: Path) -> None:
    """A flipped byte, or other arrays, other settings: made anew; the same is read."""
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"weights"

    first, other = np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)
    for what, array in (({"seed": 0}, first), ({"seed": 0}, first), ({"seed": 1}, first), ({"seed": 0}, other)):
        assert parts.kept(tmp_path, what, [array], make) == b"weights"
    assert len(made) == 3
    for path in (tmp_path / parts.FOLDER).iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert parts.kept(tmp_path, {"seed": 0}, [first], make) == b"weights"
    assert len(made) == 4
