"""Cells ranked by the votes of their parts, as `similar` answers them."""

from __future__ import annotations

from typing import Any

import numpy as np

from geostore.errors import InvalidInput
from geostore.index.groups import Floats
from geostore.index.ranked import Query, explained
from geostore.index.segment import Segment
from geostore.index.votes import Elected, Layer, elected
from geostore.keys import RasterKey
from geostore.node.search.chosen import filter_of
from geostore.node.search.labelling import Labelling
from geostore.node.search.levels import CHIP, LETTERS, Levels
from geostore.node.search.models import SearchModel
from geostore.query import messages
from geostore.query.messages import Example, Reply

VOTES_MAX = 32  # listed of one cell


def by_votes(
    model: SearchModel, levels: Levels, request: messages.Similar, query: Query, labelling: Labelling
) -> Reply:
    """The answer at level "cell": a hit is a cell, named by the raster whose part weighs most.

    One stored raster as the only example is looked for by its parts too, each with voters of its own.

    Raises:
        InvalidInput: a radius, which is about rows and not about cells.
    """
    if request.radius is not None:
        raise InvalidInput(f"radius {request.radius} limits rasters or chips, and cells have several; leave it out")
    layers = [Layer(index, LETTERS[kind]) for kind in LETTERS for index in levels.at(kind)]
    found = elected(
        layers,
        query,
        _points(levels, request, query),
        request.k,
        wanted=filter_of(request.wanted, [layer.index for layer in layers]),
        without=[e.key.geohash for e in (*request.like, *request.unlike) if e.key is not None],
    )
    fields: dict[str, Any] = {
        "space": model.to_fields(),
        "level": request.level,
        "count": found.count,
        "read": found.read,
        "hits": [_cell_fields(cell, labelling) for cell in found.found],
    }
    if request.explain:
        fields["plan"] = explained(found.plans)
    distances = np.array([c.distance for c in found.found], np.int32)
    scores = np.array([c.score for c in found.found], np.float32)
    return Reply(fields, (distances, scores, query.descriptor))


def _points(levels: Levels, request: messages.Similar, query: Query) -> Floats:
    """(P, D): the query, and the chips of the one raster that is meant, if one is."""
    alone = request.like[0] if len(request.like) == 1 and not request.unlike else None
    whole = np.asarray(query.descriptor, np.float32)[None]
    if alone is None or alone.key is None or alone.cell not in (None, alone.key.geohash):
        return whole
    return np.concatenate([whole, *_chips(levels, alone)])


def _chips(levels: Levels, example: Example) -> list[Floats]:
    assert example.key is not None
    key = RasterKey(**vars(example.key)).to_bytes()
    found = [index.take([key]) for index in levels.at(CHIP)]
    return [
        (rows.descriptors.astype(np.float32) * rows.scales[:, None]).astype(np.float32)
        for rows in found
        if rows is not None and rows.descriptors is not None and rows.scales is not None
    ]


def _cell_fields(cell: Elected, labelling: Labelling) -> dict[str, Any]:
    """One hit: the raster of the heaviest vote, the cell, and every vote."""
    first = cell.votes[0]
    votes = [
        {
            **vars(RasterKey.from_bytes(vote.key)),
            "cell": vote.geohash,
            "score": float(np.float32(vote.score)),
            "weight": float(np.float32(vote.weight)),
        }
        for vote in cell.votes[:VOTES_MAX]
    ]
    return {**hit_fields(first.key, cell.geohash, first.segment, first.row, labelling), "votes": votes}


def hit_fields(key: bytes, cell: str, segment: Segment, row: int, labelling: Labelling) -> dict[str, Any]:
    """One hit: the raster's key, the cell of the row, the share of it that may be used, labels."""
    usable = float(segment.numbers["valid_fraction"].values[row])
    labels = list(labelling.names.get(key, ()))
    return {**vars(RasterKey.from_bytes(key)), "cell": cell, "valid_fraction": usable, "labels": labels}
