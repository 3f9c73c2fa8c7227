"""Does a cheap score say how many bytes a partition takes at an error? Scores and fits, on places left out of the fit.

Every tile's bytes at a target come from encoding it; scores look at pixels only. Each fit is made on the tiles of all
places but one and predicts those of that one. References: the scores and the three shapes of fit of the paper (gzip,
PCA and kernel PCA; linear, polynomial, exponential), beside complexity measured at the error asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.harness import Bench, run
from bench.sizing_tiles import Need, Target, Tile, coder, missed, need, tiles
from geostore.classical.av1 import CRF_MAX, CRF_MIN
from geostore.codec import Series
from geostore.spectral import evaluate_index, spectral_index
from geostore.vae.complexity import of_index, of_mse
from geostore.vae.scores import gzip_ratio, kernel_pca_components, pca_components, water_filling_bits

Doubles = npt.NDArray[np.float64]
TARGETS = (Target("mse 1e-4", mse=1e-4), Target("mse 5e-4", mse=5e-4), Target("NDVI 0.02", ndvi=0.02))
BARS = {"mse 1e-4": 0.85, "mse 5e-4": 0.75, "NDVI 0.02": 0.75}
PAPER = ("gzip", "PCA 95 %", "kernel PCA 95 %")
AT_TARGET = ("gzip at the step", "gzip of logarithms at the step", "water-filling")
BEST = "gzip at the step"
BORNE = "noise that the index bears"  # foresees a quality, not bytes
_BEND = 0.03  # added to reflectance before its logarithm
_NOISED = 6  # rasters that noise is put on
_COVERED = 0.9  # of tiles that a prediction interval is to hold
_COARSEST = 0.1  # share of tiles, at the worst of the other places, that a quality may miss: the margin of one encode


@dataclass(frozen=True)
class Seen:
    """A tile, its scores by name, what it needs."""

    tile: Tile
    scores: dict[str, float]
    need: Need


def scores(tile: Tile, target: Target) -> dict[str, float]:
    """Every score of a tile, above 0."""
    series = tile.series
    found = {
        "gzip": gzip_ratio(series),
        "PCA 95 %": float(pca_components(series)),
        "kernel PCA 95 %": float(kernel_pca_components(series)),
        BEST: of_mse(series, target.mse) if target.mse else of_index(series, "NDVI", target.ndvi or 1.0),
        "water-filling": water_filling_bits(series, target.policy),
    }
    if target.ndvi is not None:
        found["gzip of logarithms at the step"] = _gzip_bits(_log_steps(series, target.ndvi))
        found[BORNE] = noise_borne(series, target.ndvi)
    return {name: max(value, 1e-5) for name, value in found.items()}


def noise_borne(series: Series, error: float) -> float:
    """Deviation of noise on logarithms of all bands, which the coder works on, at which NDVI errs by `error`."""
    dates = np.flatnonzero(series.valid.any(axis=(1, 2)))[:_NOISED]
    values = series.bands.to_physical(series.pixels[dates]).astype(np.float64)
    noise, truth = np.random.default_rng(0).normal(size=values.shape), _ndvi(values, series)
    low, high = 1e-4, 2.0
    for _ in range(14):
        middle = float(np.sqrt(low * high))
        noised = np.exp(np.log(np.maximum(values, 0) + _BEND) + noise * middle) - _BEND
        errs = float(np.abs(truth - _ndvi(noised, series))[series.valid[dates]].mean())
        low, high = (middle, high) if errs < error else (low, middle)
    return low


def _ndvi(values: Doubles, series: Series) -> npt.NDArray[np.float32]:
    return np.stack([evaluate_index("NDVI", raster, series.bands.names) for raster in values.astype(np.float32)])


def _log_steps(series: Series, error: float) -> npt.NDArray[np.int64]:
    """Logarithms of the index's bands in steps whose rounding moves it by at most `error`."""
    values = series.bands.to_physical(series.pixels)
    chosen = [series.bands.index(b) for b in spectral_index("NDVI").bands]
    return _rounded(np.log(np.maximum(values[:, chosen], 0) + _BEND) / (2 * error))


