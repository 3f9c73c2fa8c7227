"""The verbs of similarity search as steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geostore.client.given import Filters, example_of, key_given, wanted_of
from geostore.client.hits import Decoded, Fetch, Hits, PlaceChanges, read_changes, read_hits
from geostore.client.steps import Send, Steps, asked, job
from geostore.errors import InvalidInput
from geostore.keys import RasterKey
from geostore.query import messages
from geostore.query.facts import read_raster
from geostore.query.messages import Array, Example, Key, Progress, Reply

Level = Literal["raster", "chip", "cell"]
HeadName = Literal["rotation", "pca-sign", "itq", "milan", "kernel"]
LearnedFrom = Literal["labels", "unlabelled"]
LegendName = Literal["own", "corine-2018"]
_KEYS = 4096  # labelled at once


def similar(
    to: Any, like: Sequence[Any], unlike: Sequence[Any], filters: Filters, fetch: Fetch, **fields: Any
) -> Steps[Hits]:
    """Find what looks like the examples, or what words or a place name."""
    asked_for = [
        asked(Example, **{side: fields.pop(side)}) for side in ("text", "location") if fields.get(side) is not None
    ]
    fields = {name: value for name, value in fields.items() if value is not None}
    liked = [*([] if to is None else [to]), *_listed("like", like)]
    if not liked and not asked_for and not {"words", "near"} & set(fields):
        raise InvalidInput("nothing to look for; give `to`, examples as `like`, `text`, `words`, `near` or `location`")
    wanted, arrays = wanted_of(filters), list[Array]()
    examples: list[list[Example]] = []
    for given in (liked, _listed("unlike", unlike)):
        found = []
        for item in given:
            example: Example = yield from example_of(item, arrays, filters)
            found.append(example)
        examples.append(found)
    like = [*examples[0], *asked_for]
    request = asked(messages.Similar, like=like, unlike=examples[1], wanted=wanted, **fields)
    reply: Reply = yield Send(request, arrays)
    return read_hits(reply, fetch)


def _listed(name: str, given: Any) -> list[Any]:
    """Examples from a list of them.

    Raises:
        InvalidInput: it is one example, whose parts would be taken for examples.
    """
    stored = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str) and not Path(given[0]).exists()
    if stored or not isinstance(given, Iterable) or isinstance(given, str | Path) or hasattr(given, "data_vars"):
        raise InvalidInput(f"{name} = {str(given)[:80]!r} is one example; give a list of them, or one as `to`")
    return list(given)


def changes(geohash: str, to: Any, filters: Filters) -> Steps[PlaceChanges]:
    """Follow one place through time."""
    wanted, arrays = wanted_of(filters), list[Array]()
    example: Example | None = None
    if to is not None:
        example = yield from example_of(to, arrays, filters)
    request = asked(messages.Changes, geohash=geohash, to=example, wanted=wanted)
    reply: Reply = yield Send(request, arrays)
    return read_changes(reply)


def index_upgrade(
    encoder: str | Path | None, progress: Progress | None, fields: dict[str, Any]
) -> Steps[dict[str, Any]]:
    """A new generation of what is searched; an encoder's folder is put into the store first."""
    named = None if encoder is None else str(encoder)
    if named is not None and (Path(named).is_dir() or isinstance(encoder, Path)):
        from geostore.index.encoders.folder import bundle

        data = np.frombuffer(bundle(Path(named)), np.uint8)
        reply: Reply = yield Send(messages.PutEncoder(), [data], progress)
        named = str(reply.fields["encoder"])
    request = asked(messages.IndexUpgrade, **fields, encoder=named)
    found: dict[str, Any] = yield from job(request, progress)
    return found


def label(
    rasters: Iterable[Any], labels: Sequence[str], legend: LegendName, who: str, reason: str
) -> Steps[dict[str, int]]:
    """Label rasters, in requests of as many as one takes."""
    keys: list[Key] = []
    for given in rasters:
        known: tuple[Key, str | None] | None = yield from key_given(given, Filters())
        if known is None:
            raise InvalidInput(f"{str(given)[:80]!r} names no raster; give a hit, facts, a key, or (geohash, time)")
        keys.append(known[0])
    total = {"labelled": 0, "unchanged": 0}
    for start in range(0, len(keys), _KEYS):
        fields = {
            "keys": keys[start : start + _KEYS],
            "labels": list(labels),
            "legend": legend,
            "who": who,
            "reason": reason,
        }
        reply: Reply = yield Send(asked(messages.Label, **fields))
        total = {name: count + int(reply.fields[name]) for name, count in total.items()}
    return total


def decode_keys(keys: Sequence[RasterKey], bands: Sequence[str] | None) -> Steps[list[Decoded]]:
    """Each raster in a request of its own: however large it is, it passes."""
    found = []
    for key in keys:
        request = asked(messages.Decode, keys=[Key(**vars(key))], bands=None if bands is None else list(bands))
        reply: Reply = yield Send(request)
        found.append(read_raster(reply.fields["rasters"][0], reply.arrays))
    return found
