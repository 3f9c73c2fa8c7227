"""The optimiser's loop: it sees arrays and bounds, and knows nothing of places, files or stores."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geostore.codec import Effort, Progress
from geostore.vae.adam import Adam
from geostore.vae.device import Device
from geostore.vae.losses import Physical, Terms, gaussian_bits, index_errors, laplace_bits, masked_mean
from geostore.vae.model import Layout, Vae, start_skip
from geostore.vae.samples import Batch, Samples, draw, principal_directions

STEPS_SHOWN = 20  # optimiser steps between two calls of progress
_LEARNING_RATE = 3e-3
_BETAS = (0.9, 0.98)
_SCALES_FASTER = 5.0  # learning rate of the latents' scales over that of the networks
_COOL = 0.35  # share of the time spent on rounded latents at a falling rate
_PATIENCE = 400  # steps without gain after which cooling begins early
_PATIENT = 0.2  # and at least this share of all steps
_FIRST_WEIGHT = 0.3
_LOG_STEPS = (-2.0, 1.0)  # bounds of a raster's step


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a fit aims at: the error every raster is steered to, term by term; None is not steered.

    Attributes:
        mse: on n1, or None.
        index: mean absolute error of every index, or None.
        apart: of single indices, in its place.
        bits_weight: weight of the rate, 1 for the grid, small for the flat VAE.
    """

    mse: float | None
    index: float | None
    bits_weight: float = 1.0
    apart: Mapping[str, float | None] = field(default_factory=dict)

    def targets(self, indices: Sequence[str]) -> dict[str, float]:
        """Error wanted, by name of the term, where `indices` can be taken."""
        of_index = {f"index_{name}": self.apart.get(name, self.index) for name in indices}
        out = {"mse": self.mse if self.mse is not None else 5e-4}
        return out | {name: error for name, error in of_index.items() if error is not None}


