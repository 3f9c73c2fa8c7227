"""Read everything a store holds and say what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from geostore.codec import Progress
from geostore.errors import Corrupt, GeostoreError
from geostore.storage import header, witness
from geostore.storage.blobs import blob_path, digest_in, original_path, read_piece
from geostore.storage.files import digest_of
from geostore.storage.parts import part_kind
from geostore.storage.records import AT, Values, group_of, has_payload, key_of, piece_of
from geostore.storage.tables import SlotTable
from geostore.storage.view import Rotten

if TYPE_CHECKING:
    from geostore.storage.store import Store


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: "header", "collection", "log", "rows", "blob", "missing", "view" or "index".
        path: of the file, relative to the store's root.
        message: what was found, and what to do.
    """

    kind: str
    path: str
    message: str


@dataclass
class Groups:
    """The groups of one slot, as (partition, name): what rasters need, and what is there."""

    needed: set[Values] = field(default_factory=set)
    there: set[Values] = field(default_factory=set)

    def note(self, kind: str, values: Values) -> None:
        """Take one row in."""
        if kind == "group":
            self.there.add((*values[1:4], values[AT["group"]["id"]]))
        elif kind == "embedding" and (name := group_of(values)) is not None:
            self.needed.add((*values[1:4], name))

    def missing(self, root: str) -> Iterator[Finding]:
        """What rasters need and no row holds."""
        for collection, geohash, band_group, name in sorted(self.needed - self.there):
            where = f"{collection} {geohash} {band_group}"
            yield Finding("missing", root, f"a raster of {where} needs group {name}; restore it from a backup")


def verify(store: Store, progress: Progress) -> list[Finding]:
    """Everything that is wrong with `store`; an empty list if nothing is."""
    found = [*_heads(store)]
    needed: set[str] = set()
    for slot, table in store.tables.items():
        progress("tables", slot / store.slots)
        groups = Groups()
        for kind, values in _slot_rows(table, found):
            found += _references(store, kind, values, needed)
            groups.note(kind, values)
        found += groups.missing(table.root)
        found += _superseded(table)
        found += [Finding("log", path, what) for path, what in witness.wrong(store.files, table.root)]
    found += _blobs(store, needed, progress)
    found += _view(store)
    progress("verify", 1.0)
    return list(dict.fromkeys(found))


def _heads(store: Store) -> Iterator[Finding]:
    try:
        header.read_header(store.files)
    except GeostoreError as error:
        yield Finding("header", header.HEADER, str(error))
    for name in store.files.names("collections"):
        for version in header.collection_versions(store.files, name):
            try:
                header.read_collection(store.files, name, version)
            except GeostoreError as error:
                yield Finding("collection", header.collection_path(name, version), str(error))


def _slot_rows(table: SlotTable, found: list[Finding]) -> Iterator[tuple[str, Values]]:
    try:
        parts = table.snapshot().parts
    except Corrupt as error:
        found.append(Finding("log", table.root, str(error)))
        return
    for path in parts:
        try:
            yield from ((part_kind(path), values) for values in table.read(path))
        except GeostoreError as error:
            found.append(Finding("rows", f"{table.root}/{path}", str(error)))


def _superseded(table: SlotTable) -> Iterator[Finding]:
    """Part files on the disk that do not match the digest in their name; live ones were read already."""
    for path, _, _ in table.files.walk(table.root):
        if "/kind=" in path and digest_of(table.files.read(path)) != digest_in(path):
            yield Finding("rows", path, "it fails its digest; restore it from a backup")


def _references(store: Store, kind: str, values: Values, needed: set[str]) -> Iterator[Finding]:
    """What a row points to is noted in `needed`; a payload in a stream is read and checked."""
    if kind == "codec" and values[AT["codec"]["blob"]] is not None:
        needed.add(blob_path("codecs", values[AT["codec"]["blob"]]))
    if kind == "codec":
        shared = json.loads(values[AT["codec"]["body"]])["facts"].get("networks", "")
        needed |= {blob_path("models", digest) for digest in shared.split(",") if digest}
    if kind == "event":
        fields = json.loads(values[AT["event"]["body"]])["fields"]
        needed |= {blob_path("models", digest) for digest in fields.get("models", ())}
    if not has_payload(kind):
        return
    piece = piece_of(kind, values)
    if piece is not None:
        path = blob_path("streams", piece.stream)
        needed.add(path)
        try:
            read_piece(store.files, piece)
        except GeostoreError as error:
            yield Finding("blob", path, str(error))
    if kind == "group":
        return
    original = values[AT["raster"]["original"]]
    if original and not original.startswith("ref:"):
        needed.add(original_path(key_of(values), original))


def _blobs(store: Store, needed: set[str], progress: Progress) -> Iterator[Finding]:
    there = [path for path, _, _ in store.files.walk("blobs")]
    for i, path in enumerate(there):
        progress("blobs", i / len(there))
        seen = digest_of(store.files.read(path))
        if seen != digest_in(path):
            yield Finding("blob", path, f"its digest is {seen}; restore it from a backup")
    for path in sorted(needed.difference(there)):
        yield Finding("missing", path, "a row needs it; restore it from a backup")


def _view(store: Store) -> Iterator[Finding]:
    """The view only repeats the tables: what is wrong with it is mended by `rebuild`."""
    try:
        store.check_view()
    except Rotten as error:
        yield Finding("view", ".view", f"{error}; run `geostore rebuild`")
    except Corrupt as error:  # of the tables: named above, file by file
        yield Finding("log", "tables", f"no view can be made: {error}")
