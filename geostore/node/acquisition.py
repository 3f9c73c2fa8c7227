"""Pieces of one acquisition: scenes cut from one overpass are mosaicked, another processing of it is a revision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import shapely

from geostore.errors import Conflict, InvalidInput, NotFound
from geostore.keys import RasterKey, from_time_us, time_us
from geostore.node.decode import exact_row, read_original
from geostore.node.mosaic import JOIN, Placed, mosaic
from geostore.query.messages import SceneFields
from geostore.storage import RasterRow, SceneRow

if TYPE_CHECKING:
    from datetime import datetime

    from geostore.node.node import Node
    from geostore.scene import Scene

APART_US = 600_000_000  # pieces of one acquisition lie at most ten minutes apart
SAME_PLACE = 0.8  # scenes whose footprints overlap by more are processings of one piece, not two pieces


def check_one_time(scene: Scene, given: datetime | None, scenes: int) -> None:
    """Raise if `given`, the time of one of several `scenes`, is not what it tells: they would be mosaicked as pieces.

    Raises:
        InvalidInput: the scene tells a time of another acquisition.
    """
    if given is None or scenes == 1 or scene.told_us is None:
        return
    if abs(scene.told_us - time_us(given)) > APART_US:
        raise InvalidInput(
            f"one time, {given:%Y-%m-%d %H:%M}, is given for {scenes} scenes, and {scene.source} tells "
            f"{from_time_us(scene.told_us):%Y-%m-%d %H:%M}; leave --time out, or give one scene at a time"
        )


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
        exact, _, first = read_original(node, row.key)  # on its own window, which a fit may have widened in `row`
        return mosaic(Placed(row.key, exact.row, exact.col, first, row.scene), placed)
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
