"""index-status, index-build, index-upgrade: what similarity search is made with, and keeping it well."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore import plugins
from geostore.errors import BadRequest, InvalidInput, NotComparable, NotInstalled
from geostore.index.descriptors import GROUP, Descriptor, Trainable, Trained
from geostore.index.encoders.described import Encoded, named
from geostore.index.encoders.folder import FolderEncoder
from geostore.keys import PartitionKey
from geostore.node.search import parts
from geostore.node.search.learning import Learning
from geostore.node.search.levels import CHIP, FINE, RASTER, Levels
from geostore.node.search.models import SearchModel, head_from_bytes, learned_by, model_event, plain_head
from geostore.node.search.sampling import LABELS, check_enough, described
from geostore.node.search.training import series_of, train_descriptor
from geostore.node.search.viewing import Viewing
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply
from geostore.storage import EventRow

if TYPE_CHECKING:
    from geostore.node.node import Node

ENCODER = "encoder"  # the event that an encoder was put


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
        "learned": learned_by(model, node.following.spoken().events),
        "rasters": sum(map(len, levels.at(RASTER))),
        "chips": _chips(levels),
        "segments": sum(len(index.parts) for index in levels.indexes.values()),
        "bytes": levels.size(),
        "bytes_unchecked": levels.unchecked(),
    }


def _chips(levels: Levels) -> int:
    """Chips of every level."""
    return sum(len(index) for kind in (CHIP, FINE) for index in levels.at(kind))


def index_build(node: Node, request: messages.IndexBuild, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Bring every index level; what no raster needs any more goes, unless an upgrade was interrupted that needs it."""
    begun = time.monotonic()
    if request.anew:
        parts.forget(node.following.root)
    rasters, chips = 0, 0
    node.following.forget_lost()
    for model, _ in node.following.models().values():
        levels = node.following.level(model, progress, anew=request.anew)
        rasters += sum(map(len, levels.at(RASTER)))
        chips += _chips(levels)
    node.following.forget_others()
    progress("describe", 1.0)
    return Reply({"rasters": rasters, "chips": chips, "seconds": round(time.monotonic() - begun, 3)})


