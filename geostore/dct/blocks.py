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
Shorts = npt.NDArray[np.int16]
Places = npt.NDArray[np.uint32]  # indices without a sign are not looked at twice
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

    def room(self, parts: int) -> Doubles:
        """(2, K, padded) to compute in: memory new to a process takes longer to be had than to be filled."""
        return np.empty((2, parts, *self.padded))

    def forward(self, planes: Doubles, room: Doubles | None = None) -> Doubles:
        """(K, padded) planes -> (K, rows, h, columns, w) coefficients, whole numbers; they lie in `room` if given."""
        (h, w), parts = self.side, len(planes)
        room = self.room(parts) if room is None else room
        first, second = room[0].reshape(-1, w), room[1].reshape(parts * self.rows, h, -1)
        np.matmul(planes.reshape(-1, w), _matrix(w, turned=True), out=first)
        np.matmul(_matrix(h), _scaled(first, _BITS - _HALF_WAY).reshape(second.shape), out=second)
        return _scaled(second, _BITS + _HALF_WAY).reshape(parts, self.rows, h, self.columns, w)

    def inverse(self, coefficients: Doubles, room: Doubles | None = None) -> Shorts:
        """(K, rows, h, columns, w) coefficients, which may lie in room[1] -> (K, padded) planes."""
        (h, w), parts = self.side, len(coefficients)
        room = self.room(parts) if room is None else room
        first, second = room[0].reshape(-1, w), room[1].reshape(parts * self.rows, h, -1)
        np.matmul(coefficients.reshape(-1, w), _matrix(w), out=first)
        np.matmul(_matrix(h, turned=True), _scaled(first, _BITS - _HALF_WAY).reshape(second.shape), out=second)
        planes = np.empty((parts, *self.padded), np.int16)
        _hold(second.reshape(-1), _BITS + _HALF_WAY, planes.reshape(-1))
        return planes

    def sparse(self, planes: Floats, least: float) -> Floats:
        """(K, padded) with only those coefficients that are at least `least`; rounded nowhere, for encoders alone."""
        (h, w), parts = self.side, len(planes)
        down, across = _cosines(h), _cosines(w)
        first = (planes.reshape(-1, w) @ across.T).reshape(-1, h, self.columns * w)
        found = down @ first
        found[np.abs(found) < least] = 0
        return ((down.T @ found).reshape(-1, w) @ across).reshape(parts, *self.padded)

    def ordered(self, planes: Doubles, out: Floats, room: Doubles | None = None) -> None:
        """What `forward` gives, below 2^24, into (K, rows * columns, h * w), in the order of `scan`."""
        found = self.forward(planes, room).reshape(len(planes) * self.rows, -1)
        _put_in_order(found, self._places, self.side[1], out.reshape(len(found), self.columns, -1))

    def planes(self, ordered: Longs, room: Doubles | None = None) -> Shorts:
        """The inverse: (K, padded) of coefficients, which are held within +-LARGEST."""
        (h, w), parts = self.side, len(ordered)
        room = self.room(parts) if room is None else room
        found = room[1].reshape(parts * self.rows, -1)
        _put_back(ordered.reshape(len(found), self.columns, -1), self._places, w, found)
        return self.inverse(found.reshape(parts, self.rows, h, self.columns, w), room)

    @property
    def within(self) -> Places:
        """(h * w,) where the frequencies of `scan` lie in a block."""
        return _places(*self.side, 1)

    @property
    def _places(self) -> Places:
        return _places(*self.side, self.columns)

    @property
    def scan(self) -> Longs:
        """(h * w, 3) row, column and class of frequencies: class by class, low ones first."""
        return _scan(*self.side)


@compiled(lean=True)
def _put_in_order(coefficients: Doubles, places: Places, width: int, out: Floats) -> None:
    """Rows of blocks, (G, h * columns * w), into (G, columns, h * w)."""
    for g in range(out.shape[0]):
        for x in range(out.shape[1]):
            block, to = coefficients[g, x * width :], out[g, x]
            for n in range(len(places)):
                to[n] = block[places[n]]


@compiled(lean=True)
def _put_back(values: Longs, places: Places, width: int, out: Doubles) -> None:
    """The inverse."""
    for g in range(values.shape[0]):
        for x in range(values.shape[1]):
            seen, block = values[g, x], out[g, x * width :]
            for n in range(len(places)):
                block[places[n]] = min(max(float(seen[n]), -LARGEST), LARGEST)


def _scaled(values: Doubles, bits: int) -> Doubles:
    """Values / 2^bits, rounded half up; in their place."""
    _scale(values.reshape(-1), 2.0 ** (bits - 1), 2.0**-bits)
    return values


@compiled(lean=True)
def _scale(values: Doubles, half: float, part: float) -> None:
    for i in range(len(values)):
        values[i] = np.floor((values[i] + half) * part)


@compiled(lean=True)
def _hold(values: Doubles, bits: int, out: Shorts) -> None:
    """Likewise, held within 16 bits."""
    half, part = 2.0 ** (bits - 1), 2.0**-bits
    for i in range(len(values)):
        out[i] = np.int16(min(max(np.floor((values[i] + half) * part), -32768.0), 32767.0))


@lru_cache(maxsize=32)
def _matrix(side: int, *, turned: bool = False) -> Doubles:
    """(frequencies, values) the orthonormal cosine transform of `side` values, in 2^-14; or (values, frequencies)."""
    k, x = np.mgrid[:side, :side].astype(np.float64)
    exact = np.cos(np.pi * (2 * x + 1) * k / (2 * side)) * np.sqrt(2 / side)
    exact[0] /= np.sqrt(2)
    whole = np.rint(exact * 2**_BITS)
    return np.ascontiguousarray(whole.T if turned else whole)


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


@lru_cache(maxsize=32)
def _places(height: int, width: int, columns: int) -> Places:
    """(h * w,) where the frequencies of `scan` lie in the first of so many blocks that lie beside one another."""
    scan = _scan(height, width)
    return np.asarray(scan[:, 0] * columns * width + scan[:, 1], np.uint32)
