"""Which pixels of a class or QA band make a pixel unusable, on any grid of the same CRS."""

from __future__ import annotations

import math

import numpy as np

from geostore.collection import MaskRule
from geostore.errors import BandMismatch
from geostore.raster import Grid, Mask, Pixels


def masked_by(rule: MaskRule, classes: Pixels) -> Mask:
    """(height, width) bool, True where `classes` (integers) holds one of the rule's values or has one of its bits.

    The values are those of the rule's bit field, if it names one.
    """
    numbers, bits = classes.astype(np.int64), sum(1 << bit for bit in rule.bits)
    told = numbers
    if rule.field:
        first, last = rule.field
        told = (numbers >> first) & ((1 << (last - first + 1)) - 1)
    found = np.isin(told, np.array(rule.values, np.int64)) if rule.values else np.zeros(classes.shape, np.bool_)
    return np.asarray(found | ((numbers & bits) != 0))


def nearest(grid: Grid, classes: Grid, href: str) -> tuple[slice, slice, Pixels, Pixels]:
    """How to read class pixels for `grid` from the grid `classes`, each from the class pixel that holds its centre.

    Returns:
        (rows, cols) to read of `classes`, then row (height,) and column (width,) indices into what was read. Centres
        up to one class pixel outside take the edge (products of 10, 20 and 60 m end some metres apart).

    Raises:
        BandMismatch: the class band lies in another CRS, or does not cover the grid.
    """
    if classes.crs != grid.crs:
        raise BandMismatch(f"{href} masks bands of another CRS ({classes.crs}, not {grid.crs}); warp it to theirs")
    rows = _index(grid.height, (classes.top - grid.top) / classes.yres, grid.yres / classes.yres, classes.height)
    cols = _index(grid.width, (grid.left - classes.left) / classes.xres, grid.xres / classes.xres, classes.width)
    if rows is None or cols is None:
        raise BandMismatch(f"{href} does not cover the bands it masks; give the mask of the same scene")
    span = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(cols[0]), int(cols[-1]) + 1)
    return *span, rows - rows[0], cols - cols[0]


def _index(count: int, start: float, step: float, limit: int) -> Pixels | None:
    """Indices 0..limit - 1 of the class pixels that hold `count` centres; None if one lies over a pixel outside."""
    at = start + (np.arange(count) + 0.5) * step
    if math.floor(at[0]) < -1 or math.floor(at[-1]) > limit:
        return None
    return np.asarray(np.clip(np.floor(at).astype(np.int64), 0, limit - 1))
