"""Cheap numbers that say how complex a partition is: the paper's scores, and water-filling at an error."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from geostore.codec import Series
from geostore.collection import Policy
from geostore.vae.sizing import band_weights, mse_bound, sampled
from geostore.vae.static import Static, Units, mean_image


def water_filling_bits(series: Series, policy: Policy) -> float:
    """Bits per value that a KLT over bands and a DCT over 8 x 8 blocks need at the error asked for.

    The mean image and each date's gain and offset are taken out first, as the codec does. Reverse water-filling
    over the variances of the coefficients: bits = sum of max(0, log2(variance / level)) / 2.
    """
    blocks = _blocks(series, policy)
    if not len(blocks):
        return 0.0
    spectra = np.var(blocks, axis=0).reshape(-1)
    level = _water_level(spectra, mse_bound(policy, series.bands))
    return float(np.maximum(0.0, 0.5 * np.log2(np.maximum(spectra, 1e-12) / level)).mean())


def gzip_ratio(series: Series, step: float = 1.0) -> float:
    """Compressed over raw size of the sampled rasters by gzip, after rounding to `step` stored units.

    A step of 1 is the paper's score; the step of the error asked for is the score that predicts size.
    """
    rounded = np.rint(series.pixels[sampled(series)].astype(np.float64) / step)
    raw = np.clip(rounded - rounded.min(initial=0), 0, 65535).astype("<u2").tobytes()
    return len(zlib.compress(raw, 6)) / max(len(raw), 1)


def pca_components(series: Series, share: float = 0.95) -> int:
    """Principal components (rasters as observations) that hold `share` of the variance: the paper's second score."""
    values = _spectrum(_flat(series) @ _flat(series).T)
    return _components(values, share)


def kernel_pca_components(series: Series, share: float = 0.95) -> int:
    """The same with a Gaussian kernel whose width is the median distance: the paper's third score."""
    flat = _flat(series)
    square = (flat**2).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None] - 2 * flat @ flat.T, 0.0)
    kernel = np.exp(-distance / max(float(np.median(distance)), 1e-12))
    centre = np.eye(len(kernel)) - 1.0 / len(kernel)
    return _components(_spectrum(centre @ kernel @ centre), share)


def _flat(series: Series) -> npt.NDArray[np.float64]:
    flat = series.pixels[:, :, ::2, ::2].reshape(len(series), -1).astype(np.float64)
    return np.asarray(flat - flat.mean(axis=0))


def _spectrum(gram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))


def _components(values: npt.NDArray[np.float64], share: float) -> int:
    total = values.sum()
    return int(np.searchsorted(np.cumsum(values) / total, share) + 1) if total > 0 else 0


def _blocks(series: Series, policy: Policy) -> npt.NDArray[np.float64]:
    """(N, B, 8, 8) coefficients of blocks that are wholly valid, from the sampled dates."""
    units = Units.of(series.bands)
    image = mean_image(series.pixels, series.valid, units)
    static = Static(b"", image, image.mean(axis=(1, 2)), 1.0)
    weights = band_weights(image, units, series, policy)[:, None, None]
    found = []
    for t in sampled(series):
        frame = units.from_stored(series.pixels[t])
        left = frame - static.predict(*static.fit_date(frame, series.valid[t]))
        blocks, whole = _cut(left * weights), _cut(series.valid[t][None].astype(np.float64)).min(axis=(1, 2, 3)) > 0
        found.append(blocks[whole])
    stacked = np.concatenate(found) if found else np.empty((0, len(series.bands), 8, 8))
    if not len(stacked):
        return stacked
    bands = stacked.transpose(1, 0, 2, 3).reshape(len(series.bands), -1)
    _, vectors = np.linalg.eigh(np.cov(bands).reshape(len(bands), len(bands)))
    turned = np.einsum("kb,nbij->nkij", vectors.T, stacked)
    basis = _dct(8)
    return np.asarray(np.einsum("ui,nkij,vj->nkuv", basis, turned, basis, optimize=True))


def _cut(planes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(C, H, W) -> (N, C, 8, 8), edges repeated where the size is no multiple of 8."""
    c, h, w = planes.shape
    padded = np.pad(planes, ((0, 0), (0, -h % 8), (0, -w % 8)), mode="edge")
    parts = padded.reshape(c, padded.shape[1] // 8, 8, padded.shape[2] // 8, 8)
    return np.asarray(parts.transpose(1, 3, 0, 2, 4).reshape(-1, c, 8, 8))


def _dct(n: int) -> npt.NDArray[np.float64]:
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    basis = np.cos(np.pi * k * (2 * i + 1) / (2 * n)) * np.sqrt(2 / n)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis)


def _water_level(variances: npt.NDArray[np.float64], target: float) -> float:
    """The level at which mean(min(variance, level)) is `target`; the largest variance if all lie below."""
    low, high = 1e-15, float(max(variances.max(), 1e-12))
    if float(variances.mean()) <= target:
        return high
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if float(np.minimum(variances, middle).mean()) < target else (low, middle)
    return high
