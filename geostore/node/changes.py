"""changes: one place over time, when it changed and when it looked like an example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from geostore.errors import InvalidInput, NotFound
from geostore.keys import PartitionKey, RasterKey, check_geohash
from geostore.node.search.chosen import filter_of
from geostore.node.search.examples import check_like, query_of
from geostore.node.search.labelling import check_asked
from geostore.node.search.levels import CHIP, RASTER, Levels
from geostore.node.search.models import SearchModel
from geostore.node.search.series import Line, line_of, peaks, shift_at, shifts, steps, without_season
from geostore.query import messages
from geostore.query.messages import AreaFields, Array, Progress, Reply, Wanted

if TYPE_CHECKING:
    from geostore.node.node import Node


def changes(node: Node, request: messages.Changes, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """The dates of a cell, or of a chip of it, ascending; arrays: likeness, step and shift of each.

    `likeness` is the cosine with the example, or with the newest date. `step` is 1 - cosine with the date before, NaN
    for the first. `shift` is 1 - cosine of what the five dates before and the five from this one on look like, NaN with
    fewer than three of either, seasons taken off where each was seen in two years or more; its peaks are the changes.

    Raises:
        NotFound: nothing is stored there, or not the example. InvalidInput: several cells are meant. NotComparable: an
            example of other bands, or of another space.
    """
    partition = _partition(node, request)
    model = node.following.model(node.store.collection(partition.collection).groups[partition.group])
    levels = node.following.level(model, progress)
    labelling = node.following.spoken().labelling
    check_asked(request.wanted, labelling.legend)
    example = _example(node, model, levels, request, arrays)
    fine = len(request.geohash) > len(partition.geohash)
    wanted = _within(request.wanted, partition, request.geohash)
    line = _line(levels, CHIP if fine else RASTER, wanted, request.geohash)
    even, deseasoned = without_season(line)
    moved = shifts(even)
    changed = peaks(moved)
    where = _where(levels, wanted, partition, request, line, changed) if changed and not fine else {}
    rows = [
        {
            **vars(RasterKey.from_bytes(key)),
            "valid_fraction": float(usable),
            "labels": list(labelling.names.get(key, ())),
            "changed": i in changed,
            "where": where.get(i, request.geohash),
        }
        for i, (key, usable) in enumerate(zip(line.keys, line.usable, strict=True))
    ]
    fields = {"space": model.to_fields(), "geohash": request.geohash, "deseasoned": deseasoned, "rasters": rows}
    return Reply(fields, (_likeness(line, example), steps(line), moved))


def _partition(node: Node, request: messages.Changes) -> PartitionKey:
    """The one partition a place means: of several band groups the one with the finest pixels."""
    geohash, wanted = check_geohash(request.geohash), request.wanted
    held = node.store.partitions_at(geohash, wanted.collection, wanted.group)
    if not held:
        raise NotFound(f"nothing is stored at {geohash!r}; `geostore status --partitions` lists what is")
    for what in ("collection", "geohash"):
        names = sorted({getattr(p, what) for p in held})
        if len(names) > 1:
            raise InvalidInput(f"{geohash!r} means {len(names)} of {what}: {', '.join(names[:8])}; name one")
    if len(geohash) > len(held[0].geohash) + 1:
        raise InvalidInput(f"{geohash!r} is finer than a chip; use {len(held[0].geohash)} or one letter more")
    return min(held, key=lambda p: (node.store.codec(p, 0).cell.xres, p.group))


def _within(wanted: Wanted, partition: PartitionKey, geohash: str) -> Wanted:
    if wanted.within is not None:
        raise InvalidInput("a place is an area already; leave `within` out, or ask `similar`")
    area = AreaFields(geohashes=[geohash])
    return wanted.model_copy(update={"collection": partition.collection, "group": partition.group, "within": area})


def _line(levels: Levels, kind: str, wanted: Wanted, geohash: str) -> Line:
    depth = len(geohash)
    indexes = [i for i in levels.at(kind) if i.precision >= depth] if kind == RASTER else levels.at(kind)
    return line_of(indexes, filter_of(wanted, indexes))


def _where(
    levels: Levels, wanted: Wanted, partition: PartitionKey, request: messages.Changes, line: Line, changed: set[int]
) -> dict[int, str]:
    """The chip that moved most at each change."""
    indexes = [i for i in levels.at(CHIP) if i.precision == len(partition.geohash) + 1]
    chips = line_of(indexes, filter_of(wanted, indexes))
    found: dict[int, str] = {}
    for i in changed:
        moved = {cell: shift_at(chips.of(cell), int(line.times_us[i])) for cell in sorted(set(chips.cells))}
        if moved:
            found[i] = max(moved, key=lambda cell: moved[cell])
    return found


def _example(
    node: Node, model: SearchModel, levels: Levels, request: messages.Changes, arrays: tuple[Array, ...]
) -> Any:
    """(D,) float32 of the example; None without one."""
    if request.to is None:
        return None
    check_like(node, model, request.to, request.geohash)
    return query_of(model, levels, [request.to], (), arrays).descriptor


def _likeness(line: Line, example: Any) -> Any:
    """(N,) float32 cosines with the example, or with the newest date."""
    if not len(line):
        return np.zeros(0, np.float32)
    return (line.vectors @ (line.vectors[-1] if example is None else example)).astype(np.float32)
