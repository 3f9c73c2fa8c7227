"""Which rows a question is about, decided before the search: area, time, season, names, numbers, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, NotComparable
from geostore.index.bits import Rows, Words, bitmap_size, bits_at, count_in_runs
from geostore.index.labels import AtLeast, Exactly, Some
from geostore.index.rows import SEASON, TIME, season_names
from geostore.index.segment import Segment
from geostore.index.selection import GATHER_SHARE, Listed, Selection, chosen, everything, of_listed
from geostore.index.spatial import Where
from geostore.keys import time_us

LIST_SHARE = 0.2  # of the rows; below it a range that is all that is asked is read in the order of its column
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
        said: gives it in words, which few ask for.
        rows: rows left after it.
    """

    said: Callable[[], str]
    rows: int

    @property
    def what(self) -> str:
        """It in words."""
        return self.said()


@dataclass(frozen=True)
class Plan:
    """The rows of one segment that meet a filter, and how they were found.

    Attributes:
        selection: the rows.
        steps: conditions, in the order they were applied.
        by_keys: whether those near the query were looked up by parts of its signature.
    """

    selection: Selection
    steps: tuple[Step, ...]
    by_keys: bool = False

    @property
    def path(self) -> str:
        """How the rows are read: "scan", "masked scan", "gather", "list", "key lists" or "nothing"."""
        if self.selection.count == 0:
            return "nothing"
        if self.by_keys:
            return "key lists"
        if self.selection.listed is not None:
            return "list"
        if self.selection.rows is not None:
            return "gather"
        return "scan" if self.selection.allowed is None else "masked scan"


@dataclass(frozen=True)
class _Condition:
    """One condition on one segment: its bitmap, made anew, and, where they are few, how many rows and which."""

    said: Callable[[], str]
    bitmap: Callable[[], Words]
    count: int = 0
    few: Callable[[], Listed] | None = None


def plan(segment: Segment, wanted: Filter = ALL, *, alive: Words | None = None) -> Plan:
    """Choose the rows of a segment that meet `wanted` and are alive; counts are exact.

    A condition that leaves few rows comes first, and the others are tested on these alone.

    Raises:
        InvalidInput: a label that the legend does not have.
    """
    steps: list[Step] = []
    area = None
    if wanted.within is not None:
        area, count = wanted.within.rows(segment.places, segment.precision)
        runs = len(area)
        steps.append(Step(lambda: f"area: {runs} run{'s' * (runs != 1)} of rows", count))
    conditions = list(_conditions(segment, wanted))
    alone = len(conditions) == 1 and area is None and alive is None
    few = [c for c in conditions if c.few is not None and (alone or c.count < GATHER_SHARE * len(segment))]
    if few:
        first = few[0] if len(few) == 1 else min(few, key=lambda c: c.count)
        return Plan(_of_few(segment, first, conditions, area, alive, steps), tuple(steps))
    if area is not None and alive is None and not conditions:
        return Plan(Selection(len(segment), count, area), tuple(steps))
    return Plan(_of_many(segment, conditions, area, alive, steps), tuple(steps))


def _of_many(
    segment: Segment, conditions: Sequence[_Condition], area: Rows | None, alive: Words | None, steps: list[Step]
) -> Selection:
    """The rows of the area that are alive and meet the conditions."""
    runs, allowed = everything(len(segment)).runs if area is None else area, alive
    for condition in conditions:
        bitmap = condition.bitmap()
        allowed = bitmap if allowed is None else np.bitwise_and(allowed, bitmap, out=bitmap)
        steps.append(Step(condition.said, int(count_in_runs(allowed, runs))))
        if not steps[-1].rows:
            break
    count = steps[-1].rows if conditions else None  # of the runs and the bitmap, if it was counted
    return chosen(len(segment), runs, allowed, count=count)


def _of_few(
    segment: Segment, first: _Condition, conditions: Sequence[_Condition], area: Rows | None, alive: Words | None,
    steps: list[Step],
) -> Selection:  # fmt: skip
    """The rows of `first` that lie in the area, are alive and meet the other conditions."""
    assert first.few is not None
    listed = first.few()
    if area is not None:
        listed = listed.among(_inside(listed.rows, area))
    if alive is not None:
        listed = listed.among(bits_at(alive, listed.rows))
    steps.append(Step(first.said, len(listed)))
    for condition in conditions:
        if condition is not first and len(listed):
            listed = listed.among(bits_at(condition.bitmap(), listed.rows))
            steps.append(Step(condition.said, len(listed)))
    return of_listed(len(segment), listed)


def _inside(rows: npt.NDArray[np.uint32], runs: Rows) -> npt.NDArray[np.bool_]:
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
        numbers |= set(segment.numbers)
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
        yield _range(segment, TIME, (low, high), lambda: f"time: {wanted.start} to {wanted.end}")
    for name, bounds in wanted.numbers.items():
        yield _range(segment, name, bounds, partial(_range_said, name, bounds))


def _names(segment: Segment, column: str, names: Sequence[str]) -> _Condition:
    known = segment.categories.get(column)

    def said() -> str:
        return f"{column}: {', '.join(names)}"

    return _never(segment, said) if known is None else _Condition(said, lambda: known.among(names))


def _labels(segment: Segment, condition: Condition) -> _Condition:
    labels = segment.labels

    def said() -> str:
        return f"labels: {condition}"

    if labels is None:
        return _never(segment, said)
    for name in condition.names:
        labels.legend.positions(name)  # an unknown label is refused even where no row is left to have it
    return _Condition(said, lambda: labels.meeting(condition))


def _range_said(column: str, bounds: Range) -> str:
    return f"{column}: {bounds[0]} to {bounds[1]}"


def _range(segment: Segment, column: str, bounds: Range, said: Callable[[], str]) -> _Condition:
    known = segment.numbers.get(column)
    if known is None:
        return _never(segment, said)
    start, stop = known.span(*bounds)
    share = GATHER_SHARE if known.signatures is None else LIST_SHARE
    few = (lambda: known.listed(start, stop)) if stop - start < share * len(segment) else None
    return _Condition(said, lambda: known.between(*bounds), stop - start, few)


def _never(segment: Segment, said: Callable[[], str]) -> _Condition:
    none = Listed(np.zeros(0, np.uint32), None, 0, 0)
    return _Condition(said, lambda: np.zeros(bitmap_size(len(segment)), np.uint64), 0, lambda: none)
