"""What training reads: residuals on the static image, cut into random batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from geostore.codec import Series
from geostore.vae.model import STRIDE, Layout
from geostore.vae.static import Ints, Static, Units

CROP = 64  # pixels a side that one step sees of one raster
BATCH = 4
STATIC_BITS = 10  # static maps and activations are integers / 1024
_SCARCE = 1e6  # values of a series below which its dates are mingled, lest a network learn them by heart
_BLENDED, _PATCHED = 0.5, 0.7  # share of batches blended with other dates, of rasters that get a patch of another
_EDGE = 2.0  # how much more than inside an error counts in the outermost pixels of what the flat VAE sees


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What training reads.

    Attributes:
        series: pixels (T, B, H, W), validity and names.
        units: how stored values become units.
        static: the mean image (constant in the flat modes).
        gains, levels: (T, B) int32, each date on the mean image.
        scale: one number per place; residuals are divided by it.
    """

    series: Series
    units: Units
    static: Static
    gains: Ints
    levels: Ints
    scale: float

    @property
    def bend(self) -> int:
        """Of the logarithm that units are of, 1/1000 of reflectance; 0 where they are of none."""
        return 0 if self.units.log is None else self.units.log.per_mille

    @cached_property
    def scarce(self) -> bool:
        """True where there is so little to learn from that a network would learn it by heart."""
        return float(self.series.valid.sum()) * len(self.series.bands) < _SCARCE

    def residual(self, date: int, rows: slice = slice(None), columns: slice = slice(None)) -> npt.NDArray[np.float32]:
        """(B, h, w) of one date: (units - prediction) / scale, 0 where masked."""
        frame = self.units.from_stored(self.series.pixels[date, :, rows, columns])
        near = Static(b"", self.static.image[:, rows, columns], self.static.centre, self.static.spread)
        left = (frame - near.predict(self.gains[date], self.levels[date])) / self.scale
        return np.where(self.series.valid[date, rows, columns], left, 0.0).astype(np.float32)


@dataclass(frozen=True)
class Batch:
    """One step's input; every tensor is (N, C, h, w) float32.

    Attributes:
        dates: (N,) which raster of the series each is cut from.
        residual: 0 where masked.
        mask: (N, 1, h, w), 1 where the pixel counts.
        base: what gain and level predict, units.
        statics: maps at full, 1/2, 1/4 and 1/8 resolution; empty when flat.
    """

    dates: npt.NDArray[np.int64]
    residual: Tensor
    mask: Tensor
    base: Tensor
    statics: tuple[Tensor, ...]


