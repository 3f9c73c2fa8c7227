"""The errors measured for one stored raster, by comparing what decodes with what came in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from geostore.collection import Policy
from geostore.raster import Bands, Mask, Pixels
from geostore.spectral import FLOOR, evaluate_index, spectral_index

_SAMPLED = 64  # of so many errors one tells about where the upper hundredth begins
NO_VALUE = float(np.finfo(np.float32).max)  # error of an index that has a value, where what decodes has none


@dataclass(frozen=True)
class SpectralError:
    """Absolute error of one spectral index over the valid pixels: mean, 99th percentile, largest."""

    mae: float
    p99: float
    max: float


@dataclass(frozen=True)
class Certificate:
    """Errors of one decoded raster against its original, over valid pixels, all bands together.

    Attributes:
        pixels: valid pixels measured; 0 means nothing could be measured and every error is 0.
        mse: mean squared error on n1 (reflectance clipped to 0..1; other kinds on their valid range as 0..1).
        psnr_db: 10 log10(1 / mse); inf where mse is 0.
        max_error: largest absolute error of a stored value, physical units, not clipped.
        mae, p99: mean and 99th percentile of the same errors; None of a raster stored before they were measured.
        indices: error of each spectral index, on reflectance raised to 0.001; pixels where every band of the
            index lies below that, or its formula has no value, are left out. Where only what decodes has no value the
            error is NO_VALUE.
    """

    pixels: int
    mse: float
    max_error: float
    indices: Mapping[str, SpectralError] = field(default_factory=dict)
    mae: float | None = None
    p99: float | None = None

    @classmethod
    def without_error(cls, pixels: int = 0) -> Certificate:
        """Of a raster that decodes to what was put."""
        return cls(pixels, 0.0, 0.0, mae=0.0, p99=0.0)

    @property
    def psnr_db(self) -> float:
        """Peak signal-to-noise ratio for a peak of 1, decibels."""
        return float("inf") if self.mse == 0 else float(-10 * np.log10(self.mse))

    def keeps(self, policy: Policy) -> bool:
        """True if every bound of `policy` holds, to the precision of a float32, in which certificates are stored."""
        bounds = [(self.mse, policy.mse_max), (self.max_error, policy.max_error)]
        bounds += [(self.at_most(self.mae), policy.mae_max), (self.at_most(self.p99), policy.p99_max)]
        for name, e in self.indices.items():
            wanted = policy.index_bounds(name)
            bounds += [(e.mae, wanted.mae_max), (e.p99, wanted.p99_max), (e.max, wanted.max_error)]
        return all(limit is None or error <= float32_up(limit) for error, limit in bounds)

    def at_most(self, error: float | None) -> float:
        """`mae` or `p99`; where it was not measured the largest error, which neither exceeds."""
        return self.max_error if error is None else error


def float32_up(value: float) -> float:
    """The smallest float32 that is not below `value`: a stored error is never smaller than the measured one.

    >>> float32_up(0.5), float32_up(0.1) > 0.1
    (0.5, True)
    """
    narrow = np.float32(value)
    return float(narrow if float(narrow) >= value else np.nextafter(narrow, np.float32(np.inf)))


def to_n1(physical: npt.NDArray[np.float32], bands: Bands) -> npt.NDArray[np.float32]:
    """(..., B, H, W) physical values on 0..1: reflectance clipped; other kinds by their declared valid range."""
    out = np.empty_like(physical)
    for i, band in enumerate(bands):
        plane = physical[..., i, :, :]
        if band.kind != "reflectance":
            low = band.valid_min * band.scale + band.offset
            high = band.valid_max * band.scale + band.offset
            plane = (plane - low) / (high - low)
        out[..., i, :, :] = np.clip(plane, 0.0, 1.0)
    return out


def measure(original: Pixels, decoded: Pixels, valid: Mask, bands: Bands, indices: tuple[str, ...] = ()) -> Certificate:
    """Compare (B, H, W) `decoded` with `original`, both stored values, where (H, W) `valid` is True."""
    count = int(valid.sum())
    if count == 0:
        return replace(Certificate.without_error(), indices={i: SpectralError(0.0, 0.0, 0.0) for i in indices})
    truth, seen = bands.to_physical(original), bands.to_physical(decoded)
    difference = (to_n1(truth, bands) - to_n1(seen, bands))[:, valid].astype(np.float64)
    away = np.abs(truth[:, valid].astype(np.float64) - seen[:, valid]).ravel()
    return Certificate(
        pixels=count,
        mse=float(np.mean(difference**2)),
        max_error=float(away.max()),
        mae=float(away.mean()),
        p99=percentile_99(away),
        indices={name: _index_error(name, truth, seen, valid, bands) for name in indices},
    )


def percentile_99(errors: npt.NDArray[np.float64]) -> float:
    """What `np.percentile(errors, 99)` gives of (N,) numbers, of which only the upper end is sorted."""
    share, first = math.modf(0.99 * (errors.size - 1))
    count = errors.size - int(first)  # the upper ones, from the one the percentile lies on
    tail = errors[errors >= np.percentile(errors[::_SAMPLED], 97)]
    tail = tail if tail.size >= count else errors
    at = tail.size - count
    low, high = np.partition(tail, (at, min(at + 1, tail.size - 1)))[[at, min(at + 1, tail.size - 1)]]
    return float(low + (high - low) * share)


def index_errors(name: str, original: Pixels, decoded: Pixels, valid: Mask, bands: Bands) -> npt.NDArray[np.float32]:
    """(N,) absolute errors of one index at the pixels that count; arguments as for `measure`."""
    return _index_errors(name, bands.to_physical(original), bands.to_physical(decoded), valid, bands)


def _index_errors(
    name: str, truth: npt.NDArray[np.float32], seen: npt.NDArray[np.float32], valid: Mask, bands: Bands
) -> npt.NDArray[np.float32]:
    needed = [bands.index(b) for b in spectral_index(name).bands]
    index = evaluate_index(name, truth, bands.names)
    usable = valid & (truth[needed] >= FLOOR).any(axis=0) & np.isfinite(index)
    error = np.abs(index - evaluate_index(name, seen, bands.names))[usable]
    return np.where(np.isnan(error), np.float32(NO_VALUE), error)


def _index_error(
    name: str, truth: npt.NDArray[np.float32], seen: npt.NDArray[np.float32], valid: Mask, bands: Bands
) -> SpectralError:
    error = _index_errors(name, truth, seen, valid, bands)
    if not error.size:
        return SpectralError(0.0, 0.0, 0.0)
    return SpectralError(float(error.mean(dtype=np.float64)), float(np.percentile(error, 99)), float(error.max()))
