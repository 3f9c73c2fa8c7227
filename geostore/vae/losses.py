"""What a fit minimises: bits, squared error and spectral-index error, each term returned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geostore.spectral import FLOOR, spectral_index
from geostore.vae.static import OCTANT, Units

_LOG_MAX = 5.0  # keeps what an untrained network says finite; 3 times reflectance 1
FLOOR_SHARE = 3e-5  # probability that any value keeps, as in the tables that latents are coded by


@dataclass(frozen=True)
class Terms:
    """Loss terms of one batch; masked pixels are in none of them.

    Attributes:
        rate: bits per pixel: -log2 of the prior at the latents, the KL divergence of a uniform posterior.
        named: (N,) errors of every raster: "mse" on n1 before clipping, "index_<name>" the mean absolute error of
            each spectral index.
    """

    rate: Tensor
    named: dict[str, Tensor]

    def values(self) -> dict[str, float]:
        """Every term's mean as a plain number, by name."""
        return {name: float(value.detach().mean()) for name, value in {"rate": self.rate, **self.named}.items()}

    def each(self, name: str) -> npt.NDArray[np.float64]:
        """(N,) values of one error."""
        return np.asarray(self.named[name].detach().cpu().numpy(), np.float64)


@dataclass(frozen=True)
class Physical:
    """Physical values of a codec's units, on tensors.

    Attributes:
        scale, shift: (B, 1, 1); physical = units * scale + shift.
        bend: 0, or of the logarithm that units are of, reflectance.
    """

    scale: Tensor
    shift: Tensor
    bend: float

    @classmethod
    def of(cls, units: Units, device: torch.device | None = None) -> Physical:
        """Those of `units`."""
        scale, shift = (torch.tensor(v, dtype=torch.float32, device=device) for v in (units.scale, units.shift))
        bend = 0.0 if units.log is None else units.log.per_mille / 1000
        return cls(scale[:, None, None], shift[:, None, None], bend)

    def __call__(self, units: Tensor) -> Tensor:
        """(..., B, H, W) units -> the same, physical."""
        if self.bend:
            return self.bend * torch.expm1((units * OCTANT).clamp(max=_LOG_MAX))
        return units * self.scale + self.shift

    def away(self, truth: Tensor, error: Tensor) -> Tensor:
        """The physical error of units that are `error` off `truth`."""
        return self(truth + error) - self(truth) if self.bend else error * self.scale

    def on_n1(self, truth: Tensor, error: Tensor) -> Tensor:
        """The same on n1."""
        return self.away(truth, error) if self.bend else error


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(N,) means of (N, C, H, W) `values` where (N, 1, H, W) `mask` is 1; 0 where nothing is."""
    total = (values * mask).sum(dim=(1, 2, 3))
    return total / (mask.sum(dim=(1, 2, 3)) * values.shape[1]).clamp(min=1.0)


def laplace_bits(z: Tensor, log_scale: Tensor, step: Tensor) -> Tensor:
    """Bits of every latent (N, c, h, w) rounded to multiples of `step` (N, 1, 1, 1) under a Laplace prior.

    References:
        Balle, Laparra, Simoncelli (2017), "End-to-end optimized image compression": with uniform noise in place of
        rounding, -log2 p is the KL divergence between posterior and prior.
    """
    scale = torch.exp(log_scale)[:, None, None]
    inner, outer = (z.abs() - step / 2) / scale, (z.abs() + step / 2) / scale
    within = 1 - 0.5 * (torch.exp(-outer) + torch.exp(inner.clamp(max=0.0)))  # the bin holds 0
    beyond = 0.5 * (torch.exp(-inner.clamp(min=0.0)) - torch.exp(-outer))
    return -torch.log2(torch.where(inner < 0, within, beyond).clamp(min=1e-9))


def laplace_bits_about(z: Tensor, expected: Tensor, log2_scale: Tensor, step: Tensor) -> Tensor:
    """Bits of each latent in its bin of width `step` under a Laplace law about `expected`; any equal shapes."""
    scale = torch.exp2(log2_scale.clamp(-6.0, 8.0))
    away = (z - expected).abs()
    inner, outer = (away - step / 2) / scale, (away + step / 2) / scale
    within = 1 - 0.5 * (torch.exp(-outer) + torch.exp(inner.clamp(max=0.0)))
    beyond = 0.5 * (torch.exp(-inner.clamp(min=0.0)) - torch.exp(-outer))
    return -torch.log2(torch.where(inner < 0, within, beyond) + FLOOR_SHARE)


def gaussian_bits(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), bits per latent (the flat VAE's)."""
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar) / 0.6931471805599453


def index_errors(
    truth: Tensor, seen: Tensor, mask: Tensor, bands: Sequence[str], indices: Sequence[str]
) -> dict[str, Tensor]:
    """(N,) mean |error| of each index between (N, B, H, W) physical `truth` and `seen`, over valid pixels.

    As in the certificate, pixels where every band of the index lies below the floor are left out, and those where the
    index has no value.
    """
    out = {}
    for name in indices:
        index = spectral_index(name)
        planes = [bands.index(b) for b in index.bands]
        usable = mask * (truth[:, planes] >= FLOOR).any(dim=1, keepdim=True)
        error = (index.evaluate(*(truth[:, p] for p in planes)) - index.evaluate(*(seen[:, p] for p in planes))).abs()
        finite = error.isfinite()
        out[name] = masked_mean(torch.where(finite, error, 0.0)[:, None], usable * finite[:, None])
    return out
