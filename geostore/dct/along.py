"""What lies along time: each date as those before and after it let one expect it, without itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled
from geostore.raster import Mask

Doubles = npt.NDArray[np.float64]
_ROUNDS = 2  # of levels and the mean image, each found with the other


def along(planes: Doubles, known: Mask) -> Doubles:
    """(T, K, H, W) the line from the last to the next known value of each pixel, dates brought to one level.

    Light differs from date to date: each is looked at, and given back, from its level on. A pixel that is known on one
    side alone takes that value, one known at no other date the mean. Of (T, K, H, W) planes only what is `known`,
    (T, H, W), is looked at.
    """
    level = _levels(planes, known)
    values = planes - level
    out = np.empty_like(values)
    out[:] = values.mean(axis=(0, 2, 3), where=known[:, None])[:, None, None]
    _lines(values, known, out)
    out += level
    return out


def _levels(planes: Doubles, known: Mask) -> Doubles:
    """(T, K, 1, 1) how far each date lies above the mean image of all, on the whole, where it is known."""
    seen = known.reshape(len(known), -1).astype(np.float64)  # (T, N)
    dates, pixels = np.maximum(seen.sum(axis=0), 1), np.maximum(seen.sum(axis=1), 1)[:, None]
    values = planes.reshape(*planes.shape[:2], -1)
    image, level = np.einsum("tkn,tn->kn", values, seen), np.einsum("tkn,tn->tk", values, seen)
    found: Doubles = np.zeros_like(level)
    for _ in range(_ROUNDS):
        mean = (image - found.T @ seen) / dates
        found = (level - seen @ mean.T) / pixels
    return found[..., None, None]


@compiled(lean=True)
def _lines(values: Doubles, known: Mask, out: Doubles) -> None:
    """The lines, where another date has a value; `out` stays as it is elsewhere."""
    count, parts, height, width = values.shape
    for y in range(height):
        for x in range(width):
            before, after = -1, 0
            for t in range(count):
                while after < count and (after <= t or not known[after, y, x]):
                    after += 1
                first, last = before if before >= 0 else after, after if after < count else before
                share = (t - first) / (last - first) if last > first else 0.0
                if 0 <= first < count:
                    for k in range(parts):
                        start = values[first, k, y, x]
                        out[t, k, y, x] = start + share * (values[last, k, y, x] - start)
                if known[t, y, x]:
                    before = t
