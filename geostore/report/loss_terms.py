"""The loss terms of a place's fits over their steps, so that those with and without an index term can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from geostore.amounts import counted
from geostore.report.charts import Chart, Theme, axes_of, draw, log_scale

LINES_MAX = 6  # fits drawn, the newest
_COLOURS = ("#3b82c4", "#d1495b", "#c98a1b", "#7a5fc0", "#3f8f5b", "#8a8f98")
_TITLES = {"rate": "bits a pixel", "mse": "MSE on n1"}
Fit = tuple[str, Mapping[str, Any]]  # what it is called; steps, terms and targets as `status` tells them


def fits_of(status: Mapping[str, Any], geohash: str, group: str) -> list[Fit]:
    """Fits of one cell and band group, whatever their collection, oldest generation first; the last LINES_MAX."""
    here = [p for p in status["per_partition"] if (p["geohash"], p["group"]) == (geohash, group)]
    several = len([p for p in here if p["fits"]]) > 1
    found = []
    for place in here:
        for fit in place["fits"]:
            whose = f"{place['collection']}, " if several else ""
            found.append((f"{whose}generation {fit['generation']}, {_index_term(fit)}{_dropped(fit)}", fit))
    return found[-LINES_MAX:]


def _index_term(fit: Mapping[str, Any]) -> str:
    names = sorted(name.removeprefix("index_") for name in fit["targets"] if name.startswith("index_"))
    return f"with the {' and '.join(names)} term" if names else "without an index term"


def _dropped(fit: Mapping[str, Any]) -> str:
    return "" if fit["kept"] else f" ({fit['family']}, not kept)"


def terms_over_steps(folder: Path, name: str, title: str, fits: Sequence[Fit]) -> Chart | None:
    """One panel a term, one line a fit, dashed at what the term was steered to; None where nothing was optimised.

    A fit whose codec was not kept is dotted.
    """
    terms = list(dict.fromkeys(term for _, fit in fits for term in fit["terms"]))
    if not terms:
        return None

    def paint(figure: Figure, theme: Theme) -> None:
        panels = axes_of(figure, theme, 1, len(terms))
        for axes, term in zip(panels, terms, strict=True):
            for (label, fit), colour in zip(fits, _COLOURS, strict=False):
                _line(axes, fit, term, label, colour)
            axes.set_title(
                _TITLES.get(term) or f"mean {term.removeprefix('index_')} error", color=theme.ink, fontsize=9
            )
            axes.set_xlabel("optimiser steps", color=theme.ink)
            log_scale(axes.yaxis)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower left", ncols=2, fontsize=8, frameon=False, labelcolor=theme.ink
        )

    alt = f"Loss terms of {counted(len(fits), 'fit')} of {title} over optimiser steps: {', '.join(terms)}."
    return draw(folder, name, alt, (max(3.4, 2.7 * len(terms)), 2.9), paint)


def _line(axes: Any, fit: Mapping[str, Any], term: str, label: str, colour: str) -> None:
    values = fit["terms"].get(term, [float("nan")] * len(fit["steps"]))
    axes.plot(fit["steps"], values, color=colour, label=label, linestyle="-" if fit["kept"] else ":")
    if term in fit["targets"]:
        axes.axhline(fit["targets"][term], color=colour, linewidth=0.9, linestyle="--")
