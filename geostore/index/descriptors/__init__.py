"""Descriptors: what a raster looks like, as numbers that any two rasters with the same bands may be compared by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from geostore.codec import Series
from geostore.errors import InvalidInput
from geostore.partition.geohash import OUTSIDE, check_precision
from geostore.partition.grid import cell_codes
from geostore.raster import Bands, Mask, Pixels, Raster

Floats = npt.NDArray[np.float32]
Progress = Callable[[str, float], None]  # (what is being done, share done 0..1); may raise Cancelled
GROUP = "geostore.descriptors"  # the entry-point group
PIXELS_MIN = 16  # usable ones; with fewer there is nothing to describe


@runtime_checkable
class Descriptor(Protocol):
    """One way to describe rasters; registered under the entry-point group `geostore.descriptors`.

    The same pixels give the same numbers on every call; masked pixels weigh nothing; the vector has length 1, so that
    inner products are cosines.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    def width(self, bands: Bands) -> int:
        """Components for these bands."""
        ...

    def digest(self, bands: Bands) -> str:
        """32 hexadecimal digits over all that the numbers depend on: weights, parameters, names and kinds of bands."""
        ...

    def describe(self, pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
        """(B, H, W) stored values -> (width,) float32; zeros where fewer than PIXELS_MIN pixels may be used."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """A registered descriptor that has no weights yet; what `train` and `from_bytes` give is a `Trained` one."""

    name: ClassVar[str]

    def train(
        self,
        series: Sequence[Series],
        *,
        steps: int = ...,
        seed: int = ...,
        device: str = ...,
        progress: Progress = ...,
    ) -> Trained:
        """One that learned from these places and dates, all of the same bands; `steps` None is its own choice."""
        ...

    def from_bytes(self, data: bytes) -> Trained:
        """The inverse of `Trained.to_bytes`. Raises Corrupt."""
        ...


@runtime_checkable
class Trained(Descriptor, Protocol):
    """A descriptor with weights."""

    def to_bytes(self) -> bytes:
        """All that `describe` needs."""
        ...


@dataclass(frozen=True)
class Chip:
    """The part of a raster that lies in one finer cell.

    Attributes:
        code: of its geohash.
        row, col: where it begins in the raster.
        valid: (height, width) bool, True where a pixel may be used and lies in the cell.
    """

    code: int
    row: int
    col: int
    valid: Mask


def chips(raster: Raster, precision: int) -> Iterator[Chip]:
    """The cells of `precision` that hold PIXELS_MIN usable pixels of the raster or more, by code.

    A pixel belongs to the cell that holds its centre.
    """
    check_precision(precision)
    codes = np.where(raster.valid, cell_codes(raster.grid, precision), OUTSIDE)
    rows, cols = np.nonzero(codes != OUTSIDE)
    found, which = np.unique(codes[rows, cols], return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=len(found)))
    for code, start, end in zip(found, np.append(0, ends[:-1]), ends, strict=True):
        if end - start < PIXELS_MIN:
            continue
        mine = order[start:end]
        row, col = int(rows[mine].min()), int(cols[mine].min())
        window = codes[row : int(rows[mine].max()) + 1, col : int(cols[mine].max()) + 1]
        yield Chip(int(code), row, col, window == code)


def describe_chips(descriptor: Descriptor, raster: Raster, precision: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """(N,) codes of cells and (N, width) descriptors of the raster's chips; none where nothing may be used.

    At the precision of the raster's own cell there is one chip: the raster.
    """
    found = list(chips(raster, precision))
    out = np.empty((len(found), descriptor.width(raster.bands)), np.float32)
    for i, chip in enumerate(found):
        height, width = chip.valid.shape
        pixels = raster.pixels[:, chip.row : chip.row + height, chip.col : chip.col + width]
        out[i] = descriptor.describe(pixels, chip.valid, raster.bands)
    return np.array([c.code for c in found], np.int64), out


def check_pixels(pixels: Pixels, valid: Mask, bands: Bands) -> None:
    """Raise InvalidInput unless (B, H, W) pixels, (H, W) valid and bands belong together."""
    if pixels.shape != (len(bands), *valid.shape) or valid.dtype != np.bool_:
        raise InvalidInput(
            f"pixels {pixels.shape} and valid {valid.shape} {valid.dtype} for {len(bands)} bands; give (bands, height, "
            "width) and (height, width) bool"
        )
