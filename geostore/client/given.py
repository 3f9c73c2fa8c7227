"""What a user gives as an example, an area or a condition, as the fields of a request."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from geostore.client import steps
from geostore.client.hits import Hit, Hits
from geostore.client.steps import Steps
from geostore.client.times import Time, time_range
from geostore.collection import Collection, MaskRule
from geostore.errors import BandMismatch, InvalidInput, NotFound
from geostore.keys import RasterKey
from geostore.query.facts import RasterInfo
from geostore.query.messages import Array, Example, Key
from geostore.raster import Bands, Grid, Raster

if TYPE_CHECKING:
    from geostore.index.labels import AtLeast, Exactly, Some

Fields = dict[str, Any]
PIXELS_MAX = 2**26  # of one example, bands times pixels
_HOW = {"Some": "some", "AtLeast": "at-least", "Exactly": "exactly"}


class Filters(TypedDict, total=False):
    """Which rasters may be hits; what is left out asks nothing.

    Attributes:
        collection, group: by name.
        within: a geohash prefix or several, a box (west, south, east, north), a `Circle`, a ring of (lon, lat),
            GeoJSON, or anything with a GeoJSON interface such as a shapely geometry or a GeoDataFrame.
        time: as for `decode`.
        season: "winter", "spring", "summer", "autumn", or several, as they are on the raster's hemisphere.
        sensor: beginning of the platform's name, or several: "sentinel-2" means both spacecraft, and rasters without a
            name in a collection of that product.
        cloud: share of cloud at most that the scene's facts state.
        valid_fraction: share of the cell's pixels that may be used, at least.
        certificate: measured errors at most, such as {"mse": 1e-4, "ndvi_mae": 0.02}: "mse", of values "mae", "p99" and
            "max_error", of an index "ndvi_mae", "ndvi_p99" and "ndvi_max".
        labels: `Some(...)`, `AtLeast(...)` or `Exactly(...)`.
    """

    collection: str | None
    group: str | None
    within: Any
    time: Time
    season: str | Sequence[str]
    sensor: str | Sequence[str]
    cloud: float | None
    valid_fraction: float | None
    certificate: Mapping[str, float]
    labels: Some | AtLeast | Exactly | None


def wanted_of(filters: Filters) -> Fields:
    """The conditions as a request names them.

    Raises:
        InvalidInput: one that is unknown, or none.
    """
    strange = sorted(set(filters) - set(Filters.__annotations__))
    if strange:
        raise InvalidInput(f"no condition {strange}; there are {', '.join(Filters.__annotations__)}")
    start_us, end_us = time_range(filters.get("time"))
    area, labels = filters.get("within"), filters.get("labels")
    return {
        "collection": filters.get("collection"),
        "group": filters.get("group"),
        "within": None if area is None else area_of(area),
        "start_us": start_us,
        "end_us": end_us,
        "seasons": _several(filters.get("season")),
        "sensors": _several(filters.get("sensor")),
        "numbers": _numbers(filters),
        "labels": None if labels is None else _labels(labels),
    }


def _several(names: str | Sequence[str] | None) -> list[str]:
    found = [] if names is None else [names] if isinstance(names, str) else names
    if not isinstance(found, Iterable) or not all(isinstance(name, str) for name in found):
        raise InvalidInput(f"{names!r} where a name was wanted; give one, or a list of them")
    return list(found)


def _numbers(filters: Filters) -> dict[str, tuple[float | None, float | None]]:
    found: dict[str, tuple[float | None, float | None]] = {}
    if (cloud := filters.get("cloud")) is not None:
        found["cloud"] = (None, _share(cloud, "cloud"))
    if (least := filters.get("valid_fraction")) is not None:
        found["valid_fraction"] = (_share(least, "valid_fraction"), None)
    certificate = filters.get("certificate") or {}
    if not isinstance(certificate, Mapping):
        raise InvalidInput(f'certificate {certificate!r}; give errors at most by name, such as {{"mse": 1e-4}}')
    for name, most in certificate.items():
        if not _is_number(most) or not np.isfinite(most):
            raise InvalidInput(f"certificate {name} at most {most}; give a finite number")
        found[str(name)] = (None, float(most))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _share(value: float, what: str) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise InvalidInput(f"{what} {value!r}; give a share from 0 to 1")
    return float(value)


def _labels(condition: Any) -> Fields:
    how = _HOW.get(type(condition).__name__)
    if how is None:
        raise InvalidInput(f"labels {condition!r}; use Some(...), AtLeast(...) or Exactly(...) of geostore")
    return {"how": how, "names": list(condition.names)}


def area_of(area: Any) -> Fields:
    """An area as a request names it; whether it is a sound one, the answer tells.

    Raises:
        InvalidInput: it is nothing that names an area.
    """
    if isinstance(area, str):
        if area.lstrip().startswith("{") or area.endswith((".json", ".geojson")):
            raise InvalidInput(f"within = {area[:80]!r} is text; give what `json.load` makes of it")
        return {"geohashes": [area]}
    if type(area).__name__ == "Circle":
        return {"circle": [area.lon, area.lat, area.radius_km]}
    if hasattr(area, "to_crs"):
        if area.crs is None:
            raise InvalidInput("the area has no CRS; say which with its `set_crs`")
        area = area.to_crs(4326)
    area = getattr(area, "__geo_interface__", area)
    if isinstance(area, Mapping):
        return {"geojson": _plain(area)}
    items = list(area) if isinstance(area, Sequence) and not isinstance(area, bytes) else []
    if items and all(isinstance(item, str) for item in items):
        return {"geohashes": items}
    if len(items) == 4 and all(isinstance(v, int | float | np.number) for v in items):
        return {"box": [float(v) for v in items]}
    try:
        ring = [[float(lon), float(lat)] for lon, lat in items]
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"no area in {str(area)[:80]}: give a geohash, box, circle, ring or GeoJSON") from error
    if not np.isfinite(ring).all():
        raise InvalidInput(f"no area in {str(area)[:80]}: its points are not all finite")
    if len(ring) < 3:
        raise InvalidInput(f"no area in {str(area)[:80]}: a ring has three points at least")
    return {"geojson": {"type": "Polygon", "coordinates": [[*ring, *ring[:1]]]}}


def _plain(value: Any) -> Any:
    """Mappings, lists and numbers that msgpack carries."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def key_of(key: RasterKey) -> Key:
    """A key as a request names it."""
    return Key(**vars(key))


