"""Spectral indices by name, on reflectance arrays or tensors."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import BandMismatch, InvalidInput

FLOOR = 0.001  # reflectance below this is raised to it before an index is taken, so no index divides by zero

# STAC common name -> spyndex letter (the vocabulary of "Awesome Spectral Indices", Montero et al. 2023)
LETTERS = {
    "coastal": "A",
    "blue": "B",
    "green": "G",
    "red": "R",
    "rededge071": "RE1",
    "rededge075": "RE2",
    "rededge078": "RE3",
    "nir": "N",
    "nir08": "N2",
    "nir09": "WV",
    "swir16": "S1",
    "swir22": "S2",
}
# Normalised differences (a - b) / (a + b): (index, a, b)
_DIFFERENCES = {"NDVI": ("nir", "red"), "NDWI": ("green", "nir"), "NDBI": ("swir16", "nir")}


@dataclass(frozen=True)
class SpectralIndex:
    """One index: `NDVI`, `NDWI`, `NDBI` built in, every other name from spyndex.

    Attributes:
        name: its short name, upper or mixed case as published.
        bands: common names of the bands it needs, in the order `evaluate` takes them.
    """

    name: str
    bands: tuple[str, ...]

    @property
    def is_difference(self) -> bool:
        """True for a normalised difference, (a - b) / (a + b) of its two bands: a function of a / b alone."""
        return self.name in _DIFFERENCES

    def evaluate(self, *reflectance: Any) -> Any:
        """The index of `reflectance`, one array or tensor of any equal shape per band in `self.bands`.

        Reflectance is raised to FLOOR first. Works on numpy arrays and on torch tensors (gradients flow). Not finite
        where the formula divides by zero, as that of EVI may over bright clouds.
        """
        planes = [r.clip(FLOOR, None) for r in reflectance]
        if self.is_difference:
            a, b = planes
            return (a - b) / (a + b)
        import spyndex

        params = dict(zip((LETTERS[b] for b in self.bands), planes, strict=True))
        needed = spyndex.indices[self.name].bands
        constants = {k: spyndex.constants[k].default for k in needed if k not in params}
        with np.errstate(all="ignore"):
            return spyndex.computeIndex(self.name, {**params, **constants})


def spectral_index(name: str) -> SpectralIndex:
    """The index called `name`.

    Raises:
        InvalidInput: spyndex knows no such index, or it needs something other than the twelve optical bands.
    """
    if name in _DIFFERENCES:
        return SpectralIndex(name, _DIFFERENCES[name])
    import spyndex

    if name not in spyndex.indices:
        raise InvalidInput(
            f"no spectral index {name!r}{_nearest(name)}; NDVI, NDWI, NDBI are built in, spyndex lists the others"
        )
    names = {letter: common for common, letter in LETTERS.items()}
    needed = [b for b in spyndex.indices[name].bands if b in names]
    other = [b for b in spyndex.indices[name].bands if b not in names and spyndex.constants.get(b) is None]
    if other or not needed:
        raise InvalidInput(
            f"spectral index {name!r} needs {other or 'no optical band'}; choose one of optical bands only"
        )
    return SpectralIndex(name, tuple(names[b] for b in needed))


def _nearest(name: str) -> str:
    """The name that was probably meant, by its letters in whichever case; nothing where none is near."""
    import spyndex

    known = {n.upper(): n for n in (*spyndex.indices, *_DIFFERENCES)}
    near = get_close_matches(name.upper(), known, 1)
    return f"; the nearest is {known[near[0]]}" if near else ""


def evaluate_index(name: str, reflectance: npt.NDArray[np.float32], bands: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """The index `name` of (..., B, H, W) reflectance whose planes are `bands`; (..., H, W) float32.

    NaN where the formula has no value there.

    Raises:
        BandMismatch: a band the index needs is not among `bands`.
    """
    index = spectral_index(name)
    missing = [b for b in index.bands if b not in bands]
    if missing:
        raise BandMismatch(f"{name} needs {list(index.bands)}; these rasters have {list(bands)}")
    planes = [reflectance[..., bands.index(b), :, :] for b in index.bands]
    found = np.asarray(index.evaluate(*planes), np.float32)
    return np.where(np.isfinite(found), found, np.float32(np.nan))
