"""Rows in an order that no descriptor gives: by what a text has in common with their labels and facts, by distance."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from geostore.index.bits import Rows
from geostore.index.encoders import Doubles, Floats, TextEncoder, check_places, check_texts
from geostore.index.filters import ALL, Filter, check_columns, plan
from geostore.index.labels import called_as
from geostore.index.ranked import Match, Matches
from geostore.index.rows import TIME
from geostore.index.segment import Segment
from geostore.index.segments import Segments
from geostore.index.spatial import bounds_of
from geostore.partition.geohash import name_of

EARTH_KM = 6371.0088  # mean radius
_ROWS = 1 << 18  # scored at once
WORDS_MAX = 16  # of a text that are looked for one by one
_SAME = 0.55  # cosine from which a word is taken for one that people call a class by
_CALLED = 0.95  # such a word counts less than the name itself
_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_EMPTY = frozenset(
    # articles, prepositions, and what every text about pictures says
    (
        "a",
        "an",
        "and",
        "at",
        "by",
        "for",
        "from",
        "image",
        "images",
        "in",
        "is",
        "of",
        "on",
        "or",
        "over",
        "picture",
        "satellite",
        "scene",
        "that",
        "the",
        "to",
        "with",
    )
)
Score = Callable[[Segment, Rows], Floats]


class Words(TextEncoder, Protocol):
    """A text encoder that says from which cosine on two words have to do with each other."""

    @property
    def least(self) -> float:
        """The cosine."""
        ...


@dataclass(frozen=True)
class _Asked:
    """A text's words, and what they have in common with every name a row may have.

    Attributes:
        likeness: by name, lower case, (words,) float32, 0 where there is nothing.
        meant: the same of what people call classes of land, by that; less than that of the class's own name.
    """

    likeness: Mapping[str, Floats]
    meant: Mapping[str, Floats]

    def of(self, name: str) -> Floats:
        """Of a name, or what people call what it names, whichever is more."""
        called = (self.meant[word] for word in called_as(name))
        return np.asarray(np.max([self.likeness[name.lower()], *called], axis=0), np.float32)


def by_words(indexes: Sequence[Segments], text: str, encoder: Words, k: int, *, wanted: Filter = ALL) -> Matches:
    """The k rows whose labels, season, collection, sensor and band group have most in common with a text.

    Every word of the text, and the text as a whole, is compared with every name; a row has for each the best of its
    names, and the mean over words is its score. What is below the encoder's `least` counts nothing, and rows of score 0
    are no hits. A label counts as the groups of its legend that it is in, too, and as what people call such land:
    "town" finds "Continuous urban fabric", and "pond" a store's own label "lake".

    Returns:
        Matches by score, the newest first of equals; a distance of 0 bits each.

    Raises:
        InvalidInput: no text, or too long a one; the filter names what is not there.
    """
    asked = _asked(indexes, text, encoder)

    def score(segment: Segment, rows: Rows) -> Floats:
        best = np.zeros((len(next(iter(asked.likeness.values()), np.zeros(1))), len(rows)), np.float32)
        for column in segment.categories.values():
            table = np.stack([asked.of(name) if name else 0 * best[:, 0] for name in column.names], axis=1)
            best = np.maximum(best, table[:, column.codes[rows]])
        return np.asarray(_with_labels(segment, rows, asked, best).mean(axis=0), np.float32)

    return _ordered(indexes, k, wanted, score, least=1e-6)


def by_distance(indexes: Sequence[Segments], lon: float, lat: float, k: int, *, wanted: Filter = ALL) -> Matches:
    """The k rows whose cells are nearest to a place.

    Returns:
        Matches by distance, the newest first of equals: `score` is less the kilometres from the place to the nearest
        point of the cell on a sphere of the Earth's mean radius, 0 within; a distance of 0 bits each.

    Raises:
        InvalidInput: no place on the Earth; the filter names what is not there.
    """
    check_places(np.array([lon]), np.array([lat]))

    def score(segment: Segment, rows: Rows) -> Floats:
        cells, which = np.unique(segment.cells[rows], return_inverse=True)
        return (0 - distances_km(lon, lat, bounds_of(cells, segment.precision))).astype(np.float32)[which]

    return _ordered(indexes, k, wanted, score)


def distances_km(lon: float, lat: float, boxes: Doubles) -> Doubles:
    """(N,) kilometres from a place to the nearest point of each cell, (N, 4) west, south, east, north; 0 within.

    The nearest point of a cell's meridian is where a great circle meets it squarely, or a corner.
    """
    west, south, east, north = boxes.T
    beside = (lon - west) % 360 <= east - west
    upright = np.radians(np.maximum(np.maximum(south - lat, lat - north), 0)) * EARTH_KM
    edge = np.where((west - lon) % 360 < (lon - east) % 360, west, east)
    apart = np.radians(edge - lon)
    foot = np.degrees(np.arctan2(np.tan(np.radians(lat)), np.cos(apart)))
    inside = np.clip(np.where(np.abs(foot) <= 90, foot, np.sign(lat) * 90), south, north)
    across = np.min([_great_circle(lat, apart, at) for at in (inside, south, north)], axis=0)
    return np.asarray(np.where(beside, upright, across), np.float64)


def _great_circle(lat: float, apart: Doubles, to_lat: Doubles) -> Doubles:
    """Kilometres between latitudes in degrees on meridians that are `apart`, radians."""
    a, b = np.radians(lat), np.radians(to_lat)
    half = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(apart / 2) ** 2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1))), np.float64)


def _asked(indexes: Sequence[Segments], text: str, encoder: Words) -> _Asked:
    """Likeness of a text's words to all names there are, and to what people call these."""
    (whole,) = check_texts([text])
    words = [w for w in dict.fromkeys(_WORD.findall(whole.lower())) if w not in _EMPTY][:WORDS_MAX]
    names = sorted({name.lower() for index in indexes for part in index.parts for name in _names(part.segment)})
    if not names:
        return _Asked({}, {})
    called = sorted({word for name in names for word in called_as(name)})
    likeness = encoder.text([*words, whole.lower()]) @ encoder.text([*names, *called]).T
    near = np.where(likeness >= encoder.least, likeness, 0).astype(np.float32).T
    same = np.where(likeness >= max(encoder.least, _SAME), _CALLED * likeness, 0).astype(np.float32).T
    return _Asked(dict(zip(names, near[: len(names)], strict=True)), dict(zip(called, same[len(names) :], strict=True)))


