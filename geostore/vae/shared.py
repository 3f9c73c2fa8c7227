"""Train one network over many places, at many rates: the base that a store's codecs share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from geostore.vae.base import Base, pack_base
from geostore.vae.losses import laplace_bits
from geostore.vae.model import COARSEST, Layout, Vae, spread_over
from geostore.vae.quantize import pack_decoder, pack_encoder

CROP = 64  # pixels a side
PLACES, DATES = 3, 3  # of one step
STEP_RANGE = (0.15, 2.8)  # quantiser steps of the latents that the network meets
WEIGHT = 0.17  # of a band's squared error, in bits per pixel, at step 1: the slope of both at 0.03 bits a value
RATE = 2e-3  # of the optimiser, at first
_WORTH = -1.25  # bits and error together grow by this power of the step; each rate then counts alike
_AVERAGED = 0.999
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Place:
    """One place, as its network sees it.

    Attributes:
        kind: of the place, for `Shares`.
        residual: (T, B, H, W) float16, what the static image leaves, in units of the place's scale; 0 where masked.
        map: (B, H, W) float16, the static map at full resolution.
        valid: (T, H, W) bool, the pixels that count; None: all of them.
    """

    kind: str
    residual: npt.NDArray[np.float16]
    map: npt.NDArray[np.float16]
    valid: npt.NDArray[np.bool_] | None = None


class SharedVae(Vae):
    """A `Vae` whose prior, a Laplace scale per channel, is moved by static map and step."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.slope = nn.Parameter(torch.zeros(layout.channels))

    def spread(self, prior: Tensor, log_step: Tensor) -> Tensor:
        """(N, c, h, w) Laplace scales by the prior's (N, c, h, w) maps and (N, 1, 1, 1) base-2 logarithms of steps."""
        moved = self.log_scale[:, None, None] + self.slope[:, None, None] * log_step
        return torch.exp(moved + prior.clamp(-4.0, 4.0))

    def forward(self, residual: Tensor, maps: Tensor, log_step: Tensor) -> tuple[Tensor, Tensor]:
        """(N, B, H, W) residuals, (P, B, H, W) maps, (N, 1, 1, 1) -> what decodes, and (N,) bits per pixel."""
        statics = pyramid(maps)
        step = torch.exp2(log_step)
        mu, _ = self.encoder(residual, statics, log_step)
        seen = self.decoder.look(statics)
        z = mu + (torch.round(mu / step) * step - mu).detach()
        noisy = mu + (torch.rand_like(mu) - 0.5) * step
        scale = self.spread(spread_over(seen[-1], len(mu)), log_step)
        bits = laplace_bits(noisy / scale, torch.zeros_like(self.log_scale), step / scale)
        return self.decoder(z, seen, log_step), bits.sum(dim=(1, 2, 3)) / (residual.shape[2] * residual.shape[3])


def pyramid(maps: Tensor) -> tuple[Tensor, ...]:
    """(P, B, H, W) -> the same at full, 1/2, 1/4 and 1/8 resolution."""
    out = [maps]
    for _ in range(COARSEST):
        out.append(functional.avg_pool2d(out[-1], 2))
    return tuple(out)


@dataclass
class Draw:
    """Random batches from places.

    Attributes:
        places: all of them.
        shares: how often each kind is drawn; kinds without places fall out.
        rng: drawn from.
        subsets: bands that are there, one of these for each batch; the others are as if always 0, as in a codec that
            takes only some slots of a base. Empty: all of them.
        steps: smallest and largest quantiser step.
    """

    places: Sequence[Place]
    shares: dict[str, float]
    rng: np.random.Generator
    subsets: Sequence[Sequence[int]] = ()
    steps: tuple[float, float] = STEP_RANGE

    def __post_init__(self) -> None:
        self.kinds = {k: [p for p in self.places if p.kind == k] for k in self.shares}
        self.kinds = {k: found for k, found in self.kinds.items() if found}
        weights = np.array([self.shares[k] for k in self.kinds])
        self.weights = weights / weights.sum()

    def batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One step's input.

        Returns:
            Residuals (PLACES * DATES, B, CROP, CROP), maps (PLACES, B, CROP, CROP), base-2 logarithms of steps
            (PLACES * DATES, 1, 1, 1), (B,) 1 for the bands that are there, and (PLACES * DATES, 1, CROP, CROP) 1 for
            the pixels that count.
        """
        there = np.ones(self.places[0].map.shape[0], np.float32)
        if self.subsets:
            there[:] = 0
            there[list(self.subsets[int(self.rng.integers(len(self.subsets)))])] = 1
        drawn = [self._crop(there) for _ in range(PLACES)]
        residual, counted = (torch.from_numpy(np.concatenate([d[i] for d in drawn])) for i in (0, 2))
        maps = torch.from_numpy(np.stack([m for _, m, _ in drawn]))
        low, high = (math.log2(s) for s in self.steps)
        log_step = self.rng.uniform(low, high, (len(residual), 1, 1, 1)).astype(np.float32)
        return residual, maps, torch.from_numpy(log_step), torch.from_numpy(there), counted

    def _crop(self, there: Floats) -> tuple[Floats, Floats, Floats]:
        rng = self.rng
        kind = list(self.kinds)[rng.choice(len(self.kinds), p=self.weights)]
        place = self.kinds[kind][rng.integers(len(self.kinds[kind]))]
        dates = rng.choice(len(place.residual), DATES, replace=len(place.residual) < DATES)
        top, left = (int(rng.integers(n - CROP + 1)) for n in place.map.shape[1:])
        window = np.s_[..., top : top + CROP, left : left + CROP]
        counted = np.ones((DATES, 1, CROP, CROP), np.float16)
        if place.valid is not None:
            counted[:, 0] = place.valid[dates][window]
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        each = (place.residual[dates][window], place.map[window], counted)
        turned = [np.rot90(a, turns, axes=(-2, -1)) for a in each]
        residual, cut, counts = (a[..., ::-1] if mirrored else a for a in turned)
        varied = math.exp(rng.normal(0, 0.1)) / _spread(place.residual, there)
        maps = _kept(cut, there, 1 / _spread(place.map[None], there))
        return _kept(residual, there, varied), maps, np.ascontiguousarray(counts, np.float32)


def _kept(values: npt.NDArray[np.float16], there: Floats, factor: float) -> Floats:
    """(..., B, h, w) float32, contiguous, scaled; 0 in bands that are not there."""
    return np.ascontiguousarray(values.astype(np.float32) * (there * np.float32(factor))[:, None, None])


def _spread(values: npt.NDArray[np.float16], there: Floats) -> float:
    """What dividing (T, B, H, W) by the spread over some bands would have to make up for; 1 with all of them."""
    if there.all():
        return 1.0
    each = np.square(values[..., ::4, ::4].astype(np.float32)).mean(axis=(0, 2, 3))
    return math.sqrt(max(float((each * there).sum() / there.sum()), 1e-6))


def loss_of(
    vae: SharedVae, residual: Tensor, maps: Tensor, log_step: Tensor, there: Tensor, counted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of one batch, (N,) squared errors in units of the scale, and (N,) bits per pixel, masked ones too."""
    decoded, bits = vae(residual, maps, log_step)
    weight = there[:, None, None] * counted
    error = ((decoded - residual) ** 2 * weight).mean(dim=(1, 2, 3)) * (len(there) / there.sum())
    step = torch.exp2(log_step.reshape(-1))
    loss = (bits + WEIGHT * there.sum() * step**-2 * error) / step**_WORTH
    return loss.mean(), error.detach(), bits.detach()


