"""Which band of which file is which band of the collection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from rasterio.crs import CRS

from geostore.collection import Collection
from geostore.errors import BandMismatch
from geostore.raster import Band, Grid
from geostore.scene.geotiff import RasterFile
from geostore.scene.names import date_in, named_in, words

# Names that STAC catalogues give to bands that the presets call otherwise; they yield to the collection's own.
_ALIASES = {
    "nir": ("nir08",),
    "nir08": ("nir08", "rededge4"),
    "rededge071": ("rededge1",),
    "rededge075": ("rededge2",),
    "rededge078": ("rededge3",),
    "swir16": ("swir1",),
    "swir22": ("swir2",),
}
_METRES_A_DEGREE = 111_320.0


@dataclass(frozen=True)
class Plane:
    """One band of one file.

    Attributes:
        file: the file. index: the band in it, from 0.
        stated: what a STAC item says of it: scale, offset, nodata, where it does.
    """

    file: RasterFile
    index: int
    stated: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.file.name} band {self.index + 1}"


@dataclass(frozen=True)
class Matched:
    """The planes of a scene: `bands` by band name, `masks` by mask source (one plane or several resolutions)."""

    bands: dict[str, Plane]
    masks: dict[str, list[Plane]]


@dataclass(frozen=True)
class Offered:
    """A file that may hold bands of a scene.

    Attributes:
        file: the file. stated: what a STAC item says of each of its bands, or ().
        indexes: its bands of the scene's date, from 0; None where all are.
    """

    file: RasterFile
    stated: Sequence[dict[str, Any]] = ()
    indexes: tuple[int, ...] | None = None

    @property
    def at(self) -> Sequence[int]:
        """The bands it offers, from 0."""
        return range(len(self.file.descriptions)) if self.indexes is None else self.indexes

    @property
    def descriptions(self) -> list[str]:
        """Of the bands it offers."""
        return [self.file.descriptions[i] for i in self.at]


def match(files: Sequence[Offered], collection: Collection) -> Matched:
    """Find the collection's bands and mask sources in `files`.

    A band is known by its STAC band, else its description, else (one band a file) the words of the file name, else
    its position where the collection states the order. Of several resolutions the nearest to the band's own is taken.

    Raises:
        BandMismatch: a band is missing, or found twice at one resolution; the message lists what there is.
    """
    bands = {b.name: b for group in collection.groups.values() for b in group}
    found: dict[str, list[Plane]] = {}
    for offer in files:
        for index, name in zip(offer.at, _labels(offer, collection), strict=True):
            if name:
                about = dict(offer.stated[index]) if index < len(offer.stated) else {}
                found.setdefault(name, []).append(Plane(offer.file, index, about))
    sources = [rule.source for rule in collection.masks]
    missing = [n for n in (*bands, *sources) if n not in found]
    if missing:
        raise BandMismatch(_missing(missing, bands, files, collection))
    return Matched(
        {name: closest(found[name], band.gsd_m, name) for name, band in bands.items()}, {s: found[s] for s in sources}
    )


def closest(planes: list[Plane], gsd_m: float, name: str) -> Plane:
    """The plane whose pixel size is nearest to `gsd_m`.

    Raises:
        BandMismatch: two planes have that size.
    """
    away = [abs(math.log(pixel_m(p.file.grid) / gsd_m)) for p in planes]
    best = [p for p, a in zip(planes, away, strict=True) if a <= min(away) + 1e-3]
    if len(best) > 1:
        raise BandMismatch(
            f"band {name!r} is found in {', '.join(map(str, best))}; give the files of one scene, each band once"
        )
    return best[0]


def pixel_m(grid: Grid) -> float:
    """Pixel height in metres, degrees taken at the equator."""
    return grid.yres * _unit_m(grid.crs)


@lru_cache(maxsize=256)
def _unit_m(name: str) -> float:
    crs = CRS.from_string(name)
    return float(_METRES_A_DEGREE if crs.is_geographic else crs.linear_units_factor[1])


def spellings(collection: Collection) -> dict[str, tuple[str, ...]]:
    """Every name a file may give to each band and mask source."""
    bands = {b.name: _spell(b) for group in collection.groups.values() for b in group}
    own = {words(s) for names in bands.values() for s in names}
    for name in bands:
        bands[name] += tuple(a for a in _ALIASES.get(name, ()) if words(a) not in own)
    return {**bands, **{rule.source: (rule.source,) for rule in collection.masks}}


def _spell(band: Band) -> tuple[str, ...]:
    return (band.source, band.name) if words(band.source) != words(band.name) else (band.source,)


def _labels(offer: Offered, collection: Collection) -> list[str | None]:
    """The band or mask source each offered plane is, None for those nobody asked for."""
    known = spellings(collection)
    texts, stated = offer.descriptions, offer.stated
    by_stac = [_by_stac(s, known) for s in stated] if len(stated) == len(texts) else [None] * len(texts)
    labels = [label or label_of(text, known) for label, text in zip(by_stac, texts, strict=True)]
    if len(labels) == 1 and labels[0] is None:
        labels = [label_of(offer.file.stem, known)]
    order = collection.files.positional
    if order and not any(labels):
        if len(order) != len(labels):
            raise BandMismatch(
                f"{offer.file.href} has {len(labels)} bands, the collection's positional order {len(order)}; give "
                f"files of those bands, or state the order of these as positional under [files] in collection "
                f"{collection.name!r}{many_dates(texts)}"
            )
        return list(order)
    return labels


def _by_stac(stated: dict[str, Any], known: dict[str, tuple[str, ...]]) -> str | None:
    """By the STAC band's own name first: several bands share one common name (rededge)."""
    for key in ("name", "common_name"):
        want = words(str(stated.get(key) or ""))
        for name, names in known.items():
            if want and want in [words(n) for n in names]:
                return name
    return None


