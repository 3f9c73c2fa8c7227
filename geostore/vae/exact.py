"""Convolutions of whole numbers of 16 bits, summed in 32: as exact as float64, as no sum overflows, and far faster."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.vae.dots import OUTPUTS, PLACES, Halves, Longs, Words, dots
from geostore.vae.model import Layer
from geostore.vae.static import Doubles

_TOP = 1 << 31
_NARROW = 1 << 15
_PARTS = 8  # bits of the lower part of a wider number
_NO_TURN = np.zeros((0, 1, 1), np.float32)
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What becomes of the sums, (O, H, W): every product of it is exact, every other step rounds down.

    Attributes:
        scale, bias: (O,), of at most 21 bits; sums are multiplied by the one and the other added.
        turn: (2O, H, W) float32 or empty: by how much of `one` each is made wider, and what is added then.
        one: a whole in fixed point.
        slope: what is below 0 is multiplied by it.
        limit: all is held within +- this, before turning and at the end.
    """

    scale: Doubles
    bias: Doubles
    turn: Floats = field(default_factory=lambda: _NO_TURN)
    one: float = 1.0
    slope: float = 1.0
    limit: float = np.inf


@dataclass(frozen=True)
class Taps:
    """The weights of one layer as they are walked over.

    Attributes:
        places: (parities, K, 2) row and column of each tap in the padded input, for every parity (row, column) of an
            output pixel: one for "conv", four for "up".
        narrow: (parities, O' / OUTPUTS, K * C' / 2, OUTPUTS, 2) weights of pairs of channels; channels and outputs
            are filled up with 0.
        wide: (parities, O' / OUTPUTS, K * C, OUTPUTS, 2) weights of the two parts of each channel.
        outputs: channels of the output.
        sum_max: the largest sum of absolute weights of an output.
    """

    places: Longs
    narrow: Halves
    wide: Halves
    outputs: int
    sum_max: int

    @classmethod
    def of(cls, layer: Layer, weight: npt.NDArray[np.generic]) -> Taps | None:
        """For int8 weights of a "conv" (O, C, k, k), k 1 or 3, or of an "up" (C, O, 4, 4); None for other layers."""
        whole = weight.astype(np.int64)
        if layer.kind == "dense":
            return None
        if layer.kind == "conv":
            seen = np.array(list(np.ndindex(whole.shape[2:])))[None]  # (parities, K, 2) of the kernel
            places = seen + (1 - layer.kernel // 2)
        else:
            whole = whole.swapaxes(0, 1)  # (C, O, 4, 4) -> (O, C, 4, 4)
            corners = np.array(list(np.ndindex(2, 2)))
            places = corners[:, None] + corners
            seen = 3 - corners[:, None] - 2 * corners  # the kernel's 3 and 1 make an even pixel, its 2 and 0 an odd one
        taps = np.moveaxis(whole[:, :, seen[..., 0], seen[..., 1]], (0, 1), (2, 3))  # (parities, K, O, C)
        sums = np.abs(taps).sum(axis=(1, 3))
        taps = np.pad(taps, ((0, 0), (0, 0), (0, -layer.outputs % OUTPUTS), (0, 0)))
        even = np.pad(taps, ((0, 0), (0, 0), (0, 0), (0, layer.inputs % 2)))
        narrow = _walked(even.reshape(*even.shape[:3], -1, 2))
        wide = _walked(np.stack((taps << _PARTS, taps), axis=-1))
        return cls(places, narrow, wide, layer.outputs, int(sums.max()))

    def apply(self, x: Floats, finish: Finish) -> Floats | None:
        """(N, C, H, W) whole numbers -> (N, O, H', W'), finished; None where a sum might not fit 32 bits.

        As float32, which whole numbers below 2^24 fit; `finish` has a limit below that.
        """
        most = _bound(x) if x.size else _TOP
        if most * self.sum_max >= _TOP or most > _NARROW << _PARTS:
            return None
        weights, lay = (self.narrow, _lay_pairs) if most <= _NARROW else (self.wide, _lay_parts)
        count, channels, height, width = x.shape
        line, stride = width + 2, 1 if len(self.places) == 1 else 2
        places = self.places[..., 0] * line + self.places[..., 1]
        length = -(-height * line // PLACES) * PLACES
        planes = -(-channels // 2) if lay is _lay_pairs else channels
        assert weights.shape[2] == planes * places.shape[1], "input of other channels than the layer's"
        pairs = np.zeros((planes, length + 2 * line + 2, 2), np.int16)
        sums = np.empty((len(places), weights.shape[1] * OUTPUTS, length), np.int32)
        out = np.empty((count, self.outputs, height * stride, width * stride), np.float32)
        rest = (finish.one, finish.slope, finish.limit)
        for i in range(count):
            lay(x[i], line, pairs)
            _correlate(pairs, places, weights, sums)
            _finish(sums, line, stride, finish.scale, finish.bias, finish.turn, rest, out[i])
        return out


def _walked(taps: Longs) -> Halves:
    """(parities, K, O', pairs, 2) -> (parities, O' / OUTPUTS, K * pairs, OUTPUTS, 2)."""
    parities, k, outputs, pairs, _ = taps.shape
    cut = taps.reshape(parities, k, outputs // OUTPUTS, OUTPUTS, pairs, 2).transpose(0, 2, 1, 4, 3, 5)
    return np.ascontiguousarray(cut.reshape(parities, outputs // OUTPUTS, k * pairs, OUTPUTS, 2), np.int16)


@compiled
def _bound(x: Floats) -> int:
    """A number that those of (N, C, H, W), whole and below 2^31, are below, or minus which they are at least."""
    bits = np.int32(0)
    for value in x.ravel():
        whole = np.int32(value)
        bits |= np.int32(whole ^ np.int32(whole >> 31))
    return int(bits) + 1


@compiled(lean=True)
def _lay_pairs(x: Floats, line: int, pairs: Halves) -> None:
    """(C, H, W) into planes of two channels, in lines with a pixel of 0 around."""
    channels, height, width = x.shape
    for c in range(channels):
        for y in range(height):
            seen, to = x[c, y], pairs[c >> 1, (y + 1) * line + 1 : (y + 1) * line + 1 + width]
            for column in range(width):
                to[column, c & 1] = np.int16(seen[column])


@compiled(lean=True)
def _lay_parts(x: Floats, line: int, pairs: Halves) -> None:
    """The same, planes of one channel, each number as its higher and its lower part."""
    channels, height, width = x.shape
    for c in range(channels):
        for y in range(height):
            seen, to = x[c, y], pairs[c, (y + 1) * line + 1 : (y + 1) * line + 1 + width]
            for column in range(width):
                value = np.int32(seen[column])
                to[column, 0] = np.int16(value >> _PARTS)
                to[column, 1] = np.int16(value & ((1 << _PARTS) - 1))


@compiled
def _correlate(pairs: Halves, places: Longs, weights: Halves, sums: Words) -> None:
    """Fill (parities, O', length) `sums`, where `places` (parities, K) are the taps' in a plane of `pairs`."""
    parities, k = places.shape
    planes, size, _ = pairs.shape
    flat, taps = pairs.reshape(planes * size, 2), np.empty(k * planes, np.int64)
    for parity in range(parities):
        for i in range(k):
            for plane in range(planes):
                taps[i * planes + plane] = places[parity, i] + plane * size
        for block in range(weights.shape[1]):
            for at in range(0, sums.shape[2], PLACES):
                dots(flat, at, taps, weights[parity, block], sums[parity], block * OUTPUTS, at)


@compiled
def _finish(
    sums: Words, line: int, stride: int, scale: Doubles, bias: Doubles, turn: Floats,
    rest: tuple[float, float, float], out: Floats,
) -> None:  # fmt: skip
    """`Finish`, its `one`, `slope` and `limit` the `rest`, into (O, H', W')."""
    outputs, height, width = out.shape
    one, slope, limit = rest
    row, part = np.empty(width, np.int32), 1 / one
    for o in range(outputs):
        by, more = scale[o], bias[o]
        for y in range(height):
            start = y // stride * line
            for parity in range(stride):
                seen = sums[y % stride * stride + parity, o, start : start + width // stride]
                for i in range(width // stride):
                    row[i * stride + parity] = seen[i]
            to = out[o, y]
            if len(turn):
                wider, shift = turn[o, y], turn[outputs + o, y]
                for x in range(width):
                    held = min(max(np.floor(row[x] * by + more), -limit), limit)
                    value = np.floor(held * (np.float64(wider[x]) + one) * part) + np.float64(shift[x])
                    value = np.floor(value * slope) if value < 0 else value
                    to[x] = min(max(value, -limit), limit)
            else:
                for x in range(width):
                    value = np.floor(row[x] * by + more)
                    value = np.floor(value * slope) if value < 0 else value
                    to[x] = min(max(value, -limit), limit)
