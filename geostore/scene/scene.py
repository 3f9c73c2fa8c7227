"""One acquisition as it arrived: its time, place and bands, and its pixels on any grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from geostore.collection import Collection, MaskRule
from geostore.errors import BadScene, BandMismatch
from geostore.keys import from_time_us, time_us
from geostore.raster import Bands, Grid, Mask, Pixels, Raster
from geostore.scene.bands import Matched, Offered, Plane, closest, match, pixel_m, spellings
from geostore.scene.calibration import UNKNOWN_BASELINE, Calibration, calibrate, has_data, to_stored
from geostore.scene.find import SceneSource, find_scenes, scene_name
from geostore.scene.geotiff import RasterFile, Reader, environment, path_of
from geostore.scene.masks import masked_by, nearest
from geostore.scene.names import Product, product_of
from geostore.scene.presets import preset_names
from geostore.scene.resample import resample
from geostore.scene.stac import ItemFacts, percent, read_item
from geostore.scene.stack import any_band_holds_data, holds_data, offered, times_of
from geostore.scene.times import time_of, told_time

CLOUD_TAGS = ("EO:CLOUD_COVER", "CLOUD_COVERAGE_ASSESSMENT", "CLOUD_COVER")  # of files: percent of the scene


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One acquisition; pixels are read on demand, so it is small however large its files are.

    Attributes:
        id: its name within the collection: the file name without bands, and the time if the name lacks it.
        time_us: start of sensing, UTC microseconds since 1970.
        told_us: what its metadata say of that, whatever was given; None where they say nothing, or several things.
        platform: "sentinel-2a", "landsat-8" ... or "unknown".
        product: the collection's product family.
        baseline: processing baseline or collection number, "" where unknown.
        revision: when it was processed, seconds since 1970, 0 where unknown; a greater one is newer.
        source: the STAC item, the file, or the folder of the files it came from.
        footprint: closed ring of [lon, lat] degrees around its pixels.
        facts: file names and sizes, what was found about the processing, and `eo:cloud_cover` where it is told.
        grids: native grid of each band group.
    """

    id: str
    time_us: int
    told_us: int | None
    platform: str
    product: str
    baseline: str
    revision: int
    source: str
    footprint: list[list[float]]
    facts: dict[str, str]
    grids: dict[str, Grid]
    collection: Collection = field(repr=False)
    planes: Matched = field(repr=False)
    calibrations: dict[str, Calibration] = field(repr=False)
    _reader: Reader = field(repr=False, compare=False)

    def read(self, group: str, grid: Grid) -> Raster:
        """The bands of `group` on `grid`, as the collection stores them.

        Where `grid` agrees with the native one pixels are copied, else resampled (see `resample`). Pixels outside
        the scene or without a measurement are not valid and 0; masked ones are not valid and keep their value.

        Raises:
            BadScene: a file is damaged.
            OutOfRange: a usable pixel is NaN or outside its band's valid range.
            BandMismatch: there is no such group.
        """
        native, bands = self._native(group)
        offset = native.offset_of(grid)
        with environment():
            if offset is None:
                pixels, valid = resample(lambda *window: self._window(group, *window), native, bands, grid)
            else:
                pixels, valid = self._copy(group, *offset, *grid.shape)
        return Raster(pixels=pixels, valid=valid, bands=bands, grid=grid)

    def close(self) -> None:
        """Close the files; reading opens them again."""
        self._reader.close()

    def _native(self, group: str) -> tuple[Grid, Bands]:
        if group not in self.grids:
            raise BandMismatch(f"scene {self.id} has no band group {group!r}; it has {list(self.grids)}")
        return self.grids[group], self.collection.groups[group]

    def _copy(self, group: str, row: int, col: int, height: int, width: int) -> tuple[Pixels, Mask]:
        """A native window that may reach outside the scene."""
        native, bands = self._native(group)
        pixels, valid = np.zeros((len(bands), height, width), bands.dtype), np.zeros((height, width), np.bool_)
        top, left = max(0, row), max(0, col)
        bottom, right = min(native.height, row + height), min(native.width, col + width)
        if bottom > top and right > left:
            where = np.s_[top - row : bottom - row, left - col : right - col]
            pixels[:, *where], valid[where] = self._window(group, top, left, bottom - top, right - left)
        return pixels, valid

    def _window(self, group: str, row: int, col: int, height: int, width: int) -> tuple[Pixels, Mask]:
        """A native window inside the scene."""
        native, bands = self._native(group)
        planes, beside = [self.planes.bands[b.name] for b in bands], self._beside(group)
        read = self._stack([*planes, *beside.values()], row, col, height, width)
        numbers, classes = read[: len(planes)], dict(zip(beside, read[len(planes) :], strict=True))
        data = self._data(group, numbers, (row, col, height, width))
        usable = data.copy()
        for rule in self.collection.masks:
            if rule.source in classes:
                usable &= ~masked_by(rule, classes[rule.source])
            else:
                usable &= ~self._masked(rule, group, native.window(row, col, height, width))
        pixels = np.empty((len(bands), height, width), bands.dtype)
        for i, band in enumerate(bands):
            href = self.planes.bands[band.name].file.href
            pixels[i] = to_stored(numbers[i], band, self.calibrations[band.name], usable, href)
        pixels[:, ~data] = 0
        return pixels, usable

    def _stack(self, planes: list[Plane], *window: int) -> list[Pixels]:
        """The file's numbers of each plane, one read a file."""
        files: dict[str, list[int]] = {}
        for plane in planes:
            files.setdefault(plane.file.href, []).append(plane.index + 1)
        read = {href: dict(zip(at, self._reader.read(href, at, *window), strict=True)) for href, at in files.items()}
        return [read[p.file.href][p.index + 1] for p in planes]

    def _beside(self, group: str) -> dict[str, Plane]:
        """The mask planes, by source, that lie in a file with bands of the group and are read along with them."""
        first = self.planes.bands[self.collection.groups[group].names[0]].file
        found = {}
        for rule in self.collection.masks:
            plane = closest(self.planes.masks[rule.source], pixel_m(self.grids[group]), rule.source)
            if plane.file.href == first.href and len(set(first.dtypes)) == 1:
                found[rule.source] = plane
        return found

    def _numbers(self, plane: Plane, row: int, col: int, height: int, width: int) -> Pixels:
        pixels: Pixels = self._reader.read(plane.file.href, [plane.index + 1], row, col, height, width)[0]
        return pixels

    def _data(self, group: str, numbers: list[Pixels], window: tuple[int, int, int, int]) -> Mask:
        """(height, width) bool: measured in every band."""
        data = np.ones(window[2:], np.bool_)
        masked = set()
        for band, values in zip(self.collection.groups[group], numbers, strict=True):
            data &= has_data(values, self.calibrations[band.name].nodata)
            file = self.planes.bands[band.name].file
            if file.masked and self.collection.files.nodata == "file":
                masked.add(file.href)
        for href in sorted(masked):
            data &= self._reader.mask(href, *window)
        return data

    def _masked(self, rule: MaskRule, group: str, window: Grid) -> Mask:
        plane = closest(self.planes.masks[rule.source], pixel_m(self.grids[group]), rule.source)
        rows, cols, row_index, col_index = nearest(window, plane.file.grid, plane.file.href)
        shape = rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start
        classes = self._numbers(plane, *shape)
        masked: Mask = masked_by(rule, classes)[np.ix_(row_index, col_index)]
        return masked


