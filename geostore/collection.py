"""What a collection declares: bands, grid, masks and the fidelity it promises."""

from __future__ import annotations

import math
import re
from collections.abc import Collection as Names
from collections.abc import Mapping
from dataclasses import InitVar, asdict, dataclass, field, fields
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, TypeVar, get_args

from geostore.errors import InvalidInput
from geostore.keys import check_name
from geostore.measurable import check_bound, check_known, check_measurable, measurable_in, stated_bounds
from geostore.policy import BOUNDS, INDEX_BOUNDS, IndexBounds, asked
from geostore.policy import KeepOriginal as KeepOriginal
from geostore.policy import Policy as Policy
from geostore.raster import Band, Bands, Kind

T = TypeVar("T")


@dataclass(frozen=True)
class MaskRule:
    """Which values of a class or QA band make a pixel unusable.

    Attributes:
        source: the file's band that holds the classes or bits ("SCL", "QA_PIXEL").
        values: category values to mask.
        bits: bit positions to mask wherever set.
        field: first and last bit of a number packed into the band: then `values` are that number's. () for none.

    Raises:
        InvalidInput: the field is not two bit positions of 0 to 62, ascending, or comes without values.
    """

    source: str
    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    field: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.field and not (len(self.field) == 2 and 0 <= self.field[0] <= self.field[1] <= 62 and self.values):
            raise InvalidInput(
                f"mask of {self.source!r}: field {list(self.field)}, values {list(self.values)}; first and last bit "
                "and values are needed, as in field = [0, 1], values = [1, 2]"
            )


