"""Components of a raster side by side in one picture, so that a whole raster costs one frame's headers.

A stream a component, the usual way, spends more on headers than on content at a few hundred bytes a raster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from geostore.classical.av1 import SIDE_MAX, SIDE_MIN, Planes
from geostore.errors import InvalidInput

_UNIT = 8  # blocks and transforms do not cross a multiple of it


@dataclass(frozen=True)
class Mosaic:
    """Where each component lies: a grid, filled row by row, of fields rounded up to whole blocks.

    Attributes:
        components: how many.
        height, width: of a component, pixels.
    """

    components: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if max(self.shape) > SIDE_MAX:
            raise InvalidInput(
                f"{self.components} components of {self.height} x {self.width} pixels do not fit one AV1 picture of "
                f"{SIDE_MAX} x {SIDE_MAX}; use a higher precision, so that cells are smaller"
            )

    @property
    def field(self) -> tuple[int, int]:
        """Height and width of a component's field."""
        return _up(self.height), _up(self.width)

    @property
    def columns(self) -> int:
        """Fields in a row: one, as long as the picture is not too tall."""
        return math.ceil(self.components * self.field[0] / SIDE_MAX)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width = self.field
        rows = math.ceil(self.components / self.columns)
        return max(SIDE_MIN, rows * height), max(SIDE_MIN, self.columns * width)

    def join(self, components: Planes) -> Planes:
        """(..., K, height, width) -> (..., H, W); fields are filled up from their edges, the rest from the last one."""
        lead, (height, width) = components.shape[:-3], self.shape
        out = np.empty((*lead, height, width), np.uint16)
        rest = [(0, 0)] * len(lead)
        for k in range(self.components):
            top, left = self._corner(k)
            bottom, right = self._end(k)
            pad = (*rest, (0, bottom - top - self.height), (0, right - left - self.width))
            out[..., top:bottom, left:right] = np.pad(components[..., k, :, :], pad, mode="edge")
        return out

    def split(self, pictures: Planes) -> Planes:
        """(..., H, W) -> (..., K, height, width)."""
        corners = [self._corner(k) for k in range(self.components)]
        fields = [pictures[..., t : t + self.height, c : c + self.width] for t, c in corners]
        return np.stack(fields, axis=-3)

    def _corner(self, k: int) -> tuple[int, int]:
        row, column = divmod(k, self.columns)
        return row * self.field[0], column * self.field[1]

    def _end(self, k: int) -> tuple[int, int]:
        """Where what is filled up from component `k` ends: the picture's edge if no field comes after it there."""
        row, column = divmod(k, self.columns)
        below = k + self.columns < self.components
        beside = column + 1 < self.columns and k + 1 < self.components
        bottom = (row + 1) * self.field[0] if below else self.shape[0]
        right = (column + 1) * self.field[1] if beside else self.shape[1]
        return bottom, right


def _up(size: int) -> int:
    return -(-size // _UNIT) * _UNIT
