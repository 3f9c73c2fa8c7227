"""The curves of the rate-distortion bench as two pictures: reflectance series, and 8-bit and index series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.rd_curves import Point, front
from bench.rd_figures import Found
from bench.rd_places import Place

_STYLES: dict[str, tuple[str, str, float]] = {  # colour, dashes, width
    "geostore vae": ("#d1495b", "-", 2.4),
    "geostore vae, weights apart": ("#d1495b", ":", 1.8),
    "geostore klt-av1": ("#1f6f8b", "-", 2.4),
    "KLT + SVT-AV1": ("#2a9d8f", "-", 1.3),
    "KLT + libaom AVIF": ("#7cb518", "-", 1.3),
    "KLT + HEVC": ("#8d6a9f", "-", 1.3),
    "KLT + JPEG 2000": ("#b07d2b", "--", 1.2),
    "JPEG XL": ("#444444", "--", 1.2),
    "JPEG 2000": ("#888888", "--", 1.2),
    "SZ3": ("#a0a0a0", "-.", 1.2),
    "LERC": ("#c0c0c0", "-.", 1.2),
}
_INK, _FAINT = "#1c2430", "#dfe3e8"
Error = Callable[[Point], float | None]


def draw(found: Found, folder: Path) -> list[Path]:
    """Write the pictures to `folder`; their paths. A table without places gets no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for table, panels in (("reflectance", _reflectance(found)), ("other", _other(found))):
        if panels:
            out.append(folder / f"rate_distortion_{table}.png")
            _page(found, panels, 2 if table == "reflectance" else 3, out[-1])
    return out


Panel = tuple[Place, str, Error]  # the place, the error's name, the error


def _reflectance(found: Found) -> list[Panel]:
    panels: list[Panel] = []
    for place in found.reflectance:
        panels.append((place, "MSE on n1", lambda p: p.every.mse))
        if place.series.indices:
            panels.append((place, "NDVI, mean absolute error", lambda p: p.every.ndvi_mae))
    return panels


def _other(found: Found) -> list[Panel]:
    return [(p, "MSE on n1", lambda point: point.every.mse) for p in found.places if p.table == "other"]


def _page(found: Found, panels: list[Panel], columns: int, path: Path) -> None:
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(11, 3.6 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    named: dict[str, object] = {}
    for axes, (place, what, error) in zip(grid.flat, panels, strict=False):
        named |= _panel(axes, found, place, what, error)
    order = [name for name in _STYLES if name in named]
    figure.legend([named[n] for n in order], order, loc="outside lower center", ncols=4, frameon=False, fontsize=9)  # type: ignore[call-overload]
    figure.savefig(path, dpi=80)


def _panel(axes: Axes, found: Found, place: Place, what: str, error: Error) -> dict[str, object]:
    """Draw one place; line by codec."""
    lines: dict[str, object] = {}
    for name, (colour, dashes, width) in _STYLES.items():
        pairs = front(_pairs(found, place, name, error))
        if pairs:
            (line,) = axes.loglog(*zip(*pairs, strict=True), dashes, color=colour, lw=width, marker="o", ms=width + 1)
            lines[name] = line
    axes.set_title(place.title, fontsize=9, color=_INK, loc="left")
    axes.set_xlabel("bytes of the whole series", fontsize=8)
    axes.set_ylabel(what, fontsize=8)
    axes.grid(which="major", color=_FAINT, lw=0.7)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    return lines


def _pairs(found: Found, place: Place, name: str, error: Error) -> list[tuple[float, float]]:
    codec, apart = name.removesuffix(", weights apart"), name.endswith("apart")
    points = found.own(place, codec) if codec.startswith("geostore") else found.of(place, codec)
    pairs = [(float(p.marginal if apart else p.nbytes), error(p)) for p in points]
    return [(nbytes, e) for nbytes, e in pairs if e]
