"""What the README shows is so: its collection loads, its Python runs, its commands exist."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from geostore.collection import Collection
from geostore.connection import connect
from geostore.ingest import ingest
from geostore.partition import geohash
from geostore.partition.grid import cell_grid, utm_crs
from geostore.scene import load_collection, preset_names
from geostore.scene.synthetic import Synthetic, write_scenes
from geostore.settings import Settings

README = (Path(__file__).parents[1] / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_the_collection_in_the_readme_loads(tmp_path: Path) -> None:
    """Its TOML is a collection, with the policy it says."""
    (block,) = _blocks("toml")
    path = tmp_path / "s2.toml"
    path.write_text(block)
    collection = load_collection(path)
    assert collection.name == tomllib.loads(block)["name"]
    assert collection.policy.index_mae_max == 0.03


def test_the_presets_in_the_readme_are_those_there_are() -> None:
    """It lists every preset, and no other."""
    listed = README.split("are presets")[0].split("what it must keep;")[1]
    assert sorted(re.findall(r"`([a-z0-9-]+)`", listed)) == preset_names()


def test_the_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snippet decodes a cell of that name from a store of synthetic scenes, and gives reflectance."""
    cell = cell_grid("9qdfr", utm_crs("9qdfr"), 40.0, 40.0, (0.0, 0.0))
    assert geohash.encode(*geohash.centre("9qdfr"), 5) == "9qdfr"
    place = Synthetic(grid=cell.window(40, 40, 24, 24), dates=4, start=datetime(2020, 5, 10, tzinfo=UTC), step_days=30)
    write_scenes(place, tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    with connect("./store", create=True, settings=Settings()) as client:
        ingest(client, ["scenes"], Collection(name="farm", groups={"40m": place.bands}))
    space: dict[str, object] = {}
    (snippet,) = _blocks("python")
    exec(compile(snippet, "README.md", "exec"), space)
    values = space["ds"].red.isel(time=0).values  # type: ignore[attr-defined]
    assert values.dtype == np.float32
    assert 0 < np.nanmean(values) < 1
    space["gs"].close()  # type: ignore[attr-defined]


def test_the_commands_in_the_readme_exist() -> None:
    """Every `geostore VERB` it shows is a verb of the command line."""
    from typer.main import get_command

    from geostore.cli.app import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    shown = set(re.findall(r"^geostore ([a-z]+)", README, re.M)) | set(re.findall(r"`geostore ([a-z]+)", README))
    assert shown
    assert shown <= known
