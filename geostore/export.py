"""export: decode a place, join its cells, write one Cloud-Optimised GeoTIFF an acquisition."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geostore.client import Client, RasterInfo, Time, time_range
from geostore.client.times import limits
from geostore.errors import BandMismatch, InvalidInput, NotFound
from geostore.keys import from_time_us
from geostore.partition.cover import cover_prefixes, parse_area
from geostore.partition.geohash import bounds
from geostore.partition.grid import centres_lonlat
from geostore.partition.join import join
from geostore.query.budget import Within
from geostore.query.messages import Tier
from geostore.raster import Grid, Mask, Raster

Area = Mapping[str, Any]  # GeoJSON geometry, Feature or FeatureCollection, degrees
Pick = Literal["all", "first", "last", "clearest"]
PREFIXES_MAX = 32  # geohash prefixes asked for one area


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """The rasters of one acquisition over the cells asked for: one CRS, resolution and set of bands.

    Attributes:
        time_us: UTC microseconds.
        platform: the spacecraft.
        infos: one raster a cell.
    """

    time_us: int
    platform: str
    infos: tuple[RasterInfo, ...]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One file that was written.

    Attributes:
        path: where.
        time_us: of the acquisition.
        width, height: pixels; usable: those that are not nodata; bands: names in file order; cells: how many were
            joined.
        tiers, layers: what the cells were decoded from, each once: "embedding", and "klt+av1" or "gain+grid".
        exact: True if every cell decoded bit for bit; mse (on n1, weighed by pixels), max_error, mae (weighed by
            pixels) and p99_max, the largest of a cell (physical units), are of the certificates, over all bands of the
            band group; mae and p99_max are None where a cell was not measured so.
    """

    path: str
    time_us: int
    platform: str
    width: int
    height: int
    usable: int
    bands: tuple[str, ...]
    cells: int
    tiers: tuple[str, ...]
    layers: tuple[str, ...]
    exact: bool
    mse: float
    max_error: float
    mae: float | None = None
    p99_max: float | None = None


def choose(
    client: Client,
    place: str | Area,
    *,
    collection: str | None = None,
    time: Time = None,
    bands: Sequence[str] | None = None,
    group: str | None = None,
    pick: Pick = "all",
) -> list[Acquisition]:
    """The acquisitions of a geohash (cell or prefix) or a GeoJSON area, oldest first.

    Raises:
        NotFound: nothing is stored there in that time.
        InvalidInput: several collections are meant. BandMismatch: no band group has all `bands`.
    """
    infos = _infos(client, place, collection, group, time)
    if not infos:
        raise NotFound(
            f"no raster {_where(client, place)}{limits(group, time)}; `geostore rasters` lists what there is"
        )
    names = sorted({i.key.collection for i in infos})
    if len(names) > 1:
        raise InvalidInput(f"several collections lie there: {', '.join(names)}; name one with --collection")
    infos = _one_group(infos, bands)
    grouped: dict[tuple[int, str], list[RasterInfo]] = defaultdict(list)
    for info in infos:
        grouped[info.key.time_us, info.key.platform].append(info)
    found = [Acquisition(time_us=t, platform=p, infos=tuple(grouped[t, p])) for t, p in sorted(grouped)]
    return _picked(found, pick)


def _where(client: Client, place: str | Area) -> str:
    """The place in words; of an area its bounds beside those of what is stored: the two axes are often mixed up."""
    if isinstance(place, str):
        return f"of {place!r}"
    import shapely

    cells = [geohash for c in client.collections() for geohash, _ in client.cells(c.name)]
    stored = shapely.unary_union([shapely.box(*bounds(geohash)) for geohash in cells])
    given, there = (", ".join(f"{v:.4g}" for v in shape.bounds) for shape in (parse_area(place), stored))
    return f"in that area (west, south, east, north: {given}; stored: {there or 'nothing'})"


def _infos(
    client: Client, place: str | Area, collection: str | None, group: str | None, time: Time
) -> list[RasterInfo]:
    time_range(time)  # a time that makes no sense is refused before anything is asked
    if isinstance(place, str):
        return client.rasters(place, collection=collection, group=group, time=time)
    if parse_area(place).is_empty:
        raise InvalidInput("the area holds nothing; give a GeoJSON polygon of [longitude, latitude] in degrees")
    known = [c for c in client.collections() if collection in (None, c.name)]
    if collection is not None and not known:
        raise NotFound(f"no collection {collection!r}; `geostore collections` lists what there is")
    found: dict[Any, RasterInfo] = {}
    for each in known:
        stored = {geohash for geohash, _ in client.cells(each.name)}
        for prefix in cover_prefixes(place, each.precision, PREFIXES_MAX):
            if any(geohash.startswith(prefix) for geohash in stored):
                infos = client.rasters(prefix, collection=each.name, group=group, time=time)
                found.update({i.key: i for i in infos})
    return [found[key] for key in sorted(found)]


