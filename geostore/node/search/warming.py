"""What the first question to an index would wait for, done beforehand: segments opened, compiled kernels loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from geostore.index.encoders import unit
from geostore.index.filters import ALL, Filter
from geostore.index.ranked import Query, ranked
from geostore.index.rows import TIME, season_names
from geostore.index.segment import Segment
from geostore.index.spatial import where
from geostore.index.votes import Layer, elected
from geostore.keys import from_time_us
from geostore.node.search.levels import FOLDER, LETTERS, RASTER, Levels
from geostore.partition.geohash import bounds, name_of

if TYPE_CHECKING:
    from geostore.node.node import Node

HITS = 20
_DAY = timedelta(days=1)


def warm(node: Node, stopped: Callable[[], bool] = lambda: False) -> int:
    """Ask every index on the disk that is level with the tables what users ask, once; nothing is made or described.

    Args:
        node: the store.
        stopped: asked between two questions; True ends it.

    Returns:
        Questions asked; 0 where nothing has been searched yet.
    """
    local, asked = node.store.files.local, 0
    if local is None or not (local / FOLDER).is_dir():
        return 0
    for model, _ in node.following.models().values():
        found, behind = node.following.on_disk(model)
        if behind or not found.at(RASTER):
            continue
        levels = node.following.level(model)
        for ask in _questions(levels):
            if stopped():
                return asked
            ask()
            asked += 1
    return asked


def _questions(levels: Levels) -> Iterator[Callable[[], object]]:
    """One question of each kind that has kernels of its own."""
    index = levels.at(RASTER)[0]
    held = [p.segment for p in index.parts if len(p.segment) and p.segment.descriptors is not None]
    if not held:
        return
    segment = max(held, key=len)
    query = _query(segment)
    for wanted in _filters(segment):
        yield lambda f=wanted: ranked([index], query, HITS, wanted=f)  # type: ignore[misc]
    yield lambda: ranked([index], query, HITS, radius=2)  # small: looked up by key lists, where there are any
    yield lambda: elected(_layers(levels), query, query.descriptor[None], HITS, wanted=_here(segment))


def _layers(levels: Levels) -> list[Layer]:
    return [Layer(index, LETTERS[kind]) for kind in LETTERS for index in levels.at(kind)]


def _query(segment: Segment) -> Query:
    """The first row."""
    assert segment.descriptors is not None
    vector = segment.descriptors[0].astype(np.float32)
    return Query(np.ascontiguousarray(segment.signatures[:, :1].T), unit(vector), segment.space)


def _filters(segment: Segment) -> list[Filter]:
    """Everything; an area; a day; a season of the area; a number."""
    day = from_time_us(int(segment.numbers[TIME].values[0]))
    first = season_names()[:1]
    return [
        ALL,
        _here(segment),
        Filter(start=day - _DAY, end=day + _DAY),
        Filter(seasons=tuple(season_names()[:2])),
        Filter(seasons=tuple(first), within=_here(segment).within),
        Filter(numbers={"valid_fraction": (0.5, None)}),
        Filter(numbers={"valid_fraction": (0.99, None)}, seasons=tuple(first)),
    ]


def _here(segment: Segment) -> Filter:
    """The cell of the first row."""
    return Filter(within=where(bounds(name_of(int(segment.cells[0]), segment.precision))))
