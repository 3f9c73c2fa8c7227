"""Pixels as an image encoder wants them: bands chosen, scaled, resized, normalised, as it declares."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from geostore.index.encoders import Floats, Preprocessing
from geostore.raster import Bands, Mask, Pixels


def prepared(pixels: Pixels, valid: Mask, bands: Bands, wanted: Preprocessing) -> Floats:
    """(B, H, W) stored values -> (C, height, width) float32.

    What may not be used is given each band's mean over what may, so it weighs nothing.

    Raises:
        NotComparable: a band that is wanted is not there.
    """
    wanted.check(bands)
    at = [bands.names.index(name) for name in wanted.bands]
    physical = bands.to_physical(pixels)[at].astype(np.float32)
    low, high, mean, std = (
        np.array(v, np.float32)[:, None, None] for v in (wanted.low, wanted.high, wanted.mean, wanted.std)
    )
    scaled = np.clip((np.where(valid, physical, 0) - low) / (high - low), 0, 1)
    middle = scaled[:, valid].mean(axis=1, dtype=np.float64).astype(np.float32)
    filled = np.where(valid, scaled, middle[:, None, None])
    return np.asarray((resized(filled, wanted.size) - mean) / std, np.float32)


def resized(image: Floats, size: tuple[int, int]) -> Floats:
    """(C, H, W) -> (C, *size): between pixels linear, over pixels the mean of a triangle around each, edges cut off."""
    rows, cols = (_weights(a, b) for a, b in zip(image.shape[1:], size, strict=True))
    return np.asarray(rows @ image @ cols.T, np.float32)


@lru_cache(maxsize=64)
def _weights(size: int, wanted: int) -> Floats:
    """(wanted, size): what each pixel counts for each new one; rows add up to 1."""
    step = size / wanted
    reach = max(step, 1.0)
    centres = (np.arange(wanted) + 0.5) * step
    away = np.abs(centres[:, None] - (np.arange(size) + 0.5))
    found = np.maximum(1 - away / reach, 0)
    return np.asarray(found / found.sum(axis=1, keepdims=True), np.float32)
