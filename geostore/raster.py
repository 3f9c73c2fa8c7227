"""Pixels, which of them may be used, and where they lie: the values everything else passes on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geostore.errors import BandMismatch, InvalidInput

Kind = Literal["reflectance", "index", "counts", "category"]
Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
STORED_DTYPES = ("uint8", "int8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class Band:
    """One band as a collection stores it.

    Attributes:
        name: STAC common name where one exists ("red", "nir"), else the sensor's own in lower case.
        source: the sensor's own name ("B04"), for matching files.
        gsd_m: native ground sampling distance, metres.
        dtype: stored dtype, one of STORED_DTYPES.
        scale, offset: physical value = stored * scale + offset.
        valid_min, valid_max: inclusive range of stored values; anything outside is refused.
        nodata: stored value that means "no measurement", or None.
        kind: what the physical value is; "reflectance" is 0..1 (n1 clips to it).
        wavelength_um: centre wavelength in micrometres, or None.
    """

    name: str
    source: str
    gsd_m: float
    dtype: str = "uint16"
    scale: float = 1.0
    offset: float = 0.0
    valid_min: float = 0.0
    valid_max: float = 65535.0
    nodata: float | None = None
    kind: Kind = "reflectance"
    wavelength_um: float | None = None

    def __post_init__(self) -> None:
        if self.dtype not in STORED_DTYPES:
            raise InvalidInput(f"band {self.name!r}: dtype {self.dtype!r} is not stored; use one of {STORED_DTYPES}")
        if not (math.isfinite(self.scale) and self.scale and math.isfinite(self.offset)):
            numbers = f"scale {self.scale}, offset {self.offset}"
            raise InvalidInput(f"band {self.name!r}: {numbers}; give finite numbers, and a scale that is not 0")


@dataclass(frozen=True)
class Bands:
    """An ordered set of bands that share one grid and one dtype."""

    items: tuple[Band, ...]

    def __post_init__(self) -> None:
        names = self.names
        if not names:
            raise BandMismatch("a raster needs at least one band, got none")
        if len(set(names)) != len(names):
            raise BandMismatch(f"bands {list(names)} name one twice; give each its own name")
        if len({b.dtype for b in self.items}) > 1:
            raise BandMismatch(f"bands {list(names)} mix dtypes {sorted({b.dtype for b in self.items})}; use one")

    @property
    def names(self) -> tuple[str, ...]:
        """Band names in order."""
        return tuple(b.name for b in self.items)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored dtype all bands share."""
        return np.dtype(self.items[0].dtype)

    def index(self, name: str) -> int:
        """Position of the band named `name` (or whose source is `name`)."""
        for i, band in enumerate(self.items):
            if name in (band.name, band.source):
                return i
        raise BandMismatch(f"no band {name!r}; this raster has {list(self.names)}")

    def select(self, names: tuple[str, ...] | list[str]) -> Bands:
        """These bands in the order of `names`."""
        return Bands(tuple(self.items[self.index(n)] for n in names))

    def to_physical(self, stored: Pixels) -> Floats:
        """(..., B, H, W) stored values -> float32 physical values (reflectance 0..1, index, counts)."""
        scale = np.array([b.scale for b in self.items], np.float64)[:, None, None]
        offset = np.array([b.offset for b in self.items], np.float64)[:, None, None]
        return (stored.astype(np.float64) * scale + offset).astype(np.float32)

    def to_stored(self, physical: npt.NDArray[Any]) -> Pixels:
        """(..., B, H, W) physical values -> stored dtype, rounded and held inside the valid range."""
        scale = np.array([b.scale for b in self.items], np.float64)[:, None, None]
        offset = np.array([b.offset for b in self.items], np.float64)[:, None, None]
        low = np.array([b.valid_min for b in self.items])[:, None, None]
        high = np.array([b.valid_max for b in self.items])[:, None, None]
        stored = np.clip((physical.astype(np.float64) - offset) / scale, low, high)
        return (stored if self.dtype.kind == "f" else np.rint(stored)).astype(self.dtype)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Band]:
        return iter(self.items)


