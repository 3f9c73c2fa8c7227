"""What the latents are expected to be, given what is decoded already: an integer network, the same everywhere.

References:
    Minnen, Balle, Toderici (2018), "Joint autoregressive and hierarchical priors for learned image compression".
    Deviations: no hyperlatents; the static image and the raster before take their place; whole numbers throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.coding import rangecoder
from geostore.coding.rangecoder import Longs, log2_16ths
from geostore.compiled import compiled
from geostore.vae.entropy import Ints

WEIGHT_BITS, HIDDEN_BITS = 6, 10  # weights are int8 / 64, biases int16 / 1024
_LIMIT = 255  # of a quantised latent's magnitude

Tensors = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Past:
    """The raster before in a chain.

    Attributes:
        z: (C, h, w) int32 latents in 1/16, quantised.
        spread: (C, h, w) int32 running mean of their magnitudes.
        head: (2 * B,) int32, its gains and levels.
    """

    z: Ints
    spread: Ints
    head: Ints

    @classmethod
    def after(cls, z: Ints, head: Ints, before: Past | None) -> Past:
        """What the next raster may lean on, after one with latents `z` and `head` that followed `before`."""
        size = np.abs(z)
        return cls(z, size if before is None else (before.spread + size) >> 1, head)


@dataclass(frozen=True)
class Prior:
    """Expected latents and how far they stray, for every latent in turn.

    Channels come one after the other, each row by row. What is known then: the same channel to the left and above,
    the channels before, the raster before, and the static image. One hidden layer; none where it would not pay.

    Attributes:
        first: (H, F) int8 / 64 on features in 1/16.
        shift: (C, H) int16 / 1024.
        second: (2, H) int8 / 64: what is expected, and the base-2 logarithm of the scale, both of a latent.
        bias: (C, 2) int16 / 1024.
        head: (2, 2 * B, 6) int16: for gains and levels, without and with a raster before: four weights / 64, a
            constant in 1/16, and the index of a scale.
    """

    first: npt.NDArray[np.int8]
    shift: npt.NDArray[np.int16]
    second: npt.NDArray[np.int8]
    bias: npt.NDArray[np.int16]
    head: npt.NDArray[np.int16]

    def to_tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Its arrays, by name."""
        names = ("first", "shift", "second", "bias", "head")
        return {f"prior.{name}": getattr(self, name) for name in names}

    @classmethod
    def from_tensors(cls, tensors: Tensors) -> Prior:
        """The inverse of `to_tensors`. Raises KeyError where one is missing."""
        kinds = {"first": np.int8, "shift": np.int16, "second": np.int8, "bias": np.int16, "head": np.int16}
        return cls(**{name: np.ascontiguousarray(tensors[f"prior.{name}"], kind) for name, kind in kinds.items()})

    @classmethod
    def take(cls, tensors: dict[str, npt.NDArray[np.generic]]) -> Prior | None:
        """The prior among `tensors`, taken out of them; None where there is none."""
        if "prior.first" not in tensors:
            return None
        return cls.from_tensors({name: tensors.pop(name) for name in list(tensors) if name.startswith("prior.")})

    @property
    def size_bytes(self) -> int:
        """Bytes of its arrays before compression."""
        return sum(int(a.nbytes) for a in self.to_tensors().values())

    @property
    def network(self) -> tuple[Longs, Longs, Longs, Longs]:
        """Its arrays as the kernels take them."""
        first, shift, second, bias = (a.astype(np.int64) for a in (self.first, self.shift, self.second, self.bias))
        return first, shift, second, bias

    def expect(self, q: Ints, step: int, past: Past | None, static: Ints) -> tuple[Ints, Ints]:
        """What each latent of (C, h, w) `q` is expected to be, 1/16 quantum, and the index of its scale; each int32."""
        expected, scale = np.empty(q.shape, np.int32), np.empty(q.shape, np.int32)
        z = np.ascontiguousarray(q * np.int32(step), np.int32)
        _expect(z, *before(past, q.shape), static, step, step_octaves(step), *self.network, expected, scale)
        return expected, scale


def features(z: Ints, step: int, past: Past | None, static: Ints) -> Ints:
    """(C * h * w, F) int32 features of (C, h, w) latents `z` in 1/16, for training."""
    out = np.empty((z.size, feature_count(len(z), len(static))), np.int32)
    _all_features(np.ascontiguousarray(z, np.int32), *before(past, z.shape), static, step, out)
    return out


def feature_count(channels: int, statics: int) -> int:
    """Features of one latent."""
    return 8 + 2 * channels + 1 + 5 + statics + 1


