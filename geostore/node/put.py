"""put: rasters of one scene, losslessly and durably into the store."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from geostore.codec import RawCodec
from geostore.collection import Collection
from geostore.errors import BadRequest, InvalidInput, NotFound, OutOfRange
from geostore.keys import PartitionKey, RasterKey, check_geohash
from geostore.node.acquisition import place
from geostore.node.mosaic import JOIN, Placed
from geostore.node.reference import refer
from geostore.query import messages
from geostore.query.messages import Array, Piece, Progress, Reply, SceneFields, check_arrays
from geostore.raster import Grid, Raster
from geostore.storage import CodecRow, RasterRow, SceneRow, pack_mask

if TYPE_CHECKING:
    from geostore.node.node import Node


def put(node: Node, request: messages.Put, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Store the pieces; those already stored with the same pixels are left alone.

    Raises:
        InvalidInput: a piece does not fit its collection, cell or grid; nothing of the request is stored.
    """
    collection = node.store.collection(request.collection)
    pieces = [(p, _check(collection, p, arrays)) for p in request.pieces]
    with node.changing:
        new_cells = _new_cells(node, collection, request)
        with ThreadPoolExecutor(node.settings.threads) as pool:
            rows = list(pool.map(lambda item: _row(node, collection, request.scene, *item), pieces))
        fresh = [row for row in rows if _is_new(node, row)]
        scene = _scene(node, collection, request)
        node.store.commit([*new_cells, *fresh, *([scene] if scene else [])])
    return Reply({"stored": len(fresh), "unchanged": len(rows) - len(fresh), "cells": len(new_cells)})


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


def _new_cells(node: Node, collection: Collection, request: messages.Put) -> list[CodecRow]:
    """Generation 0 of every partition met for the first time: the lossless codec on the whole cell.

    Raises:
        InvalidInput: a partition is fixed to another grid than its piece came on.
    """
    found: dict[PartitionKey, CodecRow] = {}
    for piece in request.pieces:
        partition, cell = PartitionKey(collection.name, piece.geohash, piece.group), _cell(piece)
        known = found[partition].cell if partition in found else _known_cell(node, partition)
        if known is not None:
            if known != cell:
                raise InvalidInput(
                    f"{partition}: its grid is {known}, this piece came on {cell}; ask for `cells` and cut on that grid"
                )
            continue
        found[partition] = CodecRow(
            partition=partition,
            generation=0,
            family="raw",
            cell=cell,
            row=0,
            col=0,
            height=cell.height,
            width=cell.width,
            data=RawCodec(collection.groups[piece.group]).to_bytes(),
            parent=None,
            made_us=time.time_ns() // 1000,
            facts={"reason": "first raster"},
        )
    return list(found.values())


def _row(node: Node, collection: Collection, scene: SceneFields, piece: Piece, raster: Raster) -> RasterRow:
    from geostore.scene.writer import cog_bytes, lzw_size

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
        bytes_lzw=lzw_size(raster, ("band",)),  # a fit tries both interleavings
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
    return (known.payload, known.valid, known.row, known.col) != (row.payload, row.valid, row.row, row.col)


def _scene(node: Node, collection: Collection, request: messages.Put) -> SceneRow | None:
    """The scene's row, or None if it stands already as it is."""
    given = request.scene
    known = node.store.scene(collection.name, given.id)
    if known is not None and known.op == "put" and known.complete >= request.last:
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
        complete=request.last,
        op="put",
        put_us=time.time_ns() // 1000,
    )
