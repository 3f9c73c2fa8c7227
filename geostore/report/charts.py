"""Charts of a report, each in a light and a dark version, drawn on figures of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from geostore.amounts import counted, ratio
from geostore.client import RasterInfo
from geostore.collection import Policy
from geostore.keys import from_time_us

DPI = 144
BINS = 29  # of a histogram, about
LABELS_MAX = 40  # cells of a map that carry their geohash
TIER_COLOURS = {
    "embedding": "#3b82c4",
    "residual": "#7a5fc0",
    "lossless": "#c98a1b",
    "waiting": "#8a8f98",
    "empty": "#c9cdd3",
}


@dataclass(frozen=True)
class Theme:
    """Colours of text and ground."""

    name: str
    ink: str
    faint: str
    paper: str


LIGHT = Theme("light", "#1c2430", "#c4cad3", "#ffffff")
DARK = Theme("dark", "#e4e8ee", "#465062", "#171c24")


@dataclass(frozen=True)
class Chart:
    """A chart on disk: file names of both versions, what it shows, its size as displayed."""

    light: str
    dark: str
    alt: str
    width: int
    height: int


def draw(folder: Path, name: str, alt: str, size: tuple[float, float], paint: Callable[[Figure, Theme], None]) -> Chart:
    """Paint a figure of `size` inches in both themes."""
    for theme in (LIGHT, DARK):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained", facecolor=theme.paper)
        paint(figure, theme)
        figure.savefig(folder / f"{name}-{theme.name}.png", facecolor=theme.paper)
    return Chart(f"{name}-light.png", f"{name}-dark.png", alt, round(size[0] * 96), round(size[1] * 96))


def axes_of(figure: Figure, theme: Theme, rows: int = 1, cols: int = 1) -> list[Any]:
    """Plain axes in the theme's colours."""
    made = list(np.atleast_1d(figure.subplots(rows, cols)).ravel())
    for axes in made:
        axes.set_facecolor(theme.paper)
        axes.tick_params(colors=theme.ink, labelsize=8, which="both")
        axes.grid(color=theme.faint, linewidth=0.5, alpha=0.7)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.faint)
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
            text.set_color(theme.ink)
            text.set_fontsize(9)
    return made


