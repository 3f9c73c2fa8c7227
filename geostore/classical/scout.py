"""The part of a long series in which choices are made that would take too long on all of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from geostore.codec import Series

_SIDE = 64  # pixels, of the window at least


def scouted(series: Series, samples: int, dates: int) -> Series:
    """All of a series of at most so many `samples`, else its first `dates` and of them the window with most to see."""
    count, bands, height, width = series.pixels.shape
    if count * bands * height * width <= samples:
        return series
    dates = min(count, dates)
    side = max(_SIDE, int(math.sqrt(samples / (dates * bands))))
    rows, columns = _fullest(series, min(side, height), min(side, width))
    return replace(
        series,
        pixels=series.pixels[:dates, :, rows, columns],
        valid=series.valid[:dates, rows, columns],
        times_us=series.times_us[:dates],
    )


def dates_for(series: Series, samples: int) -> int:
    """How many dates of the smallest window make up so many `samples`."""
    return max(1, samples // (len(series.bands) * _SIDE * _SIDE))


def _fullest(series: Series, height: int, width: int) -> tuple[slice, slice]:
    """Of windows side by side, the one with the most usable pixels."""
    count = np.asarray(series.valid.sum(axis=0))
    tops = range(0, count.shape[0] - height + 1, max(1, height // 2))
    lefts = range(0, count.shape[1] - width + 1, max(1, width // 2))
    windows = [(slice(top, top + height), slice(left, left + width)) for top in tops for left in lefts]
    return max(windows, key=lambda w: int(count[w].sum()))
