"""Fit the little that one place changes in a base, for many places in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from geostore.codec import Progress
from geostore.vae.base import FEW, GAIN_UNIT, MOVED, Frozen, Tensors
from geostore.vae.model import STRIDE, Layout, Seen, leaky, linear, spread_over, synthesise, turned
from geostore.vae.quantize import unpack_decoder, unpack_encoder
from geostore.vae.shared import pyramid

CROP = 64  # pixels a side that one step sees
DATES = 4  # rasters of each place that one step sees
_RATE = 4e-3
_COOL = 0.3  # share of the steps over which the rate falls
_PATIENCE = 60  # steps without gain after which a fit ends early
_SPREAD = 0.5  # octaves of the step to either side that a delta is fitted for


@dataclass(frozen=True)
class Lesson:
    """One place, ready to be fitted.

    Attributes:
        residual: (T, B, H, W) float32, units of the place's scale, 0 where masked; H and W whole latents.
        mask: (T, 1, H, W) float32, 1 where the pixel counts.
        map: (B, H, W) float32, the static map at full resolution.
        log_step: base-2 logarithm of the quantiser step the place needs.
    """

    residual: npt.NDArray[np.float32]
    mask: npt.NDArray[np.float32]
    map: npt.NDArray[np.float32]
    log_step: float


class Deltas(nn.Module):
    """A base's decoder in float with P deltas: rasters of place p are rows p*D to (p+1)*D of a batch."""

    def __init__(self, layout: Layout, tensors: Frozen, count: int, *, whole: bool) -> None:
        super().__init__()
        self.layout, self.count, self.whole = layout, count, whole
        self.decoder = unpack_decoder(layout, tensors).requires_grad_(False)
        moved = MOVED if whole else FEW
        outputs = {name: self.decoder.layers[name].outputs for name in moved}
        self.scales = nn.ParameterDict({n: nn.Parameter(torch.zeros(count, c)) for n, c in outputs.items()})
        self.biases = nn.ParameterDict({n: nn.Parameter(torch.zeros(count, c)) for n, c in outputs.items()})
        self.units = {n: torch.from_numpy(tensors[f"{n}.s"].astype(np.float32))[:, None, None, None] for n in FEW}
        self.weights = nn.ParameterDict(
            {n: nn.Parameter(torch.zeros(count, *self.decoder.weights[n].shape)) for n in FEW} if whole else {}
        )

    def numbers(self) -> dict[str, Tensor]:
        """Every delta (P, ...) in whole multiples of its unit, before rounding."""
        out = {f"{n}.s": p * GAIN_UNIT for n, p in self.scales.items()}
        out |= {f"{n}.b": p * GAIN_UNIT for n, p in self.biases.items()}
        return out | {f"{n}.q": p / self.units[n] for n, p in self.weights.items()}

    def stored(self, place: int) -> Tensors:
        """The delta of one place as int8."""
        with torch.no_grad():
            return {k: _whole(v[place]).numpy().astype(np.int8) for k, v in self.numbers().items()}

    def apply_layer(self, name: str, x: Tensor, turn: Tensor | None) -> Tensor:
        """One layer in float, its deltas rounded as they will be stored."""
        if name not in self.scales:
            return self.decoder.apply_layer(name, x, turn)
        layer = self.decoder.layers[name]
        scale = 1 + _straight(self.scales[name] * GAIN_UNIT) / GAIN_UNIT
        bias = self.decoder.biases[name] + _straight(self.biases[name] * GAIN_UNIT) / GAIN_UNIT
        y = self._own(name, x) if name in self.weights else linear(layer, x, self.decoder.weights[name])
        y = y * spread_over(scale[:, :, None, None], len(x)) + spread_over(bias[:, :, None, None], len(x))
        if turn is not None:
            wider, shift = turned(y, turn)
            y = y * (1 + wider) + shift
        return leaky(y) if layer.active else y

    def _own(self, name: str, x: Tensor) -> Tensor:
        """A convolution whose weights differ from place to place: one group each."""
        layer, unit = self.decoder.layers[name], self.units[name]
        whole = self.decoder.weights[name] / unit + _straight(self.weights[name] / unit)
        weight = whole.clamp(-127, 127) * unit  # (P, out, in, k, k)
        rows = x.reshape(self.count, -1, *x.shape[1:]).transpose(0, 1).flatten(1, 2)  # (P*D, C, ..) -> (D, P*C, ..)
        y = functional.conv2d(rows, weight.flatten(0, 1), padding=layer.kernel // 2, groups=self.count)
        return y.reshape(len(rows), self.count, layer.outputs, *y.shape[2:]).transpose(0, 1).flatten(0, 1)

    def forward(self, z: Tensor, seen: Seen, log_step: Tensor) -> Tensor:
        """Latents (P*D, c, h, w), the places' `look` -> residual in units of each place's scale."""
        every = tuple(spread_over(s, len(z)) for s in seen)
        return synthesise(self.layout, self.apply_layer, z, every, log_step)


def _whole(values: Tensor) -> Tensor:
    return torch.round(values).clamp(-127, 127)


def _straight(values: Tensor) -> Tensor:
    """Rounded and held in an int8, with the gradient of what was rounded."""
    return values + (_whole(values) - values).detach()


def fit_deltas(
    layout: Layout,
    tensors: Frozen,
    lessons: Sequence[Lesson],
    *,
    whole: bool,
    steps: int,
    seed: int,
    progress: Progress,
) -> list[Tensors]:
    """Fit one delta for each lesson, all in one pass over shared weights.

    Args:
        layout: the base's network over the bands at hand.
        tensors: its weights.
        lessons: places; all of one size, or each at least CROP pixels a side.
        whole: move every layer, and the weights of the last ones; else 4 numbers a band.
        steps: optimiser steps at most; it ends earlier once nothing is gained.
        seed: everything random follows from it.
        progress: called now and then.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fitting = _Fitting(layout, tensors, lessons, whole=whole, seed=seed)
        for number in range(steps):
            fitting.step(number / steps)
            if number % 20 == 0:
                progress("fit", number / steps)
            if fitting.stalled(number) and number < (1 - _COOL) * steps:
                fitting.cool(number, steps)
            if fitting.share(number, steps) >= 1:
                break
    return [fitting.deltas.stored(p) for p in range(len(lessons))]


class _Fitting:
    """The state of one pass."""

    def __init__(self, layout: Layout, tensors: Frozen, lessons: Sequence[Lesson], *, whole: bool, seed: int) -> None:
        self.lessons, self.rng = lessons, np.random.default_rng(seed)
        self.deltas = Deltas(layout, tensors, len(lessons), whole=whole)
        self.encoder = unpack_encoder(layout, tensors).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.deltas.parameters(), lr=_RATE, betas=(0.9, 0.98))
        shape = [min(lesson.map.shape[i] for lesson in lessons) for i in (1, 2)]
        self.rows, self.columns = (min(CROP, n) for n in shape)
        self.smooth, self.best, self.best_step = math.nan, math.inf, 0
        self.cooled: int | None = None

    def step(self, share: float) -> None:
        """One optimiser step on DATES crops of every place."""
        cool = min(1.0, (1 - share) / _COOL) if self.cooled is None else 0.3
        for group in self.optimiser.param_groups:
            group["lr"] = _RATE * cool + 1e-5
        residual, mask, maps, log_step = self._batch()
        z, seen = self._latents(residual, maps, log_step)
        error = ((self.deltas(z, seen, log_step) - residual) ** 2 * mask).sum(dim=(1, 2, 3))
        error = error / (mask.sum(dim=(1, 2, 3)) * residual.shape[1]).clamp(min=1.0)
        each = error / torch.exp2(log_step.reshape(-1)) ** 0.75
        self.optimiser.zero_grad(set_to_none=True)
        each.sum().backward()
        self.optimiser.step()
        value = float(each.detach().mean())
        self.smooth = value if math.isnan(self.smooth) else 0.95 * self.smooth + 0.05 * value

    def _latents(self, residual: Tensor, maps: Tensor, log_step: Tensor) -> tuple[Tensor, Seen]:
        """Rounded latents of the base's own encoder, which stays: later rasters are encoded by it too."""
        with torch.no_grad():
            statics = pyramid(maps)
            mu, _ = self.encoder(residual, statics, log_step)
            step = torch.exp2(log_step)
            return torch.round(mu / step) * step, self.deltas.decoder.look(statics)

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        drawn = [self._crop(lesson) for lesson in self.lessons]
        residual, mask = (torch.from_numpy(np.concatenate([d[i] for d in drawn])) for i in (0, 1))
        maps = torch.from_numpy(np.stack([d[2] for d in drawn]))
        centre = np.repeat([lesson.log_step for lesson in self.lessons], DATES)
        log_step = (centre + self.rng.uniform(-_SPREAD, _SPREAD, len(centre))).astype(np.float32)
        return residual, mask, maps, torch.from_numpy(log_step)[:, None, None, None]

    def _crop(self, lesson: Lesson) -> tuple[npt.NDArray[np.float32], ...]:
        dates = self.rng.choice(len(lesson.residual), DATES, replace=len(lesson.residual) < DATES)
        height, width = lesson.map.shape[1:]
        top = STRIDE * int(self.rng.integers((height - self.rows) // STRIDE + 1))
        left = STRIDE * int(self.rng.integers((width - self.columns) // STRIDE + 1))
        at = (slice(top, top + self.rows), slice(left, left + self.columns))
        return lesson.residual[(dates, slice(None), *at)], lesson.mask[(dates, slice(None), *at)], lesson.map[:, *at]

    def stalled(self, number: int) -> bool:
        """True once the error has not fallen for a while."""
        if self.smooth < self.best * 0.998:
            self.best, self.best_step = self.smooth, number
        return number - self.best_step > _PATIENCE

    def cool(self, number: int, steps: int) -> None:
        """Leave only the cooling that the steps so far deserve."""
        self.cooled = self.cooled if self.cooled is not None else number + round(_COOL * number)

    def share(self, number: int, steps: int) -> float:
        """1 once it is over."""
        return number / (self.cooled if self.cooled is not None else steps)