def _one_group(infos: list[RasterInfo], bands: Sequence[str] | None) -> list[RasterInfo]:
    """The rasters of the finest band group that has all `bands`."""
    groups = {i.key.group: i for i in infos}
    fitting = {
        name: info.bands.items[0].gsd_m
        for name, info in groups.items()
        if {n for b in info.bands for n in (b.name, b.source)}.issuperset(bands or ())
    }
    unknown = set(bands or ()) - {n for i in groups.values() for b in i.bands for n in (b.name, b.source)}
    if unknown:
        known = "; ".join(f"{name}: {', '.join(i.bands.names)}" for name, i in sorted(groups.items()))
        raise BandMismatch(f"no band {', '.join(sorted(unknown))}; there are {known}")
    if not fitting:
        listed = "; ".join(f"{name}: {', '.join(i.bands.names)}" for name, i in sorted(groups.items()))
        raise BandMismatch(f"no band group has all of {list(bands or ())}; there are {listed}; decode them one by one")
    finest = min(fitting, key=lambda name: (fitting[name], name))
    return [i for i in infos if i.key.group == finest]


def _picked(found: list[Acquisition], pick: Pick) -> list[Acquisition]:
    if pick == "first":
        return found[:1]
    if pick == "last":
        return found[-1:]
    if pick == "clearest":
        return [max(found, key=lambda a: (sum(i.certificate.pixels for i in a.infos), -a.time_us))]
    return found


