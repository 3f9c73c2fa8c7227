"""The arithmetic of rate and distortion: pooled errors, curves, bytes at an error, the smallest of many curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.certificate import to_n1
from geostore.codec import Series
from geostore.raster import Mask, Pixels
from geostore.spectral import FLOOR, evaluate_index

SETTINGS_MIN = 5  # points that a curve needs before it is interpolated


@dataclass(frozen=True)
class Errors:
    """Errors over all usable pixels of some dates, pooled.

    Attributes:
        mse: on n1. max_error: physical units.
        ndvi_mae, ndvi_max: None where the series keeps no NDVI.
    """

    mse: float
    max_error: float
    ndvi_mae: float | None
    ndvi_max: float | None


def errors(series: Series, decoded: Pixels, dates: npt.NDArray[np.bool_]) -> Errors:
    """Of (T, B, H, W) `decoded` against the series, over the dates where (T,) `dates` is True."""
    squares, values, largest = 0.0, 0, 0.0
    ndvi: list[npt.NDArray[np.float32]] = []
    for t in np.flatnonzero(dates):
        valid, bands = series.valid[t], series.bands
        truth, seen = bands.to_physical(series.pixels[t]), bands.to_physical(decoded[t])
        difference = (to_n1(truth, bands) - to_n1(seen, bands))[:, valid].astype(np.float64)
        squares, values = squares + float((difference**2).sum()), values + difference.size
        if valid.any():
            largest = max(largest, float(np.abs(truth[:, valid].astype(np.float64) - seen[:, valid]).max()))
        if "NDVI" in series.indices:
            usable = valid & (truth[[bands.index("red"), bands.index("nir")]] >= FLOOR).any(axis=0)
            away = evaluate_index("NDVI", truth, bands.names) - evaluate_index("NDVI", seen, bands.names)
            ndvi.append(np.abs(away)[usable])
    pooled = np.concatenate(ndvi) if ndvi else np.empty(0, np.float32)
    if not pooled.size:
        return Errors(squares / max(values, 1), largest, None, None)
    return Errors(squares / max(values, 1), largest, float(pooled.mean(dtype=np.float64)), float(pooled.max()))


def violations(series: Series, decoded: Pixels, *, max_error: float | None, index_max: float | None) -> int:
    """Usable values (for an index: pixels) that lie further off than the bound.

    Values are compared as stored, in float64, so that one that lies on its bound is not counted for a last digit.
    """
    count = 0
    scale = np.array([b.scale for b in series.bands])[:, None]
    for t in range(len(series)):
        valid, bands = series.valid[t], series.bands
        truth, seen = bands.to_physical(series.pixels[t]), bands.to_physical(decoded[t])
        if max_error is not None:
            away = (series.pixels[t].astype(np.float64) - decoded[t])[:, valid] * scale
            count += int((np.abs(away) > max_error * (1 + 1e-6)).sum())
        if index_max is not None and "NDVI" in series.indices:
            count += _index_violations(truth, seen, valid, series, index_max)
    return count


def _index_violations(
    truth: npt.NDArray[np.float32], seen: npt.NDArray[np.float32], valid: Mask, series: Series, bound: float
) -> int:
    bands = series.bands
    usable = valid & (truth[[bands.index("red"), bands.index("nir")]] >= FLOOR).any(axis=0)
    away = evaluate_index("NDVI", truth, bands.names) - evaluate_index("NDVI", seen, bands.names)
    return int((np.abs(away)[usable] > bound * (1 + 1e-6)).sum())


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place through one codec at one setting.

    Attributes:
        place, codec: names.
        variant: what stays the same along a curve ("log, one GOP").
        setting: what moves along it.
        nbytes: everything a reader needs.
        marginal: the same without the weights of networks.
        unseen_bytes: the dates no fit saw; what belongs to the whole place is spread evenly over all dates.
        every, seen, unseen: errors of all dates, of those a fit saw, of those it did not.
        violations: values beyond the bound asked for; None where none was.
        seconds: to fit, encode and decode, one thread.
        facts: what else is worth knowing.
        commit: of the code that measured it.
    """

    place: str
    codec: str
    variant: str
    setting: Mapping[str, Any]
    nbytes: int
    marginal: int
    unseen_bytes: float
    every: Errors
    seen: Errors
    unseen: Errors
    violations: int | None = None
    seconds: float = 0.0
    facts: Mapping[str, Any] | None = None
    commit: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Point:
        """The inverse of `to_dict`."""
        return cls(**{**table, **{key: Errors(**table[key]) for key in ("every", "seen", "unseen")}})


@dataclass(frozen=True)
class Size:
    """Bytes at an error.

    Attributes:
        nbytes: interpolated, or of the coarsest setting run.
        at_most: True where the coarsest setting was already better than asked for.
    """

    nbytes: float
    at_most: bool = False


def bytes_at(pairs: Iterable[tuple[float, float]], error: float) -> Size | None:
    """Bytes at `error` on the curve through (bytes, error) pairs, by log-log interpolation; None beyond its end.

    Only pairs on the lower hull count: of two with the same bytes the better, and none that a smaller one betters.

    >>> bytes_at([(100, 1e-2), (1000, 1e-4)], 1e-3)
    Size(nbytes=316.22776601683796, at_most=False)
    >>> bytes_at([(100, 1e-2), (1000, 1e-4)], 1e-1), bytes_at([(100, 1e-2)], 1e-5)
    (Size(nbytes=100, at_most=True), None)
    """
    hull = front(pairs)
    if not hull or hull[-1][1] > error:
        return None
    if hull[0][1] <= error:
        return Size(hull[0][0], at_most=hull[0][1] < error)
    for (few, worse), (many, better) in pairwise(hull):
        if better <= error:
            if better == 0:
                return Size(many)
            share = np.log(worse / error) / np.log(worse / better)
            return Size(float(np.exp(np.log(few) + share * np.log(many / few))))
    raise AssertionError("a hull that begins above an error and ends below it crosses it")


def error_at(pairs: Iterable[tuple[float, float]], nbytes: float) -> float | None:
    """The error at `nbytes` on the curve through (bytes, error) pairs; None where it does not reach there.

    >>> error_at([(100, 1e-2), (1000, 1e-4)], 316.22776601683796)
    0.001
    """
    found = bytes_at([(error, size) for size, error in front(pairs)], nbytes)
    return None if found is None or found.at_most else float(f"{found.nbytes:.12g}")


def front(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """(bytes, error) pairs by rising bytes, each better than every smaller one."""
    out: list[tuple[float, float]] = []
    for nbytes, error in sorted(pairs):
        if not out or error < out[-1][1]:
            out.append((nbytes, error))
    return out


def curves(points: Iterable[Point]) -> dict[tuple[str, str], list[Point]]:
    """Points by (codec, variant)."""
    out: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        out.setdefault((point.codec, point.variant), []).append(point)
    return out


def smallest(sizes: Sequence[Size | None]) -> Size | None:
    """The fewest bytes of those there are."""
    return min((s for s in sizes if s is not None), key=lambda s: s.nbytes, default=None)
