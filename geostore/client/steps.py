"""Every verb as steps: what to ask next, and what the answers mean. No sockets, no threads, no waiting."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ValidationError

from geostore.client.times import Time, limits, time_range
from geostore.collection import Collection, collection_from_dict, collection_to_dict
from geostore.errors import BandMismatch, InvalidInput, NotFound, from_kind
from geostore.partition.split import Split
from geostore.query import messages
from geostore.query.budget import Within, check_measured, check_within
from geostore.query.facts import RasterInfo, read_info, read_raster
from geostore.query.messages import Array, GridFields, Piece, Progress, Reply, Request, SceneFields, Tier
from geostore.query.tiers import is_measured
from geostore.raster import Grid, Raster

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
BATCH_BYTES = 32 * 2**20  # pixels and masks in one put or decode; no daemon's decode_bytes_max is smaller
BATCH_ITEMS = 2048  # rasters in one
AHEAD = 3  # large requests under way: the next are worked on while the last is on its way
SEEN_MAX = 120  # characters of a refused value in a message
POLL_S = 0.2  # between two looks at a job; grows to POLL_S_MAX
POLL_S_MAX = 2.0


@dataclass(frozen=True)
class Send:
    """Ask this."""

    request: Request
    arrays: Sequence[Array] = ()
    progress: Progress | None = None


@dataclass(frozen=True)
class SendMany:
    """Ask these, AHEAD under way at a time."""

    requests: Sequence[Request]


@dataclass(frozen=True)
class Pause:
    """Wait so long."""

    seconds: float


Steps = Generator[Send | SendMany | Pause, Any, T]  # receives the Reply of each Send, the list of each SendMany's


def asked(kind: type[M], /, **fields: Any) -> M:
    """The request `kind`, or a part of one, of what a caller gave.

    Raises:
        InvalidInput: a field is out of its range or of another type; the message names it.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        named = getattr(kind, "verb", kind.__name__.lower())
        seen = repr(first["input"])
        seen = seen if len(seen) <= SEEN_MAX else f"{seen[:SEEN_MAX]} ..."
        raise InvalidInput(f"{named}: {where} = {seen}: {first['msg']}") from error


def fields(request: Request) -> Steps[dict[str, Any]]:
    """The answer's fields as they are."""
    reply: Reply = yield Send(request)
    return reply.fields


def listed(request: Request, name: str) -> Steps[list[dict[str, Any]]]:
    """One list in the answer."""
    reply: Reply = yield Send(request)
    return list(reply.fields[name])


def collections() -> Steps[list[Collection]]:
    """Every collection, newest version."""
    reply: Reply = yield Send(messages.Collections())
    return [collection_from_dict(c) for c in reply.fields["collections"]]


def put_collection(collection: Collection) -> Steps[Collection]:
    """Declare it; what the store then holds."""
    reply: Reply = yield Send(messages.PutCollection(collection=collection_to_dict(collection)))
    return collection_from_dict(reply.fields["collection"])


def cells(collection: str) -> Steps[dict[tuple[str, str], Grid]]:
    """The fixed grid of every partition, by (geohash, group)."""
    reply: Reply = yield Send(asked(messages.Cells, collection=collection))
    return {(c["geohash"], c["group"]): Grid(**c["grid"]) for c in reply.fields["cells"]}


def put(collection: str, scene: SceneFields, splits: Iterable[Split]) -> Steps[dict[str, int]]:
    """Put the pieces of a scene in requests of about BATCH_BYTES; the last one completes the scene."""
    total = {"stored": 0, "unchanged": 0, "cells": 0}
    for batch, last in _batches(splits, lambda s: s.raster.pixels.nbytes + s.raster.valid.nbytes):
        arrays: list[Array] = []
        pieces = _pieces(batch, arrays)
        reply: Reply = yield Send(
            asked(messages.Put, collection=collection, scene=scene, pieces=pieces, last=last), arrays
        )
        total = {name: count + int(reply.fields.get(name, 0)) for name, count in total.items()}
    return total


def put_scenes(collection: str, scenes: Sequence[tuple[SceneFields, Sequence[Split]]]) -> Steps[dict[str, int]]:
    """Put whole scenes in one request, which is one durable commit."""
    arrays: list[Array] = []
    first, *more = [
        messages.ScenePieces.model_construct(scene=scene, pieces=_pieces(splits, arrays)) for scene, splits in scenes
    ]
    request = messages.Put(collection=collection, scene=first.scene, pieces=first.pieces, more=more)
    reply: Reply = yield Send(request, arrays)
    return {name: int(reply.fields.get(name, 0)) for name in ("stored", "unchanged", "cells")}


def _pieces(splits: Sequence[Split], arrays: list[Array]) -> list[Piece]:
    """The pieces of a put; their pixels and masks are added to `arrays`."""
    pieces = [_piece(split, len(arrays) + 2 * i) for i, split in enumerate(splits)]
    for split in splits:
        arrays += [split.raster.pixels, split.raster.valid.astype(np.uint8)]
    return pieces


def _piece(split: Split, position: int) -> Piece:
    cell = GridFields.model_validate(split.cell, from_attributes=True)
    return Piece(
        geohash=split.geohash,
        group=split.group,
        cell=cell,
        row=split.row,
        col=split.col,
        pixels=position,
        valid=position + 1,
    )


def _batches(items: Iterable[T], size_of: Callable[[T], int]) -> Generator[tuple[list[T], bool], None, None]:
    """Items in batches of about BATCH_BYTES, each with whether it is the last; one empty batch if there are none.

    None has more than BATCH_ITEMS items.
    """
    batch: list[T] = []
    size = 0
    for item in items:
        if batch and (size + size_of(item) > BATCH_BYTES or len(batch) == BATCH_ITEMS):
            yield batch, False
            batch, size = [], 0
        batch.append(item)
        size += size_of(item)
    yield batch, True