@dataclass(frozen=True, kw_only=True)
class Files:
    """How files are to be read where they do not say it themselves.

    Attributes:
        positional: band names in file order, for files that name no bands; () refuses such files.
        baseline: Sentinel-2 processing baseline ("02.09") of scenes that name none, or name the unknown N9999.
        nodata: "file" honours each file's own nodata tag beside the bands' own; "collection" ignores the tag,
            for files that declare a nodata value which occurs as a measurement.
        values: what the numbers are in files that state no scale: "stored" values (as the bands declare them)
            or "physical" ones (reflectance 0..1), to which the bands' scale and offset are applied inversely.
        dates: for files of many dates, one after another: "bands" where the bands name their dates, or the dates in
            file order, ISO 8601, UTC; "" for files of one date.
    """

    positional: tuple[str, ...] = ()
    baseline: str = ""
    nodata: Literal["file", "collection"] = "file"
    values: Literal["stored", "physical"] = "stored"
    dates: str | tuple[str, ...] = ""

    def __post_init__(self) -> None:
        if self.baseline and not re.fullmatch(r"[0-9]{2}[.][0-9]{2}", self.baseline):
            raise InvalidInput(f'files baseline = {self.baseline!r}; write it as "02.09" or "05.10"')
        if self.nodata not in ("file", "collection"):
            raise InvalidInput(f"files nodata = {self.nodata!r}; use file or collection")
        if self.values not in ("stored", "physical"):
            raise InvalidInput(f"files values = {self.values!r}; use stored or physical")
        if isinstance(self.dates, str) and self.dates not in ("", "bands"):
            raise InvalidInput(f'files dates = {self.dates!r}; use "bands", or a list as ["2020-06-01", "2020-06-17"]')
        self._check_table()

    @property
    def table(self) -> tuple[datetime, ...]:
        """The stated dates, UTC; () where the bands name theirs."""
        stated = () if isinstance(self.dates, str) else self.dates
        times = (datetime.fromisoformat(text) for text in stated)
        return tuple(t.astimezone(UTC) if t.tzinfo else t.replace(tzinfo=UTC) for t in times)

    def _check_table(self) -> None:
        try:
            table = self.table
        except ValueError as error:
            raise InvalidInput(f'files dates = {list(self.dates)}: {error}; write each as "2020-06-01"') from None
        twice = next((a for a, b in pairwise(sorted(table)) if a == b), None)
        if twice:
            raise InvalidInput(f"files dates: {twice:%Y-%m-%dT%H:%M:%S} stands there twice; state each date once")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """One kind of imagery in one store; create-only, a change is a new version.

    Attributes:
        name: its name in keys, files and messages.
        groups: bands by native resolution, for example {"10m": Bands, "20m": Bands}; every band belongs to one.
        precision: geohash length of a cell.
        crs: CRS of every grid, or None: the first scene's, fixed from then on.
        masks: rules that make pixels unusable.
        indices: spectral indices that are measured, and kept where the policy bounds them.
        policy: the fidelity promised.
        product: product family ("sentinel-2-l2a"); a reader uses it to find scale, offset and time.
        time_pattern: a regular expression with one group, "|", a strptime format, for the file name:
            "([0-9]{8})|%Y%m%d"; or "" to read metadata only.
        files: how files are read where they do not say it themselves.
        version: 1, 2, ... ; a store keeps every version.
        told: leaves `check_indices` to whoever reads what a file, a node or a store tells; no field.

    Raises:
        InvalidInput: a value is not allowed, an index is unknown, or a bound is on what no band group measures.
    """

    name: str
    groups: dict[str, Bands]
    precision: int = 5
    crs: str | None = None
    masks: tuple[MaskRule, ...] = ()
    indices: tuple[str, ...] = ("NDVI",)
    policy: Policy = field(default_factory=Policy)
    product: str = "generic"
    time_pattern: str = ""
    files: Files = field(default_factory=Files)
    version: int = 1
    told: InitVar[bool] = False

    def __post_init__(self, told: bool) -> None:
        check_name(self.name, "collection")
        if not 1 <= self.precision <= 8:
            raise InvalidInput(f"collection {self.name!r}: precision {self.precision}; use 1 to 8 (5 is about 5 km)")
        names = [b.name for bands in self.groups.values() for b in bands]
        if not names or len(set(names)) != len(names):
            raise InvalidInput(f"collection {self.name!r}: bands {names}; give at least one, each once")
        for group in self.groups:
            check_name(group, "band group")
        if not told:
            self.check_indices()
        self._check_policy()
        strange = [n for n in self.files.positional if n not in names and n not in {m.source for m in self.masks}]
        if strange:
            raise InvalidInput(f"collection {self.name!r}: positional bands {strange} are not among {names}")

    def _check_policy(self) -> None:
        strange = [name for name in self.policy.index if name not in self.indices]
        if strange:
            raise InvalidInput(
                f"collection {self.name!r}: the policy bounds {', '.join(strange)}, which `indices` does not name; it "
                f"names {', '.join(self.indices) or 'none'}: add it there, or leave it out"
            )
        kinds = {b.kind for bands in self.groups.values() for b in bands}
        if self.policy.domain == "log" and "reflectance" not in kinds:
            raise InvalidInput(
                f"collection {self.name!r}: policy domain = 'log', but its bands are {', '.join(sorted(kinds))}; "
                "logarithms are of reflectance: leave domain out"
            )

    def check_indices(self) -> None:
        """Raise InvalidInput if an index is unknown, or what is named or bounded is measured in no band group.

        NDVI alone, the default, may lack its bands: it is then not measured.
        """
        where = f"collection {self.name!r}"
        check_known(self.indices, where)
        named = () if tuple(self.indices) == Collection.indices else self.indices
        check_measurable((*named, *(n for n in self.policy.index if n in self.indices)), self.groups, where)
        check_bound(stated_bounds(self.policy), self.indices, self.groups, where)

    def indices_of(self, group: str) -> tuple[str, ...]:
        """The collection's indices whose bands all lie in `group`. Raises InvalidInput if one is unknown."""
        check_known(self.indices, f"collection {self.name!r}")
        return tuple(i for i in self.indices if measurable_in(i, self.groups[group]))


STAC_VERSION = "1.1.0"
_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
    for name, version in (("eo", "2.0.0"), ("raster", "2.0.0"))
)
COMMON_NAMES = frozenset(  # of the STAC `eo` extension, version 2
    (
        *("pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075"),
        *("rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12"),
    )
)
_PREFIX = "geostore:"
_WHOLE = {"type", "stac_version", "stac_extensions", "id", "description", "license", "extent", "links", "bands"}
_OTHER = {"title", "keywords", "providers", "summaries", "assets", "item_assets"}  # STAC members that are passed over
_OWN = ("precision", "crs", "indices", "product", "time_pattern", "version", "masks", "policy", "files")
_BAND_KEYS = {  # member of a STAC band -> field of Band
    "name": "name",
    "data_type": "dtype",
    "nodata": "nodata",
    "gsd": "gsd_m",
    "raster:scale": "scale",
    "raster:offset": "offset",
    "eo:center_wavelength": "wavelength_um",
    "geostore:source": "source",
    "geostore:kind": "kind",
    "geostore:valid_min": "valid_min",
    "geostore:valid_max": "valid_max",
}