def put_encoder(node: Node, request: messages.PutEncoder, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Keep a bundle of an encoder's files, if it can describe what is stored; the same again changes nothing.

    Raises:
        BadRequest: not one array of bytes. Corrupt, InvalidInput: no bundle, one that declares no encoder, or whose
            program does not run; nothing is stored. NotComparable: it wants bands that nothing stored has.
    """
    if len(arrays) != 1 or arrays[0].dtype != np.uint8:
        raise BadRequest(f"put-encoder carries {len(arrays)} arrays; send one of uint8, the bundle of its files")
    data = arrays[0].tobytes()
    encoder = FolderEncoder(data)
    _try(Encoded().from_bytes(data), _known(node))
    with node.changing:
        digest = node.store.put_blob("models", data)
        fields = {"name": encoder.name, "models": [digest]}
        if all(e.what != ENCODER or e.fields != fields for e in node.store.events()):
            event = EventRow(time_us=time.time_ns() // 1000, who="geostore", what=ENCODER, fields=fields)
            node.store.commit([event])
    about = {"encoder": digest, "name": encoder.name, "sides": list(encoder.sides), "width": encoder.width}
    return Reply({**about, "bytes": len(data)})


def index_upgrade(node: Node, request: messages.IndexUpgrade, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """A new generation for every set of bands; until it is whole, questions are answered by the one before.

    One that was interrupted goes on where it stopped, if it is asked for again: what it trained and described is kept,
    and a set of bands that would get the head it has keeps its generation.

    Raises:
        InvalidInput: there is too little to train on, or labels are asked for and there are hardly any. NotInstalled:
            no such descriptor or encoder. NotComparable: an encoder wants bands that nothing stored has. Cancelled:
            `progress` said so.
    """
    known = _known(node)
    if request.by == LABELS:
        check_enough(node.following.spoken().labelling)
    fitting = known if request.encoder is None else _fitting(Encoded().from_bytes(_encoder(node, request)), known)
    parts.begin(node.following.root)
    made = [_upgrade(node, model, partitions, request, progress) for model, partitions in fitting]
    parts.forget(node.following.root)
    node.following.forget_others()
    progress("index upgrade", 1.0)
    return Reply({"indexes": made})


def _known(node: Node) -> list[tuple[SearchModel, list[PartitionKey]]]:
    known = list(node.following.models().values())
    if not known:
        raise InvalidInput("nothing is stored, so there is nothing to make signatures of; run `geostore ingest` first")
    return known


def _try(encoded: Encoded, known: list[tuple[SearchModel, list[PartitionKey]]]) -> None:
    """Describe one raster of nothing in particular, so that an encoder that cannot is refused before it is kept."""
    bands = _fitting(encoded, known)[0][0].bands
    pixels = np.arange(len(bands) * 32 * 32).reshape(-1, 32, 32).astype(bands.dtype)
    encoded.describe(pixels, np.ones((32, 32), np.bool_), bands)


def _fitting(
    encoded: Encoded, known: list[tuple[SearchModel, list[PartitionKey]]]
) -> list[tuple[SearchModel, list[PartitionKey]]]:
    """Models whose bands the encoder can be given; the others stay as they are."""
    fitting, refused = [], []
    for model, partitions in known:
        try:
            encoded.width(model.bands)
            fitting.append((model, partitions))
        except NotComparable as error:
            refused.append(error)
    if not fitting:
        raise refused[0]
    return fitting


def _upgrade(
    node: Node, model: SearchModel, partitions: list[PartitionKey], request: messages.IndexUpgrade, progress: Progress
) -> dict[str, Any]:
    base, weights = _redescribed(node, model, partitions, request, progress)
    levels = node.following.level(base, progress, partitions=partitions)
    rows = described(levels, node.following.spoken().labelling)
    viewing = Viewing(node, node.following.root, base, rows, progress)
    data, facts = Learning(viewing, request, progress).head()
    newer = replace(base, head=head_from_bytes(data), generation=model.generation + 1)
    if newer.space == model.space:
        return {"space": model.to_fields(), **facts}
    levels = node.following.level(base, progress, partitions=partitions)  # with what came while it was trained
    with node.changing:
        node.following.convert(levels, newer)
        blobs = [node.store.put_blob("models", part) for part in (data, *weights)]
        node.store.commit([model_event(newer, blobs, time_us=time.time_ns() // 1000, facts=facts)])
    return {"space": newer.to_fields(), **facts}


def _encoder(node: Node, request: messages.IndexUpgrade) -> bytes:
    """The weights of the encoder that is named: of one that was put, by digest or name (the newest), else installed."""
    if request.descriptor is not None:
        raise InvalidInput(f"descriptor {request.descriptor!r} and encoder {request.encoder!r}; name one of them")
    put = [e.fields for e in node.store.events() if e.what == ENCODER]
    for fields in reversed(put):
        if request.encoder in (fields["name"], fields["models"][0]):
            return node.store.blob("models", fields["models"][0])
    assert request.encoder is not None
    try:
        return named(request.encoder)
    except NotInstalled as error:
        known = sorted({f["name"] for f in put})
        raise NotInstalled(f"{error}; put into this store: {', '.join(known) or 'none'}") from error


def _redescribed(
    node: Node, model: SearchModel, partitions: list[PartitionKey], request: messages.IndexUpgrade, progress: Progress
) -> tuple[SearchModel, list[bytes]]:
    """The model to learn signatures on, and the weights of its descriptor, if it has any.

    Another descriptor comes with a head that needs no training; one that learns does so from decoded pixels. Weights of
    an encoder are those that were put into the store, or that its package brings along.
    """
    if request.encoder is not None:
        data = _encoder(node, request)
        encoded = Encoded().from_bytes(data)
        return replace(model, descriptor=encoded, head=plain_head(encoded.width(model.bands))), [data]
    if request.descriptor is None:
        return model, [model.descriptor.to_bytes()] if isinstance(model.descriptor, Trained) else []
    found: Descriptor | Trainable = plugins.find(GROUP, request.descriptor)
    weights: list[bytes] = []
    if isinstance(found, Trainable):
        weights = [_weights(node, request.descriptor, model, partitions, request, progress)]
        found = found.from_bytes(weights[0])
    return replace(model, descriptor=found, head=plain_head(found.width(model.bands))), weights


def _weights(
    node: Node, name: str, model: SearchModel, partitions: list[PartitionKey], request: messages.IndexUpgrade,
    progress: Progress,
) -> bytes:  # fmt: skip
    """Weights of the descriptor `name`, trained on decoded pixels, or those an interrupted upgrade trained on these."""
    series = series_of(node, partitions, model.bands, seed=request.seed)
    return parts.kept(
        node.following.root,
        {"descriptor": name, "steps": request.steps, "seed": request.seed, "bands": [vars(b) for b in model.bands]},
        [array for s in series for array in (s.pixels, s.valid, s.times_us)],
        lambda: train_descriptor(name, series, steps=request.steps, seed=request.seed, progress=progress),
    )
