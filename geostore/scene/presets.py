"""Collections from small TOML files: a preset, and what differs from it."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from geostore.collection import Collection, band_of, check_keys, check_shapes, collection_from_dict, collection_of
from geostore.errors import InvalidInput, NotFound
from geostore.measurable import check_bound, check_known, check_measurable
from geostore.policy import BOUNDS, INDEX_BOUNDS
from geostore.raster import Band, Bands

STEP_MAX = 0.05  # reflectance between two whole numbers, at most
PSNR_DB_END = 120  # beyond it an MSE is too small to be measured

_KEYS = {
    *("name", "preset", "precision", "crs", "indices", "product", "time_pattern", "version"),
    *("bands", "band", "masks", "policy", "files"),
}
_TABLES = ("policy", "files", "band")


def preset_names() -> list[str]:
    """Names of the presets that ship with geostore, sorted."""
    folder = resources.files("geostore.scene") / "presets"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_collection(source: str | Path) -> Collection:
    """The collection declared by a TOML file, a STAC Collection in JSON, or a preset of that name.

    A TOML file may hold: `preset`; `name`, `precision`, `crs`, `indices`, `product`, `time_pattern`, `version`;
    `bands`, a list of the preset's band names to keep, or of tables (fields of `Band` and `group`) that change or
    add one; `[band]`, defaults for every band table; `masks`, a list of tables; `[policy]` and `[files]`.
    A policy bound that is `false` is not asked for.

    Raises:
        NotFound: there is neither such a file nor such a preset.
        InvalidInput: the file is not TOML, or a key or value is not allowed; the message names it.
    """
    path, where = Path(source), str(source)
    if where in preset_names():
        return _collection(_preset(where), f"preset {where!r}")
    if not path.is_file():
        raise NotFound(f"no collection file {where!r} and no such preset; presets are {', '.join(preset_names())}")
    if path.suffix == ".json":
        from geostore.scene.stac import collection_from_stac, read_json

        table = read_json(path)
        table.pop("geostore:check", None)  # of a file taken out of a store
        found = collection_from_dict(table) if _is_own(table) else collection_from_stac(table)
        return _checked(found, table.get("geostore:indices", ()), table.get("geostore:policy", {}), where)
    table = _parse(path.read_bytes(), where)
    table["policy"] = _without_psnr(table.get("policy", {}), where)
    made = _collection(_with_preset(table, where), where)
    return _checked(made, table.get("indices", ()), table.get("policy", {}), where)


def _without_psnr(policy: Any, where: str) -> Any:
    """The policy of a file with `psnr_db_min` as the `mse_max` that says the same: PSNR is of n1, whose range is 1."""
    if not isinstance(policy, Mapping) or "psnr_db_min" not in policy:
        return policy
    wanted, rest = policy["psnr_db_min"], {k: v for k, v in policy.items() if k != "psnr_db_min"}
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < PSNR_DB_END:
        raise InvalidInput(f"{where}, policy: psnr_db_min = {wanted!r}; give decibels, 0 to {PSNR_DB_END}")
    if "mse_max" in rest:
        raise InvalidInput(f"{where}, policy: psnr_db_min and mse_max say the same; give one of them")
    return {**rest, "mse_max": 10 ** (-wanted / 10)}


def _checked(collection: Collection, indices: Sequence[str], policy: Mapping[str, Any], where: str) -> Collection:
    """`collection`, if what its file asks of spectral indices can be measured in some band group.

    Args:
        collection: made of the file.
        indices: those the file names.
        policy: the bounds the file gives.
        where: what to call the file in an error.
    """
    bound = [key for key in (*INDEX_BOUNDS.values(), "index") if policy.get(key)]
    check_known(collection.indices, where)
    check_measurable((*indices, *policy.get("index", ())), collection.groups, where)
    check_bound(bound, collection.indices, collection.groups, where)
    collection.check_indices()
    return collection


def _is_own(table: Mapping[str, Any]) -> bool:
    return any(key.startswith("geostore:") for key in table)


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{where} is not TOML ({error}); see docs/guides/collections.md") from None
    check_keys(table, _KEYS, where)
    return table


def _preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise InvalidInput(f"preset = {name!r}; use one of {', '.join(preset_names())}")
    raw = (resources.files("geostore.scene") / "presets" / f"{name}.toml").read_bytes()
    return _parse(raw, f"preset {name!r}")


def _with_preset(table: dict[str, Any], where: str) -> dict[str, Any]:
    """`table` laid over the preset it names: bands one by one, `policy` and `files` key by key, the rest whole."""
    if "preset" not in table:
        raise InvalidInput(f'{where}: no preset; write `preset = "generic"` or one of {", ".join(preset_names())}')
    base = _preset(table["preset"])
    check_shapes(table, where, lists=("bands",), tables=_TABLES)
    merged = {**base, **{k: v for k, v in table.items() if k != "preset"}}
    for key in _TABLES:
        merged[key] = {**base.get(key, {}), **table.get(key, {})}
    merged["bands"] = _merge_bands(base.get("bands", []), table.get("bands"), where)
    merged["name"] = table.get("name", Path(where).stem.lower())
    return merged


def _merge_bands(base: list[Any], given: list[Any] | None, where: str) -> list[Any]:
    """The preset's bands, or of them those named, or with the given tables changed or added."""
    if given is None:
        return base
    known = {b["name"]: b for b in base}
    if any(isinstance(item, str) for item in given):
        strange = [i for i in given if isinstance(i, str) and i not in known]
        if strange:
            raise InvalidInput(f"{where}: bands {strange} are not in the preset; it has {list(known)}")
        return [known[i] if isinstance(i, str) else {**known.get(i.get("name"), {}), **i} for i in given]
    for item in given:
        known[item.get("name", "?")] = {**known.get(item.get("name"), {}), **item}
    return list(known.values())


