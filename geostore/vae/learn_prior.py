"""Learn a prior from the latents it is to expect, weights rounded as they will be stored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geostore.coding import rangecoder
from geostore.vae.adam import Adam
from geostore.vae.entropy import Ints
from geostore.vae.losses import laplace_bits_about
from geostore.vae.prior import HIDDEN_BITS, WEIGHT_BITS, Past, Prior, features
from geostore.vae.quantize import STEPS
from geostore.vae.stream import HEAD_WEIGHTS, Numbers, head_inputs, pack_chain

HIDDEN = 16
_ITERATIONS = 300
_BATCH = 8192
_RATE = 2e-2

Chain = Sequence[Numbers]


@dataclass(frozen=True)
class Lesson:
    """Chains of one place, and its static features (see `prior.static_features`)."""

    chains: Sequence[Chain]
    static: Ints


def learn_prior(lessons: Sequence[Lesson], channels: int, *, seed: int, hidden: int | None = None) -> Prior:
    """The prior that codes the chains of `lessons` in the fewest bytes, its own counted.

    Args:
        lessons: places whose latents it is learned from, all with the same bands; at least one raster.
        channels: latent channels.
        seed: of the batches drawn.
        hidden: units of its layer; None tries HIDDEN and none, and keeps what is smaller.
    """
    heads = _heads(lessons)
    symbols = _Symbols.of(lessons)
    made = [_train(symbols, heads, channels, seed, h) for h in ((0, HIDDEN) if hidden is None else (hidden,))]
    if len(made) == 1:
        return made[0]
    return min(
        made, key=lambda p: p.size_bytes + sum(len(pack_chain(c, p, q.static)) for q in lessons for c in q.chains)
    )


@dataclass(frozen=True)
class _Symbols:
    """Every latent of the lessons: features (S, F), latent, step and channel (S,), all in latent units."""

    features: Tensor
    latent: Tensor
    step: Tensor
    channel: Tensor

    @classmethod
    def of(cls, lessons: Sequence[Lesson]) -> _Symbols:
        parts: list[tuple[Ints, Ints, int]] = []
        for lesson in lessons:
            for chain in lesson.chains:
                past: Past | None = None
                for raster in chain:
                    z, step = raster.latents * np.int32(STEPS[raster.step]), STEPS[raster.step]
                    parts.append((features(z, step, past, lesson.static), z, step))
                    past = raster.after(past)
        channel = np.concatenate([np.repeat(np.arange(len(z)), z[0].size) for _, z, _ in parts])
        return cls(
            torch.from_numpy(np.concatenate([f for f, _, _ in parts])).float() / 16,
            torch.from_numpy(np.concatenate([z.reshape(-1) for _, z, _ in parts])).float() / 16,
            torch.from_numpy(np.concatenate([np.full(z.size, step) for _, z, step in parts])).float() / 16,
            torch.from_numpy(channel),
        )


def _train(symbols: _Symbols, heads: npt.NDArray[np.int16], channels: int, seed: int, hidden: int) -> Prior:
    draw = torch.Generator().manual_seed(seed)
    net = _Net(symbols.features, channels, hidden, draw)
    optimiser = Adam(net.parameters())
    iterations = _ITERATIONS if hidden else _ITERATIONS // 3
    for i in range(iterations):
        rate = _RATE * min(1.0, (i + 1) / 30) * (0.5 + 0.5 * math.cos(math.pi * i / iterations)) + 1e-4
        at = torch.randint(len(symbols.latent), (_BATCH,), generator=draw)
        expected, log_scale = net(symbols.features[at], symbols.channel[at])
        bits = laplace_bits_about(symbols.latent[at], expected, log_scale, symbols.step[at]).mean()
        bits.backward()  # type: ignore[no-untyped-call]
        optimiser.step(rate)
    return net.stored(heads)


class _Net(torch.nn.Module):
    """Float twin of a prior's network, on weights rounded as stored."""

    def __init__(self, seen: Tensor, channels: int, hidden: int, draw: torch.Generator) -> None:
        super().__init__()
        count = seen.shape[1] if hidden else 0
        self.mean, self.spread = seen.mean(dim=0)[:count], seen.std(dim=0, unbiased=False)[:count].clamp(min=0.1)
        self.first = torch.nn.Parameter(torch.randn(hidden, count, generator=draw) / max(count, 1) ** 0.5)
        self.shift = torch.nn.Parameter(torch.zeros(channels, hidden))
        self.second = torch.nn.Parameter(torch.randn(2, hidden, generator=draw) * 0.1)
        self.bias = torch.nn.Parameter(torch.zeros(channels, 2))

    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The network's arrays in units of 1, rounded."""
        first = _rounded(self.first / self.spread, WEIGHT_BITS, 127)
        shift = _rounded(self.shift - first @ self.mean, HIDDEN_BITS, 32767)
        return first, shift, _rounded(self.second, WEIGHT_BITS, 127), _rounded(self.bias, HIDDEN_BITS, 32767)

    def forward(self, seen: Tensor, channel: Tensor) -> tuple[Tensor, Tensor]:
        first, shift, second, bias = self.weights()
        if not len(first):
            return bias[channel, 0], bias[channel, 1]
        hidden = torch.nn.functional.leaky_relu(seen @ first.T + shift[channel], 0.125)
        out = hidden @ second.T + bias[channel]
        return out[:, 0], out[:, 1]

    def stored(self, heads: npt.NDArray[np.int16]) -> Prior:
        """The prior in integers."""
        with torch.no_grad():
            first, shift, second, bias = (w.numpy() for w in self.weights())
        return Prior(
            np.rint(first * (1 << WEIGHT_BITS)).astype(np.int8),
            np.rint(shift * (1 << HIDDEN_BITS)).astype(np.int16),
            np.rint(second * (1 << WEIGHT_BITS)).astype(np.int8),
            np.rint(bias * (1 << HIDDEN_BITS)).astype(np.int16),
            heads,
        )


