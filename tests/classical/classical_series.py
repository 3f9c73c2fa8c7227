"""Series these tests code: synthetic, small, with clouds that are masked."""

from __future__ import annotations

import numpy as np

from geostore.codec import Series
from geostore.testing.codecs import reflectance_bands


def soft_place(dates: int, side: int = 40, bands: int = 4, *, seed: int = 0, clouds: bool = True) -> Series:
    """A synthetic place of smooth fields whose reflectance follows a season, 1 % noise, a cloud that moves."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / 12
    place = 0.1 + 0.03 * np.stack([np.sin(x + b) + np.cos(y - b) for b in range(bands)])
    place[-1] *= 2.5
    season = 1 + 0.3 * np.sin(np.arange(dates) / 2)[:, None, None, None]
    kinds = reflectance_bands(bands)
    pixels = kinds.to_stored(season * place * rng.normal(1, 0.01, (dates, bands, side, side)))
    valid = np.ones((dates, side, side), bool)
    if clouds:
        for t in range(1, dates, 2):
            pixels[t, :, t : t + side // 2, : side // 2] = kinds.to_stored(np.full((1, 1, 1), 0.8))[0, 0, 0]
            valid[t, t : t + side // 2, : side // 2] = False
    times = np.arange(dates, dtype=np.int64) * 86_400_000_000
    return Series(pixels=pixels, valid=valid, times_us=times, bands=kinds, indices=("NDVI",) if bands > 3 else ())
