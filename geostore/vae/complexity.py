"""Bits that a partition will take at an error, foreseen from what gzip makes of its values rounded to that error."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geostore.codec import Series
from geostore.spectral import evaluate_index

Steps = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Law:
    """bits a value = exp(at + slope * score), right within a factor exp(width) for nine partitions of ten.

    Least squares over the real partitions of `python -m bench.sizing`, which holds each ground out of its own fit.
    """

    at: float
    slope: float
    width: float


LAWS_OF_MSE = {1e-4: Law(-3.362, 1.111, 0.497), 5e-4: Law(-5.144, 2.187, 0.806)}
LAW_OF_INDEX = Law(-4.643, 0.989, 0.837)  # of NDVI in steps of 0.04


@dataclass(frozen=True)
class Foreseen:
    """Bits a value, and the interval that is meant to hold nine of ten."""

    bits: float
    low: float
    high: float


def of_mse(series: Series, mse: float) -> float:
    """Score: bits a value after gzip of values in steps of sqrt(12 mse), whose rounding errs by just `mse` on n1."""
    spans = [1.0 if b.kind == "reflectance" else (b.valid_max - b.valid_min) * b.scale for b in series.bands]
    values = series.bands.to_physical(series.pixels) / np.array(spans, np.float32)[:, None, None]
    return _gzip_bits(values / np.sqrt(12 * mse), series)


def of_index(series: Series, name: str, error: float) -> float:
    """Score: the same of an index in steps of twice `error`, so that no pixel errs by more."""
    values = series.bands.to_physical(series.pixels)
    index = np.stack([evaluate_index(name, raster, series.bands.names) for raster in values])[:, None]
    return _gzip_bits(index / (2 * error), series)


def _gzip_bits(values: npt.NDArray[np.floating], series: Series) -> float:
    """Bits a usable value; pixels that may not be used are made alike, so that they cost next to nothing."""
    usable = np.broadcast_to(series.valid[:, None], values.shape) & np.isfinite(values)
    steps = np.rint(np.where(usable, values, 0)).astype(np.int64)
    if not usable.any():
        return 0.0
    least = steps[usable].min()
    raw = np.where(usable, steps - least, 0).clip(0, 65535).astype("<u2").tobytes()
    return 8 * len(zlib.compress(raw, 6)) / int(usable.sum())


def foresee(series: Series, *, mse: float, indices: Mapping[str, float]) -> Foreseen:
    """Bits a value of `series` at a squared error on n1 and a mean error of each of `indices`.

    Whichever asks for more. Rounding alone keeps a squared error too, so no more is foreseen for it than gzip takes.
    """
    score = of_mse(series, mse)
    found = [_foreseen(score, _law_of_mse(mse), most=score)]
    found += [_foreseen(of_index(series, name, error), LAW_OF_INDEX) for name, error in indices.items()]
    return max(found, key=lambda f: f.bits)


def _law_of_mse(mse: float) -> Law:
    """Between the errors that laws were fitted at, on straight lines over the logarithm; beyond them the nearest."""
    at = np.log(np.array([*LAWS_OF_MSE]))
    rows = np.array([(law.at, law.slope, law.width) for law in LAWS_OF_MSE.values()])
    return Law(*(float(np.interp(np.log(mse), at, column)) for column in rows.T))


def _foreseen(score: float, law: Law, most: float = np.inf) -> Foreseen:
    bits, factor = float(np.exp(law.at + law.slope * score)), float(np.exp(law.width))
    return Foreseen(*(min(value, most) for value in (bits, bits / factor, bits * factor)))
