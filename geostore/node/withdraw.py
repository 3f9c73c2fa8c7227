"""withdraw: take a scene back, so that its rasters are no longer current."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from geostore.errors import NotFound
from geostore.node.acquisition import APART_US
from geostore.node.mosaic import JOIN
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply

if TYPE_CHECKING:
    from geostore.node.node import Node


def withdraw(node: Node, request: messages.Withdraw, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Write withdrawal rows for the scene and each of its current rasters, mosaics it is a piece of included.

    Pixels of a mosaic belong to no scene any more, so the other scenes of one lose it too: they are `incomplete`, which
    an ingest of them mends.

    Raises:
        NotFound: no such scene, or it was withdrawn before.
    """
    with node.changing:
        scene = node.store.scene(request.collection, request.scene)
        if scene is None or scene.op != "put":
            raise NotFound(f"{request.collection} holds no scene {request.scene!r}; `geostore scenes` lists them")
        gone = [
            replace(row, op="withdraw", payload=b"", valid=b"", vector=b"", original="", certificate=None)
            for partition in node.store.partitions(request.collection)
            for row in node.store.rasters(
                partition, scene.time_us - APART_US, scene.time_us + APART_US + 1, payload=False
            )
            if scene.id in row.scene.split(JOIN)
        ]
        others = sorted({name for row in gone for name in row.scene.split(JOIN)} - {scene.id})
        torn = [found for name in others if (found := node.store.scene(request.collection, name)) is not None]
        node.store.commit([replace(found, complete=False) for found in torn if found.op == "put"])
        node.store.commit([*gone, replace(scene, op="withdraw", complete=False, put_us=time.time_ns() // 1000)])
    return Reply({"withdrawn": len(gone), "incomplete": others})
