"""Rows to store in these tests, made from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from geostore.certificate import Certificate, SpectralError
from geostore.collection import Collection
from geostore.keys import PartitionKey, RasterKey
from geostore.raster import Band, Bands, Grid
from geostore.storage import CodecRow, RasterRow, SceneRow, pack_mask

CELL = Grid("EPSG:32634", 300_000.0, 5_000_000.0, 10.0, 10.0, 64, 48)
BANDS = Bands((Band("red", "B04", 10.0), Band("nir", "B08", 10.0)))
DAY_US = 86_400_000_000


def collection(name: str = "s2") -> Collection:
    return Collection(name=name, groups={"10m": BANDS})


def partition(geohash: str = "9qdfr") -> PartitionKey:
    return PartitionKey("s2", geohash, "10m")


def key(day: int, geohash: str = "9qdfr") -> RasterKey:
    return RasterKey("s2", geohash, "10m", day * DAY_US, "sentinel-2a")


def raster(day: int, geohash: str = "9qdfr", *, seed: int = 0, size: int = 300, **fields: Any) -> RasterRow:
    rng = np.random.default_rng([seed, day, size])
    plain: dict[str, Any] = {
        "key": key(day, geohash),
        "revision": 0,
        "generation": 0,
        "op": "put",
        "scene": f"S2A_{day:04d}",
        "row": 1,
        "col": 2,
        "height": 20,
        "width": 30,
        "valid": pack_mask(rng.random((20, 30)) > 0.1),
        "payload": rng.bytes(size),
        "layers": "lossless",
        "lossless": True,
        "bytes_lzw": 2000 + day,
        "bytes_jxl": 1500 + day,
    }
    return RasterRow(**{**plain, **fields})


def embedding(day: int, geohash: str = "9qdfr", *, generation: int = 1, **fields: Any) -> RasterRow:
    errors = {"NDVI": SpectralError(0.25, 0.5, 0.75), "NDWI": SpectralError(0.0, 0.125, 1.0)}
    made: dict[str, Any] = {"vector": bytes(range(16)), "layers": "gain+grid", "lossless": False}
    made["certificate"] = Certificate(540, 2.0**-12, 0.0625, errors, mae=2.0**-9, p99=2.0**-6)
    rough = {"NDVI": SpectralError(0.5, 0.75, 1.5), "NDWI": SpectralError(0.0, 0.25, 1.0)}
    made["coarser"] = {"preview": Certificate(540, 2.0**-9, 0.25, rough, mae=2.0**-6, p99=2.0**-3)}
    return raster(day, geohash, generation=generation, **{**made, **fields})


def codec(geohash: str = "9qdfr", *, generation: int = 0, data: bytes = b"codec", **fields: Any) -> CodecRow:
    plain: dict[str, Any] = {"row": 0, "col": 0, "height": CELL.height, "width": CELL.width, "family": "raw"}
    made = {"parent": None, "made_us": 7, "facts": {"reason": "first", "steps": 3, "loss": 0.5}}
    where = {"partition": partition(geohash), "generation": generation, "cell": CELL, "data": data}
    return CodecRow(**{**plain, **made, **where, **fields})


def scene(day: int, **fields: Any) -> SceneRow:
    plain: dict[str, Any] = {"collection": "s2", "id": f"S2A_{day:04d}", "time_us": day * DAY_US, "put_us": 5}
    made = {"platform": "sentinel-2a", "footprint": [[21.5, 45.0], [22.0, 45.5]], "facts": {"cloud": "0.1"}}
    return SceneRow(**{**plain, **made, **fields})
