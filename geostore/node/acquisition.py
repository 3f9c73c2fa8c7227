"""Pieces of one acquisition: scenes cut from one overpass are mosaicked, another processing of it is a revision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geostore.errors import Conflict, NotFound
from geostore.keys import RasterKey
from geostore.node.decode import exact_row, read_original
from geostore.query.messages import SceneFields
from geostore.raster import Raster
from geostore.storage import RasterRow, SceneRow

if TYPE_CHECKING:
    from geostore.node.node import Node

APART_US = 600_000_000  # pieces of one acquisition lie at most ten minutes apart
SAME_PLACE = 0.8  # scenes whose footprints overlap by more are processings of one piece, not two pieces
JOIN = "+"  # between the ids of the scenes one raster was mosaicked from


@dataclass(frozen=True)
class Placed:
    """A raster as it will be stored: its key, where it lies in the cell, and the scene or scenes it came from."""

    key: RasterKey
    row: int
    col: int
    raster: Raster
    scene: str


def place(node: Node, scene: SceneFields, placed: Placed) -> Placed:
    """`placed`, mosaicked with the other pieces of its acquisition that the cell holds: those stored first lie on top.

    A piece that is part of a mosaic already is given that mosaic's key and scenes, and is not stored again.

    Raises:
        Conflict: a piece to mosaic with is no longer kept exactly.
    """
    for row in _near(node, placed.key):
        if scene.id in row.scene.split(JOIN):
            return replace(placed, key=row.key, scene=row.scene)
        if not _is_other_piece(node, row, scene):
            continue
        if exact_row(node, row) is None:
            raise Conflict(
                f"{row.key} was fitted and pruned; its piece {scene.id} came too late to be joined to it: withdraw "
                f"{row.scene} and ingest both, or keep originals"
            )
        _, _, first = read_original(node, row.key)
        return _mosaic(row, first, placed)
    return placed


def _near(node: Node, key: RasterKey) -> list[RasterRow]:
    rows = node.store.rasters(key.partition, key.time_us - APART_US, key.time_us + APART_US + 1, payload=False)
    return [r for r in rows if r.key.platform == key.platform and key.platform != "unknown"]


def _is_other_piece(node: Node, row: RasterRow, scene: SceneFields) -> bool:
    """True if `row` came from the same product family over another footprint."""
    known = [s for s in (_scene(node, row, i) for i in row.scene.split(JOIN)) if s is not None]
    if not known or len(scene.footprint) < 4 or any(s.product != scene.product or len(s.footprint) < 4 for s in known):
        return False
    mine = shapely.Polygon(scene.footprint)
    theirs = [shapely.Polygon(s.footprint) for s in known]
    return all(mine.intersection(t).area <= SAME_PLACE * min(mine.area, t.area) for t in theirs)


def _scene(node: Node, row: RasterRow, scene: str) -> SceneRow | None:
    try:
        return node.store.scene(row.key.collection, scene)
    except NotFound:
        return None


def _mosaic(row: RasterRow, first: Raster, second: Placed) -> Placed:
    top, left = min(row.row, second.row), min(row.col, second.col)
    bottom = max(row.row + row.height, second.row + second.raster.grid.height)
    right = max(row.col + row.width, second.col + second.raster.grid.width)
    pixels = np.zeros((len(first.bands), bottom - top, right - left), first.pixels.dtype)
    valid = np.zeros(pixels.shape[1:], np.bool_)
    for r, c, raster in ((second.row, second.col, second.raster), (row.row, row.col, first)):
        at = (slice(r - top, r - top + raster.grid.height), slice(c - left, c - left + raster.grid.width))
        over = raster.valid | (~valid[at] & (raster.pixels != 0).any(axis=0))
        pixels[(slice(None), *at)] = np.where(over, raster.pixels, pixels[(slice(None), *at)])
        valid[at] |= raster.valid
    origin = first.grid.window(top - row.row, left - row.col, *valid.shape)
    joined = Raster(pixels=pixels, valid=valid, bands=first.bands, grid=origin)
    return Placed(row.key, top, left, joined, row.scene + JOIN + second.scene)
