"""STAC items, static catalogues and foreign STAC Collections, read from JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pystac
from pystac.utils import make_absolute_href

from geostore.collection import Collection, band_of, collection_of
from geostore.errors import BadScene, InvalidInput
from geostore.raster import Band, Bands
from geostore.scene.geotiff import HTTP_TIMEOUT_S, SUFFIXES
from geostore.scene.names import find_word, time_from_text

_UNUSED_ROLES = {"thumbnail", "overview", "visual", "metadata"}
_BAND_WORDS = {  # a STAC member -> our word for it, over all versions of the eo and raster extensions
    "name": "name",
    "common_name": "common_name",
    "eo:common_name": "common_name",
    "scale": "scale",
    "raster:scale": "scale",
    "offset": "offset",
    "raster:offset": "offset",
    "nodata": "nodata",
}
_CATALOGUES_MAX = 10_000
JSON_BYTES_MAX = 2**24


@dataclass(frozen=True)
class ItemAsset:
    """One raster asset: where it is, and what the item says of each band: names, scale, offset, nodata."""

    key: str
    href: str
    bands: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class ItemFacts:
    """What a STAC item says.

    Attributes:
        href: the item itself. assets: its raster assets, absolute.
        time: start of sensing, UTC. platform: lower case, "" if not said.
        baseline: Sentinel-2 processing baseline, "" if not said.
        cloud: percent of the scene under clouds, "" if not said.
    """

    href: str
    assets: tuple[ItemAsset, ...]
    time: datetime
    platform: str
    baseline: str
    cloud: str

    def files(self, wanted: Mapping[str, tuple[str, ...]]) -> list[ItemAsset]:
        """The assets that may hold a band named in one of the spellings of `wanted`; all, if none can be told."""
        names = [s for spellings in wanted.values() for s in spellings]
        return [a for a in self.assets if _may_hold(a, names)] or list(self.assets)


def _may_hold(asset: ItemAsset, names: list[str]) -> bool:
    told = [str(b.get(k) or "") for b in asset.bands for k in ("name", "common_name")]
    file = asset.href.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return any(find_word(text, name) for text in (*told, file) for name in names)


def is_remote(href: str | Path) -> bool:
    """True for an http or https address."""
    return str(href).lower().startswith(("http://", "https://"))


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file, or at an http or https address.

    Raises:
        BadScene: it cannot be read, is larger than JSON_BYTES_MAX, or is none.
    """
    try:
        table = json.loads(_fetch(str(path)) if is_remote(path) else Path(path).read_text(encoding="utf-8"))
    except (OSError, HTTPException) as error:
        raise BadScene(f"{path} cannot be read ({error}); give a STAC file") from None
    except ValueError as error:
        raise BadScene(f"{path} is not JSON ({error}); give a whole STAC file") from None
    if not isinstance(table, dict):
        raise BadScene(f"{path} holds {type(table).__name__}, not a STAC object; give an item or catalogue")
    return table


def _fetch(address: str) -> bytes:
    with urlopen(address, timeout=HTTP_TIMEOUT_S) as answer:
        data: bytes = answer.read(JSON_BYTES_MAX + 1)
    if len(data) > JSON_BYTES_MAX:
        raise BadScene(f"{address} is larger than {JSON_BYTES_MAX} bytes; name a STAC item or a smaller catalogue")
    return data


def is_item(table: Mapping[str, Any]) -> bool:
    """True for a STAC Item (a GeoJSON Feature)."""
    return table.get("type") == "Feature"


def read_item(href: str) -> ItemFacts:
    """What the STAC item at the path or address `href` says.

    Raises:
        BadScene: it is no item, or has no time, no geometry, or no raster asset.
    """
    table = read_json(href)
    properties = table.get("properties")
    if not is_item(table) or not isinstance(properties, dict):
        raise BadScene(f"{href} is not a STAC item (type {table.get('type')!r}); give a Feature with properties")
    if not table.get("geometry"):
        raise BadScene(f"{href} has no geometry; give a whole STAC item, or the files themselves")
    text = properties.get("datetime") or properties.get("start_datetime")
    time = time_from_text(str(text)) if text else None
    if time is None:
        raise BadScene(f"{href} has no datetime ({text!r}); give properties.datetime as 2020-06-01T10:30:00Z")
    baseline = str(properties.get("s2:processing_baseline") or properties.get("processing:version") or "")
    return ItemFacts(
        href=str(href),
        assets=_assets(table, properties, str(href), baseline),
        time=time,
        platform=str(properties.get("platform") or "").lower().replace(" ", "-"),
        baseline=baseline,
        cloud=percent(properties.get("eo:cloud_cover")),
    )


def percent(said: object) -> str:
    """A share of a scene in percent as a scene's facts carry it; "" if it is none."""
    try:
        value = float(str(said))
    except ValueError:
        return ""
    return f"{value:g}" if 0 <= value <= 100 else ""


