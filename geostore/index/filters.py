"""Which rows a question is about, decided before the search: area, time, season, names, numbers, labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from geostore.errors import InvalidInput, NotComparable
from geostore.index.bits import Words, count_in_runs
from geostore.index.labels import AtLeast, Exactly, Some
from geostore.index.rows import SEASON, TIME, season_names
from geostore.index.segment import Segment
from geostore.index.selection import Selection, everything, select
from geostore.index.spatial import Where
from geostore.keys import time_us

Range = tuple[float | None, float | None]
Condition = Some | AtLeast | Exactly


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Conditions that all must hold; one that is left out asks nothing.

    Attributes:
        within: an area, made with `spatial.where`.
        start, end: acquisition times, start <= time < end.
        seasons: "winter", "spring", "summer", "autumn", each as it is on its hemisphere.
        categories: column -> names of which one must be the row's, such as {"sensor": ("sentinel-2a",)}.
        numbers: column -> (least, largest), both inclusive, None for no bound; unknown values meet no bound.
        labels: Some, AtLeast or Exactly.
    """

    within: Where | None = None
    start: datetime | None = None
    end: datetime | None = None
    seasons: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: Mapping[str, Range] = field(default_factory=dict)
    labels: Condition | None = None

    def __post_init__(self) -> None:
        strange = set(self.seasons) - set(season_names())
        if strange:
            raise InvalidInput(f"no season {sorted(strange)}; use some of {', '.join(season_names())}")
        for name, bounds in self.numbers.items():
            if len(bounds) != 2 or any(b is not None and not np.isfinite(b) for b in bounds):
                raise InvalidInput(f"{name} within {bounds}; give (least, largest), None for no bound")
        if self.labels is not None and not isinstance(self.labels, Condition):
            raise InvalidInput(f"labels {self.labels!r}; use Some(...), AtLeast(...) or Exactly(...)")


ALL = Filter()


@dataclass(frozen=True)
class Step:
    """One condition as it was applied to one segment.

    Attributes:
        what: in words.
        rows: rows left after it.
    """

    what: str
    rows: int


@dataclass(frozen=True)
class Plan:
    """The rows of one segment that meet a filter, and how they were found."""

    selection: Selection
    steps: tuple[Step, ...]

    @property
    def path(self) -> str:
        """How the rows will be read: "scan", "masked scan", "gather" or "nothing"."""
        if self.selection.count == 0:
            return "nothing"
        if self.selection.rows is not None:
            return "gather"
        return "scan" if self.selection.allowed is None else "masked scan"


def plan(segment: Segment, wanted: Filter = ALL, *, alive: Words | None = None) -> Plan:
    """Choose the rows of a segment that meet `wanted` and are alive; counts are exact.

    Raises:
        InvalidInput: a label that the legend does not have.
    """
    size, steps = len(segment), []
    runs = everything(size).runs
    if wanted.within is not None:
        runs = wanted.within.runs(segment.cells, segment.precision)
        rows = int((runs[:, 1] - runs[:, 0]).sum())
        steps.append(Step(f"area: {len(runs)} run{'s' * (len(runs) != 1)} of rows", rows))
    allowed = alive
    for what, bitmap in _bitmaps(segment, wanted):
        allowed = bitmap if allowed is None else allowed & bitmap
        steps.append(Step(what, int(count_in_runs(allowed, runs))))
        if not steps[-1].rows:
            break
    return Plan(select(size, runs, allowed), tuple(steps))


def columns(segments: Iterable[Segment]) -> tuple[set[str], set[str]]:
    """Names of the columns of numbers, and of names, that some segment has."""
    numbers: set[str] = set()
    categories: set[str] = set()
    for segment in segments:
        numbers |= set(segment.file.facts["numbers"])
        categories |= set(segment.file.facts["categories"])
    return numbers, categories


def check_columns(segments: Sequence[Segment], wanted: Filter) -> None:
    """Raise InvalidInput for a column, NotComparable for labels, that no segment has.

    A segment that lacks what another has does not meet a condition on it with any row.
    """
    if wanted.labels is not None and segments and all(s.labels is None for s in segments):
        raise NotComparable(f"{wanted.labels} cannot be asked of rows without labels; label them first")
    numbers, categories = columns(segments)
    for given, known in ((wanted.numbers, numbers), (wanted.categories, categories)):
        strange = sorted(set(given) - known)
        if strange and segments:
            raise InvalidInput(f"no column {strange}; this index has {sorted(known)}")


def _bitmaps(segment: Segment, wanted: Filter) -> Iterable[tuple[str, Words]]:
    """(condition in words, bitmap of the rows that meet it), one after the other."""
    if wanted.seasons:
        yield f"season: {', '.join(wanted.seasons)}", segment.categories[SEASON].among(wanted.seasons)
    for name, names in wanted.categories.items():
        known = segment.categories.get(name)
        yield f"{name}: {', '.join(names)}", _none(segment) if known is None else known.among(names)
    if wanted.labels is not None:
        labels = segment.labels
        yield f"labels: {wanted.labels}", _none(segment) if labels is None else labels.meeting(wanted.labels)
    if wanted.start is not None or wanted.end is not None:
        low = None if wanted.start is None else time_us(wanted.start)
        high = None if wanted.end is None else time_us(wanted.end) - 1
        yield f"time: {wanted.start} to {wanted.end}", segment.numbers[TIME].between(low, high)
    for name, (low_, high_) in wanted.numbers.items():
        column = segment.numbers.get(name)
        yield f"{name}: {low_} to {high_}", _none(segment) if column is None else column.between(low_, high_)


def _none(segment: Segment) -> Any:
    return np.zeros(-(-len(segment) // 64), np.uint64)
