"""Planes as blocks of cosines and back, in whole numbers, so that it is the same on every machine.

Matrices and planes are whole numbers in float64 whose products stay below 2^53: sums are exact in any order.

References:
    Balle, Johnston, Minnen (2019), "Integer networks for data compression": exactness by whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Longs = npt.NDArray[np.int64]
CLASSES = 10
LARGEST = float(1 << 21)  # of a coefficient a damaged stream may give
SIDE = 32  # of a block unless told otherwise
_BITS = 14  # of the matrices' fraction
_HALF_WAY = 6  # bits dropped after the first of two passes
_EDGES = (3, 8, 13, 18, 25, 35, 45, 65, 85)  # of classes, in 1/160 of the highest frequency


@dataclass(frozen=True)
class Blocks:
    """How planes of one size are cut.

    Attributes:
        height, width: of a plane, pixels.
        least: side of a block, pixels at least where the plane has them; below twice that.
        beside: whether what references missed of blocks beside a block is expected of it, see `predict.lead`.
    """

    height: int
    width: int
    least: int = SIDE
    beside: bool = True

    @property
    def rows(self) -> int:
        """Blocks below one another."""
        return max(1, self.height // self.least)

    @property
    def columns(self) -> int:
        """Blocks beside one another."""
        return max(1, self.width // self.least)

    @property
    def side(self) -> tuple[int, int]:
        """Height and width of a block."""
        return -(-self.height // self.rows), -(-self.width // self.columns)

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of a plane filled up to whole blocks."""
        return self.rows * self.side[0], self.columns * self.side[1]

    def pad(self, planes: Doubles) -> Doubles:
        """(..., height, width) filled up from the last row and column."""
        rows, columns = (self.padded[0] - self.height, self.padded[1] - self.width)
        lead = [(0, 0)] * (planes.ndim - 2)
        return np.pad(planes, (*lead, (0, rows), (0, columns)), mode="edge")

    def forward(self, planes: Doubles) -> Doubles:
        """(..., padded) planes -> (..., rows, h, columns, w) coefficients, whole numbers."""
        (h, w), lead = self.side, planes.shape[:-2]
        first = _scaled(planes.reshape(-1, w) @ _matrix(w).T, _BITS - _HALF_WAY)
        second = _matrix(h) @ first.reshape(-1, h, self.columns * w)
        return _scaled(second, _BITS + _HALF_WAY).reshape(*lead, self.rows, h, self.columns, w)

    def inverse(self, coefficients: Doubles) -> Doubles:
        """(K, rows, h, columns, w) coefficients -> (K, padded) planes, whole numbers of 16 bits."""
        (h, w), parts = self.side, len(coefficients)
        first = _scaled(coefficients.reshape(-1, w) @ _matrix(w), _BITS - _HALF_WAY)
        planes = _scaled(_matrix(h).T @ first.reshape(-1, h, self.columns * w), _BITS + _HALF_WAY, 32767.0)
        return planes.reshape(parts, *self.padded)

    def sparse(self, planes: Floats, least: float) -> Floats:
        """(K, padded) with only those coefficients that are at least `least`; rounded nowhere, for encoders alone."""
        (h, w), parts = self.side, len(planes)
        down, across = _cosines(h), _cosines(w)
        first = (planes.reshape(-1, w) @ across.T).reshape(-1, h, self.columns * w)
        found = down @ first
        found[np.abs(found) < least] = 0
        return ((down.T @ found).reshape(-1, w) @ across).reshape(parts, *self.padded)

    def ordered(self, planes: Doubles, out: Floats) -> None:
        """Coefficients, below 2^24, of (K, padded) planes into (K, rows * columns, h * w), in the order of `scan`."""
        _put_in_order(self.forward(planes), self.scan, out)

    def planes(self, ordered: Longs) -> Doubles:
        """The inverse: (K, padded) of coefficients, which are held within +-LARGEST."""
        (h, w), parts = self.side, len(ordered)
        coefficients = np.empty((parts, self.rows, h, self.columns, w))
        _put_back(ordered, self.scan, coefficients)
        return self.inverse(coefficients)

    @property
    def scan(self) -> Longs:
        """(h * w, 3) row, column and class of frequencies: class by class, low ones first."""
        return _scan(*self.side)


@compiled(lean=True)
def _put_in_order(coefficients: Doubles, scan: Longs, out: Floats) -> None:
    parts, rows, _, columns, _ = coefficients.shape
    for k in range(parts):
        for y in range(rows):
            for x in range(columns):
                block, to = coefficients[k, y, :, x], out[k, y * columns + x]
                for n in range(len(scan)):
                    to[n] = block[scan[n, 0], scan[n, 1]]


@compiled(lean=True)
def _put_back(values: Longs, scan: Longs, out: Doubles) -> None:
    parts, rows, _, columns, _ = out.shape
    for k in range(parts):
        for y in range(rows):
            for x in range(columns):
                seen, block = values[k, y * columns + x], out[k, y, :, x]
                for n in range(len(scan)):
                    block[scan[n, 0], scan[n, 1]] = min(max(float(seen[n]), -LARGEST), LARGEST)


def _scaled(values: Doubles, bits: int, most: float = np.inf) -> Doubles:
    """Values / 2^bits, rounded half up and held within -`most` - 1 and `most`; in their place."""
    _scale(values.reshape(-1), 2.0 ** (bits - 1), 2.0**-bits, most)
    return values


@compiled(lean=True)
def _scale(values: Doubles, half: float, part: float, most: float) -> None:
    for i in range(len(values)):
        values[i] = min(max(np.floor((values[i] + half) * part), -most - 1), most)


@lru_cache(maxsize=32)
def _matrix(side: int) -> Doubles:
    """The orthonormal cosine transform of `side` values, in 2^-14."""
    k, x = np.mgrid[:side, :side].astype(np.float64)
    exact = np.cos(np.pi * (2 * x + 1) * k / (2 * side)) * np.sqrt(2 / side)
    exact[0] /= np.sqrt(2)
    return np.asarray(np.rint(exact * 2**_BITS))


@lru_cache(maxsize=32)
def _cosines(side: int) -> Floats:
    return np.asarray(_matrix(side) / 2**_BITS, np.float32)


@lru_cache(maxsize=32)
def _scan(height: int, width: int) -> Longs:
    def place(at: tuple[int, int]) -> tuple[int, int, int, int]:
        share = max(at[0] * width, at[1] * height) * 160  # of height * width
        kind = sum(share >= edge * height * width for edge in _EDGES)
        return kind, at[0] + at[1], *at

    order = sorted(place(at) for at in np.ndindex(height, width))
    return np.array([(u, v, kind) for kind, _, u, v in order], np.int64)