@dataclass
class Steering:
    """Two dials that bring errors to their targets at the fewest bits.

    Lagrange multipliers, one a term, hold the mean error of all rasters. A quantiser step for each raster, relative
    to the others, gives hard rasters more bits and easy ones fewer, as encoding does.

    Attributes:
        targets: error wanted, by name of the term.
        log_steps: (T,) natural logarithm of each raster's step; their mean is 0.
        fixed: True where the multipliers stay as they begin (the flat VAE).
    """

    targets: dict[str, float]
    log_steps: npt.NDArray[np.float64]
    fixed: bool
    weights: dict[str, float] = field(default_factory=dict)
    smooth: dict[str, float] = field(default_factory=dict)

    def weight(self, name: str) -> float:
        """Present weight of a term per unit of error."""
        return self.weights.get(name, _FIRST_WEIGHT) / self.targets[name]

    def update(self, terms: Terms, dates: npt.NDArray[np.int64]) -> None:
        """Move both dials by what one step saw of `dates`."""
        ratios = {name: (terms.each(name) / target).clip(0.0, 3.0) for name, target in self.targets.items()}
        for name, ratio in ratios.items():
            mean = float(ratio.mean())
            self.smooth[name] = 0.95 * self.smooth.get(name, mean) + 0.05 * mean
            if not self.fixed:
                moved = self.weights.get(name, _FIRST_WEIGHT) * math.exp(0.03 * (self.smooth[name] - 1))
                self.weights[name] = min(max(moved, 1e-3), 20.0)
        worst = np.max(list(ratios.values()), axis=0)
        np.add.at(self.log_steps, dates, -0.1 * np.log(np.maximum(worst, 0.1)))
        self.log_steps -= self.log_steps.mean()
        self.log_steps.clip(*_LOG_STEPS, out=self.log_steps)

    def emphasis(self, dates: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """(N,) factor on the errors of these rasters: it counts by the inverse square of the step."""
        return np.exp(-2 * self.log_steps[dates]).astype(np.float32)

    def steps(self, dates: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """(N, 1, 1, 1) quantiser steps for these rasters, with some play so that a decoder knows its neighbours."""
        log = self.log_steps[dates] + rng.uniform(-0.35, 0.35, len(dates))
        return np.exp(log).astype(np.float32)[:, None, None, None]


class Clock:
    """Share of the effort used, by steps or by seconds, whichever is further; may be called off early."""

    def __init__(self, effort: Effort, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.now, self.began = effort.seconds, now, now()
        self.step, self.steps = 0, effort.steps

    def share(self) -> float:
        """0 at the start, 1 or more at the end."""
        by_steps = self.step / max(self.steps, 1)
        return by_steps if self.seconds is None else max(by_steps, (self.now() - self.began) / self.seconds)

    def cool_early(self) -> None:
        """Leave only the cooling steps that the steps so far deserve."""
        self.steps = min(self.steps, round(self.step / (1 - _COOL)))


Watch = Callable[[int, dict[str, float]], None]  # told the step and the smoothed loss terms, now and then


def train(
    vae: Vae,
    samples: Samples,
    *,
    goal: Goal,
    effort: Effort,
    progress: Progress,
    warm: bool = False,
    watch: Watch | None = None,
    device: Device | None = None,
) -> dict[str, float]:
    """Train `vae` in place; returns the smoothed loss terms at the end and the steps taken.

    Stops at `effort.steps`, at `effort.seconds`, or once the bits no longer fall. `warm` keeps the weights it comes
    with; otherwise the linear skip starts on the principal bands. `watch` sees every loss term. `device` overrules that
    of `effort`. Torch's own generator is drawn from: seed it.
    """
    device = device or Device.named(effort.device)
    vae.to(device.where).train()
    run = _Run(vae, samples, goal, np.random.default_rng(effort.seed), device)
    run.patience = max(_PATIENCE, round(_PATIENT * effort.steps))
    if not warm and vae.layout.mode == "grid":
        directions = principal_directions(samples, vae.layout, run.rng)
        start_skip(vae, torch.from_numpy(directions).to(device.where))
    clock = Clock(effort)
    while (share := clock.share()) < 1.0:
        run.step(share, clock.step)
        clock.step += 1
        if clock.step % STEPS_SHOWN == 0:
            progress("fit", min(share, 1.0))
            if watch is not None:
                watch(clock.step, dict(run.smooth))
        if run.stalled(clock.step) and share < 1 - _COOL:
            clock.cool_early()
    vae.eval()
    return {**run.smooth, "steps": float(clock.step)}


def indices_of(layout: Layout, samples: Samples) -> tuple[str, ...]:
    """Spectral indices whose error a training sees: band by band none can be taken."""
    return samples.series.indices if layout.bands == len(samples.series.bands) else ()


class _Run:
    """The state of one training."""

    def __init__(self, vae: Vae, samples: Samples, goal: Goal, rng: np.random.Generator, device: Device) -> None:
        self.vae, self.samples, self.goal, self.rng = vae, samples, goal, rng
        self.networks, self.device = device.networks, device.where
        self.dates = samples.series.usable
        self.networks_moved = Adam([*vae.encoder.parameters(), *vae.decoder.parameters()], _BETAS)
        self.scales_moved = Adam([vae.log_scale], _BETAS)
        self.indices = indices_of(vae.layout, samples)
        self.physical = Physical.of(samples.units, self.device)
        alike = np.zeros(len(samples.series))
        self.steering = Steering(goal.targets(self.indices), alike, fixed=vae.layout.mode != "grid")
        self.smooth: dict[str, float] = {}
        self.best, self.best_step = math.inf, 0
        self.patience = _PATIENCE

    def step(self, share: float, number: int) -> None:
        """One optimiser step."""
        rate = _LEARNING_RATE * min(1.0, (number + 1) / 20) * (0.5 + 0.5 * math.cos(math.pi * share)) + 5e-5
        batch = draw(self.samples, self.vae.layout, self.dates, self.rng, self.device)
        terms = self.terms(batch, rounded=share > 1 - _COOL)
        loss = self.goal.bits_weight * terms.rate
        emphasis = torch.from_numpy(self.steering.emphasis(batch.dates)).to(self.device)
        for name in self.steering.targets:
            loss = loss + self.steering.weight(name) * (emphasis * terms.named[name]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 5.0)
        self.networks_moved.step(rate)
        self.scales_moved.step(rate * _SCALES_FASTER)
        self.steering.update(terms, batch.dates)
        self.smooth = {k: 0.98 * self.smooth.get(k, v) + 0.02 * v for k, v in terms.values().items()}

    def stalled(self, number: int) -> bool:
        """True once neither bits nor errors above their target have fallen for a while."""
        above = sum(max(self.steering.smooth[n], 0.9) for n in self.steering.targets)
        loss = math.log(max(self.smooth["rate"], 1e-6)) + above
        if loss < self.best - 0.01:
            self.best, self.best_step = loss, number
        return number - self.best_step > self.patience

    def terms(self, batch: Batch, *, rounded: bool) -> Terms:
        """The loss terms of a batch, latents rounded or with uniform noise in its place."""
        z, bits = self.latents(batch, rounded=rounded)
        with self.networks():
            found = self.vae.decoder(z, batch.statics)
        error = self.samples.scale * (found.float() - batch.residual)
        pixels = batch.residual.shape[0] * batch.residual.shape[2] * batch.residual.shape[3]
        truth = batch.base + self.samples.scale * batch.residual
        named = {"mse": masked_mean(self.physical.on_n1(truth, error) ** 2, batch.mask)}
        return Terms(rate=bits.sum() / pixels, named=named | self._index(batch, truth, error))

    def latents(self, batch: Batch, *, rounded: bool) -> tuple[Tensor, Tensor]:
        """Latents (N, c, h, w) as the decoder will meet them, and the bits of each."""
        with self.networks():
            mu, logvar = (values.float() for values in self.vae.encoder(batch.residual))
        if self.vae.layout.mode != "grid":
            return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar), gaussian_bits(mu, logvar)
        steps = torch.from_numpy(self.steering.steps(batch.dates, self.rng)).to(self.device)
        moved = torch.round(mu / steps) * steps - mu if rounded else (torch.rand_like(mu) - 0.5) * steps
        z = mu + moved.detach()
        return z, laplace_bits(z, self.vae.log_scale, steps)

    def _index(self, batch: Batch, truth: Tensor, error: Tensor) -> dict[str, Tensor]:
        if not self.indices:
            return {}
        bands, physical = self.samples.series.bands.names, self.physical(truth)
        seen = physical + self.physical.away(truth, error)
        found = index_errors(physical, seen, batch.mask, bands, self.indices)
        return {f"index_{name}": value for name, value in found.items()}
