"""How one place looked over time: descriptors in the order of dates, and how far they move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from geostore.index.encoders import unit
from geostore.index.filters import Filter, check_columns, plan
from geostore.index.rows import SEASON, TIME
from geostore.index.segments import Segments
from geostore.partition.geohash import names_of

Floats = npt.NDArray[np.float32]
SPAN = 5  # dates on either side of a change
LEAST = 3  # with fewer on a side, one odd date would look like a change
SPREADS = 5.0  # deviations above the median that make a peak a change
SHIFT_MIN = 0.01  # below it nothing that a descriptor sees has changed
_YEAR_US = 31_556_952_000_000


@dataclass(frozen=True)
class Line:
    """Rows of one place, ascending in time.

    Attributes:
        keys: of their rasters.
        cells: geohashes.
        times_us: (N,) int64.
        seasons: names.
        usable: (N,) share of the cell's pixels that may be used.
        vectors: (N, D) float32 of length 1.
    """

    keys: list[bytes]
    cells: list[str]
    times_us: npt.NDArray[np.int64]
    seasons: list[str]
    usable: npt.NDArray[np.float64]
    vectors: Floats

    def __len__(self) -> int:
        return len(self.keys)

    def of(self, cell: str) -> Line:
        """The rows of one cell."""
        return self.take([i for i, name in enumerate(self.cells) if name == cell])

    def take(self, rows: Sequence[int]) -> Line:
        """Some of the rows, in this order."""
        return Line(
            [self.keys[i] for i in rows],
            [self.cells[i] for i in rows],
            self.times_us[list(rows)],
            [self.seasons[i] for i in rows],
            self.usable[list(rows)],
            self.vectors[list(rows)],
        )


def line_of(indexes: Sequence[Segments], wanted: Filter) -> Line:
    """The rows that meet a filter, by time, then key and cell; empty where none do."""
    lines = []
    for index in indexes:
        check_columns([p.segment for p in index.parts], wanted)
        for part in index.parts:
            segment = part.segment
            rows = plan(segment, wanted, alive=part.alive).selection.row_numbers()
            assert segment.descriptors is not None
            assert segment.scales is not None
            vectors = segment.descriptors[rows].astype(np.float32) * segment.scales[rows, None]
            names = segment.categories[SEASON]
            lines.append(
                Line(
                    [segment.keys[int(o)] for o in segment.owners[rows]],
                    names_of(segment.cells[rows], segment.precision).tolist(),
                    segment.numbers[TIME].values[rows],
                    [names.names[c] for c in names.codes[rows]],
                    segment.numbers["valid_fraction"].values[rows],
                    unit(vectors),
                )
            )
    return _joined([line for line in lines if len(line)])


def _joined(lines: Sequence[Line]) -> Line:
    if not lines:
        return Line([], [], np.zeros(0, np.int64), [], np.zeros(0), np.zeros((0, 0), np.float32))
    whole = Line(
        [k for line in lines for k in line.keys],
        [c for line in lines for c in line.cells],
        np.concatenate([line.times_us for line in lines]),
        [s for line in lines for s in line.seasons],
        np.concatenate([line.usable for line in lines]),
        np.concatenate([line.vectors for line in lines]),
    )
    return whole.take(sorted(range(len(whole)), key=lambda i: (whole.times_us[i], whole.keys[i], whole.cells[i])))


def without_season(line: Line) -> tuple[Line, bool]:
    """The line less what each season looks like, and True; as it is, and False, unless each was seen in two years."""
    years: dict[str, set[int]] = {}
    for time_us, season in zip(line.times_us, line.seasons, strict=True):
        years.setdefault(season, set()).add(int(time_us) // _YEAR_US)
    if len(years) < 2 or any(len(seen) < 2 for seen in years.values()):
        return line, False
    vectors = line.vectors.copy()
    middle = vectors.mean(axis=0)
    for season in years:
        rows = [i for i, name in enumerate(line.seasons) if name == season]
        vectors[rows] += middle - line.vectors[rows].mean(axis=0)
    return replace(line, vectors=unit(vectors)), True


def steps(line: Line) -> Floats:
    """(N,) 1 - cosine with the date before; NaN for the first."""
    out = np.full(len(line), np.nan, np.float32)
    if len(line) > 1:
        out[1:] = 1 - (line.vectors[1:] * line.vectors[:-1]).sum(axis=1)
    return out


def shifts(line: Line) -> Floats:
    """(N,) 1 - cosine of what SPAN dates before and SPAN from this one on look like; NaN with fewer than LEAST of one.

    The lesser of what their means and their medians say: means are sharp in time, medians pass over clouds and snow.
    """
    return np.array([_shift(line, i) for i in range(len(line))], np.float32)


def _shift(line: Line, at: int) -> float:
    before, after = line.vectors[max(0, at - SPAN) : at], line.vectors[at : at + SPAN]
    if min(len(before), len(after)) < LEAST:
        return np.nan
    middles = [(np.mean(before, axis=0), np.mean(after, axis=0)), (np.median(before, axis=0), np.median(after, axis=0))]
    return min(max(0.0, float(1 - unit(a) @ unit(b))) for a, b in middles)


def shift_at(line: Line, time_us: int) -> float:
    """The shift at the first date from `time_us` on; 0 where there is none."""
    found = _shift(line, int(np.searchsorted(line.times_us, time_us)))
    return 0.0 if np.isnan(found) else found


def peaks(moved: Floats) -> set[int]:
    """Positions of shifts that no other within SPAN exceeds, and that stand out of all by SPREADS deviations."""
    moved = np.nan_to_num(moved)
    inner = moved[LEAST : len(moved) - LEAST + 1]
    if not len(inner):
        return set()
    middle = float(np.median(inner))
    limit = max(middle + SPREADS * 1.4826 * float(np.median(np.abs(inner - middle))), SHIFT_MIN)
    return {
        i
        for i, value in enumerate(moved)
        if value > limit and i == max(0, i - SPAN) + int(np.argmax(moved[max(0, i - SPAN) : i + SPAN + 1]))
    }
