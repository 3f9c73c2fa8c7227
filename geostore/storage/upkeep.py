"""Merge, drop and count what lies in a store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from geostore.codec import Progress
from geostore.storage import follow
from geostore.storage.blobs import blob_path, original_path, put_blob, read_piece
from geostore.storage.files import Files
from geostore.storage.log import LOG
from geostore.storage.pack import join_stream, pieces_of
from geostore.storage.records import (
    AT,
    COLUMNS,
    KIND_COLUMNS,
    Piece,
    Values,
    group_of,
    has_payload,
    key_of,
    moved,
    piece_of,
)
from geostore.storage.tables import SlotTable, Snapshot
from geostore.storage.view import View

if TYPE_CHECKING:
    from geostore.storage.store import Store

_DAY_S = 86_400.0
_LOG_BYTES_MAX = 16_384  # a log beyond this outweighs a checkpoint
PARTS = ("tables", "collections", "blobs/codecs", "blobs/streams", "blobs/models", "blobs/rasters")
Rows = dict[str, list[Values]]
Listed = tuple[str, int, float]  # path, bytes, modification time


def bytes_durable(files: Files) -> dict[str, int]:
    """Sum of file sizes by part; "other" is what belongs to none."""
    return _by_part(files.walk())


def bytes_counted(store: Store) -> tuple[dict[str, int], int]:
    """`bytes_durable`, and of them those that no current row needs: `prune` frees them. The files are listed once."""
    listed = store.files.walk()
    return _by_part(listed), _superseded(store, [f for f in listed if f[0].startswith(("blobs/", "tables/"))])


def _by_part(listed: Iterable[Listed]) -> dict[str, int]:
    sums = dict.fromkeys((*PARTS, "other"), 0)
    for path, size, _ in listed:
        part = next((p for p in PARTS if path.startswith(f"{p}/")), "other")
        sums[part] += size
    return sums


def _superseded(store: Store, listed: Iterable[Listed]) -> int:
    """Bytes in blobs and tables that no current row needs, but for those of withdrawn rows: `prune` frees them."""
    used: Counter[str] = Counter()
    whole: set[str] = set()
    inline = 0
    for partition in store.partitions():
        rows = _current_of(store, partition)
        inline += _inline(_all_of(store, partition, rows)) - _inline(rows)
        for piece in {p for kind, v in rows if has_payload(kind) and (p := piece_of(kind, v)) is not None}:
            used[blob_path("streams", piece.stream)] += piece.length
        whole |= _blobs_of(_sorted(rows))
    for slot, table in store.tables.items():
        whole |= {f"{table.root}/{part}" for part in store.see(lambda view, slot=slot: view.state(slot)[0]).parts}  # type: ignore[misc]
    return inline + sum(
        max(size - used[path], 0) if path in used else size
        for path, size, _ in listed
        if (path in used or path not in whole) and not path.startswith("blobs/models/") and LOG not in path
    )


def compact(store: Store, progress: Progress, *, retain_days: float | None) -> None:
    """One part file a kind, a checkpoint where the log outweighs it, and no file superseded long ago."""
    store.check_writable()
    store.refresh()
    before_s = _before(store, retain_days)
    for slot, table in store.tables.items():
        progress("compact", slot / store.slots)
        if table.latest() < 0:
            continue
        snapshot, found = follow.read_slot(table)
        snapshot = table.rewrite("compact", _sorted(found), snapshot)
        store.adopt(slot, snapshot)
        _tidy(table, snapshot, before_s)
    progress("compact", 1.0)


def join_crowds(store: Store, slot: int, state: Snapshot) -> None:
    """Join part files where a slot has many small ones, and delete what was superseded `vacuum_days` ago."""
    table = store.tables[slot]
    crowds = table.crowds(state)
    for parts in crowds:
        state = table.join(_sorted(follow.read_rows(table, parts)), parts, state)
        store.adopt(slot, state)
    if crowds:
        table.sweep(state, before_s=_before(store, None))


def _tidy(table: SlotTable, snapshot: Snapshot, before_s: float) -> None:
    log = [(p, size) for p, size, _ in table.files.walk(f"{table.root}/{LOG}") if p.endswith(".json")]
    if sum(size for _, size in log) > _LOG_BYTES_MAX:
        table.checkpoint(snapshot)
    table.sweep(snapshot, before_s=before_s)


def _before(store: Store, retain_days: float | None) -> float:
    days = store.settings.vacuum_days if retain_days is None else retain_days
    return time.time() - days * _DAY_S + (1.0 if days == 0 else 0.0)


def _sorted(found: Iterable[tuple[str, Values]]) -> Rows:
    """Rows by kind, neighbours in space then time together."""
    rows: Rows = {}
    for kind, values in found:
        rows.setdefault(kind, []).append(values)
    for kind, items in rows.items():
        if kind in ("raster", "embedding"):
            items.sort(key=lambda v: (*v[1:6], v[0]))
        else:
            items.sort(key=lambda v: int(v[0]))
    return rows


def prune(store: Store, progress: Progress, *, retain_days: float | None) -> None:
    """Rows that count no more go from every slot, then the blobs that no row names."""
    store.check_writable()
    store.refresh()
    before_s = _before(store, retain_days)
    current = current_rows(store)
    needed: set[str] = set()
    for slot, table in store.tables.items():
        progress("prune", slot / store.slots)
        if table.latest() < 0:
            continue
        snapshot, found = follow.read_slot(table)
        kept = _kept(found, current.get(slot, set()))
        rows = _sorted(repack(store.files, kept) if len(kept) < len(found) else kept)
        if len(kept) < len(found):
            snapshot = table.rewrite("prune", rows, snapshot)
        _tidy(table, snapshot, before_s)
        needed |= _blobs_of(rows)
    store.rebuild()
    for path, _, changed in store.files.walk("blobs"):
        if path not in needed and not path.startswith("blobs/models/") and changed < before_s:
            store.files.delete(path)
    progress("prune", 1.0)


def current_rows(store: Store) -> dict[int, set[tuple[str, int]]]:
    """(kind, sequence number) of the rows that count, by slot."""
    found: dict[int, set[tuple[str, int]]] = {}
    for partition in store.partitions():
        slot = found.setdefault(store.slot_of(partition.geohash), set())
        slot |= {(kind, values[0]) for kind, values in _current_of(store, partition)}
    for scene in store.see(View.scenes):
        found.setdefault(store.slot_of_scene(scene[AT["scene"]["id"]]), set()).add(("scene", scene[0]))
    home = found.setdefault(store.slot_of_scene(store.id), set())
    home |= {("job", values[0]) for values in store.see(View.jobs)}
    home |= {("event", values[0]) for values in store.see(View.events)}
    return found


def _current_of(store: Store, partition: Any) -> list[tuple[str, Values]]:
    """The current rasters of a partition; its generation 0, its newest, and every generation a raster needs."""
    rows = store.current_values(partition)
    at, codec_at = AT["raster"]["generation"], AT["codec"]["generation"]
    codecs = store.see(lambda view: view.codecs(partition))
    used = {0, *(v[at] for v in rows), *(v[codec_at] for v in codecs[-1:])}
    keep = [("embedding" if v[at] else "raster", v) for v in rows]
    named = {name for v in rows if (name := group_of(v)) is not None}
    groups = [store.see(lambda view, name=name: view.group(partition, name)) for name in named]  # type: ignore[misc]
    keep += [("group", v) for v in groups if v is not None]
    return keep + [("codec", v) for v in codecs if v[codec_at] in used]


def _all_of(store: Store, partition: Any, current: list[tuple[str, Values]]) -> list[tuple[str, Values]]:
    """Raster and codec rows of every generation of a partition, and the groups of the `current` ones."""
    at = AT["raster"]["generation"]
    rows = store.see(lambda view: view.rasters(partition, None, None))
    found = [("embedding" if v[at] else "raster", v) for _, v in rows]
    found += [("codec", v) for v in store.see(lambda view: view.codecs(partition))]
    return found + [(kind, v) for kind, v in current if kind == "group"]


def _inline(rows: list[tuple[str, Values]]) -> int:
    """Bytes that lie in rows themselves: masks, small payloads and small codecs."""
    columns = {kind: [AT[kind][n] for n in ("valid", "payload", "data") if n in AT[kind]] for kind in KIND_COLUMNS}
    return sum(len(v[at] or b"") for kind, v in rows for at in columns[kind])


def _kept(found: list[tuple[str, Values]], current: set[tuple[str, int]]) -> list[tuple[str, Values]]:
    """The rows that count, and the scene numbers they name."""
    named = {
        (v[AT["raster"]["collection"]], v[AT["raster"]["scene"]])
        for kind, v in found
        if kind in ("raster", "embedding") and (kind, v[0]) in current
    }
    at = AT["scene"]
    return [
        (kind, v)
        for kind, v in found
        if (kind, v[0]) in current
        or (kind == "scene" and v[at["scene"]] is not None and (v[at["collection"]], v[at["scene"]]) in named)
    ]


def repack(files: Files, rows: list[tuple[str, Values]]) -> list[tuple[str, Values]]:
    """The same rows with payloads moved out of streams that hold bytes no row needs, into one new stream."""
    pieces = [p for kind, v in rows if has_payload(kind) and (p := piece_of(kind, v)) is not None]
    live: dict[str, dict[int, int]] = {}
    for piece in pieces:
        live.setdefault(piece.stream, {})[piece.offset] = piece.length
    partly = {s for s, used in live.items() if sum(used.values()) != files.size(blob_path("streams", s))}
    moving = {p: read_piece(files, p) for p in pieces if p.stream in partly}
    if not moving:
        return rows
    digest, stream = join_stream(list(dict.fromkeys(moving.values())))
    put_blob(files, blob_path("streams", digest), stream)
    places = pieces_of(digest, list(dict.fromkeys(moving.values())))
    return [(kind, _moved(kind, v, moving, places)) for kind, v in rows]


def _moved(kind: str, values: Values, moving: dict[Piece, bytes], places: dict[bytes, Piece]) -> Values:
    piece = piece_of(kind, values) if has_payload(kind) else None
    return values if piece is None or piece not in moving else moved(kind, values, places[moving[piece]])


def _blobs_of(rows: Rows) -> set[str]:
    needed = {
        blob_path("codecs", v[AT["codec"]["blob"]]) for v in rows.get("codec", ()) if v[AT["codec"]["blob"]] is not None
    }
    pieces = (piece_of(kind, v) for kind, found in rows.items() if has_payload(kind) for v in found)
    needed |= {blob_path("streams", piece.stream) for piece in pieces if piece is not None}
    for values in (*rows.get("raster", ()), *rows.get("embedding", ())):
        original = values[AT["raster"]["original"]]
        if original and not original.startswith("ref:"):
            needed.add(original_path(key_of(values), original))
    return needed


def table(store: Store, kind: str) -> Any:
    """Every row of one kind as an Arrow table, scene numbers resolved, with a bool column `current`."""
    names = KIND_COLUMNS[kind]
    current = current_rows(store)
    rows: list[tuple[Any, ...]] = []
    for slot, slot_table in store.tables.items():
        _, found = follow.read_slot(slot_table)
        for k, values in found:
            if k == kind and not (kind == "scene" and values[AT["scene"]["scene"]] is not None):
                rows.append((*_named(store, slot, kind, values), (k, values[0]) in current.get(slot, set())))
    types = [pa.string() if n == "scene" else COLUMNS[n] for n in names]
    columns = list(zip(*rows, strict=True)) if rows else [()] * (len(names) + 1)
    arrays = [pa.array(c, t) for c, t in zip(columns, [*types, pa.bool_()], strict=True)]
    return pa.table(dict(zip([*names, "current"], arrays, strict=True)))


def _named(store: Store, slot: int, kind: str, values: Values) -> Values:
    if kind not in ("raster", "embedding"):
        return values
    at = AT["raster"]["scene"]
    return (*values[:at], store.scene_names(slot)[values[at]][1], *values[at + 1 :])
