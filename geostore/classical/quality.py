"""How much of its bounds a decoded raster uses up, and the coarsest quality at which it keeps them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from geostore.certificate import Certificate
from geostore.classical.av1 import CRF_MAX, CRF_MIN, CRF_STEP
from geostore.collection import Policy

_SLOPE, _SLOPE_MIN, _SLOPE_MAX = 0.06, 0.02, 0.3  # of log error by crf; as measured on Sentinel-2, and what is believed
_LOW, _HIGH = round(CRF_MIN / CRF_STEP), round(CRF_MAX / CRF_STEP)
_NEAR = 0.99  # of a bound: a raster that uses up so much of it is coarse enough
_NONE = 1e-9
_SHARE = 0.9  # of rasters that are to keep the policy where ways to code them are compared
_POWER = 0.8  # bytes fall about with this power of the error


def share_used(seen: Certificate, policy: Policy) -> float:
    """The largest share of a bound of `policy` that the errors use up; above 1 they miss it."""
    return max((error / bound for error, bound in _bounds(seen, policy) if bound is not None), default=0.0)


def _bounds(seen: Certificate, policy: Policy) -> Iterator[tuple[float, float | None]]:
    yield seen.mse, policy.mse_max
    yield seen.max_error, policy.max_error
    yield seen.at_most(seen.mae), policy.mae_max
    yield seen.at_most(seen.p99), policy.p99_max
    for name, error in seen.indices.items():
        wanted = policy.index_bounds(name)
        yield error.mae, wanted.mae_max
        yield error.p99, wanted.p99_max
        yield error.max, wanted.max_error


def cost(nbytes: float, mse: float, policy: Policy) -> float:
    """What scales are compared by: bytes, more where nothing bounds errors of values and they run wild.

    An index may be right where its bands are both far off: what collections allow unless told otherwise is to hold
    as well, while that costs little.
    """
    usual = Policy().mse_max
    return nbytes if policy.bounds_values or usual is None else nbytes * max(1.0, mse / usual) ** 2


def most_of(used: Sequence[float]) -> float:
    """The share of its bound that most rasters stay below, of what each uses up."""
    return float(np.quantile(used, _SHARE))


def at_bound(nbytes: float, share: float) -> float:
    """Bytes of a series that would use up a bound whole, guessed from those that use up a `share` of it."""
    return nbytes * math.pow(max(share, _NONE), _POWER)


def coarsest(used: Callable[[float], float], start: float) -> float | None:
    """The coarsest crf found whose share of the bounds, `used`(crf), is at most 1; None if even CRF_MIN's is not.

    The secant rule on log(share) against crf, held between what is known to keep the bounds and what is known not to.
    It ends where nothing lies between these, or so much of a bound is used up that nothing coarser is looked for.
    """
    at, low, high, seen = round(start / CRF_STEP), _LOW - 1, _HIGH + 1, dict[float, float]()
    while low < at < high:
        share = used(at * CRF_STEP)
        seen[at * CRF_STEP] = math.log(max(share, _NONE))
        low, high = (at, high) if share <= 1 else (low, at)
        if high - low == 1 or _NEAR <= share <= 1:
            break
        exact = crf_at_bound(seen, slope_of(seen)) / CRF_STEP
        at = min(max(math.floor(exact), low + 1), high - 1)
    return low * CRF_STEP if low >= _LOW else None


def crf_at_bound(seen: Mapping[float, float], slope: float) -> float:
    """The crf at which the error should meet the bound, from the setting that came nearest."""
    near = min(seen, key=lambda c: abs(seen[c]))
    return near - seen[near] / slope


def slope_of(seen: Mapping[float, float]) -> float:
    """Of log(error over bound) by crf, by the two settings tried that came nearest."""
    near, *others = sorted(seen, key=lambda c: abs(seen[c]))[:2]
    slope = (seen[near] - seen[others[0]]) / (near - others[0]) if others else _SLOPE
    return min(max(slope, _SLOPE_MIN), _SLOPE_MAX)