def open_scene(
    source: str | Path | SceneSource | Sequence[str | Path], collection: Collection, *, time: datetime | None = None
) -> Scene:
    """The scene in `source`: a file, the files of its bands, a folder, a STAC item, or what `find_scenes` gave.

    Args:
        source: where it is.
        collection: what bands, masks and values to expect.
        time: its acquisition time, instead of what its metadata say; a naive one is UTC.

    Raises:
        BadScene: it cannot be taken in: see the message.
        BandMismatch: bands are missing, found twice, or lie on different grids.
    """
    found = source if isinstance(source, SceneSource) else _single(source, collection)
    reader = Reader()
    try:
        with environment():
            return _open(found, collection, time, reader)
    except BaseException:
        reader.close()
        raise


def _open(found: SceneSource, collection: Collection, time: datetime | None, reader: Reader) -> Scene:
    facts = read_item(found.item) if found.item else None
    if facts:
        files = [Offered(reader.inspect(f.href), f.bands) for f in facts.files(spellings(collection))]
    elif found.time:
        files = offered(found.files, collection, found.time)
    else:
        files = [Offered(reader.inspect(href)) for href in found.files]
        for offer in files:
            times_of(offer.file, collection)  # raises for a stack whose dates are not told
    scene = _assemble(found, facts, match(files, collection), collection, time, reader)
    _check_data(scene, found)
    return scene