class Training:
    """The state of one training, which can be saved and taken up again."""

    def __init__(self, layout: Layout, seed: int) -> None:
        torch.manual_seed(seed)
        self.vae, self.kept = SharedVae(layout), SharedVae(layout)
        start_linear(self.vae)
        self.vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster
        self.kept.load_state_dict(self.vae.state_dict())
        self.optimiser = torch.optim.Adam(self.vae.parameters(), lr=RATE, betas=(0.9, 0.98))
        self.steps, self.seconds = 0, 0.0
        self.shown: dict[str, float] = {}

    def step(self, draw: Draw, share: float) -> None:
        """One optimiser step; `share` of the whole is done."""
        rate = RATE * min(1.0, (self.steps + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(share, 1.0))) + 1e-5
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss, error, bits = loss_of(self.vae, *draw.batch())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.vae.parameters(), 2.0)
        self.optimiser.step()
        self.steps += 1
        self._average()
        for name, value in (("loss", loss.detach()), ("error", error.mean()), ("bits", bits.mean())):
            self.shown[name] = 0.99 * self.shown.get(name, float(value)) + 0.01 * float(value)

    def _average(self) -> None:
        keep = min(_AVERAGED, self.steps / (self.steps + 10))
        with torch.no_grad():
            for mean, now in zip(self.kept.parameters(), self.vae.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)

    def state(self) -> dict[str, object]:
        """All that `take_up` needs."""
        return {
            "vae": self.vae.state_dict(),
            "kept": self.kept.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "shown": self.shown,
        }

    def take_up(self, state: dict[str, object]) -> None:
        """Go on where `state` was taken."""
        self.vae.load_state_dict(state["vae"])  # type: ignore[arg-type]
        self.kept.load_state_dict(state["kept"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.shown = dict(state.get("shown", {}))  # type: ignore[call-overload]
        self.steps, self.seconds = int(state["steps"]), float(state["seconds"])  # type: ignore[call-overload,arg-type]


def start_linear(vae: SharedVae) -> None:
    """Begin as a linear codec: block means of the bands along an orthonormal basis in the first latents."""
    bands, channels = vae.layout.bands, vae.layout.channels
    count = min(bands, channels)
    k, i = np.arange(count)[:, None], np.arange(bands)[None]
    basis = np.cos(np.pi * k * (2 * i + 1) / (2 * bands)) * math.sqrt(2 / bands)
    basis[0] /= math.sqrt(2)
    directions = torch.from_numpy(basis.astype(np.float32))
    with torch.no_grad():
        vae.encoder.skip.weight.zero_()
        vae.encoder.skip.weight[:count, :, 0, 0] = 2.0 * directions
        vae.encoder.last.weight.mul_(0.3)
        vae.decoder.weights["skip"].zero_()
        vae.decoder.weights["skip"][:, :count, 0, 0] = directions.T / 2.0


def base_of(vae: SharedVae, slots: Sequence[Sequence[str]], card: Mapping[str, Any]) -> Base:
    """The trained network as a base: int8 weights, and float16 for the rest."""
    prior = {"latent.log_scale": vae.log_scale, "latent.slope": vae.slope}
    numbers = {name: p.detach().cpu().numpy().astype(np.float16) for name, p in prior.items()}
    return pack_base(vae.layout, slots, card, {**pack_encoder(vae.encoder), **pack_decoder(vae.decoder), **numbers})