def log_scale(axis: Any) -> None:
    """A log axis labelled with plain numbers: 1, 2 and 5 of each decade, or decades alone where there are many."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1,) if 0 < 100 * low < high else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(axes: Any, theme: Theme) -> None:
    """A frameless legend above the axes."""
    axes.legend(
        fontsize=8, frameon=False, labelcolor=theme.ink, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderpad=0
    )


def ratio_bars(folder: Path, name: str, rows: Sequence[tuple[str, float, float]]) -> Chart:
    """Two horizontal bars a row, against LZW and against JPEG XL, on a log axis with a line at 1."""

    def paint(figure: Figure, theme: Theme) -> None:
        (axes,) = axes_of(figure, theme)
        at = np.arange(len(rows))[::-1]
        for shift, colour, label, part in (
            (0.2, "#3b82c4", "LZW GeoTIFF", 1),
            (-0.2, "#c98a1b", "lossless JPEG XL", 2),
        ):
            values = [float(row[part]) for row in rows]
            axes.barh(at + shift, values, 0.36, color=colour, label=f"against {label}")
            for y, value in zip(at + shift, values, strict=True):
                axes.annotate(
                    ratio(value).removesuffix(" x"), (value, y), xytext=(3, 0), textcoords="offset points",
                    fontsize=7.5, va="center", color=theme.ink, annotation_clip=False, zorder=4,
                    bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.5},
                )  # fmt: skip
        axes.set_yticks(at, [row[0] for row in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        log_scale(axes.xaxis)
        low, high = min(min(r[1:]) for r in rows), max(max(r[1:]) for r in rows)
        axes.set_xlim(min(0.5, low / 1.5), max(2.0, high * 1.6))
        axes.axvline(1, color=theme.ink, linewidth=1)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("times smaller (log scale; left of 1 is larger than the baseline)", color=theme.ink)
        legend(axes, theme)

    alt = "; ".join(
        f"{label}: {lzw:.3g} times smaller than LZW, {jxl:.3g} than JPEG XL" for label, lzw, jxl in rows[:8]
    )
    return draw(folder, name, f"Compression ratios. {alt}", (8, 1.1 + 0.42 * len(rows)), paint)


def errors_over_time(folder: Path, name: str, title: str, infos: Sequence[RasterInfo], policy: Policy) -> Chart:
    """MSE and NDVI error of each date, coloured by tier, with the policy's bounds; exact rasters lie on the floor.

    The mean error of values too, where the policy bounds it.
    """
    measured = [i for i in infos if i.certificate.pixels > 0 and not i.exact]
    exact = [i for i in infos if i.exact and i.tier != "empty"]
    has_ndvi = any("NDVI" in i.certificate.indices for i in measured)
    panels: list[tuple[str, float | None, Callable[[RasterInfo], float | None]]] = [
        ("MSE on n1", policy.mse_max, lambda i: i.certificate.mse)
    ]
    if policy.mae_max is not None:
        panels.append(("mean error", policy.mae_max, lambda i: i.certificate.mae))
    if has_ndvi:
        panels.append(("NDVI mean error", policy.index_bounds("NDVI").mae_max, _ndvi))

    def paint(figure: Figure, theme: Theme) -> None:
        for axes, (label, bound, value) in zip(axes_of(figure, theme, len(panels)), panels, strict=True):
            _paint_errors(axes, theme, measured, exact, value)
            if bound is not None:
                axes.axhline(bound, color="#c2402f", linewidth=1.2, linestyle="--", label=f"policy {bound:g}")
            axes.set_ylabel(label, color=theme.ink)
            log_scale(axes.yaxis)
            legend(axes, theme)

    alt = f"Errors over time of {title}: {counted(len(measured), 'raster')} measured, {len(exact)} exact."
    return draw(folder, name, alt, (8, 1.9 * len(panels) + 0.4), paint)


def _ndvi(info: RasterInfo) -> float | None:
    found = info.certificate.indices.get("NDVI")
    return None if found is None else found.mae


def _paint_errors(
    axes: Any,
    theme: Theme,
    measured: Sequence[RasterInfo],
    exact: Sequence[RasterInfo],
    value: Callable[[RasterInfo], float | None],
) -> None:
    for tier in sorted({i.tier for i in measured}):
        points = [(_day(i), v) for i in measured if i.tier == tier and (v := value(i))]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, "o", markersize=3, color=TIER_COLOURS.get(tier, theme.ink), label=f"{tier} ({len(points)})")
    if exact:
        axes.plot(
            [_day(i) for i in exact],
            [0.02] * len(exact),
            "|",
            markersize=7,
            color=TIER_COLOURS["lossless"],
            label=f"exact ({len(exact)})",
            transform=axes.get_xaxis_transform(),
        )


def _day(info: RasterInfo) -> datetime:
    return from_time_us(info.key.time_us).replace(tzinfo=None)


def cell_map(
    folder: Path, name: str, title: str, cells: dict[str, tuple[Sequence[float], float, float | None]]
) -> Chart:
    """Cells on plain longitude and latitude, coloured by ratio and by MSE.

    `cells` gives for each geohash ((west, south, east, north), ratio, MSE or None where everything is exact).
    """
    panels = [("times smaller than LZW", {g: r for g, (_, r, _) in cells.items()}, "viridis")]
    errors = {g: e for g, (_, _, e) in cells.items() if e}
    if errors:
        panels.append(("MSE on n1 (grey: exact)", errors, "magma_r"))
    west, south = (min(b[i] for b, _, _ in cells.values()) for i in (0, 1))
    east, north = (max(b[i] for b, _, _ in cells.values()) for i in (2, 3))
    stretch = 1 / max(math.cos(math.radians((south + north) / 2)), 0.05)
    tall = float(np.clip((north - south) * stretch / max(east - west, 1e-9), 0.35, 1.4))

    def paint(figure: Figure, theme: Theme) -> None:
        for axes, (label, values, colours) in zip(axes_of(figure, theme, 1, len(panels)), panels, strict=True):
            _paint_cells(axes, theme, cells, values, colours)
            margin = 0.06 * max(east - west, north - south)
            axes.set_xlim(west - margin, east + margin)
            axes.set_ylim(south - margin, north + margin)
            axes.set_aspect(stretch)
            axes.set_title(label, color=theme.ink, fontsize=9)
            axes.set_xlabel("longitude, degrees", color=theme.ink)
            axes.set_ylabel("latitude, degrees", color=theme.ink)
            axes.ticklabel_format(useOffset=False)
            axes.locator_params(nbins=5)

    wide = 8 / len(panels) if len(panels) > 1 else 5.6
    where = f"longitude {west:.3f} to {east:.3f}, latitude {south:.3f} to {north:.3f}"
    alt = f"Map of {counted(len(cells), 'cell')} of {title}, {where}."
    return draw(folder, name, alt, (wide * len(panels), max(2.4, wide * tall * 0.75 + 0.9)), paint)


def _paint_cells(axes: Any, theme: Theme, cells: dict[str, Any], values: dict[str, float], colours: str) -> None:
    low, high = min(values.values()), max(values.values())
    norm = LogNorm(low / 1.05, high * 1.05)
    for geohash, ((w, s, e, n), _, _) in cells.items():
        known = geohash in values
        red, green, blue = colormaps[colours](float(norm(values[geohash])))[:3] if known else (0.0, 0.0, 0.0)
        face = (red, green, blue) if known else theme.faint
        axes.add_patch(Rectangle((w, s), e - w, n - s, facecolor=face, edgecolor=theme.ink, linewidth=0.6))
        if len(cells) <= LABELS_MAX:
            dark = known and 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            ink = ("#ffffff" if dark else "#1c2430") if known else theme.ink
            small = 7 if len(cells) <= 16 else 5
            axes.text((w + e) / 2, (s + n) / 2, geohash, ha="center", va="center", fontsize=small, color=ink)
    bar = axes.figure.colorbar(ScalarMappable(norm, colours), ax=axes, shrink=0.8)
    log_scale(bar.ax.yaxis)
    bar.ax.tick_params(colors=theme.ink, labelsize=7, which="both")
    bar.outline.set_edgecolor(theme.faint)


def histograms(folder: Path, name: str, infos: Sequence[RasterInfo], policies: Sequence[Policy]) -> Chart | None:
    """How the certificates are spread: MSE and mean errors of every raster that is not exact; None without any.

    Of values where a policy bounds it, of NDVI where it was measured.
    """
    measured = [i.certificate for i in infos if i.certificate.mse > 0]
    if not measured:
        return None
    panels = [("MSE on n1", [c.mse for c in measured], {p.mse_max for p in policies})]
    means, limits = [c.mae for c in measured if c.mae], {p.mae_max for p in policies}
    if means and limits != {None}:
        panels.append(("mean error", means, limits))
    ndvi = [c.indices["NDVI"].mae for c in measured if "NDVI" in c.indices and c.indices["NDVI"].mae > 0]
    if ndvi:
        panels.append(("NDVI mean error", ndvi, {p.index_bounds("NDVI").mae_max for p in policies}))

    def paint(figure: Figure, theme: Theme) -> None:
        for axes, (label, values, bounds) in zip(axes_of(figure, theme, 1, len(panels)), panels, strict=True):
            lines = sorted(b for b in bounds if b is not None)
            axes.hist(values, bin_edges(values, lines), color=TIER_COLOURS["embedding"])
            for bound in lines:
                axes.axvline(bound, color="#c2402f", linestyle="--", linewidth=1.2, label=f"policy {bound:g}")
            log_scale(axes.xaxis)
            axes.set_xlabel(label, color=theme.ink)
            axes.set_ylabel("rasters", color=theme.ink)
            if axes.get_legend_handles_labels()[0]:
                legend(axes, theme)

    alt = f"Histograms of the certificates of what is not exact: {counted(len(measured), 'raster')}."
    return draw(folder, name, alt, (4 * max(len(panels), 2), 2.5), paint)


def bin_edges(values: Sequence[float], bounds: Sequence[float]) -> npt.NDArray[np.float64]:
    """Edges of about 30 bins of equal width in the logarithm of `values` > 0, each of `bounds` among them an edge.

    Bins are closed below, so an edge lies just above its bound: a value that equals its bound keeps it.
    """
    low, high = min(values) / 1.1, max(values) * 1.1
    inside = sorted({b * (1 + 1e-9) for b in bounds if low < b < high})
    ends = [low, *inside, high]
    whole = math.log(high / low)
    parts = [np.geomspace(a, b, max(1, round(BINS * math.log(b / a) / whole)) + 1) for a, b in pairwise(ends)]
    return np.unique(np.concatenate(parts))


def tier_bar(folder: Path, name: str, tiers: dict[str, int]) -> Chart:
    """One stacked bar: how many rasters stand at which tier."""
    order = [t for t in TIER_COLOURS if tiers.get(t)] + sorted(t for t in tiers if t not in TIER_COLOURS and tiers[t])

    def paint(figure: Figure, theme: Theme) -> None:
        (axes,) = axes_of(figure, theme)
        left = 0
        for tier in order:
            axes.barh(
                0, tiers[tier], left=left, color=TIER_COLOURS.get(tier, theme.faint), label=f"{tier} {tiers[tier]}"
            )
            left += tiers[tier]
        axes.set_yticks([])
        axes.set_xlim(0, left)
        axes.set_xlabel("rasters, band groups apart", color=theme.ink)
        axes.grid(visible=False)
        legend(axes, theme)

    return draw(folder, name, "Rasters by tier: " + ", ".join(f"{tiers[t]} {t}" for t in order), (8, 1.3), paint)
