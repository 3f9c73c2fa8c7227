"""The networks: a spatial latent grid conditioned on the place's static image, and the paper's flat vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Mode = Literal["grid", "flat", "flat-single"]
Apply = Callable[[str, Tensor, Tensor | None], Tensor]
Seen = tuple[Tensor, ...]  # what the decoder takes from the static maps, finest first
STRIDE = 8  # pixels per latent, along a row and along a column
SLOPE = 0.125  # of a layer's output below 0
COARSEST = 3  # of the static maps' scales, 1/2**k


def padded(height: int, width: int) -> tuple[int, int]:
    """(height, width) raised to whole latents."""
    return -(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of one network.

    Attributes:
        mode: "grid", or the paper's flat VAE: "flat" over all bands, "flat-single" band by band.
        bands: bands the network sees at once (1 in "flat-single").
        height, width: pixels of the partition's window.
        channels: latent channels ("grid") or numbers in the vector ("flat").
        widths: decoder channels at 1/8, 1/4, 1/2 and full resolution.
        encoder: encoder channels at 1/2 and 1/4 resolution.
        hidden: channels of a branch that reads the static maps and scales and shifts every decoder layer pixel by
            pixel, for networks shared by many places; 0 puts the maps beside each layer's input instead. ("grid")
    """

    mode: Mode
    bands: int
    height: int
    width: int
    channels: int
    widths: tuple[int, int, int, int]
    encoder: tuple[int, int]
    hidden: int = 0

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) raised to whole latents."""
        return padded(self.height, self.width)

    @property
    def cells(self) -> tuple[int, int]:
        """(rows, columns) of the grid at 1/8 resolution."""
        return self.padded[0] // STRIDE, self.padded[1] // STRIDE

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of the latents of one pass: one row and column when flat."""
        return (self.channels, *self.cells) if self.mode == "grid" else (self.channels, 1, 1)


@dataclass(frozen=True)
class Layer:
    """One linear map of a decoder: kind, channels in and out, kernel size, and whether a leaky ReLU follows."""

    kind: Literal["conv", "up", "dense"]
    inputs: int
    outputs: int
    kernel: int
    active: bool


@lru_cache(maxsize=64)
def decoder_layers(layout: Layout) -> Mapping[str, Layer]:
    """Every linear map of the decoder, by name."""
    if layout.hidden:
        return _modulated_layers(layout)
    b, (w0, w1, w2, w3) = layout.bands, layout.widths
    static = b if layout.mode == "grid" else 0
    rows, columns = layout.cells
    first = (
        {
            "head": Layer("conv", layout.channels + static, w0, 3, True),
            "skip": Layer("conv", layout.channels, b, 1, False),
        }
        if layout.mode == "grid"
        else {"head": Layer("dense", layout.channels, w0 * rows * columns, 1, True)}
    )
    return {
        **first,
        "up1": Layer("up", w0, w1, 4, True),
        "up2": Layer("up", w1 + static, w2, 4, True),
        "up3": Layer("up", w2 + static, w3, 4, True),
        "out": Layer("conv", w3 + static, b, 3, False),
    }


def _modulated_layers(layout: Layout) -> Mapping[str, Layer]:
    """The decoder that a branch on the static maps steers: `see` finds features, `turn` makes scales and shifts."""
    b, h, (w0, w1, w2, w3) = layout.bands, layout.hidden, layout.widths
    see = {f"see{k}": Layer("conv", b + (h if k < COARSEST else 0), h, 3, True) for k in range(COARSEST, -1, -1)}
    turn = {f"turn{k}": Layer("conv", h, 2 * w, 1, False) for k, w in enumerate((w3, w2, w1, w0))}
    return {
        **see,
        **turn,
        "spread": Layer("conv", h, layout.channels, 1, False),
        "head": Layer("conv", layout.channels + 1, w0, 3, True),
        "skip": Layer("conv", layout.channels, b, 1, False),
        "mid": Layer("conv", w0, w0, 3, True),
        "up1": Layer("up", w0, w1, 4, True),
        "up2": Layer("up", w1, w2, 4, True),
        "up3": Layer("up", w2, w3, 4, True),
        "out": Layer("conv", w3, b, 3, False),
    }


