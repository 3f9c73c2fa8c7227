"""The places a base codec is trained on: real series, real scenes given invented seasons, and synthetic ones.

Only data whose licence lets anyone train on them and pass the result on: NAIP and Landsat (public domain), the
Sentinel-2 scene of Virginia (CC0), and scenes made here. What is held out is named by `HELD_OUT`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt
import rasterio
from scipy import ndimage

from bench.datasets import DATA
from geostore.codec import Series
from geostore.raster import Band, Bands
from geostore.scene.landscape import NAMES_UM
from geostore.scene.synthetic import Synthetic
from geostore.vae.codec import CHAIN
from geostore.vae.shared import Place
from geostore.vae.teach import some_place

SIDE = 96  # pixels of a place
GUARD = 32  # pixels between what is held out and what is trained on
PERU_HELD_OUT = (
    (slice(0, 216), slice(481, 697)),  # 4 x 4 windows of the size of a geohash-5 cell
    *((slice(r, r + 96), slice(c, c + 96)) for r, c in ((40, 100), (140, 300), (240, 520))),  # bench.rd_places
)
NAIP_HELD_OUT = ((slice(200, 456), slice(300, 556)),)  # bench.rd_places
HELD_OUT = (
    "Sentinel-2 Romania, Laos, Wales, Amazon; MODIS; Landsat 5, 7, 8: wholly",
    f"Landsat Peru: rows 0-216 of columns 481-697, three windows of 96 px, and {GUARD} px around each",
    f"NAIP: rows 200-456 of columns 300-556, and {GUARD} px around",
)
NAMES = {
    4: ("blue", "green", "red", "nir"),
    13: (
        *("coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09"),
        *("cirrus", "swir16", "swir22"),
    ),
}
_EXAMPLES = 3  # synthetic places that a prior is learned from; twice as many of a real scene with invented seasons
Images = npt.NDArray[np.float32]
_SOURCES = dict(
    zip(
        NAMES[13],
        ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"),
        strict=True,
    )
)
_UM = {**NAMES_UM, "cirrus": 1.375}


def reflectance(names: tuple[str, ...]) -> Bands:
    """Bands of these names, reflectance * 10000."""
    return Bands(tuple(Band(n, n, 10.0, scale=1e-4, wavelength_um=_UM[n]) for n in names))


def counts(names: tuple[str, ...]) -> Bands:
    """Bands of these names, 8-bit stretches."""
    return Bands(tuple(Band(n, n, 10.0, dtype="uint8", scale=1 / 255, valid_max=255, kind="counts") for n in names))


def places(bands: int, rng: np.random.Generator) -> Iterator[Place]:
    """Every place of the base of 4 or 13 bands."""
    if bands == 4:
        for stack in [*naip(), *peru()]:
            yield some_place("real", _series(stack, counts(NAMES[4])), rng)
    for image in virginia(bands, rng):
        seen = reflectance(NAMES[bands])
        stored = reflectance(NAMES[13]).to_stored(np.stack([*seasons(rng, image, NAMES[13], 12)]))
        kept = [NAMES[13].index(n) for n in seen.names]
        yield some_place("seasons", _series(stored[:, kept] if bands == 4 else stored, seen), rng)
    for seed in range(1000, 1036):
        yield some_place("synthetic", _series(synthetic(seed, _made(bands), bands), reflectance(NAMES[bands])), rng)


def _series(stored: npt.NDArray[np.generic], bands: Bands) -> Series:
    """Dates without a mask."""
    times = np.arange(len(stored), dtype=np.int64)
    return Series(pixels=stored, valid=np.ones((len(stored), *stored.shape[2:]), np.bool_), times_us=times, bands=bands)


def examples(bands: int, rng: np.random.Generator) -> Iterator[Series]:
    """Some places of each kind, which a base learns from what its latents are like."""
    if bands == 4:
        for stack in [*islice(naip(), 0, None, 13), *islice(peru(), 0, None, 7)]:
            yield _series(stack, counts(NAMES[4]))
    seen = reflectance(NAMES[bands])
    kept = [NAMES[13].index(n) for n in seen.names]
    for image in islice(virginia(bands, rng), 2 * _EXAMPLES):
        stored = reflectance(NAMES[13]).to_stored(np.stack([*seasons(rng, image, NAMES[13], CHAIN)]))
        yield _series(stored[:, kept], seen)
    for seed in range(1000, 1000 + _EXAMPLES):
        yield _series(synthetic(seed, _made(bands), bands)[:CHAIN], seen)


def _made(bands: int) -> tuple[str, ...]:
    """The bands that synthetic scenes have of a base's."""
    return NAMES[4] if bands == 4 else tuple(n for n in NAMES[13] if n != "cirrus")