def export(
    client: Client,
    chosen: Sequence[Acquisition],
    target: Path,
    *,
    bands: Sequence[str] | None = None,
    tier: Tier = "best",
    within: Within | None = None,
    area: Area | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> list[Exported]:
    """Decode each acquisition, join its cells, crop to `area` if given, and write it.

    One acquisition is written to `target` itself; of several each gets its time in its name.
    """
    paths = name_files(target, chosen)
    made = []
    for i, (acquisition, path) in enumerate(zip(chosen, paths, strict=True)):
        made.append(_export_one(client, acquisition, path, bands, tier, within, area))
        if progress is not None:
            progress(path.name, (i + 1) / len(paths))
    return made


def name_files(target: Path, chosen: Sequence[Acquisition]) -> list[Path]:
    """`target` for one acquisition; `stem-20200614T090531.tif`, and the platform where times repeat, for several."""
    if len(chosen) == 1:
        return [target]
    times = [a.time_us for a in chosen]
    names = []
    for a in chosen:
        twin = f"-{a.platform}" if times.count(a.time_us) > 1 else ""
        names.append(f"{target.stem}-{from_time_us(a.time_us):%Y%m%dT%H%M%S}{twin}{target.suffix or '.tif'}")
    return [target.with_name(name) for name in names]


def _export_one(
    client: Client,
    acquisition: Acquisition,
    path: Path,
    bands: Sequence[str] | None,
    tier: Tier,
    within: Within | None,
    area: Area | None,
) -> Exported:
    from geostore.scene.writer import write_cog

    decoded = client.decode_rasters(acquisition.infos, bands=bands, tier=tier, within=within)
    infos = [info for info, _ in decoded]
    usable = [int(raster.valid.sum()) for _, raster in decoded]
    raster = join([raster for _, raster in decoded])
    if area is not None:
        raster = crop(raster, area)
    tags = _tags(acquisition, infos, usable)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cog(path, raster, tags)
    return Exported(
        path=str(path),
        time_us=acquisition.time_us,
        platform=acquisition.platform,
        width=raster.grid.width,
        height=raster.grid.height,
        usable=int(raster.valid.sum()),
        bands=raster.bands.names,
        cells=len(infos),
        tiers=_each_once(i.tier for i in infos),
        layers=_each_once(i.layers for i in infos),
        exact=all(i.exact for i in infos),
        mse=_mse(infos, usable),
        max_error=max(i.certificate.max_error for i in infos),
        mae=_mae(infos, usable),
        p99_max=_p99_max(infos),
    )


def _each_once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _tags(acquisition: Acquisition, infos: Sequence[RasterInfo], usable: Sequence[int]) -> dict[str, str]:
    """What the file says of itself: when, from what, and how far it may be from the original.

    `usable` is how many pixels of each cell are.
    """
    return {
        "ACQUISITION_DATETIME": from_time_us(acquisition.time_us).isoformat(),
        "PLATFORM": acquisition.platform,
        "GEOSTORE_COLLECTION": infos[0].key.collection,
        "GEOSTORE_CELLS": " ".join(i.key.geohash for i in infos),
        "GEOSTORE_TIER": " ".join(_each_once(i.tier for i in infos)),
        "GEOSTORE_LAYERS": " ".join(_each_once(i.layers for i in infos)),
        "GEOSTORE_CODEC": " ".join(_each_once(i.codec for i in infos)),
        "GEOSTORE_EXACT": "yes" if all(i.exact for i in infos) else "no",
        "GEOSTORE_MSE_N1": f"{_mse(infos, usable):.6g}",
        "GEOSTORE_MAX_ERROR": f"{max(i.certificate.max_error for i in infos):.6g}",
        **_value_tags(infos, usable),
        **_index_tags(infos, usable),
    }


def _value_tags(infos: Sequence[RasterInfo], usable: Sequence[int]) -> dict[str, str]:
    """Mean and 99th percentile of the errors of values, if every cell was measured so."""
    found = {"GEOSTORE_MAE": _mae(infos, usable), "GEOSTORE_P99_MAX": _p99_max(infos)}
    return {name: f"{value:.6g}" for name, value in found.items() if value is not None}


def _index_tags(infos: Sequence[RasterInfo], usable: Sequence[int]) -> dict[str, str]:
    """Errors of the spectral indices that all cells measured: the mean over their pixels, the largest of the others.

    Cells that were never measured, because they are exact, count too.
    """
    measured = [i.certificate for i in infos if i.certificate.pixels]
    pixels = sum(i.certificate.pixels or n for i, n in zip(infos, usable, strict=True))
    tags = {}
    for name in sorted(set.intersection(*(set(c.indices) for c in measured))) if measured else ():
        tags[f"GEOSTORE_{name}_MAE"] = f"{sum(c.indices[name].mae * c.pixels for c in measured) / pixels:.6g}"
        tags[f"GEOSTORE_{name}_P99_MAX"] = f"{max(c.indices[name].p99 for c in measured):.6g}"
        tags[f"GEOSTORE_{name}_MAX"] = f"{max(c.indices[name].max for c in measured):.6g}"
    return tags


def _mse(infos: Sequence[RasterInfo], usable: Sequence[int]) -> float:
    """Over all usable pixels, those of exact cells too; 0 where everything is exact."""
    return sum(i.certificate.mse * n for i, n in zip(infos, usable, strict=True)) / max(sum(usable), 1)


def _mae(infos: Sequence[RasterInfo], usable: Sequence[int]) -> float | None:
    """Over all usable pixels, those of exact cells too; None if a cell was not measured so."""
    errors = [0.0 if i.exact else i.certificate.mae for i in infos]
    weighed = [error * n for error, n in zip(errors, usable, strict=True) if error is not None]
    return sum(weighed) / max(sum(usable), 1) if len(weighed) == len(infos) else None


def _p99_max(infos: Sequence[RasterInfo]) -> float | None:
    """The largest of a cell; None if a cell was not measured so."""
    known = [error for i in infos if (error := 0.0 if i.exact else i.certificate.p99) is not None]
    return max(known) if len(known) == len(infos) else None


def crop(raster: Raster, area: Area) -> Raster:
    """The part of `raster` in the area: its box, and pixels whose centre lies outside the area made invalid and 0.

    Raises:
        NotFound: no pixel centre lies in the area.
    """
    inside = pixels_inside(raster.grid, area)
    rows, cols = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not rows.size:
        raise NotFound("no pixel centre of what is stored lies in that area; give a larger polygon")
    window = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    inside = inside[window]
    grid = raster.grid.window(int(rows[0]), int(cols[0]), *inside.shape)
    pixels = np.where(inside, raster.pixels[(slice(None), *window)], np.zeros((), raster.pixels.dtype))
    return replace(raster, pixels=pixels, valid=raster.valid[window] & inside, grid=grid)


def pixels_inside(grid: Grid, area: Area) -> Mask:
    """(height, width) bool, True where the pixel's centre lies in the area; never where it has no place on Earth."""
    import shapely

    return np.asarray(shapely.contains_xy(parse_area(area), *centres_lonlat(grid)), np.bool_)