def _collection(table: dict[str, Any], where: str) -> Collection:
    if not table.get("bands"):
        raise InvalidInput(f"{where}: no bands; this preset has none of its own, list them as [[bands]] tables")
    groups: dict[str, list[Band]] = {}
    for item in table["bands"]:
        fields = {**table.get("band", {}), **item}
        group = fields.pop("group", None)
        band = band_of(fields, where)
        _check_step(band, where)
        groups.setdefault(group or f"{band.gsd_m:g}m", []).append(band)
    rest = {k: v for k, v in table.items() if k not in ("name", "bands", "band")}
    bounds = table.get("policy", {})
    rest["policy"] = {k: None if v is False and k in BOUNDS else v for k, v in bounds.items()}  # TOML has no null
    rest["files"] = _dated(rest.get("files", {}))
    bands = {group: Bands(tuple(items)) for group, items in groups.items()}
    return collection_of(table["name"], bands, rest, where)


def _check_step(band: Band, where: str) -> None:
    """Refuse a scale at which no reflectance could be told from another: a forgotten one is 1."""
    if not 0 < band.scale < math.inf:
        raise InvalidInput(f"{where}: band {band.name!r} has scale {band.scale:g}; give a number above 0")
    if band.kind == "reflectance" and np.dtype(band.dtype).kind in "iu" and band.scale > STEP_MAX:
        raise InvalidInput(
            f"{where}: band {band.name!r} is reflectance, 0..1, in whole numbers of scale {band.scale:g}; give the "
            'scale, as scale = 0.0001, or say what the numbers are: kind = "counts"'
        )


def _dated(files: Mapping[str, Any]) -> dict[str, Any]:
    """`files` with dates that TOML knows as such written out."""
    dates = files.get("dates")
    if not isinstance(dates, list):
        return dict(files)
    return {**files, "dates": [d.isoformat() if isinstance(d, date) else d for d in dates]}
