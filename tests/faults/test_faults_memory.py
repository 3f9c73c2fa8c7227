"""Memory while ingesting the largest scene: bounded by a few cells, not by the scene."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from fault_process import Victim

LIMIT_MB = 700
DATA = Path(os.environ.get("GEOSTORE_DATA", Path(__file__).parents[3] / "shared" / "data"))
SHAPES = {10: (1947, 1933), 20: (973, 967), 60: (324, 322)}
GROUPS = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09", "B10"),
}


def _scene(folder: Path) -> Path:
    """A synthetic 13-band scene of the same size: one file a band, three resolutions."""
    rng = np.random.default_rng(51)
    folder.mkdir()
    for gsd, names in GROUPS.items():
        height, width = SHAPES[gsd]
        y, x = np.mgrid[0:height, 0:width] * gsd / 3000
        ground = 3000 + 800 * np.sin(x) * np.cos(y)
        for name in names:
            plane = (ground + rng.normal(0, 150, ground.shape)).clip(1, 20_000).astype(np.uint16)
            where = Affine(gsd, 0, 300_000, 0, -gsd, 4_100_000)
            profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": "uint16"}
            with rasterio.open(
                folder / f"big_{name}.tif",
                "w",
                **profile,
                crs="EPSG:32618",
                transform=where,
                compress="zstd",
                tiled=True,
            ) as target:
                target.write(plane, 1)
    return folder


def _peak_mb(scenes: Path, tmp_path: Path) -> float:
    options = ("--scenes", str(scenes), "--preset", "sentinel-2-l1c", "--acquired", "2019-06-01")
    victim = Victim("ingest", tmp_path / "store", tmp_path / "err", *options, "--batch-bytes", str(32 * 2**20))
    try:
        last = victim.finish()[-1]
    finally:
        victim.close()
    return int(last.removeprefix("done ")) / 1024


@pytest.mark.slow
def test_ingest_of_a_large_scene_stays_small(tmp_path: Path) -> None:
    """A process that ingests 1933 x 1947 pixels of 13 synthetic bands never holds 700 MB."""
    peak = _peak_mb(_scene(tmp_path / "scene"), tmp_path)
    print(f"peak resident {peak:.0f} MB")
    assert peak < LIMIT_MB


@pytest.mark.data
@pytest.mark.slow
def test_ingest_of_the_virginia_scene_stays_small(tmp_path: Path) -> None:
    """The real 13-band scene stays below 700 MB resident."""
    folder = DATA / "s2_l1c_virginia_scene"
    if not folder.is_dir():
        pytest.skip(f"no development data at {folder}; set GEOSTORE_DATA")
    peak = _peak_mb(folder, tmp_path)
    print(f"peak resident {peak:.0f} MB")
    assert peak < LIMIT_MB
