"""Small seeded scenes on disk, and the collection that takes them."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from geostore.collection import Collection, Files, Policy
from geostore.raster import Band, Bands

CRS = "EPSG:32634"
LEFT, TOP = 500_000.0, 5_100_000.0
SIZE = 160  # pixels a side, 10 m: six to nine cells of precision 6
PRECISION = 6
BANDS = Bands(
    tuple(
        Band(name, source, 10.0, scale=1e-4, valid_min=0, valid_max=20_000, nodata=0)
        for name, source in (("red", "B04"), ("nir", "B08"))
    )
)
FIRST = datetime(2020, 1, 5)  # noqa: DTZ001 - a date in a file name


def collection(*, original: str = "drop", codec: str = "vae") -> Collection:
    """Two bands, cells of about 0.8 x 0.6 km, a policy loose enough for a quick fit."""
    return Collection(
        name="faults",
        groups={"10m": BANDS},
        precision=PRECISION,
        policy=Policy(mse_max=0.01, index_mae_max=None, original=original, codec=codec),  # type: ignore[arg-type]
        time_pattern="([0-9]{8})|%Y%m%d",
        files=Files(positional=("red", "nir")),
    )


def pixels(seed: int, index: int, *, size: int = SIZE, noise: float = 40.0) -> np.ndarray:
    """(2, size, size) uint16: one ground for the seed, a gain for the date, a patch of nodata."""
    ground = np.random.default_rng(seed)
    date = np.random.default_rng((seed, index))
    y, x = np.mgrid[0:size, 0:size] / size
    waves = sum(np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in ground.uniform(0.5, 4, (6, 3)))
    plane = 2500 + 250 * waves
    planes = np.stack([plane * date.uniform(0.6, 0.8), plane * date.uniform(1.1, 1.4)])
    planes += date.normal(0, noise, planes.shape)
    planes = np.clip(np.rint(planes), 1, 20_000).astype(np.uint16)
    row, col = date.integers(0, size - 20, 2)
    planes[:, row : row + 20, col : col + 20] = 0
    return planes


def scene_name(index: int) -> str:
    """The file of the `index`-th date."""
    return f"scene_{FIRST + timedelta(days=5 * index):%Y%m%d}.tif"


def write_tif(path: Path, planes: np.ndarray, *, crs: str | None = CRS, **profile: object) -> Path:
    """`planes` (bands, height, width) as a tiled GeoTIFF at the place all scenes share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = planes.shape
    given: dict[str, object] = {"driver": "GTiff", "count": count, "height": height, "width": width}
    given |= {"dtype": planes.dtype, "crs": crs, "transform": Affine(10, 0, LEFT, 0, -10, TOP)}
    given |= {"compress": "zstd", "tiled": True, "blockxsize": 128, "blockysize": 128, **profile}
    with rasterio.open(path, "w", **given) as target:
        target.write(planes)
    return path


def write_scenes(folder: Path, seed: int, count: int, *, size: int = SIZE, noise: float = 40.0) -> list[Path]:
    """`count` dates of the place that `seed` makes."""
    return [write_tif(folder / scene_name(i), pixels(seed, i, size=size, noise=noise)) for i in range(count)]


def digest(planes: np.ndarray, valid: np.ndarray) -> str:
    """One name for pixels and mask, whatever the mask's dtype."""
    shape = repr((planes.shape, planes.dtype.str)).encode()
    return hashlib.sha256(shape + planes.tobytes() + valid.astype(np.uint8).tobytes()).hexdigest()
