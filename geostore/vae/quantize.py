"""Decode in integers: int8 weights, fixed-point activations, sums that are exact in any order on any machine.

References:
    Balle, Johnston, Minnen (2019), "Integer networks for data compression with latent-variable models". Deviation:
    sums are of 32 bits where none can overflow, else of float64 below 2**53: exact, whatever the order. Weights are
    scaled per output channel by a float16, and every rescaling is one correctly rounded multiplication, addition and
    floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geostore.vae.entropy import Ints
from geostore.vae.exact import Finish, Taps
from geostore.vae.model import (
    SLOPE,
    Decoder,
    Encoder,
    Layer,
    Layout,
    Seen,
    decoder_layers,
    leaky,
    linear,
    look,
    synthesise,
    turned,
)
from geostore.vae.static import Doubles

BITS = 10  # activations are integers / 1024
STEPS = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45)  # quantiser steps of the latents, in 1/16, finest first
LOG_STEPS = (-3072, -2473, -2048, -1449, -1024, -554, 0, 536, 1024, 1528)  # their base-2 logarithms, in 1/2**BITS
TRAINED_STEP = STEPS.index(16)
_LARGEST = float(1 << 18)  # activations are held inside +-256, so no sum reaches 2**53
Tensors = dict[str, npt.NDArray[np.generic]]


def quantise(weight: npt.NDArray[np.float32], axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """int8 values and one float16 scale per slice along `axis`: weight is about values * scale."""
    other = tuple(i for i in range(weight.ndim) if i != axis)
    scale = (np.abs(weight).max(axis=other) / 127).clip(1e-6, 6e4).astype(np.float16)
    shape = [1] * weight.ndim
    shape[axis] = -1
    values = np.clip(np.rint(weight / scale.astype(np.float32).reshape(shape)), -127, 127)
    return values.astype(np.int8), scale


def pack_decoder(decoder: Decoder) -> Tensors:
    """Every layer of a trained decoder as `<layer>.q`, `.s`, `.b`: int8 weights, float16 scales and biases."""
    out: Tensors = {}
    for name, layer in decoder.layers.items():
        weight = decoder.weights[name].detach().cpu().numpy()
        out[f"{name}.q"], out[f"{name}.s"] = quantise(weight, 1 if layer.kind == "up" else 0)
        out[f"{name}.b"] = decoder.biases[name].detach().cpu().numpy().astype(np.float16)
    return out


def pack_encoder(encoder: Encoder) -> Tensors:
    """The encoder's parameters as int8 and float16."""
    out: Tensors = {}
    for name, parameter in encoder.named_parameters():
        value = parameter.detach().cpu().numpy()
        if value.ndim == 1:
            out[f"encoder.{name}"] = value.astype(np.float16)
        else:
            out[f"encoder.{name}.q"], out[f"encoder.{name}.s"] = quantise(value, 0)
    return out


