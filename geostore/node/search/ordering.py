"""Rasters in the order of words or of distance, as `similar` answers them: no descriptor is compared."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore import plugins
from geostore.errors import InvalidInput, NotComparable, NotFound
from geostore.index.encoders import GROUP
from geostore.index.encoders.lexical import Lexical
from geostore.index.encoders.static import Static, installed
from geostore.index.ordered import Words, by_distance, by_words
from geostore.index.ranked import explained
from geostore.index.segments import Segments
from geostore.node.search.chosen import filter_of, meant
from geostore.node.search.labelling import check_asked
from geostore.node.search.voting import hit_fields
from geostore.query import messages
from geostore.query.messages import Progress, Reply

if TYPE_CHECKING:
    from geostore.node.node import Node


def words_of(node: Node, request: messages.Similar) -> str | None:
    """The words that are looked for: `words`, or a text alone where no index has an encoder with a text side."""
    if request.words is not None or len(request.like) != 1 or request.unlike:
        return request.words
    any_side = any("text" in model.sides for model, _ in node.following.models().values())
    return None if any_side else request.like[0].text


def by_order(node: Node, request: messages.Similar, words: str | None, progress: Progress) -> Reply:
    """The answer to `words`, or to `near`; over every set of bands that the conditions leave.

    Raises:
        NotFound: nothing is stored, or no such collection or group. InvalidInput: a radius, which is of signatures, or
            cells, which have no words.
    """
    if request.radius is not None or request.level == "cell":
        raise InvalidInput("words and distances are of rasters or chips, and have no radius; use such a `level`")
    indexes = _indexes(node, request, progress)
    labelling = node.following.spoken().labelling
    check_asked(request.wanted, labelling.legend)
    wanted = filter_of(request.wanted, indexes)
    if words is not None:
        encoder = words_encoder(node.settings.text_encoder)
        found = by_words(indexes, words, encoder, request.k, wanted=wanted)
        by = f"words: {encoder.name}"
    else:
        assert request.near is not None
        found, by = by_distance(indexes, *request.near, request.k, wanted=wanted), "distance"
    hits = [hit_fields(m.key, m.geohash, m.segment, m.row, labelling) for m in found.found]
    space = {"name": "", "generation": 0, "descriptor": by, "head": "", "bits": 0, "width": 0, "bands": []}
    fields: dict[str, Any] = {"space": {**space, "encoder": None, "sides": []}, "level": request.level}
    fields |= {"count": found.count, "hits": hits}
    if request.explain:
        fields["plan"] = explained(found.plans)
    scores = np.array([m.score for m in found.found], np.float32)
    return Reply(fields, (np.zeros(len(scores), np.int32), scores, np.zeros(0, np.float32)))


@cache
def words_encoder(name: str = "") -> Words:
    """The text encoder for words: the one that is named, else the best that is installed.

    Raises:
        NotInstalled: nothing of that name is. NotComparable: it cannot say what has to do with what.
    """
    if not name:
        return Static() if installed() else Lexical()
    found = plugins.find(GROUP, name)
    if not hasattr(found, "text") or not hasattr(found, "least"):
        raise NotComparable(f"encoder {name} has no text side with a `least` cosine; use wordllama or lexical")
    return found  # type: ignore[no-any-return]


def _indexes(node: Node, request: messages.Similar, progress: Progress) -> list[Segments]:
    """Indexes of every set of bands, level with the tables."""
    models = node.following.models()
    if not models:
        raise NotFound("nothing is stored yet, so nothing can be found; run `geostore ingest` first")
    names = meant(node, request.wanted)
    chosen = [model for name, (model, _) in models.items() if names is None or name in names]
    return [index for model in chosen for index in node.following.level(model, progress).at(request.level)]
