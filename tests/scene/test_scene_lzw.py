"""The measure of LZW that ingest can wait for agrees with files that GDAL writes."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.raster import Band, Bands, Grid, Raster
from geostore.scene.writer import lzw_size, lzw_size_near


@pytest.mark.parametrize(("dtype", "crs"), [("uint8", "EPSG:4326"), ("uint16", "EPSG:32634"), ("float32", "EPSG:4326")])
@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 22, 19), (2, 260, 259), (1, 16, 600)])
def test_measured_without_a_file_as_with_one(shape: tuple[int, int, int], dtype: str, crs: str) -> None:
    """Smooth, noisy and masked rasters: two bytes a tile at most for small ones, 2 % of the whole for others."""
    rng = np.random.default_rng(5)
    bands = Bands(tuple(Band(f"b{i}", f"b{i}", 10.0, dtype=dtype) for i in range(shape[0])))
    tiles = shape[0] * -(-shape[1] // 256) * -(-shape[2] // 256)
    for noise in (0.0, 90.0):
        pixels = np.linspace(20, 90, shape[1] * shape[2]).reshape(shape[1:]) + noise * rng.random(shape)
        raster = Raster(
            pixels=pixels.astype(dtype),
            valid=rng.random(shape[1:]) < 0.9,
            bands=bands,
            grid=Grid(crs, 20.0, 45.0, 0.001, 0.001, *shape[1:]),
        )
        real = lzw_size(raster, ("band",))
        assert abs(lzw_size_near(raster) - real) <= (2 * tiles if real < 50_000 and noise else 0.02 * real)
