"""put: rasters of one scene or several, losslessly and durably into the store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from geostore.codec import RawCodec
from geostore.collection import Collection
from geostore.errors import BadRequest, InvalidInput, NotFound, OutOfRange
from geostore.keys import PartitionKey, RasterKey, check_geohash
from geostore.node.acquisition import APART_US, place
from geostore.node.mosaic import JOIN, Placed
from geostore.node.reference import refer
from geostore.query import messages
from geostore.query.messages import Array, Piece, Progress, Reply, SceneFields, check_arrays
from geostore.raster import Bands, Grid, Raster
from geostore.storage import CodecRow, RasterRow, SceneRow, pack_mask

if TYPE_CHECKING:
    from geostore.node.node import Node


@dataclass(frozen=True)
class Part:
    """One scene of a put: its facts, whether it is complete with this request, and its pieces, checked."""

    scene: SceneFields
    complete: bool
    pieces: list[tuple[Piece, Raster]]

    @cached_property
    def places(self) -> frozenset[tuple[str, str]]:
        """(geohash, group) of every piece."""
        return frozenset((piece.geohash, piece.group) for piece, _ in self.pieces)

    def meets(self, other: Part) -> bool:
        """True if what is stored of one depends on the other: the same scene, or one acquisition of one cell."""
        mine, theirs = self.scene, other.scene
        near = mine.platform == theirs.platform and abs(mine.time_us - theirs.time_us) <= APART_US
        return mine.id == theirs.id or (near and not self.places.isdisjoint(other.places))


def put(node: Node, request: messages.Put, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Store the pieces; those already stored with the same pixels are left alone.

    All scenes of the request share one commit, but for those that meet: they see each other stored, in their order.

    Raises:
        InvalidInput: a piece does not fit its collection, cell or grid; nothing of the request is stored.
        Conflict: a piece came too late to be mosaicked; scenes before it may be stored.
    """
    collection = node.store.collection(request.collection)
    parts = [
        Part(s.scene, request.last or i > 0, [(p, _check(collection, p, arrays)) for p in s.pieces])
        for i, s in enumerate(request.scenes)
    ]
    with node.changing:
        cells = _new_cells(node, collection, [piece for part in parts for piece, _ in part.pieces])
        rows, fresh = 0, 0
        for together in _runs(parts):
            made = _rows(node, collection, together)
            new = [row for row in made if _is_new(node, row)]
            first = [cells[place] for place in sorted({p for part in together for p in part.places} & cells.keys())]
            scenes = [row for part in together if (row := _scene(node, collection, part)) is not None]
            node.store.commit([*first, *new, *scenes])
            rows, fresh = rows + len(made), fresh + len(new)
    return Reply({"stored": fresh, "unchanged": rows - fresh, "cells": len(cells)})


