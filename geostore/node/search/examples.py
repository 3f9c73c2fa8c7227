"""What a question gives as examples, as one point to look near: stored rasters, pixels, descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.errors import BadRequest, InvalidInput, NotComparable, NotFound
from geostore.index.descriptors import PIXELS_MIN
from geostore.index.encoders import LocationEncoder, TextEncoder, direction
from geostore.index.ranked import Query
from geostore.keys import RasterKey, check_geohash
from geostore.node.search.chosen import meant
from geostore.node.search.levels import LETTERS, Levels
from geostore.node.search.models import SearchModel
from geostore.partition.geohash import code_of
from geostore.query.messages import Array, Example, Wanted, check_arrays
from geostore.raster import Band, Bands

if TYPE_CHECKING:
    from geostore.node.node import Node

Floats = npt.NDArray[np.float32]
UNLIKE = 0.5  # weight of the counter-examples
_BAND = frozenset(f.name for f in fields(Band))


def model_for(node: Node, examples: Sequence[Example], arrays: tuple[Array, ...], wanted: Wanted) -> SearchModel:
    """What all examples can be compared by.

    Raises:
        NotFound: nothing is stored, or not the raster an example names, or no such collection or band group.
        NotComparable: examples of different bands, or of bands that nothing stored, or nothing asked for, has.
    """
    known = {name: model for name, (model, _) in node.following.models().items()}
    if not known:
        raise NotFound("nothing is stored yet, so nothing can be similar; run `geostore ingest` first")
    given = [_bands_of(node, example) for example in examples]
    models = [node.following.model(bands) for bands in given if bands is not None]
    if not models:
        return _only(node, known, examples, arrays, wanted)
    for model in models[1:]:
        _check_same(models[0], model)
    if models[0].name not in known:
        there = "; ".join(sorted(_said(m.bands) for m in known.values()))
        raise NotComparable(
            f"an example has bands {_said(models[0].bands)}; this store has {there}: give the bands of one of these, "
            "in this order"
        )
    _check_meant(node, models[0], wanted)
    return models[0]


def _check_meant(node: Node, model: SearchModel, wanted: Wanted) -> None:
    """Raise NotComparable where nothing that is asked for has the bands of the examples."""
    names = meant(node, wanted)
    if names is not None and model.name not in names:
        which = " ".join(name for name in (wanted.collection, wanted.group) if name is not None)
        raise NotComparable(
            f"an example has bands {_said(model.bands)}, and those of {which} are others; give one of these, or leave "
            "collection and group out"
        )


def check_like(node: Node, model: SearchModel, example: Example, place: str) -> None:
    """Check that an example can be compared with what is stored at a place.

    Raises:
        NotFound: the raster it names is not stored. NotComparable: its bands are others than the place's.
    """
    bands = _bands_of(node, example)
    if bands is not None and node.following.model(bands).name != model.name:
        raise NotComparable(
            f"the example has bands {_said(bands)}; {place} has {_said(model.bands)}: give these, in this order"
        )


def _check_same(first: SearchModel, other: SearchModel) -> None:
    """Raise NotComparable where two examples are described by different models."""
    if first.name != other.name:
        raise NotComparable(
            f"one example has bands {_said(first.bands)}, another {_said(other.bands)}: what tells them apart is not "
            "what they show; ask about one kind"
        )


def _said(bands: Bands) -> str:
    """What a message says of bands: names, and kinds other than reflectance."""
    return ", ".join(b.name if b.kind == "reflectance" else f"{b.name} ({b.kind})" for b in bands)


def _bands_of(node: Node, example: Example) -> Bands | None:
    """The bands of an example; None of a descriptor."""
    if example.key is not None:
        key = example.key
        if node.store.current_number(RasterKey(**vars(key))) is None:
            raise NotFound(f"no raster {RasterKey(**vars(key))}; `geostore rasters {key.geohash}` lists what there is")
        return node.store.collection(key.collection).groups[key.group]
    return None if example.pixels is None else read_bands(example.bands)


def _only(
    node: Node, known: dict[str, SearchModel], examples: Sequence[Example], arrays: tuple[Array, ...], wanted: Wanted
) -> SearchModel:
    """The model of descriptors that come without bands: by the space they name, the collection, or their width."""
    for example in examples:
        if example.space in known:
            return known[example.space]
    asked = {side for side in ("text", "location") if any(getattr(e, side) is not None for e in examples)}
    fitting = [model for model in known.values() if asked <= set(model.sides)]
    if not fitting:
        raise NotComparable(
            f"no index here has an encoder with a {' and '.join(sorted(asked))} side; see `geostore index upgrade "
            "--encoder`, or ask by `words` or `near`"
        )
    if (names := meant(node, wanted)) is not None:
        fitting = [model for model in fitting if model.name in names]
    if len(fitting) > 1 and examples[0].vector is not None:
        fitting = _as_wide(fitting, _position(arrays, examples[0].vector, "vector").size)
    if len(fitting) != 1:
        raise NotComparable(
            f"what is looked for could mean any of {len(fitting)} sets of bands; give its space, or its collection and "
            "band group"
        )
    return fitting[0]


def _as_wide(models: Sequence[SearchModel], width: int) -> list[SearchModel]:
    """The models whose descriptors have `width` numbers; NotComparable where there is none."""
    found = [model for model in models if model.space.width == width]
    if not found:
        there = sorted({f"{m.space.width} ({', '.join(m.bands.names)})" for m in models})
        raise NotComparable(
            f"a vector of {width} numbers; descriptors here have {' or '.join(there)}: give one of these"
        )
    return found


def _position(arrays: tuple[Array, ...], at: int | None, what: str) -> Array:
    assert at is not None
    check_arrays(arrays, at, what)
    return arrays[at]


def read_bands(found: Sequence[dict[str, Any]]) -> Bands:
    """Bands as a request gives them.

    Raises:
        BadRequest: a band is not described as `rasters` describes one.
    """
    try:
        return Bands(tuple(Band(**{k: v for k, v in band.items() if k in _BAND}) for band in found))
    except TypeError as error:
        raise BadRequest(f"bands of an example: {error}; give each as `rasters` describes it") from error


def query_of(
    model: SearchModel, levels: Levels, like: Sequence[Example], unlike: Sequence[Example], arrays: tuple[Array, ...]
) -> Query:
    """The point to look near: the mean of what is liked, less half the mean of what is not, of length 1.

    References:
        Rocchio 1971, "Relevance feedback in information retrieval"; weights 1 and 0.5.

    Raises:
        NotComparable: a vector of another width or space. InvalidInput: NaN, too few pixels, or nothing remains.
    """
    point = np.mean([_vector(model, levels, e, arrays) for e in like], axis=0)
    if unlike:
        point = point - UNLIKE * np.mean([_vector(model, levels, e, arrays) for e in unlike], axis=0)
    length = float(np.linalg.norm(point))
    if length < 1e-6:
        raise InvalidInput("examples and counter-examples cancel out; leave some of them out")
    small, scales, words = model.pack((point / length).astype(np.float32)[None])
    vector = small[0].astype(np.float32) * scales[0]  # as rows are: what is the same has score 1
    return Query(np.ascontiguousarray(words.T), vector, model.space)


def _vector(model: SearchModel, levels: Levels, example: Example, arrays: tuple[Array, ...]) -> Floats:
    """(D,) of length 1."""
    if example.key is not None:
        return vector_of(levels, RasterKey(**vars(example.key)), example.cell)
    if example.vector is not None:
        return _given(model, example, arrays)
    if example.text is not None or example.location is not None:
        return _encoded(model, example)
    pixels = _position(arrays, example.pixels, "pixels")
    valid = _position(arrays, example.valid, "valid").astype(bool)
    bands = read_bands(example.bands)
    if pixels.ndim != 3 or pixels.dtype != bands.dtype:
        raise InvalidInput(
            f"pixels {pixels.shape} {pixels.dtype} of an example; give (bands, height, width) {bands.dtype}"
        )
    if pixels.dtype.kind == "f" and not np.isfinite(pixels[:, valid]).all():
        raise InvalidInput("an example has usable pixels that are not finite; mask them")
    made = model.descriptor.describe(pixels, valid, bands)
    if not made.any():
        raise _too_few("the example")
    return made


def _encoded(model: SearchModel, example: Example) -> Floats:
    """A text or a location by the encoder that described the rasters.

    Raises:
        NotComparable: the index has no encoder, or one without that side.
    """
    encoder = model.encoder
    if example.text is not None and "text" in model.sides:
        assert isinstance(encoder, TextEncoder)
        return np.asarray(encoder.text([example.text])[0], np.float32)
    if example.location is not None and "location" in model.sides:
        assert isinstance(encoder, LocationEncoder)
        lon, lat = np.array(example.location, np.float64)[:, None]
        return np.asarray(encoder.location(lon, lat)[0], np.float32)
    raise NotComparable(
        f"{model.space.descriptor} describes rasters here, which no text or location can be compared with; see "
        "`geostore index upgrade --encoder`, or ask by `words` or `near`"
    )


def vector_of(levels: Levels, key: RasterKey, cell: str | None) -> Floats:
    """The descriptor of a stored raster, or of its chip `cell`, from the index, (D,).

    Raises:
        InvalidInput: it has too few usable pixels to be described, or no such chip.
    """
    geohash = key.geohash if cell is None else check_geohash(cell)
    letters = len(geohash) - len(key.geohash)
    kinds = [kind for kind in LETTERS if LETTERS[kind] == letters]
    indexes = [index for kind in kinds for index in levels.at(kind) if index.precision == len(geohash)]
    strange = InvalidInput(f"{cell!r} is no chip of {key}; give a geohash of one letter more")
    if letters and not indexes:
        raise strange
    for found in (index.take([key.to_bytes()]) for index in indexes):
        if found is None or found.descriptors is None or found.scales is None:
            continue
        for at in np.flatnonzero(found.cells == code_of(geohash)):
            return np.asarray(found.descriptors[at].astype(np.float32) * found.scales[at])
    raise _too_few(f"{key} at {geohash}") if geohash.startswith(key.geohash) else strange


def _given(model: SearchModel, example: Example, arrays: tuple[Array, ...]) -> Floats:
    vector = _position(arrays, example.vector, "vector")
    if example.space and example.space != model.name:
        raise NotComparable(f"a vector of space {example.space}; this search is in {model.name}: describe it anew")
    if vector.shape != (model.space.width,) or vector.dtype.kind != "f":
        raise NotComparable(
            f"a vector of shape {vector.shape} {vector.dtype}; descriptors of {model.space.descriptor} here are "
            f"({model.space.width},) float32"
        )
    return direction(vector)


def _too_few(what: str) -> InvalidInput:
    return InvalidInput(f"{what} has fewer than {PIXELS_MIN} usable pixels, so nothing can be like it; choose another")
