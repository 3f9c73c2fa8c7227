"""Between a CRS and longitude and latitude: one pinned operation per CRS, the same on every machine."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer
from pyproj.enums import TransformDirection
from pyproj.exceptions import CRSError
from pyproj.transformer import TransformerGroup

from geostore.errors import InvalidInput

Degrees = npt.NDArray[np.float64]
LONLAT = "EPSG:4326"


@lru_cache(maxsize=256)
def parse_crs(crs: str) -> CRS:
    """The CRS that "EPSG:..." or WKT names.

    Raises:
        InvalidInput: PROJ does not know it.
    """
    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise InvalidInput(f"{crs[:80]!r} is not a CRS: {error}; give an authority code or WKT2") from error


@lru_cache(maxsize=256)
def _operation(crs: str) -> Transformer:
    """The best operation to longitude and latitude that needs no datum grid file.

    Grid files are installed on some machines and not on others, and PROJ, left to choose, also changes operation
    from point to point; either would let a pixel belong to two cells or to none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "best transformation is not available": it needs a grid file
        found = TransformerGroup(parse_crs(crs), LONLAT, always_xy=True).transformers
    for operation in found:
        if "grids=" not in operation.definition:
            return operation
    raise InvalidInput(f"no way from {crs[:80]!r} to longitude and latitude; give the scene another CRS")


def to_lonlat(crs: str, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Degrees, Degrees]:
    """Degrees of points in CRS units: longitude in [-180, 180]; inf where the CRS has no such point."""
    lon, lat = _operation(crs).transform(np.asarray(x, np.float64), np.asarray(y, np.float64))
    lon, lat = np.asarray(lon, np.float64), np.asarray(lat, np.float64)
    far = np.isfinite(lon) & (np.abs(lon) > 180)
    if far.any():
        lon = np.where(far, (lon + 180) % 360 - 180, lon)
    return lon, lat


def from_lonlat(crs: str, lon: npt.ArrayLike, lat: npt.ArrayLike) -> tuple[Degrees, Degrees]:
    """Points in CRS units of degrees; inf where the CRS has no such point. The inverse of `to_lonlat`."""
    x, y = _operation(crs).transform(
        np.asarray(lon, np.float64), np.asarray(lat, np.float64), direction=TransformDirection.INVERSE
    )
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def between(source: str, target: str, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Degrees, Degrees]:
    """Points of the CRS `source` in units of the CRS `target`, by way of longitude and latitude."""
    if source == target:
        return np.asarray(x, np.float64), np.asarray(y, np.float64)
    return from_lonlat(target, *to_lonlat(source, x, y))
