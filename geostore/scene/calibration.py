"""From the numbers in a file to a collection's stored values, exactly once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from geostore.collection import Collection
from geostore.errors import BadScene, OutOfRange
from geostore.raster import Band, Mask, Pixels
from geostore.scene.geotiff import RasterFile

SHIFT_BASELINE = (4, 0)  # Sentinel-2 products carry an offset of -1000 from processing baseline 04.00 on
SATURATED = 65535  # Sentinel-2: the special value of saturated pixels
UNKNOWN_BASELINE = "99.99"
_OLD_OFFSET, _NEW_OFFSET = 0.0, -0.1


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How one band of one file becomes stored values.

    Attributes:
        scale, offset: physical value = number in the file * scale + offset.
        nodata: numbers in the file that mean "no measurement".
    """

    scale: float
    offset: float
    nodata: tuple[float, ...]

    def steps(self, band: Band) -> int | None:
        """Whole stored steps to add to the file's numbers, or None if that is not all there is to do."""
        if not math.isclose(self.scale, band.scale, rel_tol=1e-9):
            return None
        steps = (self.offset - band.offset) / band.scale
        return round(steps) if abs(steps - round(steps)) < 1e-6 else None


def has_data(numbers: Pixels, nodata: tuple[float, ...]) -> Mask:
    """(height, width) bool: True where `numbers` is none of `nodata` (which may hold NaN)."""
    data = np.ones(numbers.shape, np.bool_)
    for value in nodata:
        data &= ~np.isnan(numbers) if math.isnan(value) else numbers != value
    return data


def to_stored(numbers: Pixels, band: Band, calibration: Calibration, check: Mask, href: str) -> Pixels:
    """(height, width) numbers of a file as the band's stored values; where `check` is False, held in its dtype, NaN 0.

    Raises:
        OutOfRange: a value under `check` is NaN or outside the band's valid range.
    """
    stored = _exact(numbers, band, calibration)
    low, high = stored.min(), stored.max()  # NaN if there is one
    if not (low >= band.valid_min and high <= band.valid_max):
        _check_range(stored[check], band, href)
        stored = np.where(np.isfinite(stored), stored, 0)
    dtype = np.dtype(band.dtype)
    if dtype.kind != "f" and stored.dtype != dtype:
        stored = np.clip(stored, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return stored.astype(dtype, copy=False)


def _check_range(stored: Pixels, band: Band, href: str) -> None:
    bad = ~((stored >= band.valid_min) & (stored <= band.valid_max))  # NaN is bad too
    if bad.any():
        raise OutOfRange(
            f"{href}: band {band.name!r} holds {stored[bad][0]:g} (stored value) at {int(bad.sum())} pixels; wanted "
            f"{band.valid_min:g} to {band.valid_max:g}; declare nodata, valid_min or valid_max of this band"
        )


def _exact(numbers: Pixels, band: Band, calibration: Calibration) -> Pixels:
    """The stored values before rounding to the stored dtype, in a type that holds them all."""
    steps = calibration.steps(band)
    if steps is not None and numbers.dtype.kind in "iu":
        wide = np.dtype(np.int32 if numbers.dtype.itemsize <= 2 else np.int64)
        return numbers.astype(wide) + wide.type(steps) if steps else numbers
    if steps is not None and band.dtype == "float32":
        return numbers if steps == 0 else numbers.astype(np.float32) + np.float32(steps)
    physical = numbers.astype(np.float64) * calibration.scale + calibration.offset
    stored = (physical - band.offset) / band.scale
    return stored if band.dtype == "float32" else np.rint(stored)


def calibrate(
    file: RasterFile, index: int, band: Band, collection: Collection, *, stated: dict[str, Any], baseline: str
) -> Calibration:
    """The calibration of band `index` (0-based) of `file`.

    In this order: what a STAC item states of the asset (`stated`: scale, offset, nodata), the file's own band
    scale and offset, its SCALE and OFFSET tags, values = "physical" of the collection, the Sentinel-2 processing
    `baseline`, the collection's bands.

    Raises:
        BadScene: a Sentinel-2 scene of unknown baseline, or a float file for an integer band without a scale.
    """
    found = _stated(stated) or _own(file, index)
    if found is None and collection.files.values == "physical":
        found = 1.0, 0.0
    if found is None:
        _check_dtype(file, index, band)
        sentinel2 = collection.product.startswith("sentinel-2")
        found = band.scale, sentinel2_offset(baseline, file.href) if sentinel2 else band.offset
    return Calibration(scale=found[0], offset=found[1], nodata=_nodata(file, index, band, collection, stated))


def _stated(stated: dict[str, Any]) -> tuple[float, float] | None:
    if "scale" not in stated and "offset" not in stated:
        return None
    return float(stated.get("scale", 1.0)), float(stated.get("offset", 0.0))


def _own(file: RasterFile, index: int) -> tuple[float, float] | None:
    if (file.scales[index], file.offsets[index]) != (1.0, 0.0):
        return file.scales[index], file.offsets[index]
    if "SCALE" in file.tags:
        try:
            return float(file.tags["SCALE"]), float(file.tags.get("OFFSET", "0"))
        except ValueError:
            raise BadScene(
                f"{file.href}: tags SCALE {file.tags['SCALE']!r}, OFFSET {file.tags.get('OFFSET')!r} are not numbers; "
                "correct them with `gdal_edit.py -mo`"
            ) from None
    return None


def sentinel2_offset(baseline: str, href: str) -> float:
    """Reflectance offset of a Sentinel-2 product: -0.1 from baseline 04.00 on, 0 before.

    Raises:
        BadScene: the baseline is unknown ("" or 99.99), so that one answer in two would be wrong by 0.1.
    """
    if baseline in ("", UNKNOWN_BASELINE):
        raise BadScene(
            f"{href} names {'processing baseline N9999' if baseline else 'no processing baseline'}, so its offset is "
            'not known; write baseline = "02.09" (no offset) or "05.10" (-1000) under [files] in the collection'
        )
    major, minor = (int(part) for part in baseline.split("."))
    return _NEW_OFFSET if (major, minor) >= SHIFT_BASELINE else _OLD_OFFSET


def _check_dtype(file: RasterFile, index: int, band: Band) -> None:
    have, want = np.dtype(file.dtypes[index]), np.dtype(band.dtype)
    wide = have.kind in "iu" and want.kind in "iu" and have.itemsize >= want.itemsize
    if have != want and not wide and not (have.kind == "f" and want.kind == "f"):
        raise BadScene(
            f"{file.href}: band {band.name!r} is {have}, the collection stores {want}; declare that dtype, or "
            'values = "physical" under [files] if the file holds physical values'
        )


def _nodata(
    file: RasterFile, index: int, band: Band, collection: Collection, stated: dict[str, Any]
) -> tuple[float, ...]:
    values = {band.nodata}
    if collection.files.nodata == "file":
        values |= {file.nodata[index], stated.get("nodata")}
    if collection.product.startswith("sentinel-2"):
        values.add(SATURATED)
    return tuple(sorted({float(v) for v in values if v is not None}))
