"""What masks take in the rate-distortion bench: every codec pays for them alike, as a store of today keeps them.

A cell measured before masks were coded in context has them as formats 1 and 2 did. They are a sum of their own in its
bytes, no codec looks at how they are kept, and both sizes follow from the place: so the cell is recounted, not measured
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bench.rd_curves import Point
from bench.rd_places import Place
from geostore.raster import Mask
from geostore.storage import pack_mask, pack_rows

UNMASKED = "LZW GeoTIFF"  # keeps masks in its pixels
Sizes = npt.NDArray[np.int64]


def mask_sizes(place: Place) -> Sizes:
    """(T,) bytes of every date's mask."""
    return _sizes(place.series.valid.tobytes(), place.series.valid.shape, pack_mask)


def mask_sizes_before(place: Place) -> Sizes:
    """(T,) the same in formats 1 and 2."""
    return _sizes(place.series.valid.tobytes(), place.series.valid.shape, pack_rows)


@lru_cache(maxsize=32)
def _sizes(bits: bytes, shape: tuple[int, ...], pack: Callable[[Mask], bytes]) -> Sizes:
    return np.array([len(pack(mask)) for mask in np.frombuffer(bits, np.bool_).reshape(shape)], np.int64)


def recounted(point: Point, place: Place) -> Point:
    """The point with masks as they are kept today.

    Raises:
        ValueError: it counts masks of neither kind.
    """
    now, before = mask_sizes(place), mask_sizes_before(place)
    facts = dict(point.facts or {})
    told = facts.get("mask_bytes", 0 if point.codec == UNMASKED else before.sum())
    if point.codec == UNMASKED or told == now.sum():
        return point
    if told != before.sum():
        raise ValueError(f"{point.codec} at {place.name} counts {told} bytes of masks: measure it again")
    less = before - now
    return replace(
        point,
        nbytes=point.nbytes - int(less.sum()),
        marginal=point.marginal - int(less.sum()),
        unseen_bytes=point.unseen_bytes - float(less[place.unseen].sum()),
        facts={**facts, "mask_bytes": int(now.sum())},
    )
