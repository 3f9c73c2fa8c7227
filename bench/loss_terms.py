"""Loss terms of a fit with and without the index term, and what that changes on dates the fit did not see.

The paper's third figure, on one real place: the same network, the same bound on squared error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from bench.harness import Bench, median, run
from bench.rd_curves import error_at
from bench.rd_places import Place, load, part
from geostore.certificate import measure as certify
from geostore.codec import Effort, quiet
from geostore.collection import Policy
from geostore.vae.codec import VaeCodec
from geostore.vae.fit import assemble, prepare
from geostore.vae.model import Layout, Vae
from geostore.vae.quantize import STEPS, TRAINED_STEP, pack_decoder, pack_encoder
from geostore.vae.train import Goal, train

MSE, NDVI = 4e-4, 0.02  # what the fits aim at
SEEDS = 2  # fits of each kind
STEPS_FITTED, _QUICK = 2500, 40
_FREE = Policy(mse_max=None, index_mae_max=None)
_TERMS = (("rate", "bits per pixel"), ("mse", "MSE on n1"), ("index_NDVI", "mean NDVI error"))
_COLOURS = {"without": "#1f4e8c", "with": "#d1495b"}
Curve = list[tuple[float, float, float]]  # (bytes a raster, MSE, NDVI error) at every quantiser step
Trace = list[tuple[int, dict[str, float]]]


@dataclass(frozen=True)
class Term:
    """What the index term changes with one seed.

    Attributes:
        ndvi, mse: errors of unseen dates with the term over those without, at equal bytes; None where not reached.
        curves: of unseen dates, "without" and "with" the term.
        traces: the smoothed loss terms at each step shown, of both.
    """

    ndvi: float | None
    mse: float | None
    curves: dict[str, Curve]
    traces: dict[str, Trace]

    @classmethod
    def measured(cls, place: Place, *, steps: int, seed: int, kept: Path | None = None) -> Term:
        """Fit both to the dates that may be seen, or read what `kept` holds from another run."""
        if kept is not None and kept.exists():
            return cls(**json.loads(kept.read_text()))
        fits = {name: _fit(place, index, steps, seed) for name, index in (("without", None), ("with", NDVI))}
        curves = {name: _curve(place, codec, place.unseen) for name, (_, codec) in fits.items()}
        term = cls(*ratios(curves), curves, {name: trace for name, (trace, _) in fits.items()})
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(asdict(term)))
        return term


def measure(bench: Bench) -> None:
    """Train each way with every seed, compare at equal bytes on unseen dates, draw the terms of the first."""
    place = load("synthetic-small" if bench.quick else "romania")
    if place is None:
        bench.row(not_run="the Sentinel-2 series of Romania is not here")
        return
    steps = _QUICK if bench.quick else STEPS_FITTED
    found = [Term.measured(place, steps=steps, seed=bench.seed + n) for n in range(1 if bench.quick else SEEDS)]
    for number, term in enumerate(found):
        for name, curve in term.curves.items():
            for nbytes, mse, mae in curve:
                bench.row(seed=bench.seed + number, index_term=name, bytes_a_raster=nbytes, mse=mse, ndvi_mae=mae)
        bench.row(seed=bench.seed + number, ndvi_ratio=term.ndvi, mse_ratio=term.mse)
    figures(bench, found)
    _draw(found[0].traces, bench.folder / "loss_terms.png")


def figures(bench: Bench, found: Sequence[Term], prefix: str = "") -> None:
    """The two figures, medians over seeds."""
    what = "the same network and steps without the term, at equal bytes, unseen dates"
    for key, bar, values in (("ndvi", 0.5, [t.ndvi for t in found]), ("mse", 1.2, [t.mse for t in found])):
        known = [v for v in values if v is not None]
        value = median(known) if known else None
        bench.figure(f"{prefix}{key}", value, bar=bar, better="lower", baseline=what, n=max(len(found), 1))


def _fit(place: Place, index: float | None, steps: int, seed: int) -> tuple[Trace, VaeCodec]:
    """One training: its loss terms, and the codec."""
    series = part(place.series, ~place.unseen)
    samples = prepare(series, "grid", Policy(mse_max=MSE, index_mae_max=None))
    bands, height, width = series.pixels.shape[1:]
    layout = Layout(
        mode="grid", bands=bands, height=height, width=width, channels=8, widths=(24, 20, 16, 10), encoder=(12, 20)
    )
    torch.manual_seed(seed)
    vae, trace = Vae(layout), Trace()
    effort = Effort(steps=steps, seed=seed, device="cpu")

    def watch(step: int, terms: dict[str, float]) -> None:
        trace.append((step, terms))

    train(vae, samples, goal=Goal(mse=MSE, index=index), effort=effort, progress=quiet, watch=watch)
    tensors = {**pack_encoder(vae.encoder), **pack_decoder(vae.decoder)}
    return trace, replace(assemble(layout, tensors, samples, _FREE), rounds=0)


def _curve(place: Place, codec: VaeCodec, dates: npt.NDArray[np.bool_]) -> Curve:
    """Means over the dates where (T,) `dates` is True."""
    found = []
    for step in range(len(STEPS)):
        seen = [_at(place, codec, int(t), step) for t in np.flatnonzero(dates)]
        size, mse, mae = (float(v) for v in np.mean(seen, axis=0))
        found.append((size, mse, mae))
    return found


def _at(place: Place, codec: VaeCodec, date: int, step: int) -> tuple[float, float, float]:
    series = place.series
    if not series.valid[date].any():
        return 0.0, 0.0, 0.0
    numbers = codec.latent(series.pixels[date], series.valid[date], step).numbers(step)
    decoded = codec.synthesise(numbers)
    errors = certify(series.pixels[date], decoded, series.valid[date], series.bands, series.indices)
    return float(len(codec.pack(numbers))), errors.mse, errors.indices["NDVI"].mae


def ratios(curves: dict[str, Curve]) -> tuple[float | None, float | None]:
    """NDVI error and MSE with the term over those without, at equal bytes.

    Taken at the step nearest the trained one that the fit without the term reaches.
    """
    for step in sorted(range(len(STEPS)), key=lambda s: abs(s - TRAINED_STEP)):
        nbytes, square, mae = curves["with"][step]
        plain = error_at([(b, e) for b, _, e in curves["without"]], nbytes)
        other = error_at([(b, e) for b, e, _ in curves["without"]], nbytes)
        if plain and other:
            return mae / plain, square / other
    return None, None


def _draw(traces: dict[str, Trace], path: Path) -> None:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, (term, title) in zip(figure.subplots(1, len(_TERMS)), _TERMS, strict=True):
        for name, trace in traces.items():
            steps, values = _line(trace, term)
            axes.plot(steps, values, color=_COLOURS[name], linewidth=1.6, label=f"{name} the index term")
        axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("optimiser steps", fontsize=9)
        axes.grid(color="#dfe3e8", linewidth=0.6, which="both")
    axes.legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def _line(trace: Sequence[tuple[int, dict[str, float]]], term: str) -> tuple[list[int], list[float]]:
    shown = [(step, terms[term]) for step, terms in trace if term in terms]
    return [step for step, _ in shown], [value for _, value in shown]


if __name__ == "__main__":
    run(measure, "loss_terms")
