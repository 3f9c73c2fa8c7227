"""Better latents of rasters at hand, by descent through the decoder: fewer bits within the policy, for the reader free.

References:
    Yang, Bamler, Mandt (2020), "Improving Inference for Neural Image Compression": stochastic Gumbel annealing.
    Deviations: bounds are steered by a multiplier each; what is expected of a latent is looked up now and then, and
    held in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geostore.collection import Policy
from geostore.vae.adam import Adam
from geostore.vae.losses import Physical, index_errors, masked_mean
from geostore.vae.sizing import index_bounds, value_bound

_RATE = 0.06  # of Adam, quanta
_WARMEST, _COLDEST = 0.5, 0.03  # temperatures of the rounding
_LOOKED = 4  # rounds between two looks at what is expected
_AIM = 0.985  # of each bound, so that rounding in whole numbers stays within it
_PULL = 0.2  # how fast a multiplier follows its error
_NUDGE = 1.5  # and the error of whole quanta
_FIRST = 1.5  # bits that a whole bound's worth of error weighs at first, in bits of the raster
_FIXED = 1.5  # and where it is not steered, in the mean bits of the rasters

Decode = Callable[[Tensor], Tensor]
Rate = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Wanted:
    """What N rasters should decode to.

    Attributes:
        residual: (N, B, H, W) float32, units of the place's scale.
        mask: (N, 1, H, W) float32, 1 where the pixel counts.
        base: (N, B, H, W) float32, what gain and level predict, units.
        scale: one number per place.
        physical: of units.
        bands: common names.
        indices: spectral indices that have a bound.
        values: True if the mean absolute error of values has one.
    """

    residual: Tensor
    mask: Tensor
    base: Tensor
    scale: float
    physical: Physical
    bands: tuple[str, ...]
    indices: tuple[str, ...]
    values: bool = False

    def errors(self, decoded: Tensor) -> dict[str, Tensor]:
        """(N,) errors of (N, B, H, W) decoded residuals: "mse", "mae" of values, and "index_<name>"."""
        truth, error = self.base + self.scale * self.residual, self.scale * (decoded - self.residual)
        found = {"mse": masked_mean(self.physical.on_n1(truth, error) ** 2, self.mask)}
        if self.values:
            found["mae"] = masked_mean(self.physical.away(truth, error).abs(), self.mask)
        if self.indices:
            physical = self.physical(truth)
            seen = physical + self.physical.away(truth, error)
            wrong = index_errors(physical, seen, self.mask, self.bands, self.indices)
            found |= {f"index_{name}": value for name, value in wrong.items()}
        return found


def bounds_of(policy: Policy, indices: Sequence[str]) -> dict[str, float]:
    """Mean errors to keep, by the names `Wanted.errors` gives them."""
    values = {"mse": policy.mse_max, "mae": value_bound(policy)}
    found = {name: bound for name, bound in values.items() if bound is not None}
    return found | {f"index_{name}": bound for name, bound in index_bounds(policy, indices).items()}


def refine(
    start: Tensor,
    wanted: Wanted,
    decode: Decode,
    look: Callable[[Tensor], Rate],
    bounds: Mapping[str, float],
    *,
    rounds: int,
    steered: bool = True,
) -> Tensor:
    """(N, C, h, w) whole quanta that cost fewer bits than rounding `start` does, within `bounds` where one was found.

    Args:
        start: the encoder's means, in quanta.
        wanted: what they should decode to.
        decode: quanta (N, C, h, w) to residuals (N, B, H, W), float.
        look: given whole quanta, the rate: (N,) bits of quanta that are not whole, too.
        bounds: mean error of every raster, by name; at least one.
        rounds: steps of descent.
        steered: hold every raster to the bounds; else they only say how much error is worth how many bits, and hard
            rasters keep more of it.
    """
    aims = {name: _AIM * bound for name, bound in bounds.items()}
    descent = _Descent(start, wanted, decode, look, aims, steered=steered)
    for number in range(rounds):
        if number and number % _LOOKED == 0:
            descent.check()
        descent.step(number / rounds)
    descent.check()
    return descent.best


class _Descent:
    """The state of one refinement: quanta, a multiplier for every bound, and the best whole quanta so far."""

    def __init__(
        self,
        start: Tensor,
        wanted: Wanted,
        decode: Decode,
        look: Callable[[Tensor], Rate],
        bounds: Mapping[str, float],
        *,
        steered: bool,
    ) -> None:
        self.wanted, self.decode, self.look, self.bounds, self.steered = wanted, decode, look, bounds, steered
        self.quanta = start.clone().requires_grad_(True)
        self.draw = torch.Generator().manual_seed(0)
        self.optimiser = Adam([self.quanta], betas=(0.9, 0.95))
        self.best = torch.round(start)
        self.rate = look(self.best)
        bits = self.rate(self.best)
        first = bits if steered else bits.mean().expand_as(bits)
        self.weights = {name: (_FIRST if steered else _FIXED) * first.clamp(min=64.0) for name in bounds}
        self.least = torch.full_like(bits, math.inf)  # cost of the best: bits, and more where it is beyond a bound

    def step(self, share: float) -> None:
        """One step of descent."""
        whole = _annealed(self.quanta, _WARMEST * (_COLDEST / _WARMEST) ** share, self.draw)
        bits, ratios = self.rate(whole), self.ratios(whole)
        cost = bits.sum() + sum((self.weights[name] * ratio).sum() for name, ratio in ratios.items())
        cost.backward()  # type: ignore[no-untyped-call]
        assert self.quanta.grad is not None
        self.quanta.grad /= bits.detach().clamp(min=64.0)[:, None, None, None]
        self.optimiser.step(_RATE * (0.3 + 0.7 * math.cos(0.5 * math.pi * share)))
        self.steer(ratios, _PULL)

    def ratios(self, quanta: Tensor) -> dict[str, Tensor]:
        """(N,) errors over their bounds."""
        errors = self.wanted.errors(self.decode(quanta))
        return {name: errors[name] / bound for name, bound in self.bounds.items()}

    def check(self) -> None:
        """Round, remember what is best, and look again at what is expected."""
        with torch.no_grad():
            whole = torch.round(self.quanta.detach())
            self.rate = self.look(whole)
            ratios = self.ratios(whole)
            cost = self.rate(whole)
            if self.steered:
                worst = torch.stack(list(ratios.values())).max(dim=0).values
                cost = cost * torch.where(worst > 1, 1e3 * worst, torch.ones_like(worst))
            else:
                cost = cost + sum(self.weights[name] * ratio for name, ratio in ratios.items())
            better = cost < self.least
            self.least = torch.where(better, cost, self.least)
            self.best = torch.where(better[:, None, None, None], whole, self.best)
            self.steer(ratios, _NUDGE)

    def steer(self, ratios: Mapping[str, Tensor], pull: float) -> None:
        """Errors beyond their bound weigh more from now on, others less."""
        if self.steered:
            for name, ratio in ratios.items():
                self.weights[name] = self.weights[name] * torch.exp(pull * (ratio.detach().clamp(max=2.0) - 1))


def _annealed(quanta: Tensor, temperature: float, draw: torch.Generator) -> Tensor:
    """Quanta drawn between the whole numbers next to them, closer to one of these the colder it is."""
    low = torch.floor(quanta.detach())
    share = (quanta - low).clamp(1e-4, 1 - 1e-4)
    noise = -torch.log(-torch.log(torch.rand((2, *quanta.shape), generator=draw).clamp(1e-9, 1 - 1e-7)))
    lean = (torch.atanh(share) - torch.atanh(1 - share)) / temperature  # up over down
    return low + torch.sigmoid(lean + noise[1] - noise[0])
