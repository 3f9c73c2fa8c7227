"""The sharing gap as a picture: how the place's own decoder learns, and where the base stands beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_INK, _FAINT, _OWN = "#1c2430", "#dfe3e8", "#e9a03b"
_BASES = {"none": ("#8a8a8a", ":"), "few": ("#2a9d8f", "--"), "whole": ("#d1495b", "-")}
_COLUMNS, _DPI = 3, 90


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path | None:
    """Write a panel for each place that was measured to `path`; None where none was."""
    places = [name for name in dict.fromkeys(r["place"] for r in rows) if _of(rows, name, "own decoder")]
    if not places:
        return None
    height = -(-len(places) // _COLUMNS)
    figure = Figure(figsize=(4.2 * min(_COLUMNS, len(places)), 3.4 * height), layout="constrained")
    for number, name in enumerate(places):
        axes = figure.add_subplot(height, min(_COLUMNS, len(places)), number + 1)
        own = sorted(_of(rows, name, "own decoder"), key=lambda r: r["steps"])
        steps = [r["steps"] for r in own]
        axes.plot(steps, [_shown(r["mse_unseen"]) for r in own], "o-", color=_OWN, label="own decoder")
        axes.plot(
            steps, [_shown(r["mse_seen"]) for r in own], "o--", color=_OWN, lw=0.9, ms=3, label="own, on seen dates"
        )
        for delta, (colour, dashes) in _BASES.items():
            for row in _of(rows, name, f"base, delta {delta}"):
                kept = f"base, {row['bytes_codec_or_delta']:,} B of delta" if delta != "none" else "base as it is"
                axes.axhline(_shown(row["mse_unseen"]), color=colour, ls=dashes, label=kept)
        axes.set_xscale("log", base=2)
        axes.set_xticks(steps, [f"{at:,}" for at in steps])
        axes.set_title(f"{name}, {own[-1]['bytes_a_raster']:,.0f} bytes a raster", fontsize=9, color=_INK)
        axes.set_xlabel("steps of the own decoder", fontsize=8)
        axes.set_ylabel("MSE n1 at equal bytes, 1e-4", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(color=_FAINT, lw=0.6)
        axes.legend(fontsize=6.5, frameon=False)
    figure.savefig(path, dpi=_DPI)
    return path


def _shown(mse: float) -> float:
    return mse * 1e4


def _of(rows: Sequence[Mapping[str, Any]], place: str, decoder: str) -> list[Mapping[str, Any]]:
    return [r for r in rows if r["place"] == place and r.get("decoder") == decoder]
