"""The ground under synthetic scenes: land-cover classes, where they lie, and how they look over a year."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from geostore.errors import InvalidInput
from geostore.raster import Bands

Plane = npt.NDArray[np.float64]
Classes = npt.NDArray[np.uint8]

WAVELENGTHS_UM = (0.44, 0.49, 0.56, 0.665, 0.705, 0.74, 0.783, 0.842, 0.865, 0.945, 1.61, 2.19)
NAMES_UM = {
    "coastal": 0.44,
    "blue": 0.49,
    "green": 0.56,
    "red": 0.665,
    "rededge071": 0.705,
    "rededge075": 0.74,
    "rededge078": 0.783,
    "nir": 0.842,
    "nir08": 0.865,
    "nir09": 0.945,
    "swir16": 1.61,
    "swir22": 2.19,
}


@dataclass(frozen=True)
class LandCover:
    """One class of ground.

    Attributes:
        name: "water", "winter crop" ...
        dormant: reflectance at WAVELENGTHS_UM with no green leaves.
        green: reflectance at WAVELENGTHS_UM in full leaf.
        rise, fall: days of the year when half of the leaves have come, and have gone; equal for no season.
        pace: days over which most of a change happens.
    """

    name: str
    dormant: tuple[float, ...]
    green: tuple[float, ...]
    rise: float = 0.0
    fall: float = 0.0
    pace: float = 12.0


_SOIL = (0.07, 0.09, 0.12, 0.16, 0.18, 0.20, 0.22, 0.24, 0.25, 0.26, 0.32, 0.28)
_STUBBLE = (0.06, 0.08, 0.12, 0.17, 0.20, 0.23, 0.25, 0.28, 0.29, 0.30, 0.36, 0.28)
_LEAF = (0.03, 0.035, 0.07, 0.035, 0.11, 0.32, 0.41, 0.45, 0.46, 0.46, 0.20, 0.09)
_WOOD = (0.035, 0.04, 0.055, 0.065, 0.09, 0.13, 0.15, 0.17, 0.18, 0.19, 0.20, 0.13)
_CANOPY = (0.025, 0.03, 0.05, 0.03, 0.08, 0.24, 0.31, 0.35, 0.36, 0.36, 0.15, 0.07)
_WATER = (0.06, 0.05, 0.045, 0.03, 0.025, 0.02, 0.018, 0.015, 0.014, 0.013, 0.008, 0.006)
_ROOFS = (0.12, 0.14, 0.16, 0.18, 0.19, 0.20, 0.21, 0.22, 0.23, 0.23, 0.26, 0.24)
_ASPHALT = (0.08, 0.09, 0.10, 0.11, 0.11, 0.12, 0.12, 0.13, 0.13, 0.13, 0.16, 0.15)

LAND_COVER = (
    LandCover("water", _WATER, _WATER),
    LandCover("forest", _WOOD, _CANOPY, rise=118, fall=295, pace=15),
    LandCover("grass", _STUBBLE, _LEAF, rise=90, fall=300, pace=25),
    LandCover("winter crop", _SOIL, _LEAF, rise=95, fall=185),
    LandCover("summer crop", _SOIL, _LEAF, rise=165, fall=260),
    LandCover("bare", _SOIL, _SOIL),
    LandCover("urban", _ROOFS, _ROOFS),
    LandCover("road", _ASPHALT, _ASPHALT),
)
WATER, FOREST, GRASS, WINTER_CROP, SUMMER_CROP, BARE, URBAN, ROAD = range(len(LAND_COVER))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Plane:
    """(height, width) float64, mean 0, variance 1, with features about `size` pixels wide."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), size / 2, mode="wrap")
    return np.asarray((noise - noise.mean()) / max(float(noise.std()), 1e-12))


def soft_classes(rng: np.random.Generator, shape: tuple[int, int]) -> Classes:
    """(height, width) uint8: rounded patches of natural cover without straight edges."""
    kinds = np.array([WATER, FOREST, GRASS, WINTER_CROP, SUMMER_CROP, BARE], np.uint8)
    fields = np.stack([smooth_noise(rng, shape, max(shape) / 6) for _ in kinds])
    return np.asarray(kinds[fields.argmax(0)])


def field_classes(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Classes, Plane]:
    """Fields of one crop each, woods, a town, roads along some field edges and a winding river.

    Returns:
        (height, width) uint8 classes, and a float64 of about -1..1 that is one value a field: early or late.
    """
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    seeds = rng.uniform(0, shape, (max(6, shape[0] * shape[1] // 400), 2))
    places = np.column_stack([rows.ravel(), columns.ravel()])
    near, nearest = cKDTree(seeds).query(places, k=2)
    of_field = nearest[:, 0].reshape(shape)
    shares = {WINTER_CROP: 0.3, SUMMER_CROP: 0.25, GRASS: 0.2, FOREST: 0.15, BARE: 0.05, URBAN: 0.05}
    kinds = rng.choice(list(shares), size=len(seeds), p=list(shares.values())).astype(np.uint8)
    classes = kinds[of_field]
    on_edge = (near[:, 1] - near[:, 0]).reshape(shape) < 1.5
    has_road = rng.random(len(seeds)) < 0.4
    classes[on_edge & has_road[of_field]] = ROAD
    classes[_river(rng, rows, columns)] = WATER
    return classes, rng.uniform(-1, 1, len(seeds))[of_field]


def _river(rng: np.random.Generator, rows: Plane, columns: Plane) -> npt.NDArray[np.bool_]:
    height, width = rows.shape
    bends = rng.uniform(0.5, 2.5, 2)
    turn = rng.uniform(0, 2 * np.pi, 2)
    middle = height * (0.5 + 0.2 * np.sin(bends[0] * 2 * np.pi * columns / width + turn[0]))
    middle += height * 0.05 * np.sin(bends[1] * 6 * np.pi * columns / width + turn[1])
    return np.asarray(np.abs(rows - middle) < max(1.5, height / 60), np.bool_)


def greenness(cover: LandCover, day_of_year: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of leaves, 0..1, on days of the year (any shape): a double logistic."""
    if cover.rise == cover.fall:
        return np.zeros_like(day_of_year)
    up = 1 / (1 + np.exp(-(day_of_year - cover.rise) / (cover.pace / 2)))
    down = 1 / (1 + np.exp((day_of_year - cover.fall) / (cover.pace / 2)))
    return np.asarray(up * down)


def spectra(bands: Bands) -> tuple[Plane, Plane]:
    """(classes, bands) reflectance without and with leaves, between the wavelengths of the table.

    Raises:
        InvalidInput: a band has neither a wavelength nor a common name of an optical band.
    """
    wanted = []
    for band in bands:
        wavelength = band.wavelength_um or NAMES_UM.get(band.name)
        if wavelength is None:
            raise InvalidInput(f"band {band.name!r} has no wavelength; give one, or a name among {sorted(NAMES_UM)}")
        wanted.append(wavelength)
    dormant = [np.interp(wanted, WAVELENGTHS_UM, c.dormant) for c in LAND_COVER]
    green = [np.interp(wanted, WAVELENGTHS_UM, c.green) for c in LAND_COVER]
    return np.stack(dormant), np.stack(green)