def _runs(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """The parts in order, in runs within which no two meet."""
    run: list[Part] = []
    for part in parts:
        if any(part.meets(other) for other in run):
            yield run
            run = []
        run.append(part)
    yield run


def _rows(node: Node, collection: Collection, parts: Sequence[Part]) -> list[RasterRow]:
    pieces = [(part.scene, *item) for part in parts for item in part.pieces]
    with ThreadPoolExecutor(node.settings.threads) as pool:
        return list(pool.map(lambda item: _row(node, collection, *item), pieces))


def _check(collection: Collection, piece: Piece, arrays: tuple[Array, ...]) -> Raster:
    check_geohash(piece.geohash)
    if len(piece.geohash) != collection.precision:
        raise InvalidInput(
            f"{piece.geohash!r} has {len(piece.geohash)} characters; {collection.name} cuts at {collection.precision}"
        )
    bands = collection.groups.get(piece.group)
    if bands is None:
        raise InvalidInput(f"{collection.name} has no band group {piece.group!r}; it has {list(collection.groups)}")
    check_arrays(arrays, piece.pixels, "pixels")
    check_arrays(arrays, piece.valid, "valid")
    pixels, valid = arrays[piece.pixels], arrays[piece.valid]
    if pixels.ndim != 3 or valid.ndim != 2:
        raise BadRequest(
            f"pixels have {pixels.ndim} axes and valid {valid.ndim}; wanted (bands, height, width), (h, w)"
        )
    cell = _cell(piece)
    height, width = valid.shape
    if piece.row + height > cell.height or piece.col + width > cell.width:
        raise InvalidInput(
            f"{piece.geohash}: window {piece.row, piece.col, height, width} leaves its {cell.shape} cell; "
            f"cut it to the grid that `cells` gives"
        )
    raster = Raster(
        pixels=pixels, valid=valid.astype(bool), bands=bands, grid=cell.window(piece.row, piece.col, height, width)
    )
    _check_range(raster, piece)
    return raster


def _check_range(raster: Raster, piece: Piece) -> None:
    """Refuse usable values outside what the band declares, and NaN."""
    if not raster.valid.any():
        return
    for plane, band in zip(raster.pixels, raster.bands, strict=True):
        used = plane[raster.valid]
        low, high = used.min(), used.max()
        if not (low >= band.valid_min and high <= band.valid_max):
            raise OutOfRange(
                f"{piece.geohash} band {band.name}: values {low} to {high}, declared {band.valid_min} to "
                f"{band.valid_max}; mask them, or correct scale, offset or range in the collection"
            )


def _cell(piece: Piece) -> Grid:
    return Grid(**piece.cell.model_dump())


def _known_cell(node: Node, partition: PartitionKey) -> Grid | None:
    try:
        return node.store.codec(partition, 0).cell
    except NotFound:
        return None


def _new_cells(node: Node, collection: Collection, pieces: Iterable[Piece]) -> dict[tuple[str, str], CodecRow]:
    """Generation 0 of every (geohash, group) met for the first time: the lossless codec on the whole cell.

    Raises:
        InvalidInput: a partition is fixed to another grid than its piece came on.
    """
    grids: dict[PartitionKey, Grid | None] = {}
    found: dict[tuple[str, str], CodecRow] = {}
    for piece in pieces:
        partition, cell = PartitionKey(collection.name, piece.geohash, piece.group), _cell(piece)
        if partition not in grids:
            grids[partition] = _known_cell(node, partition)
        known = grids[partition]
        if known is None:
            grids[partition] = cell
            found[piece.geohash, piece.group] = _first_codec(partition, cell, collection.groups[piece.group])
        elif known != cell:
            raise InvalidInput(
                f"{partition}: its grid is {known}, this piece came on {cell}; ask for `cells` and cut on that grid"
            )
    return found


def _first_codec(partition: PartitionKey, cell: Grid, bands: Bands) -> CodecRow:
    return CodecRow(
        partition=partition,
        generation=0,
        family="raw",
        cell=cell,
        row=0,
        col=0,
        height=cell.height,
        width=cell.width,
        data=RawCodec(bands).to_bytes(),
        parent=None,
        made_us=time.time_ns() // 1000,
        facts={"reason": "first raster"},
    )


def _row(node: Node, collection: Collection, scene: SceneFields, piece: Piece, raster: Raster) -> RasterRow:
    from geostore.scene.writer import cog_bytes, lzw_size_near

    key = RasterKey(collection.name, piece.geohash, piece.group, scene.time_us, scene.platform)
    placed = place(node, scene, Placed(key, piece.row, piece.col, raster, scene.id))
    raster = placed.raster
    payload = RawCodec(raster.bands).encode(raster.pixels, raster.valid).payload
    original = ""
    if collection.policy.original == "keep":
        original = node.store.put_original(
            placed.key, cog_bytes(raster, {"GEOSTORE_SCENE": placed.scene}, hidden="keep")
        )
    elif collection.policy.original == "reference":
        original = refer(placed, scene)
    return RasterRow(
        key=placed.key,
        revision=_revision(node, placed, scene),
        generation=0,
        op="put",
        scene=placed.scene,
        row=placed.row,
        col=placed.col,
        height=raster.grid.height,
        width=raster.grid.width,
        valid=pack_mask(raster.valid),
        payload=payload,
        layers="lossless",
        lossless=True,
        bytes_lzw=lzw_size_near(raster),  # a fit measures files, and tries both interleavings
        bytes_jxl=len(payload),
        original=original,
    )


def _revision(node: Node, placed: Placed, scene: SceneFields) -> int:
    """When the scene was processed; past the one that stands, where that is unknown or the same."""
    try:
        known = node.store.raster(placed.key)
    except NotFound:
        return scene.revision
    if known.scene == placed.scene:
        return known.revision
    older = 0 < scene.revision < known.revision and JOIN not in placed.scene
    return scene.revision if older else max(scene.revision, known.revision + 1)


def _is_new(node: Node, row: RasterRow) -> bool:
    """False if the store holds these very pixels already, fitted or not."""
    try:
        known = node.store.raster(row.key)
    except NotFound:
        return True
    if known.scene != row.scene:
        return True
    if JOIN in row.scene:
        return False
    if known.generation > 0:
        return False
    if (known.valid, known.row, known.col, known.height, known.width) != (
        *(row.valid, row.row, row.col, row.height, row.width),
    ):
        return True
    return known.payload != row.payload and not _same_pixels(node, known, row)


def _same_pixels(node: Node, known: RasterRow, row: RasterRow) -> bool:
    """Whether two lossless payloads that differ, as those of two versions may, say the same."""
    codec = RawCodec(node.store.collection(row.key.collection).groups[row.key.group])
    everything = np.ones((row.height, row.width), np.bool_)
    first, second = (codec.decode(payload, everything) for payload in (known.payload, row.payload))
    return first.tobytes() == second.tobytes()


def _scene(node: Node, collection: Collection, part: Part) -> SceneRow | None:
    """The scene's row, or None if it stands already as it is."""
    given = part.scene
    known = node.store.scene(collection.name, given.id)
    if known is not None and known.op == "put" and known.complete >= part.complete:
        return None
    return SceneRow(
        collection=collection.name,
        id=given.id,
        time_us=given.time_us,
        platform=given.platform,
        product=given.product,
        baseline=given.baseline,
        source=given.source,
        footprint=given.footprint,
        facts=given.facts,
        complete=part.complete,
        op="put",
        put_us=time.time_ns() // 1000,
    )
