"""Vectors that others made, read from GeoParquet in the columns that their publishers use.

| convention | vector | place | time |
|---|---|---|---|
| `alphaearth` | `A00` to `A63`; whole numbers unpacked as published, -128 masked | geometry, coordinates | `year` |
| `tessera` | `embedding` with `scale` or `scales`, 128 numbers | geometry, coordinates | `year` |
| `clay` | `embeddings` | `geometry` | `date` |
| `major-tom` | `embedding`, named by `unique_id` | `centre_lon`, `centre_lat` or `geometry` | `timestamp` |
| `earth-index` | `embedding`, named by `id` | `geometry` | as given |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely

from geostore.errors import InvalidInput, NotFound
from geostore.index.rows import Ints
from geostore.keys import time_us

BATCH = 65_536  # rows read together
_SURVEYED = 256  # rows that a survey reads
Floats = npt.NDArray[np.float32]
_ALPHAEARTH = tuple(f"A{i:02d}" for i in range(64))
_IDS = ("unique_id", "id", "chip_id", "product_id", "source_url")
_TIMES = ("timestamp", "datetime", "date", "year", "acquired")
_PLACES = (("centre_lon", "centre_lat"), ("lon", "lat"), ("longitude", "latitude"))


@dataclass(frozen=True)
class Convention:
    """Which columns of a file hold what.

    Attributes:
        name: whose columns these are.
        vector: columns of the vector: one that holds lists, or one for each component.
        scale: column that components are multiplied with, or "".
        time, id: columns, or "".
        place: columns of longitude and latitude; () where `geometry` tells.
        crs: of `geometry`, as PROJ reads it; "" for longitude and latitude.
    """

    name: str
    vector: tuple[str, ...]
    scale: str
    time: str
    id: str
    place: tuple[str, ...]
    crs: str

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        single = [c for c in (self.scale, self.time, self.id) if c]
        return list(dict.fromkeys([*self.vector, *single, *(self.place or ("geometry",))]))


@dataclass(frozen=True)
class Vectors:
    """Some rows of a file.

    Attributes:
        ids: of the rows; their number in the file where it names none.
        lon, lat: (N,) float64, degrees; of an outline its middle.
        times_us: (N,) int64, UTC microseconds; of a year its first instant.
        vectors: (N, D) float32 of length 1.
        left_out: rows without a place, or with a vector that is null, masked, not finite or zero.
    """

    ids: Sequence[str]
    lon: npt.NDArray[np.float64]
    lat: npt.NDArray[np.float64]
    times_us: Ints
    vectors: Floats
    left_out: int


@dataclass(frozen=True)
class Surveyed:
    """What a file of vectors holds.

    Attributes:
        path: of the file.
        convention: that its columns follow.
        rows: how many it has, those that cannot be used included.
        width: components of its first vectors; 0 where none of them can be used.
    """

    path: Path
    convention: Convention
    rows: int
    width: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        about = {"path": str(self.path), "convention": self.convention.name, "rows": self.rows, "width": self.width}
        return {**about, "time": self.convention.time or None, "id": self.convention.id or None}


def survey(path: Path, *, acquired: datetime | None = None) -> Surveyed:
    """What a file of vectors holds, of which the first rows are read. Raises as `read_vectors` does."""
    first = next(read_vectors(path, acquired=acquired, batch=_SURVEYED), None)
    width = 0 if first is None or not len(first.vectors) else first.vectors.shape[1]
    return Surveyed(path, convention_of(path), int(_opened(path).metadata.num_rows), int(width))


def convention_of(path: Path) -> Convention:
    """The convention that the columns of a Parquet file follow.

    Raises:
        NotFound: there is no such file. InvalidInput: it is no Parquet, or has no vectors or no places.
    """
    file = _opened(path)
    names = set(file.schema_arrow.names)
    crs = _crs(file.schema_arrow.metadata or {}, path)
    place = next((p for p in _PLACES if set(p) <= names), ())
    if not place and "geometry" not in names:
        raise InvalidInput(f"{path} has columns {sorted(names)}; wanted geometry, or lon and lat")
    time, identity = (next((c for c in known if c in names), "") for known in (_TIMES, _IDS))
    scale = next((c for c in ("scale", "scales") if c in names), "")
    vector: tuple[str, ...]
    if set(_ALPHAEARTH) <= names:
        name, vector, scale = "alphaearth", _ALPHAEARTH, ""
    elif "embeddings" in names:
        name, vector, scale = "clay", ("embeddings",), ""
    elif "embedding" in names:
        name, vector = "tessera" if scale else "major-tom" if "unique_id" in names else "earth-index", ("embedding",)
    else:
        raise InvalidInput(f"{path} has columns {sorted(names)}; wanted embedding, embeddings, or A00 to A63")
    return Convention(name, vector, scale, time, identity, place, crs)


def read_vectors(path: Path, *, acquired: datetime | None = None, batch: int = BATCH) -> Iterator[Vectors]:
    """The rows of a GeoParquet file, some at a time.

    Args:
        path: of the file.
        acquired: the time of all rows, where the file tells none.
        batch: rows read together.

    Raises:
        NotFound: there is no such file. InvalidInput: it is no Parquet, lacks vectors, places or times, or its vectors
            differ in width.
    """
    found, first = convention_of(path), 0
    if not found.time and acquired is None:
        raise InvalidInput(f"{path} tells no time (wanted one of {', '.join(_TIMES)}); give `acquired`")
    for part in _opened(path).iter_batches(batch_size=batch, columns=found.columns):
        yield _of_batch(part, found, acquired, first, path)
        first += part.num_rows


def _opened(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise NotFound(f"no file {str(path)!r}; give a GeoParquet file of vectors") from error
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"{path} is no Parquet file ({error}); give GeoParquet") from error


def _crs(metadata: dict[bytes, bytes], path: Path) -> str:
    """What GeoParquet's metadata say of `geometry`; nothing said means longitude and latitude."""
    try:
        geo = json.loads(metadata.get(b"geo", b"{}"))
        stated = geo.get("columns", {}).get("geometry", {}).get("crs")
    except (ValueError, AttributeError) as error:
        raise InvalidInput(f"{path} has GeoParquet metadata that do not parse ({error})") from error
    authority = (stated or {}).get("id", {})
    geographic = not stated or str(authority.get("code")) in ("CRS84", "4326")
    return "" if geographic else json.dumps(stated)


