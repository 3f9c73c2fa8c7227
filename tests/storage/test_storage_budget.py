"""What the tables cost beyond payloads, after compact: the budget that is part of the ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geostore.certificate import Certificate, SpectralError
from geostore.keys import RasterKey
from geostore.storage import RasterRow, Store, pack_mask

SLOT_BYTES_MAX = 32 * 1024
RASTER_BYTES_MAX, SEGMENT_RASTER_BYTES_MAX = 120, 64
PAYLOAD_BYTES, VECTOR_BYTES = 40, 16


def _row(rng: np.random.Generator, cell: str, date: int) -> RasterRow:
    stamp = f"2020{date:04d}T092031_N0214_R093_T34TGQ"
    errors = {"NDVI": SpectralError(*(float(v) for v in rng.random(3)))}
    return RasterRow(
        key=RasterKey("s2", cell, "10m", 1_500_000_000_000_000 + date * 432_000_000_000 + 17, "sentinel-2a"),
        revision=0,
        generation=1,
        op="put",
        scene=f"S2A_MSIL2A_{stamp}_20200101T113210",
        row=0,
        col=0,
        height=96,
        width=96,
        valid=pack_mask(np.ones((96, 96), bool)),
        payload=rng.bytes(PAYLOAD_BYTES),
        vector=rng.bytes(VECTOR_BYTES),
        layers="gain+grid",
        bytes_lzw=int(rng.integers(50_000, 60_000)),
        bytes_jxl=int(rng.integers(30_000, 35_000)),
        certificate=Certificate(
            int(rng.integers(9000, 9216)), float(rng.random()), float(rng.random()), errors, rng.random(), rng.random()
        ),
    )


def _beyond_payloads(root: Path, cells: int, dates: int, commits: int) -> int:
    rng = np.random.default_rng(1)
    names = [f"9qd{a}{b}" for a in "0123456789" for b in "bcdefghjkm"][:cells]
    with Store.create(root, slots=1) as store:
        for part in np.array_split(np.arange(dates), commits):
            store.commit([_row(rng, name, int(date)) for date in part for name in names])
        store.compact(retain_days=0)
        tables = store.bytes_durable()["tables"]
    return tables - cells * dates * (PAYLOAD_BYTES + VECTOR_BYTES + 1)


@pytest.mark.parametrize(("cells", "dates", "commits"), [(1, 140, 14), (20, 70, 10)])
def test_a_touched_slot_keeps_the_budget(tmp_path, cells, dates, commits):
    """At most 32 KiB a slot and 120 bytes a raster beyond payload, vector and mask."""
    spent = _beyond_payloads(tmp_path / "s", cells, dates, commits)
    print(f"{cells * dates} rasters: {spent} bytes beyond payloads, {spent / (cells * dates):.1f} a raster")
    assert spent <= SLOT_BYTES_MAX + RASTER_BYTES_MAX * cells * dates


def test_a_large_segment_keeps_the_budget(tmp_path):
    """At most 64 bytes a raster, all overhead counted, where a slot holds 10,000."""
    spent = _beyond_payloads(tmp_path / "s", 100, 100, 4)
    print(f"10000 rasters: {spent / 10_000:.1f} bytes a raster beyond payloads")
    assert spent <= SEGMENT_RASTER_BYTES_MAX * 10_000
