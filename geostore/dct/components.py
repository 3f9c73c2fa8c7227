"""Components of a `Klt` in parts of a level, and the stored values they stand for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.classical.bend import Floats
from geostore.classical.klt import Klt

Shorts = npt.NDArray[np.int16]
Doubles = npt.NDArray[np.float64]
FRACTION_BITS = 4
FRACTION = 1 << FRACTION_BITS  # parts of a level: what planes and coefficients count in
_SHIFT = 14  # of the transform's whole numbers, see `Klt`


def components_of(klt: Klt, values: Floats) -> Doubles:
    """(..., B, H, W) on the transform's scale -> (..., K, H, W) in parts of a level, not rounded."""
    centred = values - ((klt.offset - 2 ** (_SHIFT - 1)) / 2**_SHIFT)[:, None, None]
    return np.asarray(np.einsum("kb,...bhw->...khw", klt.back() * FRACTION, centred, optimize=True))


def stored_of(klt: Klt, components: Shorts) -> npt.NDArray[np.generic]:
    """(K, H, W) whole parts of a level -> (B, H, W) stored values; products below 2^53 are exact."""
    products = klt.basis.astype(np.float64) @ components.reshape(klt.components, -1)
    values = products.astype(np.int64) + (klt.offset << FRACTION_BITS)[:, None]
    return klt.bend.inverse((values >> (_SHIFT + FRACTION_BITS)).reshape(-1, *components.shape[1:]))