def _assets(table: dict[str, Any], properties: dict[str, Any], href: str, baseline: str) -> tuple[ItemAsset, ...]:
    found = []
    for key, asset in sorted((table.get("assets") or {}).items()):
        if not isinstance(asset, dict) or not asset.get("href"):
            raise BadScene(f"{href}: asset {key!r} has no href; give a whole STAC item")
        if _UNUSED_ROLES.isdisjoint(asset.get("roles") or ()) and _is_raster(asset):
            bands = tuple(_offset_told(b, properties, baseline) for b in _bands(key, asset))
            found.append(ItemAsset(key, make_absolute_href(asset["href"], href), bands))
    if not found:
        raise BadScene(f"{href} has no raster asset; wanted GeoTIFF, COG or JPEG 2000 files among its assets")
    return tuple(found)


def _is_raster(asset: dict[str, Any]) -> bool:
    kind = str(asset.get("type") or "")
    return kind.startswith(("image/tiff", "image/jp2", "image/vnd.stac.geotiff")) or str(
        asset["href"]
    ).lower().endswith(SUFFIXES)


def _bands(key: str, asset: dict[str, Any]) -> list[dict[str, Any]]:
    """One table a band in our words; a band the item does not describe has the asset's key as its name."""
    whole = {word: asset[k] for k, word in _BAND_WORDS.items() if k.startswith("raster:") and k in asset}
    eo, raster = asset.get("eo:bands") or [], asset.get("raster:bands") or []
    told = asset.get("bands") or [
        {**(raster[i] if i < len(raster) else {}), **(eo[i] if i < len(eo) else {})}
        for i in range(max(len(eo), len(raster)))
    ]
    tables = [{**whole, **{word: b[k] for k, word in _BAND_WORDS.items() if k in b}} for b in told or [{}]]
    return [{"name": key, **t} for t in tables] if len(tables) == 1 else tables


def _offset_told(band: dict[str, Any], properties: dict[str, Any], baseline: str) -> dict[str, Any]:
    """`band` with the offset that is still in the pixels, where the item says whether it was taken out."""
    applied = properties.get("earthsearch:boa_offset_applied")
    if applied is True:
        return {**band, "scale": band.get("scale", 1e-4), "offset": 0.0}
    if applied is False and baseline:
        return {k: v for k, v in band.items() if k not in ("scale", "offset")}
    return band


def catalogue_items(href: str) -> Iterator[str]:
    """Absolute paths or addresses of all items under the static catalogue `href`, in the order of its links.

    Raises:
        BadScene: a catalogue cannot be read, or there are more than 10,000.
    """
    waiting, seen = [href], set()
    while waiting:
        here = waiting.pop(0)
        if here in seen:
            continue
        seen.add(here)
        if len(seen) > _CATALOGUES_MAX:
            raise BadScene(f"{href} links more than {_CATALOGUES_MAX} catalogues; name a part of it")
        catalogue = _catalogue(here)
        yield from (str(link.get_absolute_href()) for link in catalogue.get_item_links())
        waiting += [str(link.get_absolute_href()) for link in catalogue.get_child_links()]


def _catalogue(href: str) -> Any:
    try:
        found = pystac.read_dict(read_json(href), href=href)
    except (ValueError, KeyError, TypeError, pystac.STACError) as error:
        raise BadScene(f"{href} cannot be read as a STAC catalogue: {error!r}; give whole JSON files") from error
    if not isinstance(found, pystac.Catalog):
        raise BadScene(f"{href} is a {type(found).__name__}, not a STAC catalogue or collection; name items one by one")
    return found


def collection_from_stac(table: Mapping[str, Any]) -> Collection:
    """The least a STAC Collection that geostore did not write tells: its bands, with gsd, dtype, scale and nodata.

    Raises:
        InvalidInput: it is no Collection, or its bands or their gsd are not told.
    """
    name = str(table.get("id", "")).lower()
    if table.get("type") != "Collection":
        raise InvalidInput(f"{name!r} is type {table.get('type')!r}, not a STAC Collection; give one, or a TOML file")
    summaries = table.get("summaries") or {}
    told = table.get("bands") or summaries.get("bands") or summaries.get("eo:bands") or []
    if not told:
        raise InvalidInput(f"STAC Collection {name!r} lists no bands; write a TOML file with them instead")
    gsd = (summaries.get("gsd") or [None])[0] if isinstance(summaries.get("gsd"), list) else None
    groups: dict[str, list[Band]] = {}
    for item in told:
        band = _foreign_band(item, gsd, name)
        groups.setdefault(f"{band.gsd_m:g}m", []).append(band)
    return collection_of(name, {g: Bands(tuple(b)) for g, b in groups.items()}, {"indices": []}, f"collection {name!r}")


def _foreign_band(item: Mapping[str, Any], gsd: Any, name: str) -> Band:
    told = {word: item[k] for k, word in _BAND_WORDS.items() if k in item}
    source = str(told.pop("name", ""))
    common = told.pop("common_name", None)
    usual = common if common and common != "rededge" else source.lower()
    fields = {"name": usual, "source": source or usual, "gsd_m": item.get("gsd", gsd), **told}
    if "data_type" in item:
        fields["dtype"] = item["data_type"]
    if fields["gsd_m"] is None:
        raise InvalidInput(f"STAC Collection {name!r}: band {source!r} has no gsd; add it, or write a TOML file")
    return band_of(fields, f"STAC Collection {name!r}")
