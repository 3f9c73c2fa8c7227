"""index-status, index-build, index-upgrade: what similarity search is made with, and keeping it well."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from geostore import plugins
from geostore.errors import InvalidInput
from geostore.index.descriptors import GROUP, Descriptor, Trainable, Trained
from geostore.keys import PartitionKey
from geostore.node.search.levels import CHIP, FINE, RASTER, Levels
from geostore.node.search.models import SearchModel, head_from_bytes, model_event, plain_head
from geostore.node.search.training import samples, series_of, train, train_descriptor
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply

if TYPE_CHECKING:
    from geostore.node.node import Node


def index_status(node: Node, request: messages.IndexStatus, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """What is on the disk; nothing is described or written."""
    following = node.following
    labelling = following.spoken().labelling
    found = [_status(node, model, partitions) for model, partitions in following.models().values()]
    return Reply(
        {
            "path": str(following.root),
            "disposable": following.disposable,
            "labelled": sum(1 for names in labelling.names.values() if names),
            "legend": None if labelling.legend is None else labelling.legend.to_dict(),
            "indexes": found,
        }
    )


def _status(node: Node, model: SearchModel, partitions: list[PartitionKey]) -> dict[str, Any]:
    levels, behind = node.following.on_disk(model)
    return {
        "space": model.to_fields(),
        "partitions": len(partitions),
        "behind": behind,
        "rasters": sum(map(len, levels.at(RASTER))),
        "chips": _chips(levels),
        "segments": sum(len(index.parts) for index in levels.indexes.values()),
        "bytes": levels.size(),
    }


def _chips(levels: Levels) -> int:
    """Chips of every level."""
    return sum(len(index) for kind in (CHIP, FINE) for index in levels.at(kind))


def index_build(node: Node, request: messages.IndexBuild, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Bring every index level; what no raster needs any more goes."""
    begun = time.monotonic()
    rasters, chips = 0, 0
    for model, _ in node.following.models().values():
        levels = node.following.level(model, progress, anew=request.anew)
        rasters += sum(map(len, levels.at(RASTER)))
        chips += _chips(levels)
    node.following.forget_others()
    progress("describe", 1.0)
    return Reply({"rasters": rasters, "chips": chips, "seconds": round(time.monotonic() - begun, 3)})


def index_upgrade(node: Node, request: messages.IndexUpgrade, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """A new generation for every set of bands; until it is whole, questions are answered by the one before.

    Raises:
        InvalidInput: there is too little to train on. NotInstalled: no such descriptor. Cancelled: `progress` said so.
    """
    made = []
    for model, partitions in node.following.models().values():
        made.append(_upgrade(node, model, partitions, request, progress))
    if not made:
        raise InvalidInput("nothing is stored, so there is nothing to make signatures of; run `geostore ingest` first")
    node.following.forget_others()
    progress("index upgrade", 1.0)
    return Reply({"indexes": made})


def _upgrade(
    node: Node, model: SearchModel, partitions: list[PartitionKey], request: messages.IndexUpgrade, progress: Progress
) -> dict[str, Any]:
    base, weights = _redescribed(node, model, partitions, request, progress)
    levels = node.following.level(base, progress, partitions=partitions)
    points, groups, by = samples(list(levels.indexes.values()), node.following.spoken().labelling, seed=request.seed)
    data = train(request.head, points, groups, request.bits, steps=request.steps, seed=request.seed, progress=progress)
    newer = replace(base, head=head_from_bytes(data), generation=model.generation + 1)
    levels = node.following.level(base, progress, partitions=partitions)  # with what came while it was trained
    facts = {"by": by, "rows": len(points), "method": request.head}
    with node.changing:
        node.following.convert(levels, newer)
        blobs = [node.store.put_blob("models", part) for part in (data, *weights)]
        node.store.commit([model_event(newer, blobs, time_us=time.time_ns() // 1000, facts=facts)])
    return {"space": newer.to_fields(), **facts}


def _redescribed(
    node: Node, model: SearchModel, partitions: list[PartitionKey], request: messages.IndexUpgrade, progress: Progress
) -> tuple[SearchModel, list[bytes]]:
    """The model to learn signatures on, and the weights of its descriptor, if it has any.

    Another descriptor comes with a head that needs no training; one that learns does so from decoded pixels.
    """
    if request.descriptor is None:
        return model, [model.descriptor.to_bytes()] if isinstance(model.descriptor, Trained) else []
    found: Descriptor | Trainable = plugins.find(GROUP, request.descriptor)
    weights: list[bytes] = []
    if isinstance(found, Trainable):
        series = series_of(node, partitions, model.bands, seed=request.seed)
        weights = [
            train_descriptor(request.descriptor, series, steps=request.steps, seed=request.seed, progress=progress)
        ]
        found = found.from_bytes(weights[0])
    return replace(model, descriptor=found, head=plain_head(found.width(model.bands))), weights
