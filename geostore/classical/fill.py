"""What masked pixels are coded as: what the pixel would be by its neighbours in time, else in space."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geostore.classical.bend import Floats, Longs
from geostore.raster import Mask


def fill(values: Floats, valid: Mask) -> Floats:
    """(T, B, H, W) values, those outside (T, H, W) `valid` made from others so that they cost little to code.

    A pixel takes the straight line between its values before and after; one without any at some date those of the
    nearest pixel that has. Some pixel must be valid.
    """
    out = _in_time(values, valid)
    seen = valid.any(axis=0)
    if seen.all():
        return out
    rows, columns = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
    return np.asarray(out[:, :, rows, columns])


def _in_time(values: Floats, valid: Mask) -> Floats:
    if valid.all():
        return values
    before, after = _neighbours(valid)
    share = (np.arange(len(valid))[:, None, None] - before) / np.maximum(after - before, 1).astype(np.float32)
    rows, columns = np.indices(valid.shape[1:])
    first = values[before, :, rows, columns]  # (T, H, W, B)
    last = values[after, :, rows, columns]
    between = first + (last - first) * share[..., None]
    return np.where(valid[:, None], values, between.transpose(0, 3, 1, 2)).astype(np.float32)


def _neighbours(valid: Mask) -> tuple[Longs, Longs]:
    """(T, H, W) dates of the last valid value up to each date and the first from it on; of the other where none is."""
    dates = np.arange(len(valid), dtype=np.int64)[:, None, None]
    before = np.maximum.accumulate(np.where(valid, dates, -1), axis=0)
    after = np.minimum.accumulate(np.where(valid, dates, len(valid))[::-1], axis=0)[::-1]
    before, after = np.where(before < 0, after, before), np.where(after == len(valid), before, after)
    return _held(before, len(valid)), _held(after, len(valid))


def _held(dates: npt.NDArray[np.int64], count: int) -> Longs:
    return np.clip(dates, 0, count - 1)
