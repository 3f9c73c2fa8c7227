"""Detail the latents cannot hold: what a decoded raster misses, as one integer-wavelet stream, as coarse as allowed.

JPEG 2000's reversible path decodes truncated streams with whole numbers only, so every machine decodes the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt
from geostore.raster import Bands, Mask, Pixels
from geostore.vae.static import Doubles, Units

_UNIT = 4096  # whole numbers per unit and weight
_BIAS = 1 << 15
_DB = (20, 96)  # below a peak of 65535; the finest is finer than a whole number


def coarsest(
    pixels: Pixels, valid: Mask, base: Pixels, bands: Bands, weights: Doubles, keeps: Callable[[Pixels], bool]
) -> bytes | None:
    """The shortest stream that, added to `base`, makes a raster that `keeps`; None if none does.

    Args:
        pixels: (B, H, W) stored values as they came in.
        base: (B, H, W) stored values as the latents decode.
        valid: (H, W); masked pixels weigh nothing.
        bands: what the planes are.
        weights: (B,) how much an error of each band matters; 1 is usual.
        keeps: says whether a decoded raster is good enough.
    """
    units = Units.of(bands)
    left = np.where(valid, units.from_stored(pixels) - units.from_stored(base), 0.0)
    tall = np.rint(left * (_UNIT * weights[:, None, None])).reshape(-1, left.shape[2])
    tall = np.clip(tall + _BIAS, 0, 2 * _BIAS - 1).astype(np.uint16)
    low, high = _DB
    best: bytes | None = None
    while low <= high:
        middle = (low + high) // 2
        stream = _encode(tall, middle)
        if keeps(add_detail(stream, base, bands, weights)):
            best, high = stream, middle - 1
        else:
            low = middle + 1
    return best


def add_detail(stream: bytes, base: Pixels, bands: Bands, weights: Doubles) -> Pixels:
    """`base` (B, H, W) with the detail of `stream` added, stored values.

    Raises:
        Corrupt: the stream does not decode to that shape.
    """
    import imagecodecs

    try:
        tall = imagecodecs.jpeg2k_decode(stream).astype(np.float64) - _BIAS
        left = tall.reshape(base.shape) / (_UNIT * weights[:, None, None])
    except (RuntimeError, ValueError) as error:  # JPEG 2000's own errors are RuntimeErrors
        raise Corrupt(f"a detail layer of {len(stream)} bytes does not decode: {error}; restore the raster") from error
    units = Units.of(bands)
    return units.to_stored(units.from_stored(base) + left, bands)


def _encode(tall: npt.NDArray[np.uint16], decibels: int) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.jpeg2k_encode(tall, level=decibels, codecformat="j2k", reversible=True))
