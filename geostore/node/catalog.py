"""What is here: versions, collections, scenes, grids, rasters, tables."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

import numpy as np

import geostore
from geostore.collection import collection_from_dict, collection_to_dict
from geostore.errors import NotFound
from geostore.keys import check_name
from geostore.node.declared import check_declared
from geostore.node.facts import raster_fields
from geostore.query import messages
from geostore.query.messages import PROTOCOL_VERSION, Array, Progress, Reply
from geostore.storage import RasterRow

if TYPE_CHECKING:
    from geostore.node.node import Node


def hello(node: Node, request: messages.Hello, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Versions and the store's identity."""
    return Reply(
        {
            "geostore": geostore.__version__,
            "protocol": PROTOCOL_VERSION,
            "store": node.store.id,
            "slots": node.store.slots,
            "readonly": node.store.readonly,
            "codecs": sorted(node.families.items),
        }
    )


def collections(node: Node, request: messages.Collections, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """The newest version of every collection."""
    return Reply({"collections": [collection_to_dict(c) for c in node.store.collections()]})


def put_collection(node: Node, request: messages.PutCollection, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Declare a collection, or a new version of one.

    Raises:
        InvalidInput, NotInstalled: a fit here would fail on it. Conflict: stored numbers would change their meaning.
    """
    collection = collection_from_dict(request.collection)
    check_declared(node, collection)
    with node.changing:
        return Reply({"collection": collection_to_dict(node.store.put_collection(collection))})


def scenes(node: Node, request: messages.Scenes, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """The facts of every scene that was not withdrawn."""
    if request.collection is not None:
        node.store.collection(request.collection)
    found = [s for s in node.store.scenes(request.collection) if s.op == "put"]
    return Reply({"scenes": [dataclasses.asdict(s) for s in found]})


def cells(node: Node, request: messages.Cells, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """The fixed grid of each partition of a collection."""
    node.store.collection(request.collection)
    found = [node.store.codec(p, 0) for p in node.store.partitions(request.collection)]
    return Reply(
        {
            "cells": [
                {"geohash": c.partition.geohash, "group": c.partition.group, "grid": dataclasses.asdict(c.cell)}
                for c in found
            ]
        }
    )


def select(node: Node, request: messages.Selection) -> list[RasterRow]:
    """Current rows a selection names, their payloads unread, by place, then time; empty if nothing matches.

    Raises:
        NotFound: the collection does not exist.
    """
    if request.collection is not None:
        check_name(request.collection, "collection")
    partitions = node.store.partitions(request.collection, request.geohash or "", request.group)
    if not partitions and request.collection is not None:
        node.store.collection(request.collection)
    return [row for p in partitions for row in node.store.rasters(p, request.start_us, request.end_us, payload=False)]


def rasters(node: Node, request: messages.Rasters, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Facts of the chosen rasters."""
    rows = select(node, request)
    if not rows and request.geohash and not node.store.partitions(request.collection, request.geohash):
        known = sorted({p.geohash for p in node.store.partitions(request.collection)})
        more = " ..." if len(known) > 8 else ""
        there = (
            f"it has {', '.join(known[:8])}{more}: choose one of these" if known else "it has none yet: ingest first"
        )
        raise NotFound(f"no partition {request.geohash!r} in this store; {there}")
    found = []
    for row in rows:
        codec_row, codec = node.codec(row.key.partition, row.generation)
        found.append(raster_fields(row, codec_row.cell, codec.bands, codec_row.family))
    return Reply({"rasters": found})


def table(node: Node, request: messages.Table, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """All rows of one kind as an Arrow IPC stream."""
    import pyarrow as pa

    sink = io.BytesIO()
    rows = node.store.table(request.kind)
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return Reply({"rows": rows.num_rows}, (np.frombuffer(sink.getvalue(), np.uint8),))


def jobs(node: Node, request: messages.Jobs, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Jobs as the store remembers them; a daemon adds what is running."""
    found = [node.store.job(request.id)] if request.id else node.store.jobs()
    return Reply({"jobs": [dataclasses.asdict(j) for j in found]})
