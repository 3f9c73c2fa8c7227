"""Stored rows as plain fields for replies."""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from typing import Any

from geostore.certificate import Certificate
from geostore.raster import Bands, Grid
from geostore.storage import RasterRow


def certificate_fields(certificate: Certificate | None) -> dict[str, Any]:
    """A certificate as fields; None (lossless as put) is a certificate without error."""
    c = certificate or Certificate.without_error()
    return {
        "exact": certificate is None or (c.max_error == 0 and c.pixels > 0),
        "pixels": c.pixels,
        "mse": c.mse,
        "psnr_db": None if math.isinf(c.psnr_db) else c.psnr_db,
        "max_error": c.max_error,
        "mae": c.mae,
        "p99": c.p99,
        "indices": {name: dataclasses.asdict(error) for name, error in c.indices.items()},
    }


def tier(row: RasterRow) -> str:
    """Where a raster stands: waiting (lossless, not fitted yet), lossless, residual, embedding, or empty."""
    if row.generation == 0:
        return "waiting"
    if not row.payload_bytes:
        return "empty"
    if row.lossless:
        return "lossless"
    return "residual" if "residual" in row.layers else "embedding"


@lru_cache(maxsize=256)
def _bands_fields(bands: Bands) -> tuple[dict[str, Any], ...]:
    """Each band's fields; made once, because every reply repeats them."""
    return tuple(dataclasses.asdict(b) for b in bands)


def raster_fields(row: RasterRow, cell: Grid, bands: Bands, family: str) -> dict[str, Any]:
    """One stored raster, without pixels."""
    grid = cell.window(row.row, row.col, row.height, row.width)
    return {
        **vars(row.key),
        "scene": row.scene,
        "generation": row.generation,
        "codec": family,
        "tier": tier(row),
        "layers": row.layers,
        "bytes": row.payload_bytes,
        "bytes_shared": row.shared_bytes,
        "bytes_valid": len(row.valid),
        "bytes_lzw": row.bytes_lzw,
        "bytes_jxl": row.bytes_jxl,
        "grid": dict(vars(grid)),
        "bands": list(_bands_fields(bands)),
        "certificate": certificate_fields(row.certificate),
        "coarser": {name: certificate_fields(errors) for name, errors in row.coarser.items()},
    }
