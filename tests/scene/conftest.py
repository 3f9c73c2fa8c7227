"""Small real raster files, written by rasterio, for the tests of scenes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(name, pixels (B, H, W), ...) -> path of a GeoTIFF or JPEG 2000 file."""

    def write_raster(
        name: str,
        pixels: np.ndarray[Any, Any],
        *,
        descriptions: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        crs: str | None = "EPSG:32634",
        left: float = 600_000.0,
        top: float = 5_000_000.0,
        res: float = 10.0,
        transform: Affine | None = None,
        nodata: float | None = None,
        scales: Sequence[float] = (),
        offsets: Sequence[float] = (),
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"} if path.suffix == ".jp2" else {}
        profile = {
            "driver": "GTiff",
            "count": pixels.shape[0],
            "height": pixels.shape[1],
            "width": pixels.shape[2],
            "dtype": pixels.dtype.name,
            "crs": crs,
            "transform": transform or Affine(res, 0, left, 0, -res, top),
            "nodata": nodata,
            **kind,
        }
        with rasterio.open(path, "w", **profile) as data:
            data.write(pixels)
            data.update_tags(**(tags or {}))
            for i, text in enumerate(descriptions):
                data.set_band_description(i + 1, text)
            if scales:
                data.scales = tuple(scales)
            if offsets:
                data.offsets = tuple(offsets)
        return path

    return write_raster


@pytest.fixture
def declare(tmp_path: Path) -> Callable[[str], Any]:
    """declare(TOML text) -> Collection."""
    from geostore.scene import load_collection

    def make(text: str) -> Any:
        path = tmp_path / "collection.toml"
        path.write_text(text)
        return load_collection(path)

    return make


@pytest.fixture(scope="session")
def data() -> Path:
    """The development data set; tests that need it are marked `data`, and skipped without it."""
    root = Path(os.environ.get("GEOSTORE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no development data at {root}; set GEOSTORE_DATA")
    return root
