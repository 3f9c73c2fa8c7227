"""How much of its bounds a decoded raster uses up, and the coarsest quality at which it keeps them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geostore.certificate import Certificate
from geostore.classical.av1 import CRF_MAX, CRF_MIN, CRF_STEP
from geostore.collection import Policy

_BELIEVED = (1 / 3, 5.0)  # times a dial's usual slope: no measured one is taken to lie outside
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


@dataclass(frozen=True)
class Dial:
    """A setting of a lossy codec: the larger, the coarser.

    Attributes:
        low, high, step: the values it can have.
        slope: of log error by it, as is usual.
        near: share of a bound that is enough used up not to look for a coarser value.
    """

    low: float
    high: float
    step: float
    slope: float
    near: float

    def coarsest(self, used: Callable[[float], float], start: float, most: float | None = None) -> float | None:
        """The coarsest value found whose share of the bounds, `used`(value), is at most 1; None if not even `low`'s is.

        The secant rule on log(share), held between what is known to keep the bounds and what is known not to. It ends
        where nothing lies between these, or so much of a bound is used up that nothing coarser is looked for; nothing
        above `most` is.
        """
        least, at, seen = round(self.low / self.step), round(start / self.step), dict[float, float]()
        low, high = least - 1, round((self.high if most is None else most) / self.step) + 1
        while low < at < high:
            share = used(at * self.step)
            seen[at * self.step] = math.log(max(share, _NONE))
            low, high = (at, high) if share <= 1 else (low, at)
            if high - low == 1 or self.near <= share <= 1:
                break
            at = min(max(math.floor(self.at_bound(seen) / self.step), low + 1), high - 1)
        return low * self.step if low >= least else None

    def at_bound(self, seen: Mapping[float, float]) -> float:
        """The value at which the error should meet the bound, from the one of `seen`, log(share), that came nearest."""
        near, *others = sorted(seen, key=lambda value: abs(seen[value]))[:2]
        slope = (seen[near] - seen[others[0]]) / (near - others[0]) if others else self.slope
        least, most = (share * self.slope for share in _BELIEVED)
        return min(max(near - seen[near] / min(max(slope, least), most), self.low), self.high)


CRF = Dial(CRF_MIN, CRF_MAX, CRF_STEP, slope=0.06, near=0.98)  # measured on Sentinel-2