def draw(
    samples: Samples, layout: Layout, dates: npt.NDArray[np.int64], rng: np.random.Generator, device: torch.device
) -> Batch:
    """A random batch: whole frames when flat, else crops of at most CROP pixels whose corners lie on latents."""
    chosen = rng.choice(dates, BATCH)
    height, width = layout.padded
    rows, columns = (height, width) if layout.mode != "grid" else (min(CROP, height), min(CROP, width))
    corners = [
        (
            STRIDE * int(rng.integers((height - rows) // STRIDE + 1)),
            STRIDE * int(rng.integers((width - columns) // STRIDE + 1)),
        )
        for _ in chosen
    ]
    residual, mask, base = _crops(samples, chosen, corners, rows, columns)
    statics: tuple[Tensor, ...] = ()
    if layout.mode == "grid" and samples.scarce:
        _mingle(residual, mask, base, _crops(samples, rng.choice(dates, BATCH), corners, rows, columns), rng)
    if layout.mode == "grid":
        statics = _statics(samples, layout, corners, rows, columns)
    else:
        mask = edged(mask)
    if layout.mode == "flat-single":
        pick = int(rng.integers(residual.shape[1]))
        residual, base = residual[:, pick : pick + 1], base[:, pick : pick + 1]
    given = [torch.from_numpy(a).to(device) for a in (residual, mask, base)]
    return Batch(chosen, given[0], given[1], given[2], tuple(s.to(device) for s in statics))


Crops = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]  # residual, mask, prediction


def _crops(
    samples: Samples, dates: npt.NDArray[np.int64], corners: list[tuple[int, int]], rows: int, columns: int
) -> Crops:
    """(N, C, h, w) each: the crop of every date at its corner."""
    parts = [_crop(samples, int(t), r, c, rows, columns) for t, (r, c) in zip(dates, corners, strict=True)]
    residual, mask, base = (np.stack(p) for p in zip(*parts, strict=True))
    return residual, mask, base


def _mingle(
    residual: npt.NDArray[np.float32],
    mask: npt.NDArray[np.float32],
    base: npt.NDArray[np.float32],
    other: Crops,
    rng: np.random.Generator,
) -> None:
    """Make dates that never were, in place: half of the batches blended with `other` dates, most rasters patched.

    A blend keeps the spread of what is blended; a patch is a rectangle of whole latents.
    """
    if rng.random() < _BLENDED:
        share = rng.uniform(0, 1, (len(residual), 1, 1, 1)).astype(np.float32)
        residual *= share
        residual += (1 - share) * other[0]
        residual /= np.sqrt(share**2 + (1 - share) ** 2)
        mask *= other[1]
        residual *= mask
    for n in np.flatnonzero(rng.random(len(residual)) < _PATCHED):
        rows, columns = (_stretch(side, rng) for side in mask.shape[2:])
        for mine, theirs in zip((residual, mask, base), other, strict=True):
            mine[n, :, rows, columns] = theirs[n, :, rows, columns]


def _stretch(side: int, rng: np.random.Generator) -> slice:
    """Some whole latents along a side of so many pixels."""
    first, last = np.sort(rng.choice(side // STRIDE + 1, 2, replace=False))
    return slice(int(first) * STRIDE, int(last) * STRIDE)


def edged(mask: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, 1, h, w) weights with the sum of `mask`, more along the edges of what is valid, less one pixel in.

    A layer that sees zeros beyond the window says least there; where cells are put together that is a seam.
    """
    near = _beside(1 - mask)
    further = _beside(near) * (1 - near)
    weights = mask * (1 + _EDGE * near + _EDGE / 2 * further)
    total = np.maximum(weights.sum(axis=(2, 3), keepdims=True), 1)
    return np.asarray(weights * (mask.sum(axis=(2, 3), keepdims=True) / total), np.float32)


def _beside(marked: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """1 where a pixel of (N, 1, h, w) or one of its four neighbours is marked; all is marked beyond the window."""
    wide = np.pad(marked, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1)
    found: npt.NDArray[np.float32] = np.maximum.reduce(
        [marked, wide[:, :, 2:, 1:-1], wide[:, :, :-2, 1:-1], wide[:, :, 1:-1, 2:], wide[:, :, 1:-1, :-2]]
    )
    return found


def _crop(
    samples: Samples, date: int, row: int, column: int, rows: int, columns: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Residual, mask and prediction of one crop; what lies beyond the window is masked."""
    down, across = slice(row, row + rows), slice(column, column + columns)
    residual = samples.residual(date, down, across)
    short = ((0, rows - residual.shape[1]), (0, columns - residual.shape[2]))
    near = Static(b"", samples.static.image[:, down, across], samples.static.centre, samples.static.spread)
    base = near.predict(samples.gains[date], samples.levels[date]).astype(np.float32)
    mask = samples.series.valid[date, down, across].astype(np.float32)[None]
    return (
        np.pad(residual, ((0, 0), *short), mode="edge"),
        np.pad(mask, ((0, 0), *short)),
        np.pad(base, ((0, 0), *short), mode="edge"),
    )


def _statics(
    samples: Samples, layout: Layout, corners: list[tuple[int, int]], rows: int, columns: int
) -> tuple[Tensor, ...]:
    maps = samples.static.maps(STATIC_BITS, layout.padded)
    out = []
    for k, plane in enumerate(maps):
        cut = [plane[:, r >> k : (r + rows) >> k, c >> k : (c + columns) >> k] for r, c in corners]
        out.append(torch.from_numpy(np.stack(cut).astype(np.float32) / (1 << STATIC_BITS)))
    return tuple(out)


def principal_directions(samples: Samples, layout: Layout, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(k, B) orthonormal spectral directions of the residual, strongest first; k is at most half the channels."""
    valid = samples.series.usable
    drawn = [samples.residual(int(t))[:, samples.series.valid[t]] for t in rng.permutation(valid)[:8]]
    pixels = np.concatenate(drawn, axis=1).astype(np.float64)  # (B, P)
    _, vectors = np.linalg.eigh(pixels @ pixels.T)
    count = min(len(pixels), max(1, layout.channels // 2))
    return np.ascontiguousarray(vectors[:, ::-1][:, :count].T).astype(np.float32)