def crops(
    height: int, width: int, held_out: tuple[tuple[slice, slice], ...] = (), side: int = SIDE
) -> Iterator[tuple[slice, slice]]:
    """Windows side by side, none nearer than GUARD to what is held out."""
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            near = any(
                top < rows.stop + GUARD
                and top + side > rows.start - GUARD
                and left < columns.stop + GUARD
                and left + side > columns.start - GUARD
                for rows, columns in held_out
            )
            if not near:
                yield slice(top, top + side), slice(left, left + side)


def naip_stack() -> npt.NDArray[np.uint8]:
    """(10, 4, 723, 934) blue, green, red, nir."""
    files = sorted((DATA / "naip_north_dakota_timeseries").glob("*.tif"), key=lambda p: p.stem[-8:])
    return np.stack([_read(p)[[2, 1, 0, 3], :723, :934] for p in files]).astype(np.uint8)


def peru_stack() -> npt.NDArray[np.uint8]:
    """(8, 4, 377, 697) swir in the place of blue, green, red, nir."""
    files = sorted((DATA / "landsat_peru_timeseries").glob("*.tif"))
    return np.stack([_read(p)[[0, 3, 2, 1]] for p in files]).astype(np.uint8)


def naip() -> Iterator[npt.NDArray[np.uint8]]:
    """Places of 10 real dates."""
    stack = naip_stack()
    for rows, columns in crops(*stack.shape[2:], NAIP_HELD_OUT):
        yield stack[:, :, rows, columns]


def peru() -> Iterator[npt.NDArray[np.uint8]]:
    """Places of 8 real dates."""
    stack = peru_stack()
    for rows, columns in crops(*stack.shape[2:], PERU_HELD_OUT, side=64):
        yield stack[:, :, rows, columns]


def virginia(bands: int, rng: np.random.Generator) -> Iterator[Images]:
    """(13, 96, 96) reflectance of places at 10 m, and for many bands at 20 m too."""
    fine = scene("s2_l1c_virginia_scene", "S2_L1C_virginia_{}.tif", NAMES[13], factor=1)
    yield from _chosen(fine, 220 if bands == 4 else 110, rng)
    if bands > 4:
        yield from _chosen(scene("s2_l1c_virginia_scene", "S2_L1C_virginia_{}.tif", NAMES[13], factor=2), 90, rng)


def _chosen(image: Images, count: int, rng: np.random.Generator) -> Iterator[Images]:
    windows = list(crops(*image.shape[1:]))
    for i in rng.permutation(len(windows))[:count]:
        yield image[(slice(None), *windows[i])]


def scene(folder: str, pattern: str, names: tuple[str, ...], factor: int) -> Images:
    """(B, H, W) reflectance of a scene on its 10 m grid, or on one `factor` times as coarse."""
    fine = _read(DATA / folder / pattern.format("B02"))[0]
    shape = fine.shape[0] // factor, fine.shape[1] // factor
    planes = [_fitted(_read(DATA / folder / pattern.format(_SOURCES[n]))[0], shape) for n in names]
    return (np.stack(planes) / 10_000).astype(np.float32)


