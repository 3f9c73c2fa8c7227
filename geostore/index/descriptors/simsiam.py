"""The `simsiam` descriptor: a small convolutional network that learned from the store's own rasters.

Training uses torch, which is imported only then; a trained descriptor needs NumPy alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from geostore.certificate import to_n1
from geostore.codec import Series
from geostore.errors import Corrupt, InvalidInput, NotComparable
from geostore.index.descriptors import PIXELS_MIN, Floats, Progress, check_pixels
from geostore.raster import Bands, Mask, Pixels

FLOOR = 0.01  # added to n1 before the logarithm, so that a common factor of illumination is a shift
LIMIT = 5.0  # standardised values beyond are held there
STEPS = 300  # of the optimiser, unless others are asked for
STRIDES = (1, 2, 2)  # of the convolutions, 3 x 3 each
_MAGIC = b"GSDESC1\0"


@dataclass(frozen=True)
class Network:
    """What a trained descriptor consists of.

    Attributes:
        bands: facts of the bands it was trained on.
        mean, spread: (B,) float32, taken off the logarithms and divided by.
        kernels: of each convolution (3, 3, in, out) float32; the mask is the last channel that goes in.
        biases: of each convolution (out,) float32.
        centre, scale: (F,) float32, taken off the pooled numbers and multiplied with.
        out, out_bias: (F, D), (D,) float32.
    """

    bands: str
    mean: Floats
    spread: Floats
    kernels: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    centre: Floats
    scale: Floats
    out: Floats
    out_bias: Floats

    @property
    def arrays(self) -> list[Floats]:
        """All numbers, in the order they are stored."""
        pairs = [a for pair in zip(self.kernels, self.biases, strict=True) for a in pair]
        return [self.mean, self.spread, *pairs, self.centre, self.scale, self.out, self.out_bias]


class SimSiam:
    """Means and spreads of what three convolutions see, brought to where training put likeness.

    Registered without weights: `train` or `from_bytes` give the one that describes.
    """

    name: ClassVar[str] = "simsiam"
    version: ClassVar[int] = 1

    def __init__(self, network: Network | None = None) -> None:
        self.network = network

    def train(
        self, series: Sequence[Series], *, steps: int | None = None, seed: int = 0, device: str = "auto",
        progress: Progress = lambda _, __: None,
    ) -> SimSiam:  # fmt: skip
        """One that learned from these places, in STEPS unless others are given; see `training.train_network`."""
        from geostore.index.descriptors.training import train_network

        count = STEPS if steps is None else steps
        made = train_network(series, loss=self.name, steps=count, seed=seed, device=device, progress=progress)
        return type(self)(made)

    def from_bytes(self, data: bytes) -> SimSiam:
        """The inverse of `to_bytes`. Raises Corrupt."""
        return type(self)(_network_from(data))

    def to_bytes(self) -> bytes:
        """Facts as JSON, then all arrays; little-endian float32."""
        network = self._trained
        facts = {"bands": network.bands, "shapes": [a.shape for a in network.arrays]}
        header = json.dumps(facts, sort_keys=True).encode()
        return b"".join(
            [_MAGIC, len(header).to_bytes(4, "little"), header, *(a.astype("<f4").tobytes() for a in network.arrays)]
        )

    def width(self, bands: Bands) -> int:
        """Components. Raises InvalidInput without weights, NotComparable for bands it was not trained on."""
        return len(self._for(bands).out_bias)

    def digest(self, bands: Bands) -> str:
        """Over weights, names and kinds of bands; stored scale and dtype do not matter."""
        return hashlib.sha256(self._weights + bands_facts(bands).encode()).hexdigest()[:32]

    def describe(self, pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
        """(B, H, W) stored values -> (width,) float32 of length 1; zeros where too few pixels may be used.

        Raises:
            NotComparable: bands it was not trained on. InvalidInput: there are no weights yet, or shapes do not fit.
        """
        check_pixels(pixels, valid, bands)
        network = self._for(bands)
        if int(valid.sum()) < PIXELS_MIN:
            return np.zeros(len(network.out_bias), np.float32)
        logs = np.moveaxis(logarithms(pixels, valid, bands), 0, 2)  # (H, W, B)
        x = np.clip((logs - network.mean) / network.spread, -LIMIT, LIMIT)
        seen = valid[..., None].astype(np.float32)
        x = np.concatenate([x * seen, seen], axis=2)
        pooled = []
        for kernel, bias, stride in zip(network.kernels, network.biases, STRIDES, strict=True):
            seen = seen[::stride, ::stride]
            x = np.maximum(_convolved(x, kernel, stride) + bias, 0) * seen
            pooled += _pooled(x, seen)
        made = (np.concatenate(pooled) - network.centre) * network.scale @ network.out + network.out_bias
        return np.asarray(made / max(float(np.linalg.norm(made)), 1e-12), np.float32)

    @property
    def _trained(self) -> Network:
        if self.network is None:
            raise InvalidInput(f"{self.name} has no weights yet; `train` it on rasters, or load some with `from_bytes`")
        return self.network

    @cached_property
    def _weights(self) -> bytes:
        return self.to_bytes()

    def _for(self, bands: Bands) -> Network:
        network = self._trained
        if network.bands != bands_facts(bands):
            raise NotComparable(
                f"{self.name} was trained on bands {network.bands}, these are {bands_facts(bands)}; train one for them"
            )
        return network


class SimCLR(SimSiam):
    """The same network, trained so that other places are kept apart and not only like ones brought together."""

    name: ClassVar[str] = "simclr"


def bands_facts(bands: Bands) -> str:
    """Names and kinds: what rasters must share to be described by one network."""
    return json.dumps([(b.name, b.kind) for b in bands])


def logarithms(pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
    """(..., B, H, W) stored values -> float32 logarithms of n1; 0 is under the mask."""
    logs = np.log(to_n1(bands.to_physical(pixels), bands) + np.float32(FLOOR))
    return np.asarray(np.where(valid[..., None, :, :], logs, 0), np.float32)


def _convolved(x: Floats, kernel: Floats, stride: int) -> Floats:
    """(H, W, in) with (3, 3, in, out), one pixel of zeros around; every `stride`-th pixel of (H, W, out)."""
    height, width, _ = x.shape
    rows, cols = -(-height // stride), -(-width // stride)
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    out = np.zeros((rows, cols, kernel.shape[3]), np.float32)
    for i in range(3):
        for j in range(3):
            out += padded[i : i + height : stride, j : j + width : stride] @ kernel[i, j]
    return out


def _pooled(x: Floats, seen: Floats) -> list[Floats]:
    """Mean and standard deviation of (H, W, C) over the pixels that (H, W, 1) `seen` counts."""
    count = max(float(seen.sum()), 1.0)
    mean = x.sum(axis=(0, 1), dtype=np.float64) / count
    square = (x.astype(np.float64) ** 2).sum(axis=(0, 1)) / count
    return [mean.astype(np.float32), np.sqrt(np.maximum(square - mean**2, 0) + 1e-6).astype(np.float32)]


def _network_from(data: bytes) -> Network:
    if not data.startswith(_MAGIC) or len(data) < 12:
        raise Corrupt("no trained descriptor: its first bytes are wrong; train it again")
    end = 12 + int.from_bytes(data[8:12], "little")
    try:
        facts: dict[str, Any] = json.loads(data[12:end])
        shapes = [tuple(int(v) for v in s) for s in facts["shapes"]]
        numbers: npt.NDArray[np.float32] = np.frombuffer(data[end:], "<f4").astype(np.float32)
        counts = np.cumsum([int(np.prod(s)) for s in shapes])
        if len(shapes) != 2 + 2 * len(STRIDES) + 4 or counts[-1] != len(numbers):
            raise ValueError(f"{len(numbers)} numbers for shapes {shapes}")
        arrays = [p.reshape(s) for p, s in zip(np.split(numbers, counts[:-1]), shapes, strict=True)]
        convolutions = arrays[2 : 2 + 2 * len(STRIDES)]
        return Network(
            str(facts["bands"]), arrays[0], arrays[1], tuple(convolutions[::2]), tuple(convolutions[1::2]), *arrays[-4:]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"a trained descriptor is cut short or damaged ({error}); train it again") from error
