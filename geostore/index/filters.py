"""Which rows a question is about, decided before the search: area, time, season, names, numbers, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, NotComparable
from geostore.index.bits import Rows, Words, bitmap_size, bits_at, count_in_runs
from geostore.index.labels import AtLeast, Exactly, Some
from geostore.index.rows import SEASON, TIME, season_names
from geostore.index.segment import Segment
from geostore.index.selection import GATHER_SHARE, Selection, chosen, everything
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


@dataclass(frozen=True)
class _Condition:
    """One condition on one segment: its bitmap, made anew, and its rows where they are few."""

    what: str
    bitmap: Callable[[], Words]
    few: Callable[[], Rows] | None = None


def plan(segment: Segment, wanted: Filter = ALL, *, alive: Words | None = None) -> Plan:
    """Choose the rows of a segment that meet `wanted` and are alive; counts are exact.

    A condition that leaves few rows comes first, and the others are tested on these alone.

    Raises:
        InvalidInput: a label that the legend does not have.
    """
    steps: list[Step] = []
    runs = everything(len(segment)).runs
    if wanted.within is not None:
        runs = wanted.within.runs(segment.cells, segment.precision)
        steps.append(
            Step(f"area: {len(runs)} run{'s' * (len(runs) != 1)} of rows", int((runs[:, 1] - runs[:, 0]).sum()))
        )
    conditions = list(_conditions(segment, wanted))
    first = next((c for c in conditions if c.few is not None), None)
    if first is not None:
        return Plan(_of_few(segment, wanted, first, conditions, runs, alive, steps), tuple(steps))
    allowed = alive
    for condition in conditions:
        bitmap = condition.bitmap()
        allowed = bitmap if allowed is None else np.bitwise_and(allowed, bitmap, out=bitmap)
        steps.append(Step(condition.what, int(count_in_runs(allowed, runs))))
        if not steps[-1].rows:
            break
    count = steps[-1].rows if conditions else None  # of the runs and the bitmap, if it was counted
    return Plan(chosen(len(segment), runs, allowed, count=count), tuple(steps))


def _of_few(
    segment: Segment, wanted: Filter, first: _Condition, conditions: Sequence[_Condition], runs: Rows,
    alive: Words | None, steps: list[Step],
) -> Selection:  # fmt: skip
    """The rows of `first` that lie in the runs, are alive and meet the other conditions."""
    assert first.few is not None
    rows = first.few()
    if wanted.within is not None:
        rows = rows[_inside(rows, runs)]
    if alive is not None:
        rows = rows[bits_at(alive, rows)]
    steps.append(Step(first.what, len(rows)))
    for condition in conditions:
        if condition is not first and len(rows):
            rows = rows[bits_at(condition.bitmap(), rows)]
            steps.append(Step(condition.what, len(rows)))
    return Selection(len(segment), len(rows), runs[:0], None, rows)


def _inside(rows: Rows, runs: Rows) -> npt.NDArray[np.bool_]:
    """Whether each row lies in a run."""
    at = np.searchsorted(runs[:, 1], rows, side="right")
    inside = at < len(runs)
    inside[inside] = rows[inside] >= runs[at[inside], 0]
    return np.asarray(inside)


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


def _conditions(segment: Segment, wanted: Filter) -> Iterable[_Condition]:
    if wanted.seasons:
        yield _names(segment, SEASON, wanted.seasons)
    for name, names in wanted.categories.items():
        yield _names(segment, name, names)
    if wanted.labels is not None:
        yield _labels(segment, wanted.labels)
    if wanted.start is not None or wanted.end is not None:
        low = None if wanted.start is None else time_us(wanted.start)
        high = None if wanted.end is None else time_us(wanted.end) - 1
        yield _range(segment, TIME, (low, high), f"time: {wanted.start} to {wanted.end}")
    for name, bounds in wanted.numbers.items():
        yield _range(segment, name, bounds, f"{name}: {bounds[0]} to {bounds[1]}")


def _names(segment: Segment, column: str, names: Sequence[str]) -> _Condition:
    known, what = segment.categories.get(column), f"{column}: {', '.join(names)}"
    return _never(segment, what) if known is None else _Condition(what, lambda: known.among(names))


def _labels(segment: Segment, condition: Condition) -> _Condition:
    labels, what = segment.labels, f"labels: {condition}"
    if labels is None:
        return _never(segment, what)
    for name in condition.names:
        labels.legend.positions(name)  # an unknown label is refused even where no row is left to have it
    return _Condition(what, lambda: labels.meeting(condition))


def _range(segment: Segment, column: str, bounds: Range, what: str) -> _Condition:
    known = segment.numbers.get(column)
    if known is None:
        return _never(segment, what)
    start, stop = known.span(*bounds)
    few = (lambda: known.rows(start, stop)) if stop - start < GATHER_SHARE * len(segment) else None
    return _Condition(what, lambda: known.between(*bounds), few)


def _never(segment: Segment, what: str) -> _Condition:
    return _Condition(what, lambda: np.zeros(bitmap_size(len(segment)), np.uint64), lambda: np.zeros(0, np.int64))
