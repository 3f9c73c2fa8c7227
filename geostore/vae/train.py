"""The optimiser's loop: it sees arrays and bounds, and knows nothing of places, files or stores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geostore.codec import Effort, Progress, Series
from geostore.vae.losses import Terms, gaussian_bits, index_errors, laplace_bits, masked_mean
from geostore.vae.model import STRIDE, Layout, Vae, start_skip
from geostore.vae.static import Ints, Static, Units

CROP = 64  # pixels a side that one step sees of one raster
BATCH = 4
STEPS_SHOWN = 20  # optimiser steps between two calls of progress
STATIC_BITS = 10  # static maps and activations are integers / 1024
_TRAINED_STEPS = (0.5, 0.6875, 1.0, 1.4375)  # quantiser steps a decoder meets while it is trained
_LEARNING_RATE = 3e-3
_COOL = 0.35  # share of the time spent on rounded latents at a falling rate


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What training reads.

    Attributes:
        series: pixels (T, B, H, W), validity and names.
        units: how stored values become units.
        static: the mean image (constant in the flat modes).
        gains, levels: (T, B) int32, each date on the mean image.
        scale: one number per place; residuals are divided by it.
    """

    series: Series
    units: Units
    static: Static
    gains: Ints
    levels: Ints
    scale: float

    def residual(self, date: int, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.float32]:
        """(B, h, w) of one date: (units - prediction) / scale, 0 where masked."""
        frame = self.units.from_stored(self.series.pixels[date, :, rows, columns])
        near = Static(b"", self.static.image[:, rows, columns], self.static.centre, self.static.spread)
        left = (frame - near.predict(self.gains[date], self.levels[date])) / self.scale
        return np.where(self.series.valid[date, rows, columns], left, 0.0).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a fit aims at: the mean error it steers to, term by term; a term that is not named is not steered.

    Attributes:
        mse: on n1, or None.
        index: mean absolute index error, or None.
        bits_weight: weight of the rate, 1 for the grid, small for the flat VAE.
    """

    mse: float | None
    index: float | None
    bits_weight: float = 1.0


@dataclass
class Steering:
    """Lagrange multipliers: each error's weight grows while the error lies above its target, and falls below it."""

    targets: dict[str, float]
    fixed: bool
    weights: dict[str, float] = field(default_factory=dict)
    smooth: dict[str, float] = field(default_factory=dict)

    def weight(self, name: str) -> float:
        """Present weight of a term per unit of error."""
        return self.weights.get(name, 0.3) / self.targets[name]

    def update(self, seen: dict[str, float]) -> None:
        """Move every weight by what was seen in one step."""
        for name, target in self.targets.items():
            ratio = min(seen[name] / target, 3.0)
            self.smooth[name] = 0.95 * self.smooth.get(name, ratio) + 0.05 * ratio
            if not self.fixed:
                moved = self.weights.get(name, 0.3) * math.exp(0.03 * (self.smooth[name] - 1))
                self.weights[name] = min(max(moved, 1e-3), 20.0)


@dataclass(frozen=True)
class Batch:
    """One step's input; every tensor is (N, C, h, w) float32."""

    residual: Tensor
    mask: Tensor
    base: Tensor
    statics: tuple[Tensor, ...]


def train(
    vae: Vae, samples: Samples, *, goal: Goal, effort: Effort, progress: Progress, warm: bool = False
) -> dict[str, float]:
    """Train `vae` in place; returns the smoothed loss terms at the end and the steps taken.

    Stops at `effort.steps`, at `effort.seconds`, or once the bits no longer fall and the goal is met.
    `warm` keeps the weights it comes with; otherwise the linear skip starts on the principal bands.
    """
    device = pick_device(effort.device)
    vae.to(device).train()
    rng = np.random.default_rng(effort.seed)
    torch.manual_seed(effort.seed)
    if not warm and vae.layout.mode == "grid":
        start_skip(vae, torch.from_numpy(_principal(samples, vae.layout, rng)).to(device))
    optimiser = torch.optim.Adam(
        [
            {"params": [*vae.encoder.parameters(), *vae.decoder.parameters()], "factor": 1.0},
            {"params": [vae.log_scale], "factor": 5.0},
        ],
        lr=_LEARNING_RATE,
        betas=(0.9, 0.98),
    )
    indices = samples.series.indices if vae.layout.bands == len(samples.series.bands) else ()  # else never together
    steering = Steering(_targets(goal, indices), fixed=vae.layout.mode != "grid")
    return _loop(vae, optimiser, steering, samples, goal, _Clock(effort), progress, rng)