def check_keys(table: Mapping[str, Any], allowed: Names[str], where: str) -> None:
    """Raise InvalidInput naming the keys of `table` that are not `allowed` in `where`."""
    strange = sorted(set(table) - set(allowed))
    if strange:
        raise InvalidInput(
            f"{where}: unknown key {', '.join(map(repr, strange))}; allowed are {', '.join(sorted(allowed))}"
        )


def check_shapes(table: Mapping[str, Any], where: str, *, lists: Names[str], tables: Names[str]) -> None:
    """Raise InvalidInput unless what `table` holds of `lists` are lists, and of `tables` tables."""
    for key in table:
        kind, what = (list, "list") if key in lists else (dict, "table") if key in tables else (object, "value")
        if not isinstance(table[key], kind):
            raise InvalidInput(f"{where}: {key} = {table[key]!r}; give a {what}")


def collection_to_dict(collection: Collection) -> dict[str, Any]:
    """`collection` as a STAC 1.1 Collection: JSON values only, fields that hold their default left out.

    Bands are STAC bands (`data_type`, `gsd`, `raster:scale` ...); what STAC has no word for is prefixed `geostore:`.
    """
    bands = [_band_to_dict(b, group) for group, items in collection.groups.items() for b in items]
    default = Collection(name=collection.name, groups=collection.groups)
    own = {key: getattr(collection, key) for key in _OWN if getattr(collection, key) != getattr(default, key)}
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": list(_EXTENSIONS),
        "id": collection.name,
        "description": f"geostore collection of {collection.product} imagery",
        "license": "other",
        "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        "links": [],
        "bands": bands,
        **{_PREFIX + key: _plain(value) for key, value in own.items()},
    }


def collection_from_dict(table: Mapping[str, Any]) -> Collection:
    """The inverse of `collection_to_dict`; its indices are not looked at (`Collection.check_indices`).

    Raises:
        InvalidInput: a member is unknown, missing, or holds a value that is not allowed; the message names it.
    """
    where = f"collection {table.get('id', '')!r}"
    check_keys(table, {*_WHOLE, *_OTHER, *(_PREFIX + key for key in _OWN)}, where)
    for key in ("id", "bands"):
        if not table.get(key):
            raise InvalidInput(f"{where}: no {key!r}; a stored collection has type, id and bands")
    groups: dict[str, list[Band]] = {}
    for item in table["bands"]:
        group, band = _band_from_dict(item, where)
        groups.setdefault(group, []).append(band)
    own = {key: table[_PREFIX + key] for key in _OWN if _PREFIX + key in table}
    return collection_of(table["id"], {g: Bands(tuple(b)) for g, b in groups.items()}, own, where)


def collection_of(name: str, groups: dict[str, Bands], table: Mapping[str, Any], where: str) -> Collection:
    """A Collection whose fields other than name and groups come from plain values; its indices are not looked at.

    Args:
        name: name of the collection.
        groups: its bands by native resolution.
        table: may hold precision, crs, indices, product, time_pattern, version; masks (a list of tables), policy
            and files (tables).
        where: what to call the place in an error.

    Raises:
        InvalidInput: a key is unknown or a value not allowed.
    """
    check_keys(table, _OWN, where)
    check_shapes(table, where, lists=("indices", "masks"), tables=("policy", "files"))
    simple: dict[str, Any] = {k: v for k, v in table.items() if k not in ("masks", "policy", "files")}
    if "indices" in simple:
        simple["indices"] = tuple(simple["indices"])
    masks = tuple(dataclass_of(MaskRule, rule, f"{where}, masks") for rule in table.get("masks", ()))
    policy = _policy_of(table.get("policy", {}), f"{where}, policy")
    files = dataclass_of(Files, table.get("files", {}), f"{where}, files")
    return _made(
        Collection, where, name=name, groups=groups, masks=masks, policy=policy, files=files, told=True, **simple
    )


def _policy_of(table: Mapping[str, Any], where: str) -> Policy:
    """A Policy from plain values; in the table of an index false asks for nothing."""
    check_shapes(table, where, lists=("rivals",), tables=("index",))
    check_shapes(table.get("index", {}), f"{where}, index", lists=(), tables=table.get("index", {}))
    index = {
        name: dataclass_of(IndexBounds, asked(bounds), f"{where}, index {name}")
        for name, bounds in table.get("index", {}).items()
    }
    return dataclass_of(Policy, {**table, "index": index} if index else table, where)


