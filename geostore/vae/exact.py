"""Convolutions of whole numbers in 32 bits: several times as fast as in float64, and as exact, as no sum overflows."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from geostore.vae.model import Layer
from geostore.vae.static import Doubles

Words = npt.NDArray[np.int32]
_TOP = 1 << 31
_TOGETHER = 4  # outputs worked out side by side
_LANES = 8  # a row of taps is a multiple of so many numbers


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

    def apply(self, x: Doubles, scale: Doubles, bias: Doubles, limit: float, slope: float) -> Doubles | None:
        """(N, C, H, W) whole numbers -> floor(sums * scale + bias), (N, O, H', W'); None where 32 bits might not do.

        `scale` and `bias` are (O,), a scale of at most 21 bits, so that its products are exact. What comes out below 0
        is multiplied by `slope` and rounded down, and all is held within +-`limit`.
        """
        if not x.size or float(np.abs(x).max()) * self.sum_max >= _TOP:
            return None
        count, channels, height, width = x.shape
        rows, columns = height * self.stride, width * self.stride
        out = np.empty((count, self.outputs, rows, columns))
        padded = np.zeros((height + 2, (width + 2) * channels + self.rows[0].shape[2]), np.int32)
        for i in range(count):
            _lay(x[i], padded)
            for taps, (row, column) in zip(self.rows, self.starts, strict=True):
                _correlate(padded, taps, channels, row, column, self.stride, scale, bias, limit, slope, out[i])
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
def _correlate(
    padded: Words, taps: Words, channels: int, row: int, column: int, stride: int,
    scale: Doubles, bias: Doubles, limit: float, slope: float, out: Doubles,
) -> None:  # fmt: skip
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
                    value = np.floor(sums[j] * scale[o + j] + bias[o + j])
                    value = np.floor(value * slope) if value < 0 else value
                    out[o + j, stride * y + row, stride * x + column] = min(max(value, -limit), limit)
