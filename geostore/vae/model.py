"""The networks: a spatial latent grid conditioned on the place's static image, and the paper's flat vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Mode = Literal["grid", "flat", "flat-single"]
Apply = Callable[[str, Tensor], Tensor]
STRIDE = 8  # pixels per latent, along a row and along a column


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
    """

    mode: Mode
    bands: int
    height: int
    width: int
    channels: int
    widths: tuple[int, int, int, int]
    encoder: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) raised to whole latents."""
        return -(-self.height // STRIDE) * STRIDE, -(-self.width // STRIDE) * STRIDE

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


def decoder_layers(layout: Layout) -> dict[str, Layer]:
    """Every linear map of the decoder, by name."""
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


def linear(layer: Layer, x: Tensor, weight: Tensor) -> Tensor:
    """Apply a layer's weights without bias: (N, C, H, W) -> (N, C', H', W')."""
    if layer.kind == "up":
        return functional.conv_transpose2d(x, weight, stride=2, padding=1)
    return functional.conv2d(x, weight, padding=layer.kernel // 2)


def leaky(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 1/8, a power of two so that integers stay exact."""
    return torch.maximum(x, x * 0.125)


def synthesise(layout: Layout, apply: Apply, z: Tensor, statics: tuple[Tensor, ...]) -> Tensor:
    """Latents (N, c, h, w) -> residual (N, B, 8h, 8w).

    `apply(name, x)` is one layer with its activation; `statics` are (1, B, H, W) maps at full, 1/2, 1/4 and 1/8
    resolution ("grid" only). The same walk serves training in float and decoding in integers.
    """
    count = len(z)
    if layout.mode != "grid":
        a = apply("head", z).reshape(count, layout.widths[0], *layout.cells)  # (N, w0*h*w, 1, 1) -> (N, w0, h, w)
        for name in ("up1", "up2", "up3", "out"):
            a = apply(name, a)
        return a

    def beside(x: Tensor, scale: int) -> Tensor:
        return torch.cat((x, statics[scale].expand(count, -1, -1, -1)), dim=1)

    a = apply("up1", apply("head", beside(z, 3)))
    a = apply("up3", beside(apply("up2", beside(a, 2)), 1))
    coarse = functional.interpolate(apply("skip", z), scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return apply("out", beside(a, 0)) + coarse


class Encoder(nn.Module):
    """(N, B, H, W) residual, 0 where masked -> latent means; and log variances when flat."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        b, (e0, e1), c = layout.bands, layout.encoder, layout.channels
        self.layout = layout
        self.first = nn.Conv2d(b, e0, 4, 2, 1)
        self.second = nn.Conv2d(e0, e1, 4, 2, 1)
        self.last = nn.Conv2d(e1, c if layout.mode == "grid" else e1, 4, 2, 1)
        if layout.mode == "grid":
            self.skip = nn.Conv2d(b, c, 1, bias=False)
        else:
            self.mu = nn.Linear(e1 * layout.cells[0] * layout.cells[1], c)
            self.logvar = nn.Linear(e1 * layout.cells[0] * layout.cells[1], c)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log variances, (N, c, h, w); the grid's posterior is uniform, its log variance 0."""
        a = self.last(leaky(self.second(leaky(self.first(x)))))
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

    def apply_layer(self, name: str, x: Tensor) -> Tensor:
        """One layer in float."""
        layer = self.layers[name]
        x = linear(layer, x, self.weights[name]) + self.biases[name][:, None, None]
        return leaky(x) if layer.active else x

    def forward(self, z: Tensor, statics: tuple[Tensor, ...]) -> Tensor:
        """Latents -> residual in units of the place's scale."""
        return synthesise(self.layout, self.apply_layer, z, statics)


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
