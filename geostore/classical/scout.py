"""The part of a long series in which choices are made that would take too long on all of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from geostore.codec import Series
from geostore.raster import Mask

_SIDE = 64  # pixels, of the window at least
_FORESIGHT_SAMPLES = 2**18  # a first trial: enough to tell families apart


def scouted(series: Series, samples: int, dates: int, unit: tuple[int, int] = (1, 1)) -> Series:
    """All of a series of at most so many `samples`, else a window of its first `dates` with anything usable.

    The window is so many times as high and wide as `unit`, or all of the series.
    """
    count, bands, height, width = series.pixels.shape
    if count * bands * height * width <= samples:
        return series
    at = series.usable[:dates]
    side = max(_SIDE, int(math.sqrt(samples / (max(1, len(at)) * bands))))
    sides = [max(1, round(side / each)) * each for each in unit]
    rows, columns = _fullest(series.valid[at], min(sides[0], height), min(sides[1], width))
    return replace(
        series,
        pixels=series.pixels[at, :, rows, columns],
        valid=series.valid[at, rows, columns],
        times_us=series.times_us[at],
    )


def foresight_part(series: Series) -> Series:
    """The part in which `geostore.codec.Foreseeing` families of this package are compared: the same one for all."""
    return scouted(series, _FORESIGHT_SAMPLES, dates_for(series, _FORESIGHT_SAMPLES))


def growth(series: Series, few: Series, whole: int, first: Callable[[int], int]) -> float:
    """How many times more all dates of `series` take than those of `few`: these take `whole`, their `first` n so many.

    The dates to come are taken to cost what those of the second half do: the first of a series cost most.
    """
    count, known = len(series.usable), len(few.usable)
    half = known // 2
    if count == known or not half:
        return 1.0
    return 1 + max(0, whole - first(half)) / max(1, whole) * (count - known) / (known - half)


def dates_for(series: Series, samples: int) -> int:
    """How many dates of the smallest window make up so many `samples`."""
    return max(1, samples // (len(series.bands) * _SIDE * _SIDE))


def _fullest(valid: Mask, height: int, width: int) -> tuple[slice, slice]:
    """Of windows side by side, the one with the most usable pixels."""
    count = np.asarray(valid.sum(axis=0))
    tops = range(0, count.shape[0] - height + 1, max(1, height // 2))
    lefts = range(0, count.shape[1] - width + 1, max(1, width // 2))
    windows = [(slice(top, top + height), slice(left, left + width)) for top in tops for left in lefts]
    return max(windows, key=lambda w: int(count[w].sum()))
