"""The compiled kernel behind `geohash.encode_many`: longitudes and latitudes to interleaved bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geostore.compiled import compiled


@compiled
def axis_cell(value: float, low: float, span: float, bits: int) -> int:  # pragma: no cover - compiled
    """Number of the cell, 0 .. 2**bits - 1, of `value` on an axis from `low` over `span`, cut into 2**bits.

    Edges are exact: low + span * k / 2**bits is a float64 for every geohash axis, so after scaling, which rounds,
    the neighbours are compared. The last cell holds the far end of the axis too.
    """
    count = 1 << bits
    size = span / count
    k = min(max(int((value - low) / size), 0), count - 1)
    if value < low + k * size:
        return max(k - 1, 0)
    if k < count - 1 and value >= low + (k + 1) * size:
        return k + 1
    return k


@compiled
def interleave(
    lon: npt.NDArray[np.float64], lat: npt.NDArray[np.float64], precision: int
) -> npt.NDArray[np.int64]:  # pragma: no cover - compiled
    """(N,) degrees -> (N,) int64, 5 * precision bits, longitude first; -1 where a value is out of range or NaN."""
    total = 5 * precision
    lon_bits, lat_bits = (total + 1) // 2, total // 2
    out = np.empty(lon.size, np.int64)
    for i in range(lon.size):
        x, y = lon[i], lat[i]
        if not (-180.0 <= x <= 180.0 and -90.0 <= y <= 90.0):
            out[i] = -1
            continue
        column, row = axis_cell(x, -180.0, 360.0, lon_bits), axis_cell(y, -90.0, 180.0, lat_bits)
        code = 0
        for bit in range(total):
            if bit % 2 == 0:
                lon_bits_left = lon_bits - 1 - bit // 2
                code = (code << 1) | ((column >> lon_bits_left) & 1)
            else:
                lat_bits_left = lat_bits - 1 - bit // 2
                code = (code << 1) | ((row >> lat_bits_left) & 1)
        out[i] = code
    return out