def _rounded(values: Tensor, bits: int, limit: int) -> Tensor:
    """Multiples of 2**-bits within the limit; gradients pass as if nothing were rounded."""
    whole = torch.round(values * (1 << bits)).clamp(-limit, limit) / (1 << bits)
    return values + (whole - values).detach()


def _heads(lessons: Sequence[Lesson]) -> npt.NDArray[np.int16]:
    """Least-squares weights of every gain and level, without and with a raster before."""
    count = lessons[0].chains[0][0].head.size
    none = np.zeros(count, np.int32)
    chains = [chain for lesson in lessons for chain in lesson.chains]
    starts = [(raster.head, none) for chain in chains for raster in chain]
    follows = [(b.head, a.head) for chain in chains for a, b in pairwise(chain)]
    out = np.zeros((2, count, HEAD_WEIGHTS + 2), np.int16)
    for kind, pairs in enumerate((starts, follows or starts)):
        for slot in range(count):
            out[kind, slot] = _head_row(pairs, slot)
    return out


def _head_row(pairs: Sequence[tuple[Ints, Ints]], slot: int) -> npt.NDArray[np.int16]:
    inputs = np.array([[*head_inputs(head, known, slot), 1] for head, known in pairs], np.float64)
    wanted = np.array([head[slot] for head, _ in pairs], np.float64)
    ridge = np.diag([25.0] * HEAD_WEIGHTS + [1e-3])
    weights = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ wanted)
    row = np.array([*np.rint(weights[:-1] * (1 << WEIGHT_BITS)), np.rint(weights[-1] * 16), 0.0]).clip(-32768, 32767)
    off = wanted - inputs @ np.array([*row[:HEAD_WEIGHTS] / (1 << WEIGHT_BITS), row[HEAD_WEIGHTS] / 16])
    scale = max((float(np.abs(off).sum()) + 1.0) / (len(off) + 1), 0.1)
    row[-1] = round(rangecoder.OCTAVE * math.log2(scale)) + rangecoder.ONE_QUANTUM
    return row.astype(np.int16)