def linear(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """Apply a layer's weights without bias: (N, C, H, W) -> (N, C', H', W')."""
    if layer.kind == "up":
        return functional.conv_transpose2d(x, weight, stride=2, padding=1)
    return functional.conv2d(x, weight, padding=layer.kernel // 2)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU; its slope is a power of two, so that integers stay exact."""
    return functional.leaky_relu(x, SLOPE)


def turned(x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the shift of (N, C, H, W) `x` in (N or 1, 2C, H, W) `turn`."""
    return turn[:, : x.shape[1]], turn[:, x.shape[1] :]


def look(layout: Layout, apply: Apply, maps: Seen) -> Seen:
    """What the decoder takes from the static maps (P, B, H, W) at full, 1/2, 1/4 and 1/8 resolution.

    Once a place, however many dates are decoded. With a branch: scales and shifts for four layers, finest first, and
    (P, c, h, w) the natural logarithm of how much wider than elsewhere the latents spread.
    """
    if not layout.hidden:
        return maps
    features = apply("see3", maps[COARSEST], None)
    turns, spread = [apply("turn3", features, None)], apply("spread", features, None)
    for k in range(COARSEST - 1, -1, -1):
        wider = functional.interpolate(features, scale_factor=2, mode="nearest")
        features = apply(f"see{k}", torch.cat((maps[k], wider), dim=1), None)
        turns.append(apply(f"turn{k}", features, None))
    return (*turns[::-1], spread)


def synthesise(layout: Layout, apply: Apply, z: Tensor, seen: Seen, log_step: Tensor | None = None) -> Tensor:
    """Latents (N, c, h, w) -> residual (N, B, 8h, 8w).

    `apply(name, x, turn)` is one layer, scaled and shifted by `turn` where there is one, with its activation; `seen`
    is what `look` made of the static maps of one place, or of each of N ("grid" only); `log_step` (N or 1, 1, 1, 1)
    is the base-2 logarithm of the quantiser step, for networks with a branch. The same walk serves training in float
    and decoding in integers.
    """
    if layout.mode != "grid":
        a = apply("head", z, None).reshape(len(z), layout.widths[0], *layout.cells)  # from (N, w0*h*w, 1, 1)
        for name in ("up1", "up2", "up3", "out"):
            a = apply(name, a, None)
        return a
    coarse = functional.interpolate(apply("skip", z, None), scale_factor=STRIDE, mode="bilinear", align_corners=False)
    if layout.hidden:
        return _modulated(apply, z, seen, log_step) + coarse
    return _beside(apply, z, seen) + coarse


def _modulated(apply: Apply, z: Tensor, turns: Seen, log_step: Tensor | None) -> Tensor:
    assert log_step is not None
    plane = log_step.expand(len(z), 1, *z.shape[2:])
    a = apply("head", torch.cat((z, plane), dim=1), turns[3])
    a = a + apply("mid", a, None)
    for k, name in ((2, "up1"), (1, "up2"), (0, "up3")):
        a = apply(name, a, turns[k])
    return apply("out", a, None)


def _beside(apply: Apply, z: Tensor, maps: Seen) -> Tensor:
    def beside(x: Tensor, scale: int) -> Tensor:
        return torch.cat((x, maps[scale].expand(len(x), -1, -1, -1)), dim=1)

    a = apply("up1", apply("head", beside(z, 3), None), None)
    a = apply("up3", beside(apply("up2", beside(a, 2), None), 1), None)
    return apply("out", beside(a, 0), None)


def spread_over(values: Tensor, count: int) -> Tensor:
    """(P, C, H, W) of places -> (N, C, H, W) of rasters, those of one place together."""
    if len(values) == 1:
        return values.expand(count, -1, -1, -1)
    return values if len(values) == count else values.repeat_interleave(count // len(values), dim=0)


class Encoder(nn.Module):
    """(N, B, H, W) residual, 0 where masked -> latent means; and log variances when flat.

    With a branch it sees the static maps beside the residual, and the quantiser step.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        b, (e0, e1), c = layout.bands, layout.encoder, layout.channels
        self.layout = layout
        self.first = nn.Conv2d(2 * b + 1 if layout.hidden else b, e0, 4, 2, 1)
        self.second = nn.Conv2d(e0, e1, 4, 2, 1)
        self.last = nn.Conv2d(e1, c if layout.mode == "grid" else e1, 4, 2, 1)
        if layout.mode == "grid":
            self.skip = nn.Conv2d(b, c, 1, bias=False)
        else:
            self.mu = nn.Linear(e1 * layout.cells[0] * layout.cells[1], c)
            self.logvar = nn.Linear(e1 * layout.cells[0] * layout.cells[1], c)

    def forward(self, x: Tensor, statics: Seen = (), log_step: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and log variances, (N, c, h, w); the grid's posterior is uniform, its log variance 0."""
        seen = x
        if self.layout.hidden:
            assert log_step is not None
            plane = log_step.expand(len(x), 1, *x.shape[2:])
            seen = torch.cat((x, spread_over(statics[0], len(x)), plane), dim=1)
        a = self.last(leaky(self.second(leaky(self.first(seen)))))
        if self.layout.mode == "grid":
            mu = a + self.skip(functional.avg_pool2d(x, STRIDE))
            return mu, torch.zeros_like(mu)
        flat = leaky(a).reshape(len(x), -1)  # (N, e1, h, w) -> (N, e1*h*w)
        return self.mu(flat)[:, :, None, None], self.logvar(flat)[:, :, None, None]


class Decoder(nn.Module):
    """Float twin of the integer decoder: what is trained."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.layers = decoder_layers(layout)
        self.weights = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        for name, layer in self.layers.items():
            shape = (layer.inputs, layer.outputs) if layer.kind == "up" else (layer.outputs, layer.inputs)
            taps = layer.kernel**2 // (4 if layer.kind == "up" else 1)
            spread = (2.0 / (layer.inputs * taps)) ** 0.5 if layer.active else 0.05 / (layer.inputs * taps) ** 0.5
            self.weights[name] = nn.Parameter(torch.randn(*shape, layer.kernel, layer.kernel) * spread)
            self.biases[name] = nn.Parameter(torch.zeros(layer.outputs))

    def apply_layer(self, name: str, x: Tensor, turn: Tensor | None) -> Tensor:
        """One layer in float."""
        layer = self.layers[name]
        x = linear(layer, x, self.weights[name]) + self.biases[name][:, None, None]
        if turn is not None:
            scale, shift = turned(x, turn)
            x = x * (1 + scale) + shift
        return leaky(x) if layer.active else x

    def look(self, statics: Seen) -> Seen:
        """What `forward` takes from the static maps (P, B, H, W) of each place."""
        return look(self.layout, self.apply_layer, statics)

    def forward(self, z: Tensor, seen: Seen, log_step: Tensor | None = None) -> Tensor:
        """Latents (N, c, h, w), the places' `look` (N a multiple of P) -> residual in units of the place's scale."""
        every = tuple(spread_over(s, len(z)) for s in seen)
        return synthesise(self.layout, self.apply_layer, z, every, log_step)


class Vae(nn.Module):
    """Encoder, decoder and the prior: a Laplace distribution per channel, its scale learned."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.encoder = Encoder(layout)
        self.decoder = Decoder(layout)
        self.log_scale = nn.Parameter(torch.zeros(layout.channels))


def start_skip(vae: Vae, directions: Tensor, gain: float = 2.0) -> None:
    """Begin as a linear codec: latents 0..k-1 carry the block means along `directions` (k, B), orthonormal."""
    k = len(directions)
    with torch.no_grad():
        vae.encoder.skip.weight.zero_()
        vae.encoder.skip.weight[:k, :, 0, 0] = gain * directions
        vae.encoder.last.weight.mul_(0.3)
        vae.decoder.weights["skip"].zero_()
        vae.decoder.weights["skip"][:, :k, 0, 0] = directions.T / gain