def rasters(geohash: str | None, collection: str | None, group: str | None, time: Time) -> Steps[list[RasterInfo]]:
    """Facts of the chosen rasters."""
    start_us, end_us = time_range(time)
    request = asked(
        messages.Rasters, collection=collection, geohash=geohash, group=group, start_us=start_us, end_us=end_us
    )
    reply: Reply = yield Send(request)
    return [read_info(item) for item in reply.fields["rasters"]]


def decode_rasters(
    infos: Sequence[RasterInfo], bands: Sequence[str] | None, tier: Tier, within: Within | None = None
) -> Steps[list[tuple[RasterInfo, Raster]]]:
    """Facts and pixels of `infos`, in order, in requests of about BATCH_BYTES."""
    check_wanted(bands, tier, within)
    if not infos:
        return []
    requests = [
        asked(
            messages.Decode,
            keys=[i.to_key() for i in batch],
            bands=None if bands is None else list(bands),
            tier=tier,
            within=None if within is None else {name: float(bound) for name, bound in within.items()},
        )
        for batch, _ in _batches(infos, lambda i: i.bytes_decoded + i.grid.height * i.grid.width)
    ]
    replies: list[Reply] = yield SendMany(requests)
    return [read_raster(item, reply.arrays) for reply in replies for item in reply.fields["rasters"]]


def check_wanted(bands: Sequence[str] | None, tier: Tier, within: Within | None) -> None:
    """Refuse at once what a lazy decode would refuse only when its values are looked at.

    Raises:
        InvalidInput: `bands` is no list, there is no such tier, or `within` is no budget, or stands beside a tier.
    """
    if isinstance(bands, str):
        raise InvalidInput(f"bands = {bands!r} is one text; give a list, [{bands!r}]")
    if tier not in get_args(messages.Tier):
        raise InvalidInput(f"tier = {tier!r}; use {', '.join(get_args(messages.Tier))}")
    check_within(within, tier)


def choose(
    geohash: str,
    collection: str | None,
    group: str | None,
    time: Time,
    bands: Sequence[str] | None,
    within: Within | None = None,
) -> Steps[tuple[list[RasterInfo], str]]:
    """The rasters of the one partition a decode means, and its collection's product family.

    Raises:
        NotFound: there are none. BandMismatch: no band group has all the bands.
        InvalidInput: several cells or collections are meant, or a raster waits for a fit which will not measure what
            `within` names.
    """
    infos: list[RasterInfo] = yield from rasters(geohash, collection, group, time)
    if not infos:
        raise NotFound(f"no raster of {geohash!r}{limits(group, time)}; `geostore rasters` lists what there is")
    for what in ("collection", "geohash"):
        values = sorted({getattr(i.key, what) for i in infos})
        if len(values) > 1:
            raise InvalidInput(f"{geohash!r} means {len(values)} of {what} {values[:8]}; name one")
    groups = {i.key.group: i for i in infos}
    wanted = _group_of(groups, bands)
    known: list[Collection] = yield from collections()
    chosen = [i for i in infos if i.key.group == wanted]
    own = next((c for c in known if c.name == infos[0].key.collection), None)
    if own is not None and within is not None and not all(map(is_measured, chosen)):
        check_measured(within, own.indices_of(wanted))
    return chosen, own.product if own else ""


def _group_of(groups: dict[str, RasterInfo], bands: Sequence[str] | None) -> str:
    """The finest group that has all the bands."""
    fitting = {}
    for name, info in groups.items():
        known = {n for b in info.bands for n in (b.name, b.source)}
        if bands is None or known.issuperset(bands):
            fitting[name] = info.grid.xres
    if not fitting:
        listed = "; ".join(f"{name}: {', '.join(i.bands.names)}" for name, i in sorted(groups.items()))
        raise BandMismatch(f"no band group has all of {list(bands or ())}; there are {listed}")
    return min(fitting, key=lambda name: (fitting[name], name))


def job(request: Request, progress: Progress | None) -> Steps[dict[str, Any]]:
    """Long work: done here, or begun in the daemon and watched until it ends; its result."""
    reply: Reply = yield Send(request, (), progress)
    if set(reply.fields) != {"job"}:
        return reply.fields
    number, pause_s = reply.fields["job"], POLL_S
    while True:
        reply = yield Send(messages.Jobs(id=number))
        state = reply.fields["jobs"][0]
        if state["state"] == "done":
            return dict(state["result"])
        if state["state"] in ("failed", "cancelled", "lost"):
            raise _ended(state)
        if progress is not None:
            progress(state.get("what", ""), state.get("share", 0.0))
        yield Pause(pause_s)
        pause_s = min(pause_s * 1.5, POLL_S_MAX)


_FINAL = ("invalid-input", "not-found", "not-comparable", "not-installed", "forbidden")  # no use in going on


def _ended(state: dict[str, Any]) -> Exception:
    result = state.get("result") or {}
    kind = result.get("kind", "cancelled" if state["state"] == "cancelled" else "unavailable")
    message = str(result.get("message", f"it was {state['state']}")).removeprefix(f"job {state['id']} ")
    step = "" if kind in _FINAL else f"; `geostore resume {state['id']}` goes on with it"
    return from_kind(kind, f"job {state['id']}: {message}{step}")


def table(kind: str) -> Steps[pa.Table]:
    """Rows of one kind."""
    import pyarrow as pa

    reply: Reply = yield Send(asked(messages.Table, kind=kind))
    return pa.ipc.open_stream(pa.py_buffer(reply.arrays[0])).read_all()
