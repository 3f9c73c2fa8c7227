"""similar: what looks most like the examples, among the rasters a filter leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from geostore.index.ranked import explained, ranked
from geostore.index.rerank import CANDIDATES
from geostore.keys import RasterKey
from geostore.node.search.chosen import filter_of
from geostore.node.search.examples import model_for, query_of
from geostore.node.search.labelling import check_asked
from geostore.node.search.ordering import by_order, words_of
from geostore.node.search.voting import by_votes, hit_fields
from geostore.query import messages
from geostore.query.messages import Array, Progress, Reply

if TYPE_CHECKING:
    from geostore.node.node import Node

ACROSS = 500_000  # candidates for texts and locations: signatures were made for images, so they choose little


def similar(node: Node, request: messages.Similar, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """The hits, most similar first; examples that are stored rasters, chips, or their cells, are not among them.

    The arrays are each hit's distance in bits, its score, and the descriptor that was looked near.

    Raises:
        NotFound: a raster given as an example is not stored, or no collection or band group has the name asked for.
        NotComparable: examples of another space. InvalidInput: a filter or an example that is none; an index that is
            behind is brought level first.
    """
    words = words_of(node, request)
    if words is not None or request.near is not None:
        return by_order(node, request, words, progress)
    model = model_for(node, [*request.like, *request.unlike], arrays, request.wanted)
    levels = node.following.level(model, progress)
    query = query_of(model, levels, request.like, request.unlike, arrays)
    labelling = node.following.spoken().labelling
    check_asked(request.wanted, labelling.legend)
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
        candidates=ACROSS if any(e.text or e.location for e in request.like) else CANDIDATES,
        threads=node.settings.threads,
        scan=node.settings.scan,
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