def pick_device(name: str) -> torch.device:
    """The device `Effort.device` names; "auto" is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _Clock:
    """Share of the effort used, by steps or by seconds, whichever is further; may be called off early."""

    def __init__(self, effort: Effort, now: Callable[[], float] = time.monotonic) -> None:
        self.effort, self.now, self.began = effort, now, now()
        self.step, self.steps = 0, effort.steps

    def share(self) -> float:
        by_steps = self.step / self.steps
        limit = self.effort.seconds
        return by_steps if limit is None else max(by_steps, (self.now() - self.began) / limit)

    def cool_early(self) -> None:
        """Leave only the cooling steps that the steps so far deserve."""
        self.steps = min(self.steps, round(self.step / (1 - _COOL)))


def _loop(
    vae: Vae,
    optimiser: torch.optim.Optimizer,
    steering: Steering,
    samples: Samples,
    goal: Goal,
    clock: _Clock,
    progress: Progress,
    rng: np.random.Generator,
) -> dict[str, float]:
    smooth: dict[str, float] = {}
    best, best_step = math.inf, 0
    dates = np.flatnonzero(samples.series.valid.any(axis=(1, 2)))
    while (share := clock.share()) < 1.0:
        batch = draw(samples, vae.layout, dates, rng, next(vae.parameters()).device)
        terms = _step(vae, optimiser, steering, samples, goal, batch, share, clock.step, rng)
        seen = terms.values()
        steering.update(seen)
        smooth = {k: 0.98 * smooth.get(k, v) + 0.02 * v for k, v in seen.items()}
        clock.step += 1
        if clock.step % STEPS_SHOWN == 0:
            progress("fit", share)
        loss = math.log(max(smooth["rate"], 1e-6)) + sum(max(steering.smooth[n], 0.9) for n in steering.targets)
        if loss < best - 0.01:
            best, best_step = loss, clock.step
        if clock.step - best_step > 400 and share < 1 - _COOL:
            clock.cool_early()
            best_step = clock.steps
    vae.eval()
    return {**smooth, "steps": float(clock.step)}


def _step(
    vae: Vae,
    optimiser: torch.optim.Optimizer,
    steering: Steering,
    samples: Samples,
    goal: Goal,
    batch: Batch,
    share: float,
    step: int,
    rng: np.random.Generator,
) -> Terms:
    cooling = max(0.0, (share - (1 - _COOL)) / _COOL)
    for group in optimiser.param_groups:
        rate = _LEARNING_RATE * min(1.0, (step + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * share)) + 5e-5
        group["lr"] = rate * group["factor"]
    terms = _terms(vae, samples, batch, rounded=cooling > 0, rng=rng)
    named = {"mse": terms.mse, **{f"index_{k}": v for k, v in terms.indices.items()}}
    loss = goal.bits_weight * terms.rate
    for name in steering.targets:
        loss = loss + steering.weight(name) * named[name]
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
    optimiser.step()
    return terms


def _terms(vae: Vae, samples: Samples, batch: Batch, *, rounded: bool, rng: np.random.Generator) -> Terms:
    mu, logvar = vae.encoder(batch.residual)
    if vae.layout.mode == "grid":
        steps = torch.from_numpy(rng.choice(_TRAINED_STEPS, (len(mu), 1, 1, 1)).astype(np.float32)).to(mu.device)
        noisy = torch.round(mu / steps) * steps - mu if rounded else (torch.rand_like(mu) - 0.5) * steps
        z = mu + noisy.detach()
        bits = laplace_bits(z, vae.log_scale, steps)
    else:
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        bits = gaussian_bits(mu, logvar)
    error = samples.scale * (vae.decoder(z, batch.statics) - batch.residual)
    return Terms(
        mse=masked_mean(error**2, batch.mask),
        rate=bits.sum() / (batch.residual.shape[0] * batch.residual.shape[2] * batch.residual.shape[3]),
        indices=_indices(samples, batch, error),
    )


def _indices(samples: Samples, batch: Batch, error: Tensor) -> dict[str, Tensor]:
    bands = samples.series.bands
    if batch.residual.shape[1] != len(bands) or not samples.series.indices:
        return {}  # band by band no index can be taken
    scale = torch.tensor(samples.units.scale, dtype=torch.float32, device=error.device)[:, None, None]
    shift = torch.tensor(samples.units.shift, dtype=torch.float32, device=error.device)[:, None, None]
    truth = (batch.base + samples.scale * batch.residual) * scale + shift
    return index_errors(truth, truth + error * scale, batch.mask, bands.names, samples.series.indices)


def _targets(goal: Goal, indices: tuple[str, ...]) -> dict[str, float]:
    out = {"mse": goal.mse if goal.mse is not None else 5e-4}
    if goal.index is not None:
        out |= {f"index_{name}": goal.index for name in indices}
    return out


def draw(
    samples: Samples, layout: Layout, dates: npt.NDArray[np.int64], rng: np.random.Generator, device: torch.device
) -> Batch:
    """A random batch: whole frames when flat, else crops of at most CROP pixels whose corners lie on latents."""
    chosen = rng.choice(dates, BATCH)
    height, width = layout.padded
    rows, columns = (height, width) if layout.mode != "grid" else (min(CROP, height), min(CROP, width))
    corners = [
        (
            STRIDE * int(rng.integers((height - rows) // STRIDE + 1)),
            STRIDE * int(rng.integers((width - columns) // STRIDE + 1)),
        )
        for _ in chosen
    ]
    parts = [_crop(samples, int(t), r, c, rows, columns) for t, (r, c) in zip(chosen, corners, strict=True)]
    residual, mask, base = (torch.from_numpy(np.stack(p)).to(device) for p in zip(*parts, strict=True))
    if layout.mode == "flat-single":
        pick = int(rng.integers(residual.shape[1]))
        return Batch(residual[:, pick : pick + 1], mask, base[:, pick : pick + 1], ())
    statics = _statics(samples, layout, corners, rows, columns) if layout.mode == "grid" else ()
    return Batch(residual, mask, base, tuple(s.to(device) for s in statics))


def _crop(
    samples: Samples, date: int, row: int, column: int, rows: int, columns: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Residual, mask and prediction of one crop; what lies beyond the window is masked."""
    down, across = slice(row, row + rows), slice(column, column + columns)
    residual = samples.residual(date, down, across)
    short = ((0, rows - residual.shape[1]), (0, columns - residual.shape[2]))
    near = Static(b"", samples.static.image[:, down, across], samples.static.centre, samples.static.spread)
    base = near.predict(samples.gains[date], samples.levels[date]).astype(np.float32)
    mask = samples.series.valid[date, down, across].astype(np.float32)[None]
    return (
        np.pad(residual, ((0, 0), *short), mode="edge"),
        np.pad(mask, ((0, 0), *short)),
        np.pad(base, ((0, 0), *short), mode="edge"),
    )


def _statics(
    samples: Samples, layout: Layout, corners: list[tuple[int, int]], rows: int, columns: int
) -> tuple[Tensor, ...]:
    maps = samples.static.maps(STATIC_BITS, layout.padded)
    out = []
    for k, plane in enumerate(maps):
        cut = [plane[:, r >> k : (r + rows) >> k, c >> k : (c + columns) >> k] for r, c in corners]
        out.append(torch.from_numpy(np.stack(cut).astype(np.float32) / (1 << STATIC_BITS)))
    return tuple(out)


def _principal(samples: Samples, layout: Layout, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(k, B) orthonormal spectral directions of the residual, strongest first; k is at most half the channels."""
    valid = np.flatnonzero(samples.series.valid.any(axis=(1, 2)))
    drawn = [samples.residual(int(t))[:, samples.series.valid[t]] for t in rng.permutation(valid)[:8]]
    pixels = np.concatenate(drawn, axis=1).astype(np.float64)  # (B, P)
    _, vectors = np.linalg.eigh(pixels @ pixels.T)
    count = min(len(pixels), max(1, layout.channels // 2))
    return np.ascontiguousarray(vectors[:, ::-1][:, :count].T).astype(np.float32)
