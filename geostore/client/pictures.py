"""Drawings of what a search found and of how a place changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.partition.geohash import code_of
from geostore.partition.grid import cell_codes
from geostore.query.facts import RasterInfo
from geostore.raster import Raster

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geostore.client.hits import Hit, Moment

Floats = npt.NDArray[np.float32]
_COLOURS = (("red", "green", "blue"), ("swir16", "nir", "red"), ("nir", "red", "green"))  # the first that is there
_SIDE_IN = 2.1  # inches of one picture


def draw_hits(
    hits: Sequence[Hit], decoded: Sequence[tuple[RasterInfo, Raster]], *, bands: Sequence[str] | None, columns: int
) -> Figure:
    """A picture a hit with its place, date, score and distance; what may not be used is white."""
    from matplotlib.figure import Figure

    planes = [_cut(raster, hit, bands) for hit, (_, raster) in zip(hits, decoded, strict=True)]
    lows, highs = _stretch(planes)
    columns = max(1, min(columns, len(hits)))
    lines = -(-len(hits) // columns) or 1
    figure = Figure(figsize=(_SIDE_IN * columns, (_SIDE_IN + 0.5) * lines), layout="constrained")
    for i, (hit, plane) in enumerate(zip(hits, planes, strict=True)):
        axes = figure.add_subplot(lines, columns, i + 1)
        axes.imshow(_picture(plane, lows, highs), interpolation="nearest")
        axes.set_title(f"{hit.cell} {hit.time:%Y-%m-%d}\n{hit.score:.3f}, {hit.distance} bits", fontsize=8)
        axes.axis("off")
    if not hits:
        figure.text(0.5, 0.5, "nothing met the conditions", ha="center")
    return figure


def _cut(raster: Raster, hit: Hit, bands: Sequence[str] | None) -> Floats:
    """(3, height, width) physical values, NaN where they may not be used; of a chip, its part."""
    names = list(bands or ())
    if not names:
        known = raster.bands.names
        names = list(next((c for c in _COLOURS if set(c) <= set(known)), known[-3:][::-1]))
    names = (names * 3)[:3] if len(names) < 3 else names[:3]
    chosen = [raster.bands.index(name) for name in names]
    values = np.where(raster.valid, raster.bands.to_physical(raster.pixels)[chosen], np.float32(np.nan))
    if len(hit.cell) == len(hit.key.geohash):
        return values
    inside = cell_codes(raster.grid, len(hit.cell)) == code_of(hit.cell)
    rows, cols = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return np.where(inside, values, np.float32(np.nan))[:, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _stretch(planes: Sequence[Floats]) -> tuple[Floats, Floats]:
    """(3,) values that are drawn black and white: the 2nd and 98th percentile of all pictures together."""
    if not planes:
        return np.zeros(3, np.float32), np.ones(3, np.float32)
    values = [np.concatenate([p[b][np.isfinite(p[b])] for p in planes]) for b in range(3)]
    ends = [np.percentile(v, (2, 98)) if v.size else np.array([0.0, 1.0]) for v in values]
    return np.array([e[0] for e in ends], np.float32), np.array([e[1] for e in ends], np.float32)


def _picture(plane: Floats, lows: Floats, highs: Floats) -> npt.NDArray[Any]:
    """(height, width, 3) in 0..1."""
    span = np.maximum(highs - lows, 1e-6)
    shown = np.clip((plane - lows[:, None, None]) / span[:, None, None], 0, 1)
    return np.moveaxis(np.where(np.isfinite(plane).all(axis=0), shown, 1.0), 0, -1)


def draw_changes(geohash: str, rows: Sequence[Moment]) -> Figure:
    """Likeness above, shift below, changes as upright lines with the chip that moved most."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    if not rows:
        above.text(0.5, 0.5, "no date met the conditions", ha="center", transform=above.transAxes)
    times = np.array([row.key.time_us for row in rows], "datetime64[us]")
    above.plot(times, [row.likeness for row in rows], "o-", ms=3, lw=1, color="tab:blue")
    above.set_ylabel("likeness (cosine)")
    above.set_title(f"{geohash}: how like the example it looks, and where that shifts", fontsize=10)
    below.plot(times, np.array([row.shift for row in rows], np.float64), "o-", ms=3, lw=1, color="tab:orange")
    below.set_ylabel("shift (1 - cosine)")
    for time, row in zip(times, rows, strict=True):
        if row.changed:
            for axes in (above, below):
                axes.axvline(time, color="tab:red", lw=1)
            below.annotate(f"{row.time:%Y-%m-%d} {row.where}", (time, row.shift), fontsize=8, color="tab:red")
    return figure