def static_features(maps: tuple[npt.NDArray[np.float64], ...]) -> Ints:
    """(2 * B, h, w) int32 in 1/16: the static image at 1/8, and how much it varies inside each cell; () gives none.

    Args:
        maps: `Static.maps`, whole numbers.
    """
    full, coarse = maps[0].astype(np.int64), maps[-1].astype(np.int64)
    b, h, w = coarse.shape
    blocks = full.reshape(b, h, full.shape[1] // h, w, full.shape[2] // w)
    away = np.abs(blocks - coarse[:, :, None, :, None]).sum(axis=(2, 4)) * h * w // full[0].size
    activity = np.array([log2_16ths(int(v) // 8 + 4) for v in away.reshape(-1)]).reshape(away.shape) - 64
    return np.ascontiguousarray(np.concatenate([coarse >> 6, activity]), np.int32)


def step_octaves(step: int) -> int:
    """The base-2 logarithm of step / 16 in 1/OCTAVE, rounded; never near a tie for the steps in use."""
    return round(rangecoder.OCTAVE * math.log2(step / 16))


def before(past: Past | None, shape: tuple[int, ...]) -> tuple[Ints, Ints, Ints, int]:
    """The raster before as the kernels take it: latents, their magnitudes, running magnitudes, and whether it is."""
    if past is None:
        none = np.zeros(shape, np.int32)
        return none, none, none, 0
    return past.z, np.abs(past.z), past.spread, 1


@compiled(lean=True)
def _size(z: int) -> int:
    """How large a latent is, as a feature: 0 for 0."""
    return log2_16ths(abs(z) + 4) - 32


@compiled(lean=True)
def _around(sizes: Ints, y: int, x: int) -> int:
    """Sum of (h, w) `sizes` over the 3 x 3 neighbourhood."""
    total = 0
    for j in range(max(y - 1, 0), min(y + 2, sizes.shape[0])):
        for i in range(max(x - 1, 0), min(x + 2, sizes.shape[1])):
            total += sizes[j, i]
    return total


@compiled(lean=True)
def context(
    f: Longs, z: Ints, sums: Ints, past: Ints, sizes: Ints, spread: Ints, known: int, static: Ints, step: int,
    c: int, y: int, x: int,
) -> None:  # fmt: skip
    """Fill `f` for latent (c, y, x); `sums` is the magnitude of the channels before, added up."""
    channels, w = z.shape[0], z.shape[2]
    left = z[c, y, x - 1] if x > 0 else 0
    above = z[c, y - 1, x] if y > 0 else 0
    corner = z[c, y - 1, x - 1] if x > 0 and y > 0 else 0
    other = z[c, y - 1, x + 1] if y > 0 and x + 1 < w else 0
    f[0], f[1], f[2], f[3] = left, above, corner, other
    f[4], f[5], f[6], f[7] = _size(left), _size(above), _size(corner), _size(other)
    at = 8
    for k in range(channels):
        v = z[k, y, x] if k < c else 0
        f[at], f[at + 1] = v, _size(v)
        at += 2
    f[at] = _size(_around(sums, y, x) // (9 * c)) if c > 0 else 0
    f[at + 1] = past[c, y, x]
    f[at + 2] = _size(past[c, y, x])
    f[at + 3] = _size(_around(sizes[c], y, x) // 9)
    f[at + 4] = _size(spread[c, y, x])
    f[at + 5] = 16 * known
    at += 6
    for k in range(static.shape[0]):
        f[at + k] = static[k, y, x]
    f[at + static.shape[0]] = log2_16ths(step) - 64


@compiled(lean=True)
def respond(
    f: Longs, step: int, octaves: int, c: int, first: Longs, shift: Longs, second: Longs, bias: Longs
) -> tuple[int, int]:
    """(expected in 1/16 quantum, index of the scale) of a latent with features `f`."""
    mean, scale = bias[c, 0] << WEIGHT_BITS, bias[c, 1] << WEIGHT_BITS
    for j in range(first.shape[0]):
        h = shift[c, j]
        for i in range(first.shape[1]):
            h += first[j, i] * f[i]
        if h < 0:
            h >>= 3
        mean += second[0, j] * h
        scale += second[1, j] * h
    mean = min(max(mean, -_LIMIT << 16), _LIMIT << 16)
    index = (scale * rangecoder.OCTAVE >> 16) + rangecoder.ONE_QUANTUM - octaves
    return (mean >> 8) // step, min(max(index, 0), rangecoder.LARGEST_SCALE)


@compiled
def _all_features(
    z: Ints, past: Ints, sizes: Ints, spread: Ints, known: int, static: Ints, step: int, out: Ints
) -> None:
    sums = np.zeros(z.shape[1:], np.int32)
    f, n = np.zeros(out.shape[1], np.int64), 0
    for c in range(z.shape[0]):
        for y in range(z.shape[1]):
            for x in range(z.shape[2]):
                context(f, z, sums, past, sizes, spread, known, static, step, c, y, x)
                out[n] = f
                n += 1
        sums += np.abs(z[c])


@compiled
def _expect(
    z: Ints, past: Ints, sizes: Ints, spread: Ints, known: int, static: Ints, step: int, octaves: int,
    first: Longs, shift: Longs, second: Longs, bias: Longs, expected: Ints, scale: Ints,
) -> None:  # fmt: skip
    sums = np.zeros(z.shape[1:], np.int32)
    f = np.zeros(first.shape[1], np.int64)
    for c in range(z.shape[0]):
        for y in range(z.shape[1]):
            for x in range(z.shape[2]):
                if first.shape[0]:
                    context(f, z, sums, past, sizes, spread, known, static, step, c, y, x)
                expected[c, y, x], scale[c, y, x] = respond(f, step, octaves, c, first, shift, second, bias)
        sums += np.abs(z[c])