def label_of(text: str, known: dict[str, tuple[str, ...]]) -> str | None:
    """Which of `known` (names by band or mask source) a description or file name tells, None if none."""
    found = named_in(text, tuple(known.values()))
    return None if found is None else list(known)[found]


def many_dates(descriptions: Sequence[str]) -> str:
    """What to say of bands that are of several dates; "" if they are not."""
    dates = [date_in(text) for text in descriptions]
    if len(dates) < 2 or not all(dates) or len(set(dates)) < 2:
        return ""
    named = f"{descriptions[0]!r} to {descriptions[-1]!r}"
    return f'; the {len(dates)} bands are named by dates, {named}: for one date a band write dates = "bands" there'


def _missing(missing: list[str], bands: dict[str, Band], files: Sequence[Offered], collection: Collection) -> str:
    asked = ", ".join(f"{n} ({bands[n].source})" if n in bands else f"mask {n}" for n in missing)
    unnamed = [o for o in files if not any(o.descriptions)]
    named = [f"{o.file.name}: {_listed(o.descriptions)}" for o in files if any(o.descriptions)]
    seen = "; ".join([*named[:20], *([_without_names([o.file.name for o in unnamed])] if unnamed else [])])
    step = "give the missing files, or a collection with the bands and masks there are"
    if not any(n in bands for n in missing):
        step = "give the file that has it, or say in the collection that there is none: masks = []"
    elif len(unnamed) == len(files) and not collection.files.positional:
        step = "if the files name no bands, state their order as positional = [...] under [files] in the collection"
    dated = next((d for d in (many_dates(o.descriptions) for o in files) if d), "")
    if dated:
        step = "under [files] in the collection is said how files are read" + dated
    return f"collection {collection.name!r} needs {asked}, not found in: {seen}; {step}"


def _without_names(files: list[str]) -> str:
    """Files whose bands carry no names, so that only their own names can tell."""
    if len(files) == 1:
        return f"{files[0]}, whose bands have no names"
    shown = files if len(files) <= 4 else [*files[:2], "...", files[-1]]
    return f"{len(files)} files whose bands have no names ({', '.join(shown)})"


def _listed(descriptions: list[str]) -> str:
    shown = [d or "?" for d in descriptions]
    return ", ".join(shown if len(shown) <= 20 else [*shown[:8], f"... {len(shown)} bands ...", shown[-1]])