def _single(source: str | Path | Sequence[str | Path], collection: Collection) -> SceneSource:
    """The one scene that `source` names."""
    sources = [source] if isinstance(source, str | Path) else list(source)
    found = list(find_scenes([str(s) for s in sources], collection))
    if len(found) > 1:
        raise BadScene(
            f"{[str(s) for s in sources]} hold {len(found)} scenes ({found[0].name}, {found[1].name} ...); "
            "open them one by one as find_scenes gives them"
        )
    return found[0]


def _assemble(
    found: SceneSource,
    facts: ItemFacts | None,
    planes: Matched,
    collection: Collection,
    time: datetime | None,
    reader: Reader,
) -> Scene:
    files = _files(planes)
    product = _product(found, files)
    _check_family(product, facts, collection, found)
    at = time_us(time_of(found, facts, files, product, collection, given=time))
    baseline = _baseline(facts, files, product, collection)
    bands = {b.name: b for group in collection.groups.values() for b in group}
    calibrations = {
        name: calibrate(p.file, p.index, bands[name], collection, stated=p.stated, baseline=baseline)
        for name, p in planes.bands.items()
    }
    grids = {group: _grid(items, planes) for group, items in collection.groups.items()}
    return Scene(
        id=_id(found.name if found.files else scene_name([f.href for f in files], collection), at),
        time_us=at,
        told_us=at if time is None else _told_us(found, facts, files, product, collection),
        platform=(facts and facts.platform) or product.platform or "unknown",
        product=collection.product,
        baseline=baseline,
        revision=product.made_s,
        source=found.item or _place(files),
        footprint=[
            list(point) for point in _footprint(max(grids.values(), key=lambda g: g.height * g.yres * g.width * g.xres))
        ],
        facts={**_facts(files, product, calibrations), **_cloud(files, facts)},
        grids=grids,
        collection=collection,
        planes=planes,
        calibrations=calibrations,
        _reader=reader,
    )


def _told_us(
    found: SceneSource, facts: ItemFacts | None, files: list[RasterFile], product: Product, collection: Collection
) -> int | None:
    try:
        told = told_time(found, facts, files, product, collection)
    except BadScene:  # several times, of which the one that was given decides
        return None
    return time_us(told) if told else None


def _files(planes: Matched) -> list[RasterFile]:
    """The files in use, by name."""
    used = [*planes.bands.values(), *(p for several in planes.masks.values() for p in several)]
    return sorted({p.file.href: p.file for p in used}.values(), key=lambda f: (f.name, f.href))


def _product(found: SceneSource, files: list[RasterFile]) -> Product:
    """What the names say: of the files and the folders they lie in, else of the STAC item."""
    for text in (*(f.href for f in files), found.item):
        product = product_of(text)
        if product.name and product.family:
            return product
    return product_of(files[0].href)


def _check_family(product: Product, facts: ItemFacts | None, collection: Collection, found: SceneSource) -> None:
    """Refuse a product of another level or sensor, whose bands have the same names."""
    family = product.family
    if not family and facts and facts.platform.startswith("landsat-"):
        family = "landsat-c2-l2" if facts.platform in ("landsat-8", "landsat-9") else "landsat-c2-l2-tm"
    for kin in ("sentinel-2-", "landsat-c2-l2"):
        if collection.product.startswith(kin) and family.startswith(kin.split("-")[0]) and family != collection.product:
            step = f"use preset {family!r}" if family in preset_names() else "leave it out, or declare its bands"
            raise BadScene(f"{found} is {family}, collection {collection.name!r} is {collection.product}; {step}")


