"""Keep a view in step with the tables."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import lmdb
import xxhash

from geostore.durable import flush
from geostore.errors import Corrupt
from geostore.storage.lock import is_held
from geostore.storage.log import Commit, after
from geostore.storage.parts import part_kind
from geostore.storage.records import Values
from geostore.storage.scratch import Scratch
from geostore.storage.tables import SlotTable, Snapshot
from geostore.storage.view import Rotten, View

VIEW = ".view"
DATA = "data.mdb"
_STATE = "state.json"
_TRIES = 5
_BLOCK = 2**20
Change = tuple[int, Snapshot, list[tuple[str, Values]]]


def follow(view: View, tables: Mapping[int, SlotTable]) -> bool:
    """Bring `view` to the newest version of every table; False if it must be built anew instead.

    Raises:
        Corrupt: a table ends before what the view has seen.
    """
    changes: list[Change] = []
    for slot, table in tables.items():
        state, _ = view.state(slot)
        if _latest(table, state.version) == state.version:
            continue
        change = _advance(table, state)
        if change is None:
            return False
        changes.append(change)
    if changes:
        view.apply(changes)
    return True


def _latest(table: SlotTable, seen: int) -> int:
    """The newest version of a table; raises Corrupt where files of it are gone that were there before."""
    latest = table.latest()
    if latest < seen:
        raise Corrupt(
            f"{table.root} ends at version {latest}, but version {seen} was seen here before: its files are gone; "
            "restore the store from a backup, or run `geostore rebuild` to go on with what is left"
        )
    return latest


def _advance(table: SlotTable, state: Snapshot) -> Change | None:
    """What happened to a slot since `state`; None if rows went, or the log no longer tells."""
    commits = table.commits(state)
    if commits is None or any(c.verb == "prune" and not c.stale for c in commits):
        return None
    if state.version < 0 and commits:
        return None
    parts, seal, fresh = state.parts, state.seal, list[str]()
    for commit in commits:
        parts, seal = _live(parts, commit), after(seal, commit)
        fresh += commit.adds if commit.verb == "put" and not commit.stale else ()
    version = commits[-1].version if commits else state.version
    try:
        return table.slot, Snapshot(version, seal, parts), read_rows(table, fresh)
    except Corrupt:  # gone, perhaps: joined with others since, and deleted
        return None


def _live(parts: tuple[str, ...], commit: Commit) -> tuple[str, ...]:
    if commit.stale:
        return parts
    return (*(p for p in parts if p not in commit.removes), *commit.adds)


def read_rows(table: SlotTable, parts: Iterable[str]) -> list[tuple[str, Values]]:
    """(kind, columns) of every row of `parts`, in the order they were committed."""
    found = [(part_kind(path), values) for path in parts for values in table.read(path)]
    return sorted(found, key=lambda item: item[1][0])


def fill(view: View, tables: Mapping[int, SlotTable], store_id: str) -> None:
    """Build an empty view from the tables."""
    view.begin_for(store_id)
    for slot, table in tables.items():
        snapshot, rows = read_slot(table)
        if snapshot.version >= 0:
            view.apply([(slot, snapshot, rows)])


def read_slot(table: SlotTable) -> tuple[Snapshot, list[tuple[str, Values]]]:
    """The newest snapshot of a table and all its rows; tried again if an owner swept files meanwhile."""
    for attempt in range(_TRIES):
        snapshot = table.snapshot()
        try:
            return snapshot, read_rows(table, snapshot.parts)
        except Corrupt:
            if attempt + 1 == _TRIES or table.latest() == snapshot.version:
                raise
    raise AssertionError("unreachable")


def boot_id() -> str:
    """Changes when the machine starts anew; a view that was not synced does not outlive it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def mark(folder: Path, *, clean: bool) -> None:
    """Note beside the view, durably, whether it was synced when it was closed, and then its digest."""
    digest = _digest(folder / DATA) if clean else ""
    (folder / _STATE).write_text(json.dumps({"boot": boot_id(), "clean": clean, "digest": digest}))
    flush(folder / _STATE)
    flush(folder)


def was_closed(folder: Path) -> bool:
    """True if the last writer closed the store; else it was killed, or the power failed."""
    try:
        return bool(json.loads((folder / _STATE).read_text()).get("clean"))
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    """xxh3-128 of a file: LMDB has no checksums of its own, and rot in its pages hides records or ends the process."""
    seen = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            seen.update(block)
    return seen.hexdigest()


def is_sound(folder: Path) -> bool:
    """True if the view in `folder` is as its writer closed it: nothing else vouches for its pages."""
    try:
        found = json.loads((folder / _STATE).read_text())
        return bool(found.get("clean")) and bool(found.get("digest") == _digest(folder / DATA))
    except (OSError, ValueError, AttributeError):
        return False


def is_in_use(folder: Path) -> bool:
    """True if the view in `folder` belongs to a writer that has the store open on this machine."""
    try:
        found = json.loads((folder / _STATE).read_text())
        here = not found.get("clean") and bool(boot_id()) and found.get("boot") == boot_id()
    except (OSError, ValueError, AttributeError):
        return False
    return here and is_held(folder.parent)


def open_own(folder: Path, size_bytes: int, store_id: str) -> tuple[View, bool]:
    """The writer's view, and True if it is new and must be filled."""
    if is_sound(folder):
        try:
            view = View(folder, size_bytes=size_bytes)
            if view.store_id() == store_id:
                mark(folder, clean=False)
                return view, False
            view.close()
        except (lmdb.Error, Rotten):
            pass
    return anew(folder, size_bytes), True


def anew(folder: Path, size_bytes: int) -> View:
    """An empty view in `folder`, whatever was there before."""
    shutil.rmtree(folder, ignore_errors=True)
    view = View(folder, size_bytes=size_bytes)
    mark(folder, clean=False)
    return view


def open_shared(folder: Path, size_bytes: int, store_id: str) -> View | None:
    """The writer's view for reading, or None if it cannot be used."""
    if not is_in_use(folder) and not is_sound(folder):
        return None
    try:
        view = View(folder, size_bytes=size_bytes, readonly=True)
    except (lmdb.Error, OSError):
        return None
    try:
        if view.store_id() == store_id:
            return view
    except Rotten:
        pass
    view.close()
    return None


def is_level(view: View, tables: Mapping[int, SlotTable]) -> bool:
    """True if `view` holds the newest version of every table. Raises Corrupt where a table ends before it."""
    return all(seen == _latest(table, seen) for table, seen in _seen(view, tables))


def _seen(view: View, tables: Mapping[int, SlotTable]) -> Iterator[tuple[SlotTable, int]]:
    """Each table, and the version of it that `view` holds."""
    for slot, table in tables.items():
        yield table, view.state(slot)[0].version


def compare(view: View, tables: Mapping[int, SlotTable], store_id: str, size_bytes: int) -> None:
    """Raise Rotten unless `view` holds what a view made anew from the tables holds."""
    with Scratch("view") as scratch:
        other = View(scratch.path, size_bytes=size_bytes)
        try:
            fill(other, tables, store_id)
            if other.digest() != view.digest():
                raise Rotten(f"{view.path} does not hold what the tables hold")
        finally:
            other.close()