def dataclass_of(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """A `cls` from plain values, lists made tuples; unknown keys, wrong types and values raise InvalidInput."""
    check_keys(table, {f.name for f in fields(cls)}, where)  # type: ignore[arg-type]
    return _made(cls, where, **{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


def _made(cls: type[T], where: str, **values: Any) -> T:
    """`cls(**values)`, with a type that does not fit reported as InvalidInput naming `where` and the values."""
    _check_types(values, where)
    try:
        return cls(**values)
    except TypeError as error:
        raise InvalidInput(f"{where}: {values} do not make a {cls.__name__.lower()} ({error})") from None


_NUMBERS = {
    *("precision", "version", *BOUNDS, *INDEX_BOUNDS),
    *("gsd_m", "scale", "offset", "valid_min", "valid_max", "wavelength_um"),
}
_WORDS = {"crs", "product", "time_pattern", "original", "codec", "domain", "baseline", "source", "dtype", "kind"}
_LISTS = {"indices": str, "rivals": str, "positional": str, "bits": int, "values": int, "field": int, "dates": str}


def _check_types(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in _NUMBERS and not number and value is not None:
            raise InvalidInput(f"{where}: {key} = {value!r}; give a number")
        if key in ("precision", "version") and not isinstance(value, int):
            raise InvalidInput(f"{where}: {key} = {value!r}; give a whole number")
        if key in _WORDS and not isinstance(value, str) and value is not None:
            raise InvalidInput(f"{where}: {key} = {value!r}; give a text in quotes")
        if isinstance(value, tuple) and not all(type(v) is _LISTS.get(key, type(v)) for v in value):
            raise InvalidInput(f"{where}: {key} = {list(value)}; give a list of {_LISTS[key].__name__} values")


def band_of(table: Mapping[str, Any], where: str) -> Band:
    """A Band from plain values; `nodata` may be a number, "nan" or None.

    Raises:
        InvalidInput: a key is unknown or missing, or a value not allowed.
    """
    where = f"{where}, band {table.get('name', '?')!r}"
    check_keys(table, {f.name for f in fields(Band)}, where)
    missing = [k for k in ("name", "gsd_m") if k not in table]
    if missing:
        raise InvalidInput(f'{where}: no {", ".join(missing)}; give it as in `name = "red"`, `gsd_m = 10`')
    values = {"source": str(table["name"]), **table}
    if values.get("nodata") is not None:
        values["nodata"] = float(values["nodata"])
    kind = values.get("kind", "reflectance")
    if kind not in get_args(Kind):
        raise InvalidInput(f"{where}: kind = {kind!r}; use one of {', '.join(get_args(Kind))}")
    if not values.get("scale", 1.0):
        raise InvalidInput(f"{where}: scale = 0; give the physical value of one step")
    return _made(Band, where, **values)


def _plain(value: Any) -> Any:
    """JSON values: dataclasses as the tables of what differs from their defaults, tuples as lists."""
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Policy):
        return {k: _plain(v) for k, v in value.to_fields().items() if v != getattr(Policy(), k)}
    if isinstance(value, MaskRule | Files):
        default = type(value)("") if isinstance(value, MaskRule) else type(value)()
        return {k: _plain(v) for k, v in asdict(value).items() if v != getattr(default, k)}
    return value


def _band_to_dict(band: Band, group: str) -> dict[str, Any]:
    default = Band(band.name, band.name, band.gsd_m)
    always = ("name", "gsd_m", "dtype", "scale", "offset")
    found = {
        key: getattr(band, attribute)
        for key, attribute in _BAND_KEYS.items()
        if attribute in always or getattr(band, attribute) != getattr(default, attribute)
    }
    if band.nodata is not None and math.isnan(band.nodata):
        found["nodata"] = "nan"
    common = {"eo:common_name": band.name} if band.name in COMMON_NAMES else {}
    return {**found, **common, "geostore:group": group}


def _band_from_dict(table: Mapping[str, Any], where: str) -> tuple[str, Band]:
    """(group, band) from one STAC band."""
    check_keys(table, {*_BAND_KEYS, "eo:common_name", "geostore:group", "description"}, f"{where}, bands")
    if "geostore:group" not in table:
        raise InvalidInput(f"{where}, band {table.get('name')!r}: no 'geostore:group'; name its resolution group")
    return table["geostore:group"], band_of({_BAND_KEYS[k]: v for k, v in table.items() if k in _BAND_KEYS}, where)
