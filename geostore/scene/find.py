"""Which scenes there are in files, folders, globs, STAC items and catalogues."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from datetime import time as clock
from pathlib import Path

from geostore.collection import Collection
from geostore.errors import BadScene
from geostore.scene.bands import spellings
from geostore.scene.geotiff import SUFFIXES
from geostore.scene.names import product_of, scene_stem
from geostore.scene.stac import catalogue_items, is_item, is_remote, read_json
from geostore.scene.stack import dates_in, variables

_MIDNIGHT = clock()
_CATALOGUE_NAMES = ("catalog.json", "collection.json")
# Words that name a file of a product whatever bands a collection asks for.
_PRODUCT_WORDS = (
    *(f"B{i:02d}" for i in range(1, 13)),
    *("B8A", "SCL", "AOT", "WVP", "TCI", "CLD", "SNW", "PVI", "QA_PIXEL", "QA_RADSAT", "SR_QA_AEROSOL", "ST_B10"),
    "cloud_mask",
    *(f"SR_B{i}" for i in range(1, 8)),
)


@dataclass(frozen=True)
class SceneSource:
    """Where one scene is: a STAC item, or the files of one acquisition.

    Attributes:
        name: what to call it while it is not open.
        files: paths or URLs, sorted; () for an item.
        item: path of the STAC item, or "".
        time: which of the dates the files hold, UTC; None for files of one date.
    """

    name: str
    files: tuple[str, ...] = ()
    item: str = ""
    time: datetime | None = None

    def __str__(self) -> str:
        where = self.item or (self.files[0] if len(self.files) == 1 else f"{self.name} ({len(self.files)} files)")
        return f"{where} of {_day(self.time)}" if self.time else where


def find_scenes(sources: Sequence[str | Path], collection: Collection) -> Iterator[SceneSource]:
    """The scenes in `sources`, each once: files are grouped by their names without bands and resolutions.

    Nothing is opened but catalogues, netCDF files, and what may be a stack of dates (the collection says `dates` under
    [files]: such files give a scene a date). A damaged scene shows only in `open_scene`.

    Args:
        sources: raster files, folders (searched to the bottom; a folder with catalog.json or collection.json is a
            catalogue), globs, STAC items and catalogues (.json), URLs of raster files, items and catalogues.
        collection: whose band names to look for in file names.

    Raises:
        BadScene: a source does not exist, or holds no raster file and no item; raised before the first scene.
    """
    files: dict[str, None] = {}
    items: dict[str, None] = {}
    for source in sources:
        found = _listed(str(source))
        if not found:
            raise BadScene(f"{source} holds no scene; wanted files {', '.join(SUFFIXES)} or STAC items (.json)")
        for path in found:
            (items if _is_json(path) else files)[path] = None
    dated = [one for source in _grouped(list(files), collection) for one in _by_date(source, collection)]
    return iter([*dated, *(SceneSource(Path(i).stem, item=i) for i in items)])


def _listed(source: str) -> list[str]:
    """Raster files and STAC items (their paths end in .json) of one source."""
    path = Path(source)
    if is_remote(source) and _is_json(source):
        return _json(source)
    if "://" in source or source.startswith("/vsi"):
        return [source]
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _json(str(path.absolute())) if path.suffix == ".json" else [str(path.absolute())]
    if any(c in source for c in "*?["):
        matched = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return [
            f for m in matched if Path(m).is_file() and m.lower().endswith((*SUFFIXES, ".json")) for f in _listed(m)
        ]
    raise BadScene(f"{source} does not exist; give a file, a folder, a glob or a STAC item")


def _is_json(href: str) -> bool:
    return href.partition("?")[0].endswith(".json")


def _folder(path: Path) -> list[str]:
    for name in _CATALOGUE_NAMES:
        if (path / name).is_file():
            return _json(str((path / name).resolve()))
    files = sorted(p for p in path.rglob("*") if p.is_file())
    rasters = [str(p.absolute()) for p in files if _may_be(p.name, SUFFIXES)]
    return rasters or [str(p.absolute()) for p in files if p.suffix == ".json" and is_item(read_json(p))]


def _may_be(name: str, suffixes: tuple[str, ...]) -> bool:
    """True for names with such a suffix, but not for the quality masks inside Sentinel-2 products."""
    return name.lower().endswith(suffixes) and not Path(name).name.startswith("MSK_")


def _json(href: str) -> list[str]:
    table = read_json(href)
    if is_item(table):
        return [href]
    if table.get("type") in ("Catalog", "Collection"):
        return list(catalogue_items(href))
    raise BadScene(f"{href} is type {table.get('type')!r}, not a STAC item, catalogue or collection; give one of those")


def _grouped(files: list[str], collection: Collection) -> list[SceneSource]:
    groups: dict[str, list[str]] = {}
    for file in files:
        parts = variables(file, collection) if file.lower().endswith(".nc") else [file]
        groups.setdefault(scene_name([file], collection), []).extend(parts)
    return [SceneSource(name, tuple(sorted(found))) for name, found in sorted(groups.items())]


def _by_date(source: SceneSource, collection: Collection) -> list[SceneSource]:
    """One source a date of a stack; the source itself if it is none, or cannot be read: opening it says why."""
    if not collection.files.dates:
        return [source]
    try:
        dates = dates_in(source.files, collection)
    except BadScene:
        return [source]
    return [replace(source, name=f"{source.name}_{_day(d)}", time=d) for d in dates] or [source]


def _day(time: datetime) -> str:
    """20200601, with the time of day unless it is midnight."""
    return f"{time:%Y%m%dT%H%M%S}" if time.time() != _MIDNIGHT else f"{time:%Y%m%d}"


def scene_name(files: Sequence[str], collection: Collection) -> str:
    """The name of the scene that `files` belong to: the first one's without bands and resolutions.

    A file named by its band alone (B04.tif) takes the name of its folder; a Sentinel-2 band file in a product
    folder that of the product.
    """
    path = Path(files[0])
    product = product_of(str(path))
    if product.family and product.name not in path.name:
        return product.name
    names = [s for several in spellings(collection).values() for s in several]
    return scene_stem(path.stem, [*names, *_PRODUCT_WORDS]) or path.absolute().parent.name
