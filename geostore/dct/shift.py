"""How far a date lies beside the others, in parts of a pixel, and planes moved by that: whole numbers throughout.

Dates of one place are placed on one grid, but not to a fraction of a pixel: an edge half a pixel off leaves more to be
coded than anything that changed on the ground.

References:
    Lucas, Kanade (1981), "An iterative image registration technique": the shift by least squares on gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geostore.compiled import compiled

Doubles = npt.NDArray[np.float64]
Longs = npt.NDArray[np.int64]
Shorts = npt.NDArray[np.int16]
PARTS = 8  # of a pixel
MOST = 24  # parts a date is shifted by at most
_TAPS = 8
_ONE = 128  # of a tap
_SPREAD = 4.0  # pixels, of the picture's broad features, which say nothing on where it lies
_ROUNDS, _STEPS = 3, 2
_WINDOW = 192  # pixels a side that are looked at
_BORDER = 4
_COMPONENTS = 2


def shifts(planes: Doubles) -> Longs:
    """(T, K, H, W) components, strongest first -> (T, 2) rows and columns by which each date lies off, in PARTS."""
    count, _, height, width = planes.shape
    found = np.zeros((count, 2))
    if count < 2 or min(height, width) < 3 * _BORDER:
        return found.astype(np.int64)
    top, left = max(0, height - _WINDOW) // 2, max(0, width - _WINDOW) // 2
    seen = _detail(planes[:, :_COMPONENTS, top : top + _WINDOW, left : left + _WINDOW])
    middle = np.asarray(seen.mean(axis=0))
    for _ in range(_ROUNDS):
        found = np.stack([_shift(middle, date, at) for date, at in zip(seen, found, strict=True)])
        found -= found.mean(axis=0)
        middle = np.mean([_moved(date, -at) for date, at in zip(seen, found, strict=True)], axis=0)
    return np.clip(np.rint(found * PARTS), -MOST, MOST).astype(np.int64)


def _detail(planes: Doubles) -> Doubles:
    away = (0.0,) * (planes.ndim - 2)
    return np.asarray(planes - ndimage.gaussian_filter(planes, (*away, _SPREAD, _SPREAD)))


def _moved(planes: Doubles, by: Doubles) -> Doubles:
    """Planes as seen `by` so many pixels further on."""
    return np.stack([ndimage.shift(p, -by, order=1, mode="nearest") for p in planes])


def _shift(middle: Doubles, date: Doubles, start: Doubles) -> Doubles:
    """The shift at which `middle` looks most like `date`; `start` where that finds none better."""
    inner = (slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
    at, best, least = start.copy(), np.zeros(2), np.inf
    for step in range(_STEPS + 1):
        seen = _moved(middle, at)
        rows, columns = (np.asarray(slope) for slope in np.gradient(seen, axis=(1, 2)))
        slopes = np.stack([rows[inner].ravel(), columns[inner].ravel(), seen[inner].ravel()])
        square = np.asarray(slopes @ slopes.T)
        away = (date - seen)[inner].ravel()
        gain = slopes[2] @ date[inner].ravel() / max(square[2, 2], 1e-9)
        left = float(((date[inner].ravel() - gain * slopes[2]) ** 2).mean())
        if left < least:
            least, best = left, at.copy()
        if step < _STEPS:
            found = np.linalg.solve(square + np.eye(3) * (np.trace(square) * 1e-6 + 1e-9), slopes @ away)
            at = np.clip(at + found[:2], -MOST / PARTS, MOST / PARTS)
    return best


def _kernels() -> Longs:
    """(PARTS, _TAPS) of a sinc under a wider one, in 1/128; each sums to 128."""
    away = np.arange(_TAPS) - (_TAPS // 2 - 1) - np.arange(PARTS)[:, None] / PARTS
    taps = np.rint(np.sinc(away) * np.sinc(away / (_TAPS // 2)) * _ONE).astype(np.int64)
    taps[np.arange(PARTS), np.where(np.arange(PARTS) <= PARTS // 2, 3, 4)] += _ONE - taps.sum(axis=1)
    return taps


_KERNELS = _kernels()


def move(planes: Doubles | Shorts, by: Longs, out: Doubles | None = None) -> Doubles:
    """(K, H, W) whole numbers as seen `by` (rows, columns) in PARTS further on; beyond the edges, the edge."""
    out = np.empty(planes.shape) if out is None else out
    if not by.any():
        np.copyto(out, planes)
        return out
    seen: npt.NDArray[Any] = np.ascontiguousarray(planes)
    half, line = np.empty(planes.shape[1:]), np.empty(planes.shape[2] + _TAPS)
    _move(seen, int(by[0]), int(by[1]), _KERNELS.astype(np.float64), half, line, out)
    return out


@compiled(lean=True)
def _move(
    planes: Doubles | Shorts, down: int, right: int, kernels: Doubles, half: Doubles, line: Doubles, out: Doubles
) -> None:  # fmt: skip
    """Along rows, then along columns; whole numbers in float64, which are exact far beyond what 16 bits sum to."""
    count, height, width = planes.shape
    rows, columns = kernels[down & 7], kernels[right & 7]
    start = (right >> 3) - 3
    low = min(max(-start, 0), width + _TAPS)  # from where on a line is not the edge, and to where
    high = min(max(width - start, low), width + _TAPS)
    for k in range(count):
        for y in range(height):
            seen = planes[k, y]
            line[:low], line[high:] = seen[0], seen[width - 1]
            _copy(seen[low + start :], line[low:high])
            _weigh(columns, line, half[y])
        for y in range(height):
            _add(rows, half, y + (down >> 3) - 3, out[k, y])


@compiled(lean=True)
def _copy(line: Doubles | Shorts, out: Doubles) -> None:
    for x in range(len(out)):
        out[x] = line[x]


@compiled(lean=True, fastmath=("contract",))
def _weigh(taps: Doubles, line: Doubles, out: Doubles) -> None:
    """(W,) sums of eight neighbours in (W + 8,)."""
    a, b, c, d, e, f, g, h = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    for x in range(len(out)):
        first = a * line[x] + b * line[x + 1] + c * line[x + 2] + d * line[x + 3]
        out[x] = first + (e * line[x + 4] + f * line[x + 5] + g * line[x + 6] + h * line[x + 7])


@compiled(lean=True, fastmath=("contract",))
def _add(taps: Doubles, half: Doubles, top: int, out: Doubles) -> None:
    """(W,) sums of eight lines of (H, W) from `top` on, in 2^-14, rounded half up; beyond the edges, the edge."""
    last = len(half) - 1
    p, q = half[min(max(top, 0), last)], half[min(max(top + 1, 0), last)]
    r, s = half[min(max(top + 2, 0), last)], half[min(max(top + 3, 0), last)]
    t, u = half[min(max(top + 4, 0), last)], half[min(max(top + 5, 0), last)]
    v, w = half[min(max(top + 6, 0), last)], half[min(max(top + 7, 0), last)]
    a, b, c, d, e, f, g, h = taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7]
    for x in range(len(out)):
        first = a * p[x] + b * q[x] + c * r[x] + d * s[x]
        total = first + (e * t[x] + f * u[x] + g * v[x] + h * w[x])
        out[x] = np.floor((total + 8192.0) * 2.0**-14)