def _fitted(plane: npt.NDArray[np.generic], shape: tuple[int, int]) -> Images:
    """A band on another grid of the same area: averaged down, or linear up."""
    values = plane.astype(np.float32)
    factor = round(values.shape[0] / shape[0])
    if factor >= 2:
        cut = values[: shape[0] * factor, : shape[1] * factor]
        values = cut.reshape(cut.shape[0] // factor, factor, cut.shape[1] // factor, factor).mean(axis=(1, 3))
    if values.shape[0] >= shape[0] and values.shape[1] >= shape[1]:
        return values[: shape[0], : shape[1]]
    zoom = (shape[0] / values.shape[0], shape[1] / values.shape[1])
    return np.asarray(ndimage.zoom(values, zoom, order=1, mode="nearest", grid_mode=True), np.float32)


def _read(path: object) -> npt.NDArray[np.generic]:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def synthetic(seed: int, names: tuple[str, ...], bands: int) -> npt.NDArray[np.uint16]:
    """(12, B, 96, 96) stored values of a synthetic place without clouds."""
    made = Synthetic(
        seed=seed,
        dates=12,
        step_days=30,
        bands=reflectance(names),
        cloud_share=0.0,
        swath_share=0.0,
        layout="fields" if seed % 3 else "soft",
    )
    stored = np.stack([d.raster.pixels[:, :SIDE, :SIDE] for d in made.series()])
    if len(names) == bands:
        return stored
    at = NAMES[13].index("cirrus")
    thin = np.full_like(stored[:, :1], 20) + np.random.default_rng(seed).poisson(5, stored[:, :1].shape).astype(
        np.uint16
    )
    return np.concatenate([stored[:, :at], thin, stored[:, at:]], axis=1)


def seasons(rng: np.random.Generator, image: Images, names: tuple[str, ...], dates: int) -> Iterator[Images]:
    """`image` (B, H, W), and `dates` - 1 invented dates of it.

    Soft classes found in all bands each go their own way through a year (leaves darken the visible and short-wave
    bands and brighten the near infrared); beside that patches change, light and haze differ, and the sensor shifts.
    """
    yield image
    shares = _soft_classes(rng, image)  # (k, H, W)
    rises = np.array([_leaf_response(_UM[n]) for n in names], np.float32)
    phase, depth = rng.uniform(0, 1, len(shares)), rng.gamma(2.0, 0.35, len(shares))
    drawn = rng.uniform(0, 1)
    for _ in range(dates - 1):
        day = rng.uniform(0, 1)
        green = 0.5 * (np.cos(2 * np.pi * (day - phase)) - np.cos(2 * np.pi * (drawn - phase))) * depth
        ways = green[:, None] * rises * rng.uniform(0.6, 1.4) + rng.normal(0, 0.06, (len(shares), len(names)))
        yield _seen(rng, image * np.exp(np.einsum("khw,kb->bhw", shares, ways)) * _patches(rng, image.shape))


def _leaf_response(um: float) -> float:
    """Logarithm of what full leaf does to reflectance at a wavelength."""
    at = (0.44, 0.49, 0.56, 0.665, 0.705, 0.74, 0.865, 0.945, 1.375, 1.61, 2.19)
    return float(np.interp(um, at, (-0.3, -0.5, -0.3, -0.9, -0.2, 0.5, 0.7, 0.6, 0.0, -0.4, -0.8)))


def _soft_classes(rng: np.random.Generator, image: Images) -> Images:
    flat = np.log(np.maximum(image, 1e-3)).reshape(len(image), -1)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / (flat.std(axis=1, keepdims=True) + 1e-3)
    centres = flat[:, rng.choice(flat.shape[1], rng.integers(3, 8), replace=False)]
    distance = ((flat[:, None] - centres[:, :, None]) ** 2).mean(axis=0)  # (k, P)
    weight = np.exp(-(distance - distance.min(axis=0)) / rng.uniform(0.05, 0.4))
    shares = (weight / weight.sum(axis=0)).reshape(-1, *image.shape[1:])
    return np.asarray(ndimage.gaussian_filter(shares, (0, 0.5, 0.5)), np.float32)


def _patches(rng: np.random.Generator, shape: tuple[int, ...]) -> Images:
    """(B, H, W) factors: 1 but for a few patches that were mown, flooded or built on."""
    factor = np.ones(shape, np.float32)
    for _ in range(rng.poisson(1.5)):
        field = ndimage.gaussian_filter(rng.standard_normal(shape[1:]), rng.uniform(3, 12))
        inside = field > np.quantile(field, rng.uniform(0.9, 0.99))
        factor[:, inside] *= np.exp(rng.normal(0, 0.3, (shape[0], 1))).astype(np.float32)
    return factor


def _seen(rng: np.random.Generator, image: npt.NDArray[np.floating]) -> Images:
    """The same ground through another day's air and optics."""
    bands = len(image)
    light = ndimage.gaussian_filter(rng.standard_normal(image.shape[1:]), rng.uniform(8, 30), mode="wrap")
    light = 1 + rng.uniform(0, 0.06) * light / max(float(light.std()), 1e-9)
    mean = image.mean(axis=(1, 2), keepdims=True)
    bent = mean * (np.maximum(image, 1e-4) / mean) ** rng.normal(1, 0.12, (bands, 1, 1))
    out = bent * light * rng.normal(1, 0.1, (bands, 1, 1)) + rng.normal(0, 0.006, (bands, 1, 1))
    out = ndimage.shift(out, (0, *rng.uniform(-0.6, 0.6, 2)), order=1, mode="nearest")
    out = ndimage.gaussian_filter(out, (0, *[rng.uniform(0, 0.5)] * 2))
    return np.clip(out * (1 + rng.normal(0, rng.uniform(0, 0.02), out.shape)), 0, 1).astype(np.float32)
