"""similar: what looks most like the examples, among the rasters a filter leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geostore.errors import NotComparable
from geostore.index.labels import Legend
from geostore.index.ranked import explained, ranked
from geostore.keys import RasterKey
from geostore.node.search.chosen import filter_of
from geostore.node.search.examples import model_for, query_of
from geostore.node.search.voting import by_votes, hit_fields
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply, Wanted

if TYPE_CHECKING:
    from geostore.node.node import Node


def similar(node: Node, request: messages.Similar, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """The hits, most similar first; examples that are stored rasters, chips, or their cells, are not among them.

    The arrays are each hit's distance in bits, its score, and the descriptor that was looked near.

    Raises:
        NotFound: a raster given as an example is not stored. NotComparable: examples of another space.
        InvalidInput: a filter or an example that is none; an index that is behind is brought level first.
    """
    model = model_for(node, [*request.like, *request.unlike], arrays, request.wanted)
    levels = node.following.level(model, progress)
    query = query_of(model, levels, request.like, request.unlike, arrays)
    labelling = node.following.spoken().labelling
    check_labels(request.wanted, labelling.legend)
    if request.level == "cell":
        return by_votes(model, levels, request, query, labelling)
    indexes = levels.at(request.level)
    given = [(RasterKey(**vars(e.key)), e.cell) for e in (*request.like, *request.unlike) if e.key is not None]
    found = ranked(
        indexes,
        query,
        request.k,
        wanted=filter_of(request.wanted, indexes),
        radius=request.radius,
        without=frozenset(key.to_bytes() for key, cell in given if cell in (None, key.geohash)),
        spared=frozenset((key.to_bytes(), cell) for key, cell in given if cell not in (None, key.geohash)),
        threads=node.settings.threads,
    )
    fields = {
        "space": model.to_fields(),
        "level": request.level,
        "count": found.count,
        "hits": [hit_fields(m.key, m.geohash, m.segment, m.row, labelling) for m in found.found],
    }
    if request.explain:
        fields["plan"] = explained(found.plans)
    distances = np.array([m.distance for m in found.found], np.int32)
    scores = np.array([m.score for m in found.found], np.float32)
    return Reply(fields, (distances, scores, query.descriptor))


def check_labels(wanted: Wanted, legend: Legend | None) -> None:
    """Raise InvalidInput for a label nothing can have, NotComparable where nothing was ever labelled."""
    if wanted.labels is None:
        return
    if legend is None:
        raise NotComparable(
            f"labels {wanted.labels.names} cannot be asked for: nothing is labelled; see `geostore label`"
        )
    for name in wanted.labels.names:
        legend.positions(name)
