"""Synthetic rows to fill a store with: they weigh what rows of a fit weigh, and mean nothing."""

from __future__ import annotations

import numpy as np

from geostore.certificate import Certificate, SpectralError
from geostore.codec import RawCodec
from geostore.collection import Collection
from geostore.keys import PartitionKey, RasterKey
from geostore.partition import geohash
from geostore.partition.grid import cell_grid
from geostore.scene.synthetic import BANDS
from geostore.storage import CodecRow, RasterRow, SceneRow, pack_mask

_DAY_US = 86_400_000_000


def rows_collection() -> Collection:
    """What the rows are of."""
    return Collection(name="segment", groups={"10m": BANDS})


def _partition(cell: int) -> PartitionKey:
    return PartitionKey("segment", geohash.encode(10 + 0.05 * (cell % 10), 50 + 0.05 * (cell // 10), 5), "10m")


def codec_rows(cell: int) -> list[CodecRow]:
    """The codecs of one partition: the lossless one, and one in place of a fitted one."""
    partition = _partition(cell)
    grid = cell_grid(partition.geohash, "EPSG:32632", 10.0, 10.0, (0.0, 0.0))
    whole = {"row": 0, "col": 0, "height": grid.height, "width": grid.width}
    facts: dict[str, str | float | int] = {"reason": "synthetic"}
    return [
        CodecRow(
            partition=partition,
            generation=g,
            family="raw",
            cell=grid,
            data=RawCodec(BANDS).to_bytes(),
            parent=None,
            made_us=cell,
            facts=facts,
            **whole,
        )
        for g in (0, 1)
    ]


def scene_row(t: int) -> SceneRow:
    """One scene over all cells."""
    return SceneRow(
        collection="segment",
        id=f"synthetic_{t:05d}",
        time_us=t * _DAY_US,
        platform="unknown",
        product="generic",
        baseline="",
        source=f"scenes/synthetic_{t:05d}.tif",
        footprint=[[10.0, 50.0], [10.5, 50.0], [10.5, 50.5], [10.0, 50.0]],
        facts={},
        complete=True,
        op="put",
        put_us=t,
    )


def raster_row(cell: int, t: int, seed: int) -> RasterRow:
    """A row as a fit writes it, with a random payload, a random vector and errors that differ."""
    partition, rng = _partition(cell), np.random.default_rng((seed, cell, t))
    error = float(rng.uniform(1e-4, 5e-4))
    return RasterRow(
        key=RasterKey(partition.collection, partition.geohash, partition.group, t * _DAY_US),
        revision=0,
        generation=1,
        op="put",
        scene=f"synthetic_{t:05d}",
        row=0,
        col=0,
        height=64,
        width=64,
        valid=pack_mask(np.ones((64, 64), np.bool_)),
        payload=rng.bytes(int(rng.integers(400, 600))),
        vector=rng.bytes(16),
        layers="gain+grid",
        lossless=False,
        bytes_lzw=int(rng.integers(25_000, 30_000)),
        bytes_jxl=int(rng.integers(15_000, 20_000)),
        original="",
        certificate=Certificate(
            4096,
            error,
            float(rng.uniform(0.1, 0.2)),
            {"NDVI": SpectralError(*rng.uniform((0.01, 0.05, 0.2), (0.05, 0.2, 0.5)).tolist())},
            mae=float(rng.uniform(0.005, 0.02)),
            p99=float(rng.uniform(0.02, 0.08)),
        ),
    )