def _baseline(facts: ItemFacts | None, files: list[RasterFile], product: Product, collection: Collection) -> str:
    """The first baseline known: of STAC, of a tag, of the product name, of the collection."""
    tags = [f.tags.get("PROCESSING_BASELINE", "") for f in files]
    seen = [b for b in ((facts.baseline if facts else ""), *tags, product.baseline) if b]
    known = [b for b in seen if b != UNKNOWN_BASELINE]
    return known[0] if known else collection.files.baseline or (seen[0] if seen else "")


def _grid(bands: Bands, planes: Matched) -> Grid:
    """The grid all bands of a group share."""
    first = planes.bands[bands.names[0]]
    for name in bands.names:
        other = planes.bands[name].file
        if first.file.grid.offset_of(other.grid) != (0, 0) or other.grid.shape != first.file.grid.shape:
            raise BandMismatch(
                f"{other.href}: band {name!r} lies on {other.grid}, {bands.names[0]!r} on {first.file.grid}; "
                "bands of one group share a grid: warp one, or declare the band in another group"
            )
    return first.file.grid


def _id(name: str, at: int) -> str:
    """The name, with the time where it does not hold the day already."""
    moment = from_time_us(at)
    digits = "".join(c for c in name if c.isdigit())
    known = moment.strftime("%Y%m%d") in digits or moment.strftime("%Y%j") in digits
    return name if known else f"{name}_{moment:%Y%m%dT%H%M%S}"


def _place(files: list[RasterFile]) -> str:
    paths = {path_of(f.href) for f in files}
    return paths.pop() if len(paths) == 1 else path_of(files[0].href).rpartition("/")[0] or "."


def _facts(files: list[RasterFile], product: Product, calibrations: dict[str, Calibration]) -> dict[str, str]:
    offsets = sorted({f"{c.offset:g}" for c in calibrations.values()})
    prefix = commonprefix([f.stem for f in files])  # noqa: RUF071 - of characters; the scene's name says it already
    shared = prefix.rfind("_") + 1 if len(files) > 1 else 0
    names = " ".join(f"{f.name[shared:]}:{f.size_bytes}" for f in files)
    facts = {"files": names, "offset": " ".join(offsets)}
    return {**facts, "name": product.name} if product.name else facts


def _cloud(files: list[RasterFile], facts: ItemFacts | None) -> dict[str, str]:
    """How much of the scene lies under clouds, under the name that STAC has for it; empty if nothing says so."""
    told = [facts.cloud] if facts else []
    told += [percent(file.tags.get(name)) for name in CLOUD_TAGS for file in files]
    return {"eo:cloud_cover": found} if (found := next(filter(None, told), "")) else {}


@lru_cache(maxsize=64)
def _footprint(grid: Grid, points: int = 8) -> tuple[tuple[float, float], ...]:
    """Closed ring of [lon, lat] degrees, counter-clockwise from the upper left corner, `points` a side."""
    left, bottom, right, top = grid.bounds
    corners = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
    ring = [
        (x0 + (x1 - x0) * i / points, y0 + (y1 - y0) * i / points)
        for (x0, y0), (x1, y1) in pairwise(corners)
        for i in range(points)
    ]
    xs, ys = zip(*ring, ring[0], strict=True)
    lon, lat = transform(CRS.from_string(grid.crs), CRS.from_epsg(4326), xs, ys)
    return tuple((x, y) for x, y in zip(lon, lat, strict=True) if math.isfinite(x) and math.isfinite(y))


def _check_data(scene: Scene, of: SceneSource) -> None:
    """Refuse a scene without a measured pixel; of the dates of a stack only all together."""
    group = next(iter(scene.grids))
    band = scene.collection.groups[group].items[0]
    plane, calibration = scene.planes.bands[band.name], scene.calibrations[band.name]
    if holds_data(scene._reader, plane.file, plane.index, calibration.nodata):  # noqa: SLF001 - this module's
        return
    if of.time is None:
        raise BadScene(f"{plane.file.href} is all nodata ({calibration.nodata}); leave this scene out")
    if not any_band_holds_data(plane.file.href, calibration.nodata):
        raise BadScene(f"{plane.file.href} is all nodata ({calibration.nodata}) on every date; leave it out")
