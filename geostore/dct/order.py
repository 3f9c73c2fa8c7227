"""In which order the dates of a group are coded, and which of those coded before each is expected from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STANDING = -1  # in place of a date: the mean of what was decoded so far
REFERENCES = 5
_SPAN = 16  # dates from one that is coded early to the next


@dataclass(frozen=True)
class Turn:
    """One date in the order of coding.

    Attributes:
        date: its place in time.
        level: 0 the first, 1 those far apart, 2 and more those between them.
        references: dates coded before it, nearest before, nearest after, STANDING, next before, next after; fewer
            where there are none. None for the first.
    """

    date: int
    level: int
    references: tuple[int, ...]


def turns(count: int) -> list[Turn]:
    """The order of `count` dates: the first, then every 16th, and after each the dates before it by halves."""
    order = [(0, 0)]
    for start in range(0, count - 1, _SPAN):
        end = min(start + _SPAN, count - 1)
        order += [(end, 1), *_between(start, end, 2)]
    dates = [date for date, _ in order]
    return [Turn(date, level, _references(dates[:i], date)) for i, (date, level) in enumerate(order)]


def _between(start: int, end: int, level: int) -> list[tuple[int, int]]:
    if end - start < 2:
        return []
    middle = (start + end) // 2
    return [(middle, level), *_between(start, middle, level + 1), *_between(middle, end, level + 1)]


def _references(coded: Sequence[int], date: int) -> tuple[int, ...]:
    if not coded:
        return ()
    before = sorted((d for d in coded if d < date), reverse=True)[:2]
    after = sorted(d for d in coded if d > date)[:2]
    return (*before[:1], *after[:1], STANDING, *before[1:], *after[1:])