def key_given(given: Any, filters: Filters) -> Steps[tuple[Key, str | None] | None]:
    """The stored raster meant by a key, a hit, facts, or (geohash, time), and its chip if one is; None of others."""
    if isinstance(given, Hit):
        return key_of(given.key), given.cell
    if isinstance(given, RasterInfo):
        return key_of(given.key), None
    if isinstance(given, RasterKey):
        return key_of(given), None
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str):
        found: tuple[Key, str | None] = yield from _stored(given[0], given[1], filters)
        return found
    return None


def _stored(geohash: str, time: Time, filters: Filters) -> Steps[tuple[Key, str | None]]:
    """The one raster of a place and time, of the finest band group; the place may be a chip of it."""
    known: list[Collection] = yield from steps.collections()
    letters = {c.precision for c in known if filters.get("collection") in (None, c.name)}
    chip = len(geohash) not in letters and len(geohash) - 1 in letters
    place, cell = (geohash[:-1], geohash) if chip else (geohash, None)
    found: list[RasterInfo] = yield from steps.rasters(place, filters.get("collection"), filters.get("group"), time)
    if not found:
        raise NotFound(f"no raster of {geohash!r} at {time}; `geostore rasters {place}` lists what there is")
    places = sorted(
        {f"{i.key.collection} {i.key.geohash} {i.key.time:%Y-%m-%dT%H:%M:%S} {i.key.platform}" for i in found}
    )
    if len(places) > 1:
        raise InvalidInput(f"{geohash!r} at {time} means {len(places)} rasters: {'; '.join(places[:5])}; name one")
    return min(found, key=lambda i: (i.grid.xres, i.key.group)).to_key(), cell


def example_of(given: Any, arrays: list[Array], filters: Filters) -> Steps[Example]:
    """An example as a request names it; its pixels or numbers are added to `arrays`.

    Raises:
        InvalidInput, NotFound: it is nothing that can be looked for.
    """
    known: tuple[Key, str | None] | None = yield from key_given(given, filters)
    if known is not None:
        return Example(key=known[0], cell=known[1])
    if isinstance(given, str | Path):
        given = yield from _read_file(Path(given), filters)
    if hasattr(given, "data_vars"):
        given = yield from _of_dataset(given, filters)
    if isinstance(given, Raster):
        if given.pixels.size > PIXELS_MAX:
            raise InvalidInput(f"an example of {given.pixels.shape} values; cut it to at most {PIXELS_MAX} in all")
        arrays += [np.ascontiguousarray(given.pixels), given.valid.astype(np.uint8)]
        bands = [asdict(band) for band in given.bands]
        return Example(pixels=len(arrays) - 2, valid=len(arrays) - 1, bands=bands)
    if isinstance(given, Hits):
        return _vector(given.vector, arrays, str(given.space["name"]))
    return _vector(given, arrays)