def unpack_encoder(layout: Layout, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Encoder:
    """The float32 encoder those stand for."""
    with torch.random.fork_rng(devices=[]):  # modules draw first weights, which are replaced here
        encoder = Encoder(layout)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(torch.from_numpy(_plain(tensors, f"encoder.{name}").astype(np.float32)))
    return encoder.eval()


def unpack_decoder(layout: Layout, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Decoder:
    """The float decoder those stand for, to warm-start another fit."""
    with torch.random.fork_rng(devices=[]):
        decoder = Decoder(layout)
    with torch.no_grad():
        for name, layer in decoder.layers.items():
            axis = 1 if layer.kind == "up" else 0
            decoder.weights[name].copy_(torch.from_numpy(_plain(tensors, name, axis).astype(np.float32)))
            decoder.biases[name].copy_(torch.from_numpy(tensors[f"{name}.b"].astype(np.float32)))
    return decoder


def _plain(tensors: Mapping[str, npt.NDArray[np.generic]], name: str, axis: int = 0) -> npt.NDArray[np.float64]:
    if name in tensors:
        return tensors[name].astype(np.float64)
    values = tensors[f"{name}.q"].astype(np.float64)
    shape = [1] * values.ndim
    shape[axis] = -1
    return np.asarray(values * tensors[f"{name}.s"].astype(np.float64).reshape(shape))


@dataclass(frozen=True)
class IntegerDecoder:
    """The decoder as it is stored and run.

    Attributes:
        layout: its shape.
        tensors: what `pack_decoder` gave.
        maps: static maps as integers / 2**BITS, full resolution first; empty when flat.
    """

    layout: Layout
    tensors: Mapping[str, npt.NDArray[np.generic]]
    maps: tuple[Doubles, ...]
    _scales: dict[str, tuple[Doubles, Doubles]] = field(default_factory=dict, repr=False, compare=False)
    _weights: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _taps: dict[str, Taps | None] = field(default_factory=dict, repr=False, compare=False)
    _seen: list[Seen] = field(default_factory=list, repr=False, compare=False)

    def decode(self, latents: Ints, step: int) -> Doubles:
        """(N, c, h, w) quantised latents and the index of their step -> (N, B, H, W) residual over scale.

        The values are whole multiples of 2**-18, bit for bit the same everywhere; H, W are not padded.
        """
        if not self.layout.channels:
            return np.zeros((len(latents), self.layout.bands, self.layout.height, self.layout.width))
        z = torch.from_numpy(latents.astype(np.float32)) * float(STEPS[step] << (BITS - 4))
        log_step = torch.full((1, 1, 1, 1), float(LOG_STEPS[step]))
        with torch.no_grad():
            out = synthesise(self.layout, self._apply, z, self.seen(), log_step)
        return np.asarray(out.numpy()[..., : self.layout.height, : self.layout.width] * 2.0**-BITS, np.float64)

    def seen(self) -> Seen:
        """What the layers take from the static maps, whole numbers / 2**BITS; worked out once."""
        if not self._seen:
            with torch.no_grad():
                maps = tuple(torch.from_numpy(m)[None].float() for m in self.maps)
                self._seen.append(look(self.layout, self._apply, maps))
        return self._seen[0]

    def _apply(self, name: str, x: Tensor, turn: Tensor | None) -> Tensor:
        """One layer, float32, which its whole numbers fit; "skip", whose output is interpolated, float64."""
        layer, rescaling = decoder_layers(self.layout)[name], self._rescaling(name)
        found = self._narrow(layer, name, x, rescaling, turn)
        if found is None:
            found = self._wide(layer, linear(layer, x.double(), self._weight(name)), rescaling, turn)
        return found.double() if name == "skip" else found

    def _narrow(
        self, layer: Layer, name: str, x: Tensor, rescaling: tuple[Doubles, Doubles], turn: Tensor | None
    ) -> Tensor | None:
        """In 32 bits; None where a sum might overflow, or what turns it differs from raster to raster."""
        if name not in self._taps:
            self._taps[name] = Taps.of(layer, self.tensors[f"{name}.q"])
        if (taps := self._taps[name]) is None or (turn is not None and len(turn) > 1):
            return None
        turning = {} if turn is None else {"turn": turn.numpy()[0]}
        slope, (scale, bias) = SLOPE if layer.active else 1.0, rescaling
        finish = Finish(scale=scale, bias=bias, one=1 << BITS, slope=slope, limit=_LARGEST, **turning)
        out = taps.apply(np.ascontiguousarray(x.numpy()), finish)
        return None if out is None else torch.from_numpy(out)

    def _wide(self, layer: Layer, sums: Tensor, rescaling: tuple[Doubles, Doubles], turn: Tensor | None) -> Tensor:
        """In float64, where whole numbers below 2**53 are exact."""
        scale, bias = (torch.from_numpy(values)[:, None, None] for values in rescaling)
        x = torch.floor(sums * scale + bias)
        if turn is not None:  # exact: both below 2**19 once the sum is held
            wider, shift = turned(x, turn.double())
            x = torch.floor(x.clamp(-_LARGEST, _LARGEST) * (wider + (1 << BITS)) * 2.0**-BITS) + shift
        x = torch.floor(leaky(x)) if layer.active else x
        return x.clamp(-_LARGEST, _LARGEST).float()

    def _weight(self, name: str) -> Tensor:
        if name not in self._weights:
            self._weights[name] = torch.from_numpy(self.tensors[f"{name}.q"].astype(np.float64))
        return self._weights[name]

    def _rescaling(self, name: str) -> tuple[Doubles, Doubles]:
        """(O,) scales and biases; 0.5 is in the biases, as floor then rounds."""
        if name not in self._scales:
            bias = self.tensors[f"{name}.b"].astype(np.float64) * (1 << BITS) + 0.5
            self._scales[name] = self.tensors[f"{name}.s"].astype(np.float64), bias
        return self._scales[name]
