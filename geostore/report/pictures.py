"""Rasters as PNG pictures: natural colour, a spectral index, an error; masked pixels are transparent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from geostore.raster import Bands, Mask, Raster
from geostore.spectral import evaluate_index

Floats = npt.NDArray[np.float32]
SIDE_MAX = 1024  # pixels of a picture's longer side; larger rasters are thinned
_COMPOSITES = (("red", "green", "blue"), ("nir", "red", "green"), ("swir16", "nir", "red"))
ERROR_COLOURS, NDVI_COLOURS = "magma", "RdYlGn"
NDVI_RANGE = (-0.2, 0.9)
SPAN_MIN = 0.06  # reflectance between black and white


def composite(bands: Bands) -> tuple[tuple[int, ...], str]:
    """Which bands make red, green and blue, and what to call that; one band makes grey."""
    for names in _COMPOSITES:
        if set(names) <= set(bands.names):
            return tuple(bands.index(n) for n in names), f"{', '.join(names)} as red, green, blue"
    return (0,), f"{bands.names[0]} as grey"


def stretch_of(raster: Raster, shown: tuple[int, ...]) -> list[tuple[float, float]]:
    """(low, high) physical values of each shown band: 2nd and 98th percentile of the pixels that may be used.

    A band is spread over at least half of what the widest one takes, and reflectance over SPAN_MIN: else the noise of
    a dark and even place fills the picture.
    """
    values = raster.bands.to_physical(raster.pixels)[list(shown)][:, raster.valid]
    if not values.size:
        return [(0.0, 1.0)] * len(shown)
    low, high = np.percentile(values, (2, 98), axis=1)
    least = SPAN_MIN if raster.bands.items[shown[0]].kind == "reflectance" else 1e-6
    span = np.maximum(high - low, max(float((high - low).max()) / 2, least))
    middle = (low + high) / 2
    return [(float(m - s / 2), float(m + s / 2)) for m, s in zip(middle, span, strict=True)]


def colour(raster: Raster, shown: tuple[int, ...], stretch: list[tuple[float, float]]) -> npt.NDArray[np.uint8]:
    """(H, W, 4) uint8 picture; transparent where a pixel may not be used."""
    physical = raster.bands.to_physical(raster.pixels)[list(shown)]
    planes = [np.clip((p - a) / (b - a), 0, 1) for p, (a, b) in zip(physical, stretch, strict=True)]
    planes = planes * 3 if len(planes) == 1 else planes
    return _with_alpha((np.stack(planes, axis=-1) * 255).round().astype(np.uint8), raster.valid)


def mapped(values: Floats, valid: Mask, colours: str, low: float, high: float) -> npt.NDArray[np.uint8]:
    """(H, W, 4) uint8 picture of (H, W) values between low and high in a matplotlib colour map."""
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return _with_alpha((colormaps[colours](scaled)[..., :3] * 255).round().astype(np.uint8), valid)


def _with_alpha(rgb: npt.NDArray[np.uint8], valid: Mask) -> npt.NDArray[np.uint8]:
    return np.dstack([rgb, np.where(valid, 255, 0).astype(np.uint8)])


def error_of(original: Raster, decoded: Raster) -> Floats:
    """(H, W) mean absolute error over bands, physical units."""
    difference = original.bands.to_physical(original.pixels) - decoded.bands.to_physical(decoded.pixels)
    return np.asarray(np.abs(difference).mean(axis=0), np.float32)


def index_of(raster: Raster, name: str = "NDVI") -> Floats:
    """(H, W) spectral index."""
    return evaluate_index(name, raster.bands.to_physical(raster.pixels), raster.bands.names)


def top_of(values: Floats, valid: Mask, floor: float) -> float:
    """A round upper end of a colour scale: the 99th percentile of the usable values, at least `floor`."""
    top = float(np.percentile(values[valid], 99)) if valid.any() else 0.0
    step = 10.0 ** np.floor(np.log10(max(top, floor)))
    return float(np.ceil(max(top, floor) / step) * step)


def save(picture: npt.NDArray[np.uint8], path: Path) -> tuple[int, int]:
    """Write a PNG, thinned to SIDE_MAX; (width, height) as written."""
    thin = -(-max(picture.shape[:2]) // SIDE_MAX)
    image: Any = Image.fromarray(np.ascontiguousarray(picture[::thin, ::thin]))
    image.save(path, optimize=True)
    return int(image.width), int(image.height)


def gradient(colours: str) -> str:
    """The colour map as a CSS gradient, for a legend."""
    stops = (colormaps[colours](np.linspace(0, 1, 9))[:, :3] * 255).round().astype(int)
    return f"linear-gradient(to right, {', '.join(f'rgb({r} {g} {b})' for r, g, b in stops)})"