def _vector(given: Any, arrays: list[Array], space: str = "") -> Example:
    try:
        vector = np.asarray(given)
    except ValueError:
        vector = np.zeros(0)
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "fiu":
        raise InvalidInput(
            f"{str(given)[:80]!r} cannot be looked for; give (geohash, time), a file, a raster, a Dataset of one date, "
            "a hit, or a descriptor; several of these in a list go into `like`"
        )
    with np.errstate(over="ignore"):  # what is too large is refused as not finite
        arrays.append(vector.astype(np.float32))
    return Example(vector=len(arrays) - 1, space=space)


def _read_file(path: Path, filters: Filters) -> Generator[Any, Any, Raster]:
    """All of a file's scene at one native resolution."""
    from geostore.scene import open_scene

    if not path.exists():
        raise InvalidInput(f"no file {str(path)!r}; for a stored raster (geohash, time), in a shell GEOHASH@TIME")
    known: list[Collection] = yield from steps.collections()
    name = filters.get("collection")
    fitting = [c for c in known if name in (None, c.name)]
    if len(fitting) != 1:
        raise InvalidInput(f"{path} may be of {len(fitting)} collections {[c.name for c in fitting]}; name one")
    first: BandMismatch | None = None
    for group, masks in _readings(fitting[0], filters):
        part = replace(fitting[0], groups={group: fitting[0].groups[group]}, masks=masks, indices=())
        try:  # when it was taken does not matter
            scene = open_scene(path, part, time=datetime(2000, 1, 1, tzinfo=UTC))
        except BandMismatch as error:
            first = first or error
            continue
        with closing(scene):
            return scene.read(group, scene.grids[group])
    assert first is not None
    raise first


def _readings(collection: Collection, filters: Filters) -> list[tuple[str, tuple[MaskRule, ...]]]:
    """Band groups, the finest first, each with its masks and without: a file may have no more than the bands."""
    wanted = filters.get("group")
    if wanted is not None and wanted not in collection.groups:
        raise BandMismatch(f"{collection.name} has no band group {wanted!r}; it has {', '.join(collection.groups)}")
    groups = sorted(collection.groups, key=lambda g: (min(b.gsd_m for b in collection.groups[g]), g))
    chosen = [g for g in groups if wanted in (None, g)]
    return [(g, masks) for g in chosen for masks in dict.fromkeys((collection.masks, ()))]


def _of_dataset(ds: Any, filters: Filters) -> Generator[Any, Any, Raster]:
    """One date of a Dataset as `decode` gives it: physical values, NaN where they may not be used."""
    if "time" in ds.dims:
        if ds.sizes["time"] != 1:
            raise InvalidInput(f"a Dataset of {ds.sizes['time']} dates; take one with .isel(time=0)")
        ds = ds.isel(time=0)
    names = [str(name) for name in ds.data_vars if name != "valid"]
    known: list[Collection] = yield from steps.collections()
    bands = _bands_named(names, known, ds.attrs, filters)
    physical = np.stack([np.asarray(ds[name].transpose("y", "x").values, np.float32) for name in names])
    valid = np.asarray(np.isfinite(physical).all(axis=0))
    stored = bands.to_stored(np.where(valid, physical, physical[:, valid][:, :1, None] if valid.any() else 0))
    grid = Grid("EPSG:4326", 0.0, 0.0, 1.0, 1.0, *valid.shape)  # where it lies does not matter
    return Raster(pixels=stored, valid=valid, bands=bands, grid=grid)


def _bands_named(names: list[str], known: Sequence[Collection], attrs: Mapping[str, Any], filters: Filters) -> Bands:
    """The bands of these names as their collection stores them."""
    collection = filters.get("collection") or attrs.get("collection")
    group = filters.get("group") or attrs.get("band_group")
    fitting = [
        bands.select(names)
        for c in known
        if collection in (None, c.name)
        for g, bands in c.groups.items()
        if group in (None, g) and names and set(names) <= set(bands.names)
    ]
    if not fitting or any(b != fitting[0] for b in fitting):
        raise BandMismatch(f"variables {names} are the bands of {len(fitting)} band groups; name collection and group")
    return fitting[0]
