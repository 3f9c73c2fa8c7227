"""reference: a raster read once more from the scene it was cut from, if that is still what it was."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from geostore.errors import BadScene, GeostoreError, InvalidInput, NotFound
from geostore.keys import from_time_us
from geostore.node.mosaic import JOIN, Placed, mosaic
from geostore.partition.split import cut
from geostore.query.messages import SceneFields
from geostore.raster import Grid, Raster
from geostore.storage import RasterRow, SceneRow, pack_rows
from geostore.storage.files import digest_of

if TYPE_CHECKING:
    from geostore.node.node import Node
    from geostore.scene import Scene

PREFIX = "ref:"


def refer(placed: Placed, scene: SceneFields) -> str:
    """What the row of a raster says whose original stays where it came from: "ref:" and the digest of its pixels.

    Raises:
        InvalidInput: the scene does not say where it came from.
    """
    if not scene.source:
        raise InvalidInput(
            f'scene {scene.id} has no source, and the policy says original = "reference"; give the file or STAC item '
            'it came from as `source`, or set original to "keep" or "drop"'
        )
    return PREFIX + _digest(placed)


def read_reference(node: Node, row: RasterRow, cell: Grid) -> Raster:
    """The raster of `row` cut once more from its scene or scenes, on its own window of `cell`, masked pixels 0.

    Raises:
        NotFound: a scene is gone, does not read, or gives other pixels than were put; the message names the file.
    """
    scenes = [_scene_row(node, row, name) for name in row.scene.split(JOIN)]
    where = ", ".join(s.source for s in scenes)
    try:
        found = _cut_again(node, row, scenes, cell)
    except (GeostoreError, OSError) as error:
        raise NotFound(
            f"the original of {row.key} is not to be had from {where}: {error}; put the file back as it was, or decode "
            "at tier best"
        ) from error
    if found is None or _digest(found) != row.original.removeprefix(PREFIX):
        raise NotFound(
            f"the original of {row.key} is gone: {where} does not hold the pixels any more that were put; put the file "
            "back as it was, or decode at tier best"
        )
    raster = found.raster
    pixels = np.where(raster.valid, raster.pixels, np.zeros((), raster.pixels.dtype))
    return Raster(pixels=pixels, valid=raster.valid, bands=raster.bands, grid=raster.grid)


def _digest(placed: Placed) -> str:
    """Of the usable pixels, their mask, and where they lie in the cell."""
    raster = placed.raster
    visible = np.where(raster.valid, raster.pixels, np.zeros((), raster.pixels.dtype))
    head = f"{raster.pixels.dtype.name} {visible.shape} {placed.row} {placed.col} ".encode()
    return digest_of(head + pack_rows(raster.valid) + np.ascontiguousarray(visible).tobytes())


def _scene_row(node: Node, row: RasterRow, name: str) -> SceneRow:
    found = node.store.scene(row.key.collection, name)
    if found is None:
        raise NotFound(f"the original of {row.key} is not known: no scene {name!r}; decode it at tier best")
    return found


def _cut_again(node: Node, row: RasterRow, scenes: list[SceneRow], cell: Grid) -> Placed | None:
    """The pieces in the order they were mosaicked in; None where a scene holds nothing of the cell any more."""
    whole: Placed | None = None
    for known in scenes:
        with contextlib.closing(_open(node, known)) as scene:
            split = cut(scene, row.key.geohash, row.key.group, cell)
        if split is None:
            return None
        piece = Placed(row.key, split.row, split.col, split.raster, known.id)
        whole = piece if whole is None else mosaic(whole, piece)
    return whole


def _open(node: Node, known: SceneRow) -> Scene:
    """The scene whose facts are `known`, found again where it came from.

    Raises:
        BadScene: it is not there any more.
    """
    from geostore.scene import find_scenes, open_scene

    collection = node.store.collection(known.collection)
    for source in find_scenes([known.source], collection):
        if source.item or known.id.startswith(source.name):
            scene = open_scene(source, collection, time=from_time_us(known.time_us))
            if scene.id == known.id:
                return scene
            scene.close()
    raise BadScene(f"{known.source} holds no scene {known.id!r}")