def _of_batch(part: Any, found: Convention, acquired: datetime | None, first: int, path: Path) -> Vectors:
    vectors, known = _vectors(part, found, path)
    lon, lat = _places(part, found)
    size = np.linalg.norm(vectors.astype(np.float64), axis=1)
    kept = known & np.isfinite(vectors).all(axis=1) & (size > 0) & (np.abs(lon) <= 180) & (np.abs(lat) <= 90)
    if found.time:
        moments = part.column(found.time)
        times, timed = _times(moments, path)
    else:
        assert acquired is not None
        times, timed = np.full(len(lon), time_us(acquired), np.int64), np.ones(len(lon), np.bool_)
    kept &= timed
    rows = np.flatnonzero(kept)
    names = part.column(found.id).to_pylist() if found.id else [first + i for i in range(len(lon))]
    unit = vectors[rows] / size[rows, None]
    ids = [str(names[i]) for i in rows]
    return Vectors(ids, lon[rows], lat[rows], times[rows], unit.astype(np.float32), len(lon) - len(rows))


def _vectors(part: Any, found: Convention, path: Path) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(N, D) float32, and which rows have one; NaN where a component is missing."""
    if len(found.vector) > 1:
        columns = [part.column(name) for name in found.vector]
        whole = all(pa.types.is_integer(c.type) for c in columns)
        values = np.stack([c.to_numpy(zero_copy_only=False).astype(np.float32) for c in columns], axis=1)
        known = ~np.isnan(values).any(axis=1)
        return (_alphaearth(values), known & (values > -128).all(axis=1)) if whole else (values, known)
    column = part.column(found.vector[0])
    known = ~column.is_null().to_numpy(zero_copy_only=False)
    values = _lists(column, known, path)
    if found.scale:
        values *= _scales(part.column(found.scale), known, values.shape[1], path)
    return values, known


def _alphaearth(values: Floats) -> Floats:
    """Whole numbers as published: v / 127.5, squared, with its sign."""
    return np.asarray(np.sign(values) * (values / np.float32(127.5)) ** 2, np.float32)


def _scales(column: Any, known: npt.NDArray[np.bool_], width: int, path: Path) -> Floats:
    """One number a row, or one a component; (N, 1) or (N, D)."""
    if not pa.types.is_list(column.type) and not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)[:, None]
    scales = _lists(column, known, path)
    if scales.shape[1] not in (1, width):
        raise InvalidInput(f"{path} has {scales.shape[1]} scales for vectors of {width}; wanted one, or one each")
    return scales


def _lists(column: Any, known: npt.NDArray[np.bool_], path: Path) -> Floats:
    """(N, D) float32 of a column of lists; NaN in rows without one."""
    lists = column.drop_null()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    if len(set(pc.list_value_length(lists).to_pylist())) > 1:
        raise InvalidInput(f"{path} has vectors of different widths; a space has one width")
    out = np.full((len(column), len(flat) // max(len(lists), 1)), np.nan, np.float32)
    out[known] = flat.reshape(len(lists), -1)
    return out


def _places(part: Any, found: Convention) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(N,) longitudes and latitudes; NaN where unknown."""
    if found.place:
        lon, lat = (np.asarray(part.column(c).to_numpy(zero_copy_only=False), np.float64) for c in found.place)
        return lon, lat
    middle = shapely.centroid(shapely.from_wkb(part.column("geometry").to_numpy(zero_copy_only=False)))
    x, y = shapely.get_x(middle), shapely.get_y(middle)
    if not found.crs:
        return x, y
    from pyproj import Transformer

    lon, lat = Transformer.from_crs(found.crs, "OGC:CRS84", always_xy=True).transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)


def _times(column: Any, path: Path) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """(N,) UTC microseconds, and which rows have a time: years, instants, days, or ISO 8601."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
        known = np.isfinite(values)
        if not ((values[known] >= 1900) & (values[known] < 2200)).all():
            raise InvalidInput(f"{path} has times such as {values[known][:1]}; numbers are years, 1900 to 2199")
        years = np.where(known, values, 1970).astype(np.int64)
        return (years - 1970).astype("datetime64[Y]").astype("datetime64[us]").astype(np.int64), known
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        known = ~column.is_null().to_numpy(zero_copy_only=False)
        cast = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None)))
        return cast.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64), known
    moments = [_moment(text, path) for text in column.to_pylist()]
    return np.array([m or 0 for m in moments], np.int64), np.array([m is not None for m in moments])


def _moment(text: Any, path: Path) -> int | None:
    if text is None or text == "":
        return None
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise InvalidInput(f"{path} has a time {text!r}; wanted ISO 8601, as 2020-06-01T10:00:00Z") from error
    return time_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
