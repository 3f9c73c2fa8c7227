"""The `spectral` descriptor: levels, spread, texture and colours of bands and indices; nothing to train."""

from __future__ import annotations

import hashlib
import json
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from geostore.certificate import to_n1
from geostore.index.descriptors import PIXELS_MIN, Floats, check_pixels
from geostore.raster import Bands, Mask, Pixels
from geostore.spectral import evaluate_index

FLOOR = 0.01  # added to n1 before the logarithm, so that shadows and water do not rule
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LAGS = (1, 2, 4, 8)
_INDICES = {"NDVI": {"nir", "red"}, "NDWI": {"green", "nir"}, "NDBI": {"swir16", "nir"}}
_LEVELS, _CONTRASTS = 4, 4  # bins of the histogram of colours
# What components of each kind are about, so that none outweighs the others: (centre, spread) of typical reflectance.
_LEVEL, _SPREAD, _TEXTURE, _SHARE, _INDEX = (-2.2, 0.9), (-1.4, 0.8), (-2.0, 1.0), (0.06, 0.12), (0.1, 0.35)
Doubles = npt.NDArray[np.float64]


class Spectral:
    """Moments and texture over usable pixels.

    For every band and index: quantiles, the logarithm of the standard deviation, and the logarithm of the mean absolute
    difference of pixels 1, 2, 4, 8 apart; for neighbouring bands their correlation; and the share of pixels in each bin
    of brightness and of contrast between the last band and the first. Bands are the logarithm of n1 + 0.01, so that a
    common factor of illumination moves levels alone. Each component is centred and scaled by fixed numbers.
    """

    name: ClassVar[str] = "spectral"
    version: ClassVar[int] = 1

    def width(self, bands: Bands) -> int:
        """Components: 10 for each band and index, the correlations, 16 colours."""
        planes = len(bands) + len(_indices(bands))
        return planes * (len(_SHARES) + 1 + len(_LAGS)) + len(bands) - 1 + _LEVELS * _CONTRASTS

    def digest(self, bands: Bands) -> str:
        """Over version, names and kinds of bands; stored scale and dtype do not matter."""
        facts = [self.name, self.version, [(b.name, b.kind) for b in bands]]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def describe(self, pixels: Pixels, valid: Mask, bands: Bands) -> Floats:
        """(B, H, W) stored values -> (width,) float32 of length 1; zeros where too few pixels may be used."""
        check_pixels(pixels, valid, bands)
        if int(valid.sum()) < PIXELS_MIN:
            return np.zeros(self.width(bands), np.float32)
        physical = bands.to_physical(np.where(valid, pixels, pixels[:, valid][:, :1, None]))
        n1 = to_n1(physical, bands)
        logs = np.log(n1.astype(np.float64) + FLOOR)
        parts = [_plane(plane, valid, _LEVEL) for plane in logs]
        parts += [_plane(_index(name, n1, bands), valid, _INDEX) for name in _indices(bands)]
        parts += [_correlations(logs[:, valid]), _colours(logs[:, valid])]
        made = np.concatenate(parts)
        return np.asarray(made / max(float(np.linalg.norm(made)), 1e-12), np.float32)


def _indices(bands: Bands) -> list[str]:
    """Indices whose bands are all there, as reflectance."""
    kinds = {b.name for b in bands if b.kind == "reflectance"}
    return [name for name, needed in _INDICES.items() if needed <= kinds]


def _index(name: str, n1: Floats, bands: Bands) -> Doubles:
    return evaluate_index(name, n1, bands.names).astype(np.float64)


def _plane(plane: Doubles, valid: Mask, level: tuple[float, float]) -> Doubles:
    """Quantiles, spread and texture of one (H, W) plane."""
    values = plane[valid]
    levels = (np.quantile(values, _SHARES) - level[0]) / level[1]
    spread = (np.log(values.std() + 1e-3) - _SPREAD[0]) / _SPREAD[1]
    texture = [(np.log(_difference(plane, valid, lag) + 1e-3) - _TEXTURE[0]) / _TEXTURE[1] for lag in _LAGS]
    return np.array([*levels, spread, *texture])


def _difference(plane: Doubles, valid: Mask, lag: int) -> float:
    """Mean absolute difference of usable pixels `lag` apart, along rows and columns; 0 where there are none."""
    total, count = 0.0, 0
    for a, b in ((np.s_[:, lag:], np.s_[:, :-lag]), (np.s_[lag:], np.s_[:-lag])):
        both = valid[a] & valid[b]
        total += float(np.abs(plane[a] - plane[b])[both].sum())
        count += int(both.sum())
    return total / count if count else 0.0


def _correlations(values: Doubles) -> Doubles:
    """Of each band with the next, over (B, N) usable pixels; 0 where one is constant."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred**2).mean(axis=1))
    products = (centred[1:] * centred[:-1]).mean(axis=1)
    return np.asarray(products / np.maximum(spread[1:] * spread[:-1], 1e-9))


def _colours(values: Doubles) -> Doubles:
    """Share of (B, N) pixels in each bin of brightness and of contrast, last band over first."""
    bright = np.clip((values.mean(axis=0) + 4.0) / 4.0, 0, 1 - 1e-9)
    contrast = np.clip((values[-1] - values[0] + 1.0) / 3.0, 0, 1 - 1e-9)
    at = (bright * _LEVELS).astype(int) * _CONTRASTS + (contrast * _CONTRASTS).astype(int)
    shares = np.bincount(at, minlength=_LEVELS * _CONTRASTS) / values.shape[1]
    return np.asarray((np.sqrt(shares) - _SHARE[0]) / _SHARE[1] / 4)
