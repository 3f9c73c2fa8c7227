"""A small store on the border of two cells, made once with the real commands: six dates, four bands, fitted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Transformer
from typer.testing import CliRunner

from geostore.cli.app import app
from geostore.partition.geohash import bounds
from geostore.raster import Band, Bands, Grid, Raster
from geostore.scene.writer import write_cog

CELL, CRS, SIDE, DATES = "u2pc0", "EPSG:32634", 64, 6
BANDS = Bands(tuple(Band(n, n, 10.0, scale=1e-4, valid_max=10000) for n in ("blue", "green", "red", "nir")))
COLLECTION = """
preset = "generic"
name = "meadow"
indices = ["NDVI"]
bands = [{ name = "blue" }, { name = "green" }, { name = "red" }, { name = "nir" }]
[band]
gsd_m = 10
dtype = "uint16"
scale = 0.0001
valid_max = 10000
[policy]
mse_max = 0.005
index_mae_max = false
rivals = []
[files]
positional = ["blue", "green", "red", "nir"]
"""


@dataclass(frozen=True)
class World:
    """Where the store and its sources are, and the scenes as they were written."""

    store: Path
    scenes: Path
    collection: Path
    rasters: dict[datetime, Raster]


@dataclass(frozen=True)
class Outcome:
    """What one command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def geostore(*arguments: object) -> Outcome:
    """Run one command in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def run() -> Callable[..., Outcome]:
    return geostore


def _grid() -> Grid:
    west, south, _, north = bounds(CELL)
    x, y = Transformer.from_crs("OGC:CRS84", CRS, always_xy=True).transform(west, (south + north) / 2)
    return Grid(CRS, round(x, -1) - 320, round(y, -1) + 320, 10.0, 10.0, SIDE, SIDE)


def _raster(rng: np.random.Generator, level: float) -> Raster:
    wave = np.sin(np.linspace(0, 9, SIDE))[:, None] + np.cos(np.linspace(0, 7, SIDE))[None]
    planes = [1500 + 400 * b * level + 300 * wave + rng.normal(0, 150, (SIDE, SIDE)) for b in range(4)]
    pixels = np.clip(np.stack(planes), 1, 9999).astype(np.uint16)
    return Raster(pixels=pixels, valid=np.ones((SIDE, SIDE), bool), bands=BANDS, grid=_grid())


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(7)
    rasters = {}
    for i in range(DATES):
        when = datetime(2020, 5, 3, 9, tzinfo=UTC) + timedelta(days=20 * i)
        rasters[when] = _raster(rng, 1 + i / DATES)
        (root / "scenes").mkdir(exist_ok=True)
        path = root / "scenes" / f"meadow_{when:%Y%m%d}.tif"
        write_cog(path, rasters[when], {"ACQUISITION_DATETIME": when.isoformat()})
    (root / "meadow.toml").write_text(COLLECTION)
    made = World(root / "store", root / "scenes", root / "meadow.toml", rasters)
    taken = geostore("ingest", made.scenes, "--store", made.store, "--collection", made.collection, "--json")
    assert taken.code == 0, taken.err
    assert taken.json["scenes"] == DATES
    fitted = geostore("fit", "--store", made.store, "--steps", 20, "--workers", 1, "--json")
    assert fitted.code == 0, fitted.err
    return made
