"""A small real store, put through a client: one cell, two band groups, eight dates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from geostore.client import Client
from geostore.collection import Collection, Policy
from geostore.connection import connect
from geostore.partition.grid import cell_grid
from geostore.query.messages import SceneFields
from geostore.raster import Band, Bands, Grid, Raster

CELL = "u8hks"
DAY_US = 86_400_000_000
DATES = 8
FINE = Bands(tuple(Band(n, n.upper(), 10.0, scale=1e-4, offset=-0.1, nodata=0) for n in ("red", "nir")))
COARSE = Bands((Band("swir16", "B11", 20.0, scale=1e-4, offset=-0.1, nodata=0),))
COLLECTION = Collection(
    name="farm", groups={"10m": FINE, "20m": COARSE}, policy=Policy(mse_max=5e-4, rivals=()), product="sentinel-2-l2a"
)


@dataclass(frozen=True)
class Piece:
    """What `Client.put` takes: a piece of a scene, cut to a cell."""

    geohash: str
    group: str
    cell: Grid
    row: int
    col: int
    raster: Raster


def piece(t: int, group: str) -> Piece:
    """One date of one group: smooth ground with a season, a cloud that moves, a window that shifts by `t`."""
    bands, step = (FINE, 10.0) if group == "10m" else (COARSE, 20.0)
    cell = cell_grid(CELL, "EPSG:32634", step, step, (0.0, 0.0))
    height, width, row, col = 24, 32, 5 + t % 3, 7
    rng = np.random.default_rng(t)
    y, x = np.mgrid[0:height, 0:width] / 9
    ground = 3000 + 500 * np.stack([np.sin(x + b) + np.cos(y - b) for b in range(len(bands))])
    pixels = (ground * (1 + 0.1 * np.sin(t)) + rng.normal(0, 5, ground.shape)).astype(np.uint16)
    valid = np.ones((height, width), bool)
    valid[t % height, :9] = False
    raster = Raster(pixels=pixels, valid=valid, bands=bands, grid=cell.window(row, col, height, width))
    return Piece(CELL, group, cell, row, col, raster)


def fitted(path: Path, policy: Policy, *, steps_max: int) -> Path:
    """A store of the first group alone, fitted to a policy; its lossless rasters still there."""
    with connect(path, create=True) as client:
        client.put_collection(replace(COLLECTION, policy=policy))
        for t in range(DATES):
            scene = SceneFields(id=f"scene-{t}", time_us=t * DAY_US, platform="s2a", footprint=[[22.0, 44.0]])
            client.put("farm", scene, [piece(t, "10m")])
        client.fit(steps_max=steps_max, workers=1)
    return path


def fill(client: Client) -> None:
    """Put all scenes; twice is as good as once."""
    client.put_collection(COLLECTION)
    for t in range(DATES):
        scene = SceneFields(id=f"scene-{t}", time_us=t * DAY_US, platform="s2a", footprint=[[22.0, 44.0]])
        client.put("farm", scene, [piece(t, "10m"), piece(t, "20m")])
