"""Seeded synthetic scenes and seasons whose truth is known: classes, clear reflectance, clouds, shadows, haze.

What is measured on them says how the code behaves, not how the Earth looks: name such figures synthetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from geostore.errors import InvalidInput
from geostore.keys import from_time_us, time_us
from geostore.raster import Band, Bands, Floats, Grid, Mask, Raster
from geostore.scene.landscape import (
    LAND_COVER,
    Classes,
    Plane,
    field_classes,
    greenness,
    smooth_noise,
    soft_classes,
    spectra,
)
from geostore.scene.writer import write_cog

Layout = Literal["soft", "fields"]
_DAY_US = 86_400_000_000


def _band(name: str, source: str) -> Band:
    return Band(name, source, 10.0, scale=1e-4, offset=-0.1, valid_min=1, nodata=0)


BANDS = Bands((_band("blue", "B02"), _band("green", "B03"), _band("red", "B04"), _band("nir", "B08")))
GRID = Grid("EPSG:32633", 500_000.0, 5_500_000.0, 10.0, 10.0, 128, 128)


@dataclass(frozen=True, kw_only=True)
class SyntheticDate:
    """One date, as a sensor would give it, and the truth behind it.

    Attributes:
        time_us: UTC microseconds.
        raster: stored values; invalid under cloud, in shadow and in the gap beside the swath.
        clear: (bands, height, width) float32, reflectance of the ground without atmosphere, noise and shift.
        cloud: (height, width) bool, True under thick cloud.
        shadow: (height, width) bool, True in cloud shadow that no cloud hides.
        nodata: (height, width) bool, True where the swath does not reach.
        haze: (height, width) float32, share of haze 0..1; hazy pixels stay valid.
        gain, offset: illumination: seen = gain * clear + offset.
        shift: (rows, columns) pixels that the scene is displaced by.
    """

    time_us: int
    raster: Raster
    clear: Floats
    cloud: Mask
    shadow: Mask
    nodata: Mask
    haze: Floats
    gain: float
    offset: float
    shift: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """A place over time; equal arguments give equal pixels in every process, date by date and in any order.

    Attributes:
        seed: everything follows from it.
        grid: where the place lies, and how large it is.
        bands: what is seen; each needs an optical common name or a wavelength.
        dates: how many, `step_days` apart from `start` on.
        layout: "soft" patches, or "fields" with roads, a town and a river.
        texture: (height, width) or (bands, height, width), real pixels whose relative brightness is laid over the
            ground; None for generated texture only.
        cloud_share: mean share of cloudy pixels, 0..1.
        haze: largest share of haze, 0..1.
        illumination: standard deviation of the gain of a date; the offset has a tenth of it.
        noise: standard deviation of the sensor's noise, reflectance.
        shift_px: largest sub-pixel displacement.
        swath_share: share of dates whose swath misses a corner.
    """

    seed: int = 0
    grid: Grid = GRID
    bands: Bands = BANDS
    dates: int = 24
    start: datetime = datetime(2020, 1, 5, 9, 30, tzinfo=UTC)
    step_days: float = 15.0
    layout: Layout = "fields"
    texture: npt.NDArray[np.generic] | None = field(default=None, compare=False)
    cloud_share: float = 0.3
    haze: float = 0.15
    illumination: float = 0.05
    noise: float = 0.003
    shift_px: float = 0.3
    swath_share: float = 0.1

    def __post_init__(self) -> None:
        if self.dates < 1 or not 0 <= self.cloud_share <= 1 or not 0 <= self.haze < 1:
            raise InvalidInput(f"{self.dates} dates, clouds {self.cloud_share}, haze {self.haze}; use >= 1, 0..1, 0..1")
        if self.texture is not None and self.texture.shape[-2:] != self.grid.shape:
            raise InvalidInput(f"the texture is {self.texture.shape}; the grid wants {self.grid.shape}")

    @property
    def classes(self) -> Classes:
        """(height, width) uint8, positions in `class_names`."""
        return self._ground[0]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the land-cover classes by number."""
        return tuple(c.name for c in LAND_COVER)

    @cached_property
    def _ground(self) -> tuple[Classes, Plane, Plane]:
        """Classes, how many days early or late each pixel is, and relative brightness (1 or bands, h, w)."""
        rng = self._rng(0)
        if self.layout == "soft":
            classes, late = soft_classes(rng, self.grid.shape), smooth_noise(rng, self.grid.shape, 24) / 2
        else:
            classes, late = field_classes(rng, self.grid.shape)
        grain = 1 + 0.04 * smooth_noise(rng, self.grid.shape, 3) + 0.04 * smooth_noise(rng, self.grid.shape, 20)
        return classes, 12 * late, grain[None] * self._brightness()

    def _brightness(self) -> Plane:
        """(1 or bands, height, width) texture over its mean, held within a third and three."""
        if self.texture is None:
            return np.ones((1, 1, 1))
        planes = np.asarray(self.texture, np.float64).reshape(-1, *self.grid.shape)
        mean = planes.mean((1, 2), keepdims=True)
        return np.asarray(np.clip(planes / np.where(mean == 0, 1, mean), 1 / 3, 3))

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])

    def clear(self, moment_us: int) -> Floats:
        """(bands, height, width) float32: the ground's reflectance at a time, 0.001..1."""
        classes, late, brightness = self._ground
        day = from_time_us(moment_us).timetuple().tm_yday - late
        leaves = np.choose(classes, [greenness(c, day) for c in LAND_COVER])
        dormant, green = (table.T[:, classes] for table in spectra(self.bands))  # (bands, height, width)
        seen = (dormant + (green - dormant) * leaves) * brightness
        return np.asarray(np.clip(seen, 0.001, 1), np.float32)

    def date(self, number: int) -> SyntheticDate:
        """The date of that number, 0 .. dates - 1."""
        if not 0 <= number < self.dates:
            raise InvalidInput(f"date {number}; there are 0 to {self.dates - 1}")
        rng = self._rng(1 + number)
        moment = time_us(self.start) + round(number * self.step_days * _DAY_US)
        clear = self.clear(moment)
        gain, offset = 1 + self.illumination * rng.standard_normal(), self.illumination / 10 * rng.standard_normal()
        shift = (float(rng.uniform(-1, 1) * self.shift_px), float(rng.uniform(-1, 1) * self.shift_px))
        cloud, shadow = self._clouds(rng)
        haze = (self.haze * rng.random() * np.clip(smooth_noise(rng, self.grid.shape, 60) + 1, 0, 2) / 2).astype("f4")
        nodata = self._beside_swath(rng)
        seen = gain * ndimage.shift(clear, (0, *shift), order=1, mode="nearest") + offset
        seen = np.where(shadow, seen * 0.4, seen) * (1 - haze) + 0.35 * haze
        seen = np.where(cloud, 0.55 + 0.1 * smooth_noise(rng, self.grid.shape, 8), seen)
        stored = self.bands.to_stored(seen + self.noise * rng.standard_normal(seen.shape))
        stored[:, nodata] = 0
        raster = Raster(pixels=stored, valid=~(cloud | shadow | nodata), bands=self.bands, grid=self.grid)
        return SyntheticDate(
            time_us=moment,
            raster=raster,
            clear=clear,
            cloud=cloud & ~nodata,
            shadow=shadow & ~nodata,
            nodata=nodata,
            haze=haze,
            gain=float(gain),
            offset=float(offset),
            shift=shift,
        )

    def series(self) -> Iterator[SyntheticDate]:
        """All dates, oldest first."""
        return (self.date(number) for number in range(self.dates))

    def _clouds(self, rng: np.random.Generator) -> tuple[Mask, Mask]:
        """Cloud and shadow of one date; shares differ widely between dates, about `cloud_share` on average."""
        share = float(rng.beta(0.6, 0.6 * (1 - self.cloud_share) / self.cloud_share)) if self.cloud_share > 0 else 0.0
        shape = self.grid.shape
        thickness = smooth_noise(rng, shape, 20) + 0.3 * smooth_noise(rng, shape, 5)
        away = rng.integers(4, 10, 2) * (1, -1)
        cloud = thickness > np.quantile(thickness, 1 - share) if share > 0 else np.zeros(shape, np.bool_)
        shadow = ndimage.shift(cloud.astype(np.uint8), away, order=0, mode="constant").astype(np.bool_)
        return np.asarray(cloud, np.bool_), np.asarray(shadow & ~cloud, np.bool_)

    def _beside_swath(self, rng: np.random.Generator) -> Mask:
        """True beyond a slanted swath edge, on `swath_share` of the dates."""
        misses, slant, reach = rng.random() < self.swath_share, rng.uniform(0.2, 0.6), rng.uniform(0.6, 1.1)
        if not misses:
            return np.zeros(self.grid.shape, np.bool_)
        rows, columns = np.mgrid[: self.grid.height, : self.grid.width]
        return np.asarray(columns / self.grid.width + slant * rows / self.grid.height > reach, np.bool_)


def write_scenes(synthetic: Synthetic, folder: Path) -> list[Path]:
    """One COG a date, `synthetic_YYYYMMDD.tif`, nodata 0, the time in its tags; masked pixels keep their values.

    Clouds are not marked in the files: like a real sensor's, they are there to be found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for each in synthetic.series():
        moment = from_time_us(each.time_us)
        path = folder / f"synthetic_{moment:%Y%m%d}.tif"
        tags = {"ACQUISITION_DATETIME": moment.isoformat(), "SOURCE": f"synthetic, seed {synthetic.seed}"}
        visible = Raster(pixels=each.raster.pixels, valid=~each.nodata, bands=synthetic.bands, grid=synthetic.grid)
        write_cog(path, visible, tags)
        written.append(path)
    return written