def _names(segment: Segment) -> list[str]:
    """All names that a row may have."""
    legend = None if segment.labels is None else segment.labels.legend
    labels = [] if legend is None else [*legend.labels, *legend.groups]
    return [name for name in (*labels, *(n for c in segment.categories.values() for n in c.names)) if name]


def _with_labels(segment: Segment, rows: Rows, asked: _Asked, best: Floats) -> Floats:
    """(words, rows): the better of `best` and of what each row's labels give."""
    if segment.labels is None:
        return best
    legend = segment.labels.legend
    for position, label in enumerate(legend.labels):
        groups = [group for group, members in legend.groups.items() if label in members]
        gives = np.max([asked.of(name) for name in (label, *groups)], axis=0)
        if gives.any():
            has = (segment.labels.words[position // 64, rows] >> np.uint64(position % 64)) & np.uint64(1) != 0
            best[:, has] = np.maximum(best[:, has], gives[:, None])
    return best


def _ordered(indexes: Sequence[Segments], k: int, wanted: Filter, score: Score, *, least: float = -np.inf) -> Matches:
    """The k rows of the largest scores, at least `least`."""
    plans: list[Any] = []
    found: list[Match] = []
    for index in indexes:
        check_columns([part.segment for part in index.parts], wanted)
        for part in index.parts:
            plans.append(plan(part.segment, wanted, alive=part.alive))
            found += _best(part.segment, plans[-1].selection.row_numbers(), k, score, least)
    found.sort(key=lambda m: (-m.score, -m.time_us, m.key, m.geohash))
    return Matches(found[:k], sum(p.selection.count for p in plans), tuple(plans))


def _best(segment: Segment, rows: Rows, k: int, score: Score, least: float) -> list[Match]:
    """The k best rows of a segment, the newest of equals."""
    if not len(rows):
        return []
    parts = [score(segment, rows[at : at + _ROWS]) for at in range(0, len(rows), _ROWS)]
    scores = np.concatenate(parts)
    times: npt.NDArray[Any] = segment.numbers[TIME].values[rows]
    if k < len(rows):
        least = max(least, float(np.partition(scores, len(scores) - k)[len(scores) - k]))
    kept = np.flatnonzero(scores >= least)
    owners = segment.owners[rows[kept]]
    order = kept[np.lexsort((segment.cells[rows[kept]], owners, -times[kept], -scores[kept]))][:k]
    return [
        Match(segment.keys[int(segment.owners[r])], name_of(int(segment.cells[r]), segment.precision), s, 0, segment, r)
        for r, s in zip(rows[order].tolist(), scores[order].tolist(), strict=True)
    ]
