"""The curves of the rate-distortion bench as two pictures: reflectance series, and 8-bit and index series."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.rd_curves import Point
from bench.rd_figures import EVERYTHING, NDVI, Axis, Found
from bench.rd_places import Place

_STYLES: dict[str, tuple[str, str, float]] = {  # colour, dashes, width
    "geostore vae": ("#d1495b", "-", 2.6),
    "geostore vae, own network": ("#e9a03b", "-", 2.0),
    "geostore klt-dct": ("#7b2d8b", "-", 2.6),
    "geostore klt-av1": ("#1f4e8c", "-", 2.6),
    "KLT + SVT-AV1": ("#2a9d8f", "-", 1.3),
    "KLT + libaom AVIF": ("#7cb518", "-", 1.3),
    "KLT + HEVC": ("#8d6a9f", "-", 1.3),
    "KLT + JPEG 2000": ("#b07d2b", "--", 1.2),
    "JPEG XL": ("#333333", "--", 1.2),
    "JPEG 2000": ("#8a8a8a", "--", 1.2),
    "SZ3": ("#333333", ":", 1.2),
    "LERC": ("#8a8a8a", ":", 1.2),
}
_INK, _FAINT = "#1c2430", "#dfe3e8"
_ERRORS = 60  # at which the smallest of a codec's curves is looked for
_DPI = 90


@dataclass(frozen=True)
class Panel:
    """One place and one error.

    Attributes:
        place: what is drawn.
        what: the error in words. axis: where it is found, and the bytes.
        low, high: errors shown.
    """

    place: Place
    what: str
    axis: Axis
    low: float
    high: float


def draw(found: Found, folder: Path) -> list[Path]:
    """Write the pictures to `folder`; their paths. A table without places gets no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for table, panels, columns in (("reflectance", _reflectance(found), 2), ("other", _other(found), 3)):
        if panels:
            out.append(folder / f"rate_distortion_{table}.png")
            _page(found, panels, columns, out[-1])
    return out


def _reflectance(found: Found) -> list[Panel]:
    """Two panels a place that keeps an index, then one for each other place."""
    panels: list[Panel] = []
    for place in sorted(found.reflectance, key=lambda p: not p.series.indices):
        panels.append(Panel(place, "MSE on n1", EVERYTHING, 5e-5, 1.2e-3))
        if place.series.indices:
            panels.append(Panel(place, "NDVI, mean absolute error", NDVI, 0.01, 0.08))
    return panels


def _other(found: Found) -> list[Panel]:
    places = [p for p in found.places if p.table == "other"]
    what = "PSNR over the 1-99 % range, dB"
    return [Panel(p, what, EVERYTHING, p.mse_at(38), p.mse_at(26)) for p in places]


def _page(found: Found, panels: list[Panel], columns: int, path: Path) -> None:
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(11, 3.3 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    named: dict[str, Line2D] = {}
    for axes, panel in zip(grid.flat, panels, strict=False):
        named |= _draw(axes, found, panel)
    order = [name for name in _STYLES if name in named]
    figure.legend([named[n] for n in order], order, loc="outside lower center", ncols=4, frameon=False, fontsize=9)  # type: ignore[call-overload]
    figure.savefig(path, dpi=_DPI)


def _draw(axes: Axes, found: Found, panel: Panel) -> dict[str, Line2D]:
    """Draw one panel; its lines by codec."""
    lines: dict[str, Line2D] = {}
    for name, (colour, dashes, width) in _STYLES.items():
        own = name.startswith("geostore")
        points = found.own(panel.place, name) if own else found.of(panel.place, name)
        sizes, errors = _envelope(points, panel)
        if sizes:
            (lines[name],) = axes.plot(sizes, errors, dashes, color=colour, lw=width, zorder=3 if own else 2)
    _scale(axes, panel)
    axes.set_title(_title(panel.place), fontsize=9, color=_INK, loc="left")
    axes.set_xlabel("bytes of the whole series", fontsize=8)
    axes.set_ylabel(panel.what, fontsize=8)
    axes.grid(which="major", color=_FAINT, lw=0.7)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    return lines


def _scale(axes: Axes, panel: Panel) -> None:
    """Bytes by their logarithm, errors too, but decibels as they are."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g} kB"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if panel.place.table == "reflectance":
        axes.set_yscale("log")
        axes.set_ylim(panel.low, panel.high)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _envelope(points: list[Point], panel: Panel) -> tuple[list[float], list[float]]:
    """Bytes of the smallest of a codec's curves at errors over the range shown, and those errors as shown."""
    plain = [p for p in points if p.violations is None]
    found = [(panel.axis.size(plain, float(e)), float(e)) for e in np.geomspace(panel.low, panel.high, _ERRORS)]
    kept = [(size.nbytes, error) for size, error in found if size is not None and not size.at_most]
    shown = panel.place.psnr_of if panel.place.table == "other" else float
    return [nbytes for nbytes, _ in kept], [shown(error) for _, error in kept]


def _title(place: Place) -> str:
    dates, bands, height, width = place.series.pixels.shape
    size = f"{height}" if height == width else f"{height} x {width}"
    return f"{place.name}: {dates} dates, {bands} band{'s' * (bands > 1)}, {size} px"