@dataclass(frozen=True)
class Grid:
    """Where the pixels lie: north-up, whole pixels, one CRS.

    Attributes:
        crs: "EPSG:32634" where an authority code exists, else WKT2.
        left, top: coordinates of the outer corner of the first pixel, CRS units.
        xres, yres: pixel size in CRS units, both positive; rows run downwards (southwards).
        height, width: pixels.
    """

    crs: str
    left: float
    top: float
    xres: float
    yres: float
    height: int
    width: int

    def __post_init__(self) -> None:
        if not (self.xres > 0 and self.yres > 0 and self.height > 0 and self.width > 0):
            raise InvalidInput(f"grid {self} is empty or not north-up; sizes and resolutions must be positive")
        if not all(math.isfinite(v) for v in (self.left, self.top, self.xres, self.yres)):
            raise InvalidInput(f"grid {self} holds values that are not finite")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in CRS units."""
        return (self.left, self.top - self.yres * self.height, self.left + self.xres * self.width, self.top)

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients (a, b, c, d, e, f) as rasterio and odc-geo order them."""
        return (self.xres, 0.0, self.left, 0.0, -self.yres, self.top)

    def window(self, row: int, col: int, height: int, width: int) -> Grid:
        """The grid of `height` x `width` pixels whose first is (row, col); may reach outside this one."""
        return Grid(
            self.crs, self.left + col * self.xres, self.top - row * self.yres, self.xres, self.yres, height, width
        )

    def offset_of(self, other: Grid, *, tolerance: float = 1e-3) -> tuple[int, int] | None:
        """(row, col) of `other`'s first pixel in this grid, or None unless both share CRS, resolution and snap.

        `tolerance` is in pixels.
        """
        if self.crs != other.crs or not (
            math.isclose(self.xres, other.xres, rel_tol=1e-9) and math.isclose(self.yres, other.yres, rel_tol=1e-9)
        ):
            return None
        col, row = (other.left - self.left) / self.xres, (self.top - other.top) / self.yres
        if abs(col - round(col)) > tolerance or abs(row - round(row)) > tolerance:
            return None
        return round(row), round(col)


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Pixels of one acquisition on one grid.

    Attributes:
        pixels: (bands, height, width), the bands' stored dtype.
        valid: (height, width) bool, True where the pixel may be used (NumPy's masked arrays mean the opposite).
        bands: what each plane is.
        grid: where it lies.
    """

    pixels: Pixels
    valid: Mask
    bands: Bands
    grid: Grid

    def __post_init__(self) -> None:
        want = (len(self.bands), *self.grid.shape)
        if self.pixels.shape != want or self.valid.shape != want[1:]:
            raise InvalidInput(
                f"pixels {self.pixels.shape} and valid {self.valid.shape} do not fit {len(self.bands)} bands on a "
                f"{self.grid.height} x {self.grid.width} grid; wanted {want} and {want[1:]}"
            )
        if self.pixels.dtype != self.bands.dtype or self.valid.dtype != np.bool_:
            raise InvalidInput(
                f"pixels are {self.pixels.dtype}, valid {self.valid.dtype}; wanted {self.bands.dtype} and bool"
            )

    @property
    def valid_fraction(self) -> float:
        """Share of pixels that may be used, 0..1."""
        return float(self.valid.mean())


def stacked(rasters: Sequence[Raster], corners: Sequence[tuple[int, int]]) -> tuple[Pixels, Mask]:
    """Rasters of one lattice and the same bands on the smallest box that holds them all.

    Args:
        rasters: at least one.
        corners: (row, col) of the first pixel of each, on any common grid.

    Returns:
        (T, B, H, W) stored values, 0 where a raster has no pixel, and (T, H, W) bool, False there.
    """
    (top, left), bands = np.min(corners, axis=0), rasters[0].bands
    at = [
        np.s_[..., row - top : row - top + raster.grid.height, col - left : col - left + raster.grid.width]
        for raster, (row, col) in zip(rasters, corners, strict=True)
    ]
    shape = max(s[1].stop for s in at), max(s[2].stop for s in at)
    pixels = np.zeros((len(rasters), len(bands), *shape), bands.dtype)
    valid = np.zeros((len(rasters), *shape), np.bool_)
    for i, raster in enumerate(rasters):
        pixels[i][at[i]], valid[i][at[i]] = raster.pixels, raster.valid
    return pixels, valid
