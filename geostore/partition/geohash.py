"""Geohashes: names of cells that halve longitude and latitude in turn.

A cell holds its west and south edge; the cells along 180 E and the north pole hold those edges too, so every
point on Earth lies in exactly one cell of each precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pygeohash

from geostore.errors import InvalidInput
from geostore.keys import GEOHASH_ALPHABET, check_geohash

Codes = npt.NDArray[np.int64]
Bounds = tuple[float, float, float, float]

PRECISION_MAX = 12
OUTSIDE = -1  # the code of a point that is not on Earth: no finite longitude and latitude
_LETTERS = np.frombuffer(GEOHASH_ALPHABET.encode(), np.uint8)
_VALUES = {letter: value for value, letter in enumerate(GEOHASH_ALPHABET)}


def check_precision(precision: int) -> int:
    """Return `precision` if it is a geohash length, 1 to 12; raise InvalidInput otherwise."""
    if isinstance(precision, bool) or not isinstance(precision, int) or not 1 <= precision <= PRECISION_MAX:
        raise InvalidInput(f"precision {precision!r}; use a geohash length from 1 to {PRECISION_MAX}")
    return precision


def encode(lon: float, lat: float, precision: int = 5) -> str:
    """The cell that holds a point, degrees.

    >>> encode(180, 90, 5), encode(180, 0, 5), encode(-180, 0, 5)
    ('zzzzz', 'xbpbp', '80000')

    Raises:
        InvalidInput: the point is not on Earth (NaN, |lat| > 90, |lon| > 180) or the precision is no length.
    """
    check_precision(precision)
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise InvalidInput(f"longitude {lon}, latitude {lat} is not on Earth; use -180..180 and -90..90 degrees")
    return str(pygeohash.encode(float(lat), float(lon), precision))


def encode_many(lon: npt.ArrayLike, lat: npt.ArrayLike, precision: int = 5) -> Codes:
    """The cells of many points as codes: 5 * precision bits, sorted as the geohashes sort.

    Args:
        lon: degrees east, any shape.
        lat: degrees north, the same shape.
        precision: geohash length, 1 to 12.

    Returns:
        int64 of the same shape; OUTSIDE (-1) where a point is not finite (projections give inf off their domain).

    Raises:
        InvalidInput: a finite point is not on Earth, or the precision is no length.
    """
    from geostore.partition.interleave import interleave

    x, y = np.broadcast_arrays(np.asarray(lon, np.float64), np.asarray(lat, np.float64))
    codes = interleave(x.ravel(), y.ravel(), check_precision(precision)).reshape(x.shape)
    wrong = (codes == OUTSIDE) & np.isfinite(x) & np.isfinite(y)
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise InvalidInput(
            f"longitude {x.flat[i]}, latitude {y.flat[i]} is not on Earth; use -180..180 and -90..90 degrees"
        )
    return np.asarray(codes, np.int64)


def code_of(geohash: str) -> int:
    """The code of a geohash, as `encode_many` gives it.

    >>> code_of("s0000") == int(encode_many(0.0, 0.0, 5))
    True
    """
    code = 0
    for letter in check_geohash(geohash):
        code = code << 5 | _VALUES[letter]
    return code


def names_of(codes: npt.ArrayLike, precision: int) -> npt.NDArray[np.str_]:
    """The geohashes of codes of one precision, same shape, dtype str.

    Raises:
        InvalidInput: a code is OUTSIDE, or needs more than `precision` letters.
    """
    values = np.asarray(codes, np.int64)
    if values.size and (values.min() < 0 or int(values.max()) >> (5 * check_precision(precision))):
        raise InvalidInput(f"codes {values.min()}..{values.max()} are not geohashes of {precision} letters")
    shifts = 5 * np.arange(precision - 1, -1, -1)
    letters = _LETTERS[(values[..., None] >> shifts) & 31]  # (..., precision)
    return np.ascontiguousarray(letters).view(f"S{precision}").reshape(values.shape).astype(np.str_)


def name_of(code: int, precision: int) -> str:
    """The geohash of one code.

    >>> name_of(code_of("9qdfr"), 5)
    '9qdfr'
    """
    return str(names_of(code, precision)[()])


def bounds(geohash: str) -> Bounds:
    """(west, south, east, north) of a cell, degrees, exact.

    >>> bounds("s")
    (0.0, 0.0, 45.0, 45.0)
    """
    column, row, width, height = _place(geohash)
    return -180 + column * width, -90 + row * height, -180 + (column + 1) * width, -90 + (row + 1) * height


def centre(geohash: str) -> tuple[float, float]:
    """(lon, lat) of the middle of a cell, degrees."""
    west, south, east, north = bounds(geohash)
    return (west + east) / 2, (south + north) / 2


def contains(geohash: str, lon: npt.NDArray[Any], lat: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """True where `encode` of the point begins with `geohash`; False where a coordinate is not finite."""
    west, south, east, north = bounds(geohash)
    inside = (lon >= west) & (lat >= south)
    inside &= (lon < east) if east < 180 else (lon <= 180)
    inside &= (lat < north) if north < 90 else (lat <= 90)
    return np.asarray(inside, np.bool_)


def parent(geohash: str) -> str:
    """The cell one letter shorter that holds this one.

    Raises:
        InvalidInput: a one-letter cell has none.
    """
    if len(check_geohash(geohash)) == 1:
        raise InvalidInput(f"{geohash!r} has no parent; it is one of the 32 largest cells")
    return geohash[:-1]


def children(geohash: str) -> list[str]:
    """The 32 cells one letter longer inside this one, sorted.

    Raises:
        InvalidInput: a 12-letter cell has none.
    """
    if len(check_geohash(geohash)) == PRECISION_MAX:
        raise InvalidInput(f"{geohash!r} has no children; {PRECISION_MAX} letters are the finest")
    return [geohash + letter for letter in GEOHASH_ALPHABET]


def neighbours(geohash: str) -> list[str]:
    """The cells that share an edge or a corner, sorted; the antimeridian is crossed, beyond a pole there is none.

    >>> neighbours("s")
    ['7', 'e', 'g', 'k', 'm', 't', 'u', 'v']
    """
    column, row, width, height = _place(geohash)
    columns, rows = round(360 / width), round(180 / height)
    found = {
        encode(
            -180 + ((column + dx) % columns + 0.5) * width,
            -90 + (row + dy + 0.5) * height,
            len(geohash),
        )
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
        if 0 <= row + dy < rows
    }
    return sorted(found - {geohash})


def _place(geohash: str) -> tuple[int, int, float, float]:
    """(column, row, width in degrees, height in degrees) of a cell among all of its precision."""
    code, total = code_of(geohash), 5 * len(geohash)
    column = row = 0
    for bit in range(total):
        value = code >> (total - 1 - bit) & 1
        if bit % 2 == 0:
            column = column << 1 | value
        else:
            row = row << 1 | value
    return column, row, 360 / (1 << (total + 1) // 2), 180 / (1 << total // 2)
