"""Convolutions of whole numbers in 32 bits: several times as fast as in float64, and as exact, as no sum overflows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
import numpy.typing as npt

from geostore.vae.model import Layer
from geostore.vae.static import Doubles

Words = npt.NDArray[np.int32]
_TOP = 1 << 31
_TOGETHER = 4  # outputs worked out side by side
_LANES = 8  # a row of taps is a multiple of so many numbers


_NO_TURN = np.zeros((0, 1, 1))


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What becomes of the sums, (O, H, W): every product of it is exact, every other step rounds down.

    Attributes:
        scale, bias: (O,), of at most 21 bits; sums are multiplied by the one and the other added.
        turn: (2O, H, W) or empty: by how much of `one` each is made wider, and what is added then.
        one: a whole in fixed point.
        slope: what is below 0 is multiplied by it.
        limit: all is held within +- this, before turning and at the end.
    """

    scale: Doubles
    bias: Doubles
    turn: Doubles = field(default_factory=lambda: _NO_TURN)
    one: float = 1.0
    slope: float = 1.0
    limit: float = np.inf


@dataclass(frozen=True)
class Taps:
    """The weights of one layer as they are walked over.

    Attributes:
        rows: of each parity (row, column) of an output pixel, (k, O, R) weights: k rows of taps, each (columns,
            channels) flat and filled up with 0; O is filled up too. One parity for "conv", four for "up".
        starts: of each parity, the first row and column of its taps in the padded input.
        outputs, stride: channels and pixels of the output for one of the input.
        sum_max: the largest sum of absolute weights of an output.
    """

    rows: tuple[Words, ...]
    starts: tuple[tuple[int, int], ...]
    outputs: int
    stride: int
    sum_max: int

    @classmethod
    def of(cls, layer: Layer, weight: npt.NDArray[np.generic]) -> Taps | None:
        """For a 3 x 3 "conv" (O, C, 3, 3) or an "up" (C, O, 4, 4); None for other layers."""
        whole = weight.astype(np.int64)
        if layer.kind == "conv" and layer.kernel == 3:
            sums = np.abs(whole).sum(axis=(1, 2, 3))
            return cls((_flat(whole),), ((0, 0),), layer.outputs, 1, int(sums.max()))
        if layer.kind == "up":
            turned = whole.swapaxes(0, 1)  # (C, O, 4, 4) -> (O, C, 4, 4)
            taps = {0: [3, 1], 1: [2, 0]}  # of the kernel, for an output pixel at an even or odd place
            places = [(y, x) for y in taps for x in taps]
            parts = [turned[:, :, taps[y]][:, :, :, taps[x]] for y, x in places]
            sums = [np.abs(part).sum(axis=(1, 2, 3)).max() for part in parts]
            return cls(tuple(map(_flat, parts)), tuple(places), layer.outputs, 2, int(max(sums)))
        return None

    def apply(self, x: Doubles, finish: Finish) -> Doubles | None:
        """(N, C, H, W) whole numbers -> (N, O, H', W'), finished; None where a sum might not fit 32 bits."""
        if not x.size or float(np.abs(x).max()) * self.sum_max >= _TOP:
            return None
        count, channels, height, width = x.shape
        rows, columns = height * self.stride, width * self.stride
        out = np.empty((count, self.outputs, rows, columns))
        padded = np.zeros((height + 2, (width + 2) * channels + self.rows[0].shape[2]), np.int32)
        for i in range(count):
            _lay(x[i], padded)
            for taps, (row, column) in zip(self.rows, self.starts, strict=True):
                _correlate(padded, taps, channels, row, column, self.stride, out[i])
            _finish(out[i], finish.scale, finish.bias, finish.turn, finish.one, finish.slope, finish.limit)
        return out


def _flat(weight: npt.NDArray[np.int64]) -> Words:
    """(O, C, k, k) -> (k, O', R)."""
    outputs, channels, k, _ = weight.shape
    out = np.zeros((k, -(-outputs // _TOGETHER) * _TOGETHER, -(-k * channels // _LANES) * _LANES), np.int32)
    out[:, :outputs, : k * channels] = weight.transpose(2, 0, 3, 1).reshape(k, outputs, k * channels)
    return out


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _lay(x: Doubles, padded: Words) -> None:
    """(C, H, W) into rows of (pixel, channel), with a pixel of 0 around."""
    channels, height, width = x.shape
    for y in range(height):
        for c in range(channels):
            for column in range(width):
                padded[y + 1, (column + 1) * channels + c] = np.int32(x[c, y, column])


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _correlate(padded: Words, taps: Words, channels: int, row: int, column: int, stride: int, out: Doubles) -> None:
    """Every `stride`-th pixel of (O, H', W') `out`, from `row` and `column` on."""
    k, outputs, length = taps.shape
    sums = np.zeros(_TOGETHER, np.int32)
    for y in range(out.shape[1] // stride):
        for x in range(out.shape[2] // stride):
            at = (x + column) * channels
            for o in range(0, outputs, _TOGETHER):
                s0, s1, s2, s3 = np.int32(0), np.int32(0), np.int32(0), np.int32(0)
                for dy in range(k):
                    seen = padded[y + row + dy, at : at + length]
                    w0, w1, w2, w3 = taps[dy, o], taps[dy, o + 1], taps[dy, o + 2], taps[dy, o + 3]
                    for i in range(length):
                        s0 = np.int32(s0 + np.int32(seen[i] * w0[i]))
                        s1 = np.int32(s1 + np.int32(seen[i] * w1[i]))
                        s2 = np.int32(s2 + np.int32(seen[i] * w2[i]))
                        s3 = np.int32(s3 + np.int32(seen[i] * w3[i]))
                sums[0], sums[1], sums[2], sums[3] = s0, s1, s2, s3
                for j in range(min(_TOGETHER, out.shape[0] - o)):
                    out[o + j, stride * y + row, stride * x + column] = sums[j]


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def _finish(out: Doubles, scale: Doubles, bias: Doubles, turn: Doubles, one: float, slope: float, limit: float) -> None:
    """`Finish`, in place."""
    outputs, height, width = out.shape
    for o in range(outputs):
        for y in range(height):
            for x in range(width):
                value = np.floor(out[o, y, x] * scale[o] + bias[o])
                if len(turn):
                    held = min(max(value, -limit), limit)
                    value = np.floor(held * (turn[o, y, x] + one) / one) + turn[outputs + o, y, x]
                value = np.floor(value * slope) if value < 0 else value
                out[o, y, x] = min(max(value, -limit), limit)