def _rounded(values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    return np.asarray(np.rint(values).astype(np.int64))


def _gzip_bits(steps: npt.NDArray[np.int64]) -> float:
    raw = (steps - steps.min()).astype("<u2").tobytes()
    return 8 * len(zlib.compress(raw, 6)) / steps.size


# --- fits: arrays of scores (N, S) and log10 of bits (N,) -> a function of scores

Predict = Callable[[Doubles], Doubles]


def linear(x: Doubles, y: Doubles) -> Predict:
    """Bits as a straight line of the score."""
    return _polynomial(x, y, 1)


def polynomial(x: Doubles, y: Doubles) -> Predict:
    """Bits as a parabola of the score."""
    return _polynomial(x, y, 2)


def _polynomial(x: Doubles, y: Doubles, degree: int) -> Predict:
    weights, *_ = np.linalg.lstsq(np.vander(x[:, 0], degree + 1), 10**y, rcond=None)
    least = y.min() - 1.0
    return lambda s: np.log10(np.maximum(np.vander(s[:, 0], degree + 1) @ weights, 10**least))


def exponential(x: Doubles, y: Doubles) -> Predict:
    """Bits as exp(a + b * score)."""
    return _least_squares(x, y, lambda s: s)


def power(x: Doubles, y: Doubles) -> Predict:
    """Bits as exp(a + sum b * log score)."""
    return _least_squares(x, y, np.log10)


def _least_squares(x: Doubles, y: Doubles, of: Callable[[Doubles], Doubles]) -> Predict:
    def inputs(s: Doubles) -> Doubles:
        return np.column_stack([np.ones(len(s)), of(s)])

    at = inputs(x)
    ridge = 1e-3 * len(x) * np.diag([0.0, *np.ones(at.shape[1] - 1)])
    weights = np.linalg.solve(at.T @ at + ridge, at.T @ y)
    return lambda s: np.asarray(inputs(s) @ weights)


FITS = {"linear": linear, "polynomial": polynomial, "exponential": exponential, "power": power}


def left_out(seen: list[Seen], name: str, fit: Callable[[Doubles, Doubles], Predict], y: Doubles) -> Doubles:
    """(N,) predictions of `y`, each from a fit to the tiles of all other places."""
    x = np.array([[s.scores[name]] for s in seen])
    places = np.array([s.tile.place for s in seen])
    out = np.empty(len(seen))
    for place in np.unique(places):
        out[places == place] = fit(x[places != place], y[places != place])(x[places == place])
    return out


def r2(y: Doubles, predicted: Doubles) -> float:
    """Share of the variance explained; below 0 where the mean would be nearer."""
    return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def _compared(bench: Bench, target: Target, seen: list[Seen]) -> Doubles:
    """Rows of all scores and fits; the best score's predictions."""
    y = np.log10([s.need.bits for s in seen])
    for name in (*PAPER, *AT_TARGET):
        if name in seen[0].scores:
            row = {kind: r2(y, left_out(seen, name, fit, y)) for kind, fit in FITS.items()}
            bench.row(target=target.name, score=name, tiles=len(seen), **row)
    return left_out(seen, BEST, exponential, y)


def _figures(bench: Bench, target: Target, seen: list[Seen], predicted: Doubles) -> None:
    y = np.log10([s.need.bits for s in seen])
    places = np.array([s.tile.place for s in seen])
    off, held = y - predicted, []
    for place in np.unique(places):
        width = np.quantile(np.abs(off[places != place]), _COVERED)
        held += (np.abs(off[places == place]) <= width).tolist()
    key = target.name.replace(" ", "_")
    scores = np.array([s.scores[BEST] for s in seen])
    slope, at = np.polyfit(scores, y * np.log(10), 1)
    width = float(np.quantile(np.abs(off), _COVERED) * np.log(10))
    bench.row(target=target.name, law=f"{BEST}, natural logarithms", at=float(at), slope=float(slope), width=width)
    bench.figure(
        f"r2.{key}", r2(y, predicted), bar=BARS[target.name], better="higher",
        baseline=f"{BEST}, exponential; every place left out of its own fit", n=len(seen),
    )  # fmt: skip
    bench.figure(
        f"interval_holds.{key}", float(np.mean(held)), bar=None, better="higher",
        baseline=f"interval meant for {_COVERED} of tiles, from other places' errors", n=len(seen),
    )  # fmt: skip


def _one_encode(bench: Bench, target: Target, seen: list[Seen]) -> None:
    """Encode each tile once, at the quality its scores ask for and a margin finer: how many keep the target?"""
    y = np.array([s.need.crf for s in seen])
    predicted = left_out(seen, BEST if target.ndvi is None else BORNE, power, y)
    places = np.array([s.tile.place for s in seen])
    kept, dearer = [], []
    for i, s in enumerate(seen):
        others = [p for p in np.unique(places) if p != s.tile.place]
        margin = min(float(np.quantile((y - predicted)[places == p], _COARSEST)) for p in others)
        crf = float(np.clip(predicted[i] + margin, CRF_MIN, CRF_MAX))
        error, bits = missed(coder(s.tile, target), s.tile, target, round(4 * crf) / 4)
        kept.append(error <= 0)
        dearer.append(bits / s.need.bits)
    key = target.name.replace(" ", "_")
    bench.figure(
        f"within_policy_after_one_encode.{key}", float(np.mean(kept)), bar=0.9, better="higher",
        baseline="tiles of places left out of the fit", n=len(seen),
    )  # fmt: skip
    bench.figure(
        f"bytes_of_one_encode.{key}", float(np.median(dearer)), bar=None, better="lower",
        baseline="bytes at exactly the target", n=len(seen),
    )  # fmt: skip


def _plot(path: Path, found: dict[str, tuple[list[Seen], Doubles]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.0), dpi=90, layout="constrained")
    places = dict.fromkeys(s.tile.place for seen, _ in found.values() for s in seen)
    colours = {place: f"C{i}" for i, place in enumerate(places)}
    for axes, (name, (seen, predicted)) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        bits = np.array([s.need.bits for s in seen])
        for place in dict.fromkeys(s.tile.place for s in seen):
            mine = np.array([s.tile.place == place for s in seen])
            axes.loglog(10 ** predicted[mine], bits[mine], "o", ms=4, color=colours[place], alpha=0.75, label=place)
        ends = np.array([min(bits.min(), (10**predicted).min()) / 1.3, max(bits.max(), (10**predicted).max()) * 1.3])
        axes.plot(ends, ends, color="#333333", lw=0.8)
        axes.set(title=name, xlabel="predicted bits a value", xlim=ends, ylim=ends)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7, frameon=False)
    figure.axes[0].set_ylabel("bits a value as encoded")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def measure(bench: Bench) -> None:
    """Each target in turn."""
    everything, found = list(tiles(quick=bench.quick)), {}
    for target in TARGETS:
        seen = []
        for tile in everything:
            if target.ndvi is None or tile.series.indices:
                wanted = need(tile, target)
                if wanted is not None:
                    seen.append(Seen(tile, scores(tile, target), wanted))
        if len({s.tile.place for s in seen}) < 2:
            continue
        predicted = _compared(bench, target, seen)
        found[target.name] = seen, predicted
        _figures(bench, target, seen, predicted)
        _one_encode(bench, target, seen)
        bench.write()
    if found:
        _plot(bench.folder / "sizing.png", found)


if __name__ == "__main__":
    run(measure, "sizing")
