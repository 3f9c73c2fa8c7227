"""geostore.json, the file that makes a folder a store, and the collections beside it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import xxhash

from geostore.collection import Collection, collection_from_dict, collection_to_dict
from geostore.errors import Conflict, Corrupt, InvalidInput, NotFound, UnsupportedFormat
from geostore.storage.files import Files

FORMAT_VERSION = 5
HEADER = "geostore.json"
CHECK = "geostore:check"


@dataclass(frozen=True)
class Header:
    """What is fixed when a store is created.

    Attributes:
        version: of the disk format, docs/FORMAT.md.
        id: 32 hexadecimal digits, unique to the store and its backups.
        slots: how many tables the ring is cut into.
        made_us: UTC microseconds.
    """

    version: int
    id: str
    slots: int
    made_us: int


def write_header(files: Files, header: Header) -> None:
    """Create geostore.json.

    Raises:
        Conflict: a store is there already. InvalidInput: a file stands where the folder would.
    """
    try:
        files.create(HEADER, _to_bytes({"format": "geostore", **dataclasses.asdict(header)}))
    except FileExistsError as error:
        if files.local is not None and not files.local.is_dir():
            raise InvalidInput(f"{files.url} is a file; name a folder for the store") from error
        raise Conflict(f"{files.url} holds a store already; open it, or choose another place") from error


def raise_header(files: Files, header: Header) -> Header:
    """Bring geostore.json to the format this geostore writes, so that an older one does not read what it cannot."""
    raised = dataclasses.replace(header, version=max(header.version, FORMAT_VERSION))
    if raised != header:
        files.write(HEADER, _to_bytes({"format": "geostore", **dataclasses.asdict(raised)}))
    return raised


def read_header(files: Files) -> Header:
    """Read geostore.json.

    Raises:
        NotFound: it is not there. UnsupportedFormat: a newer format. Corrupt: it does not parse.
    """
    try:
        raw = files.read(HEADER)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"no store at {files.url}; look at the path, or make one with `geostore ingest` or `geostore init`"
        ) from error
    try:
        found = json.loads(raw)
        version = found["version"]
        if isinstance(version, int) and version > FORMAT_VERSION and found["format"] == "geostore":
            raise UnsupportedFormat(
                f"{files.url} has format {version}; this geostore reads up to {FORMAT_VERSION}: install a newer one"
            )
        found = _from_bytes(raw)
        return Header(version, str(found["id"]), int(found["slots"]), int(found["made_us"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{files.url}/{HEADER} does not parse ({error}); restore it from a backup") from error


def collection_path(name: str, version: int) -> str:
    """Where one version of a collection lies under the root."""
    return f"collections/{name}/{version}.json"


def collection_versions(files: Files, name: str) -> list[int]:
    """Versions stored of a collection, ascending."""
    stems = (n.removesuffix(".json") for n in files.names(f"collections/{name}") if n.endswith(".json"))
    return sorted(int(s) for s in stems if s.isdigit())


def read_collection(files: Files, name: str, version: int) -> Collection:
    """One version of a collection.

    Raises:
        NotFound: it is not there. Corrupt: it does not parse.
    """
    path = collection_path(name, version)
    try:
        return collection_from_dict({**_from_bytes(files.read(path)), "geostore:version": version})
    except FileNotFoundError as error:
        there = collection_versions(files, name)
        raise NotFound(
            f"no version {version} of collection {name!r}; the newest is {there[-1]}"
            if there
            else f"no collection {name!r} in this store; `geostore collections` lists those there are"
        ) from error
    except (ValueError, KeyError, TypeError, InvalidInput) as error:
        raise Corrupt(f"{path} does not parse ({error}); restore it from a backup") from error


def add_collection(files: Files, collection: Collection) -> Collection:
    """Store `collection` as the version after the newest; the newest itself if nothing but the version differs."""
    known = collection_versions(files, collection.name)
    if known:
        newest = read_collection(files, collection.name, known[-1])
        if dataclasses.replace(collection, version=newest.version) == newest:
            return newest
    made = dataclasses.replace(collection, version=(known[-1] if known else 0) + 1)
    try:
        files.create(collection_path(made.name, made.version), _to_bytes(collection_to_dict(made)))
    except FileExistsError:
        return add_collection(files, collection)
    return made


def _to_bytes(members: dict[str, Any]) -> bytes:
    text = json.dumps({**members, CHECK: _check(members)}, indent=1, ensure_ascii=False)
    return (text + "\n").encode()


def _from_bytes(raw: bytes) -> dict[str, Any]:
    """The members without their check; raises ValueError or KeyError if they do not fit it."""
    members: dict[str, Any] = json.loads(raw)
    if members.pop(CHECK) != _check(members):
        raise ValueError(f"it fails its {CHECK}")
    return members


def _check(members: dict[str, Any]) -> str:
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_64_hexdigest(text.encode())


def check_meaning(old: Collection, new: Collection, stored: Iterable[str]) -> None:
    """Raise Conflict where stored numbers of these band groups, or their cells, would change their meaning."""
    step = "give the new declaration a name of its own"
    if new.precision != old.precision:
        raise Conflict(f"collection {old.name!r} holds cells of precision {old.precision}, not {new.precision}; {step}")
    for group in stored:
        there, asked = (_numbers(c, group) for c in (old, new))
        if there != asked:
            raise Conflict(f"collection {old.name!r} holds rasters of {group} as {there}, not as {asked}; {step}")


def _numbers(collection: Collection, group: str) -> str:
    """What the stored numbers of a band group mean, in words."""
    bands = collection.groups.get(group, ())
    return ", ".join(f"{b.name} ({b.dtype} x {b.scale:g} + {b.offset:g})" for b in bands) or "nothing"
