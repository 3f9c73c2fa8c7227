"""Fit the little that one place changes in a base, for many places in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from geostore.codec import Progress
from geostore.vae.adam import Adam
from geostore.vae.base import FEW, GAIN_UNIT, MOVED, Frozen, Tensors
from geostore.vae.device import Device
from geostore.vae.model import (
    STRIDE,
    Decoder,
    Encoder,
    Layout,
    Seen,
    leaky,
    linear,
    spread_over,
    synthesise,
    turned,
)
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
        return out | {f"{n}.q": p / self.units[n].to(p.device) for n, p in self.weights.items()}

    def stored(self, place: int) -> Tensors:
        """The delta of one place as int8."""
        with torch.no_grad():
            return {k: _whole(v[place]).cpu().numpy().astype(np.int8) for k, v in self.numbers().items()}

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
        layer, unit = self.decoder.layers[name], self.units[name].to(x.device)
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


Watch = Callable[[int, npt.NDArray[np.float64]], None]  # told the step and (P,) errors of the places, now and then


def fit_deltas(
    layout: Layout,
    tensors: Frozen,
    lessons: Sequence[Lesson],
    *,
    whole: bool,
    steps: int,
    seed: int,
    progress: Progress,
    watch: Watch | None = None,
    device: Device | None = None,
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
        watch: sees the smoothed squared error of every place, in units of its scale.
        device: where it runs; the processor if None.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        device = device or Device.named("cpu")
        fitting = _Fitting(layout, tensors, lessons, device, whole=whole, seed=seed)
        for number in range(steps):
            fitting.step(number / steps)
            if number % 20 == 0:
                progress("fit", number / steps)
                if watch is not None:
                    watch(number + 1, fitting.errors.copy())
            if fitting.stalled(number) and number < (1 - _COOL) * steps:
                fitting.cool(number, steps)
            if fitting.share(number, steps) >= 1:
                break
    return [fitting.deltas.stored(p) for p in range(len(lessons))]


@dataclass(frozen=True)
class _Crops:
    """One step's input: (N, ...) tensors of rasters, those of one place together; `seen` (P, ...) of places."""

    residual: Tensor
    mask: Tensor
    z: Tensor
    seen: Seen
    log_step: Tensor


def _fixed(encoder: Encoder, decoder: Decoder, lesson: Lesson) -> tuple[Tensor, Seen]:
    """(T, c, h, w) means of every raster of a place by the base's own encoder, which stays, and the place's `look`."""
    device = next(encoder.parameters()).device
    log_step = torch.full((1, 1, 1, 1), lesson.log_step, device=device)
    with torch.no_grad():
        statics = pyramid(torch.from_numpy(lesson.map[None]).to(device))
        residual = torch.from_numpy(lesson.residual).to(device)
        parts = [residual[i : i + DATES] for i in range(0, len(residual), DATES)]
        means = [encoder(part, statics, log_step)[0] for part in parts]
        return torch.cat(means), decoder.look(statics)


def _cut(values: Tensor, scale: int, top: int, left: int, rows: int, columns: int) -> Tensor:
    """A window, given in pixels, of values at 1 / `scale` of their resolution."""
    at = slice(top // scale, (top + rows) // scale), slice(left // scale, (left + columns) // scale)
    return values[..., at[0], at[1]]


class _Fitting:
    """The state of one pass. What no delta changes, latents and what `look` gives, is worked out once."""

    def __init__(
        self, layout: Layout, tensors: Frozen, lessons: Sequence[Lesson], device: Device, *, whole: bool, seed: int
    ) -> None:
        self.lessons, self.rng, self.device = lessons, np.random.default_rng(seed), device
        self.deltas = Deltas(layout, tensors, len(lessons), whole=whole).to(device.where)
        encoder = unpack_encoder(layout, tensors).requires_grad_(False).to(device.where)
        self.means, self.seen = zip(*(_fixed(encoder, self.deltas.decoder, each) for each in lessons), strict=True)
        moving = [p for p in self.deltas.parameters() if p.requires_grad]
        self.optimiser = Adam(moving, betas=(0.9, 0.98))
        shape = [min(lesson.map.shape[i] for lesson in lessons) for i in (1, 2)]
        self.rows, self.columns = (min(CROP, n) for n in shape)
        self.smooth, self.best, self.best_step = math.nan, math.inf, 0
        self.cooled: int | None = None
        self.errors = np.full(len(lessons), math.nan)

    def step(self, share: float) -> None:
        """One optimiser step on DATES crops of every place."""
        cool = min(1.0, (1 - share) / _COOL) if self.cooled is None else 0.3
        crop = self._batch()
        with self.device.networks():
            found = self.deltas(crop.z, crop.seen, crop.log_step)
        error = ((found.float() - crop.residual) ** 2 * crop.mask).sum(dim=(1, 2, 3))
        error = error / (crop.mask.sum(dim=(1, 2, 3)) * crop.residual.shape[1]).clamp(min=1.0)
        each = error / torch.exp2(crop.log_step.reshape(-1)) ** 0.75
        each.sum().backward()
        self.optimiser.step(_RATE * cool + 1e-5)
        value = float(each.detach().mean())
        places = error.detach().reshape(len(self.lessons), -1).mean(dim=1).double().cpu().numpy()
        self.errors = np.where(np.isnan(self.errors), places, 0.95 * self.errors + 0.05 * places)
        self.smooth = value if math.isnan(self.smooth) else 0.95 * self.smooth + 0.05 * value

    def _batch(self) -> _Crops:
        drawn = [self._crop(place) for place in range(len(self.lessons))]
        centre = np.repeat([lesson.log_step for lesson in self.lessons], DATES)
        played = (centre + self.rng.uniform(-_SPREAD, _SPREAD, len(centre))).astype(np.float32)
        device = self.device.where
        log_step = torch.from_numpy(played).to(device)[:, None, None, None]
        step = torch.exp2(log_step)
        return _Crops(
            residual=torch.from_numpy(np.concatenate([d[0] for d in drawn])).to(device),
            mask=torch.from_numpy(np.concatenate([d[1] for d in drawn])).to(device),
            z=torch.round(torch.cat([d[2] for d in drawn]) / step) * step,
            seen=tuple(torch.cat(parts) for parts in zip(*(d[3] for d in drawn), strict=True)),
            log_step=log_step,
        )

    def _crop(self, place: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], Tensor, list[Tensor]]:
        """Residual, mask, means and what the layers take from the maps, of one window of some dates."""
        lesson = self.lessons[place]
        dates = self.rng.choice(len(lesson.residual), DATES, replace=len(lesson.residual) < DATES)
        height, width = lesson.map.shape[1:]
        top = STRIDE * int(self.rng.integers((height - self.rows) // STRIDE + 1))
        left = STRIDE * int(self.rng.integers((width - self.columns) // STRIDE + 1))
        pixels = lesson.residual[dates, :, top : top + self.rows, left : left + self.columns]
        mask = lesson.mask[dates, :, top : top + self.rows, left : left + self.columns]
        means = _cut(self.means[place][dates], STRIDE, top, left, self.rows, self.columns)
        scales = (1, 2, 4, 8, 8)  # of what `look` gives: four turns, and the prior
        seen = [_cut(s, k, top, left, self.rows, self.columns) for s, k in zip(self.seen[place], scales, strict=True)]
        return pixels, mask, means, seen

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
