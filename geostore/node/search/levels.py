"""The indexes of one model on disk: rasters, chips and finer ones by precision, and the state they are level with."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from geostore.durable import write_whole
from geostore.errors import Corrupt, NotComparable
from geostore.index.rows import Rows, Space
from geostore.index.segments import Segments, open_or_create
from geostore.storage.standing import State, state_from_dict, state_to_dict
from geostore.storage.tables import Snapshot

FOLDER = ".index"
STATE = "state.json"
RASTER, CHIP, FINE = "raster", "chip", "fine"
VERIFIED_MAX = 2**26  # bytes; read in some ten milliseconds
LETTERS = {RASTER: 0, CHIP: 1, FINE: 2}  # more than a raster's cell has
_FORMAT = 3
Name = tuple[str, int]  # (of LETTERS, letters of its cells)


@dataclass
class Levels:
    """What is searched for one model.

    Attributes:
        folder: where it lies.
        space: of its signatures.
        store: the store's id.
        indexes: by level.
        state: versions of the slots it is level with; {} where everything must be compared.
        damage: what is wrong with the files, "" if nothing; then nothing of them is used.
    """

    folder: Path
    space: Space
    store: str
    indexes: dict[Name, Segments] = field(default_factory=dict)
    state: State = field(default_factory=dict)
    damage: str = ""

    @classmethod
    def open(cls, folder: Path, space: Space, store: str) -> Levels:
        """What is in `folder`; nothing of it, where some is damaged or belongs elsewhere.

        An index of up to VERIFIED_MAX bytes is held to its checksums; of a larger one only what leads to the rows, as
        reading it takes longer than a question may: `verify` does so.

        Raises:
            UnsupportedFormat: a newer geostore wrote it.
        """
        found = cls(folder, space, store)
        try:
            for path in sorted(folder.glob("*-*/")):
                kind, precision = path.name.split("-")
                index = Segments.open(path)
                index.space.check(space)
                if _size(path) <= VERIFIED_MAX:
                    index.verify()
                found.indexes[kind, int(precision)] = index
            found.state = _read_state(folder / STATE, store)
        except (Corrupt, NotComparable, KeyError, TypeError, ValueError) as error:
            return cls(folder, space, store, damage=str(error) or type(error).__name__)
        return found

    def clear(self) -> None:
        """Throw everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.indexes, self.state, self.damage = {}, {}, ""

    def holds(self, now: State) -> bool:
        """Whether it is level with `now`, or beyond."""
        return all(self.state.get(slot, _NONE).version >= s.version for slot, s in now.items())

    def frozen(self) -> Levels:
        """The same for a reader: what is appended later is not seen through it."""
        indexes = {name: copy.copy(index) for name, index in self.indexes.items()}
        return Levels(self.folder, self.space, self.store, indexes, self.state)

    def at(self, kind: str) -> list[Segments]:
        """The indexes of one kind, by precision."""
        return [index for (k, _), index in sorted(self.indexes.items()) if k == kind]

    def append(self, kind: str, precision: int, rows: Rows | None) -> None:
        """Add rows, in place of earlier ones of their keys."""
        if rows is None:
            return
        if (kind, precision) not in self.indexes:
            path = self.folder / f"{kind}-{precision}"
            self.indexes[kind, precision] = open_or_create(path, self.space, precision, letters=int(kind != RASTER))
        self.indexes[kind, precision].append(rows)

    def drop(self, keys: Iterable[bytes], kind: str = "") -> None:
        """Rows of these keys do not count any more, of one kind or all; chips first, as rasters vouch for them."""
        gone = list(keys)
        for name, index in sorted(self.indexes.items(), key=lambda item: (item[0][0] == RASTER, item[0])):
            if kind in ("", name[0]) and gone and index.stamps(gone):
                index.drop(gone)

    def stamps(self, keys: Iterable[bytes] | None = None) -> dict[bytes, tuple[int, int]]:
        """What the rows of rasters were made from; of all, or of these keys."""
        wanted = None if keys is None else list(keys)
        found: dict[bytes, tuple[int, int]] = {}
        for index in self.at(RASTER):
            found |= index.stamps(wanted)
        return found

    def note(self, state: State) -> None:
        """Say durably what it is level with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        members = {"format": _FORMAT, "store": self.store, "slots": state_to_dict(state)}
        text = json.dumps({**members, "check": _check(members)})
        write_whole(self.folder / STATE, lambda stream: stream.write(text.encode()))
        self.state = state

    def size(self) -> int:
        """Bytes of its files."""
        return _size(self.folder)

    def unchecked(self) -> int:
        """Bytes of the indexes that are too large to be held to their checksums as they are opened."""
        sizes = (_size(index.folder) for index in self.indexes.values())
        return sum(size for size in sizes if size > VERIFIED_MAX)


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


_NONE = Snapshot()


def _read_state(path: Path, store: str) -> State:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    check = found.pop("check")
    if check != _check(found) or found["format"] != _FORMAT or found["store"] != store:
        raise ValueError("another store's, or damaged")
    return state_from_dict(found["slots"])


def _check(members: Mapping[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(members, sort_keys=True, separators=(",", ":")).encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While inside, no other process changes the indexes in `folder`; waits for one that does."""
    folder.parent.mkdir(parents=True, exist_ok=True)  # it may have been deleted since it was found
    handle = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def borrow(theirs: Path, mine: Path) -> None:
    """Make `mine` what `theirs` is, and let it go on from there: rows are links, which never change, the rest copies.

    What goes meanwhile is missed by whoever opens `mine`, as damage.
    """

    def taken(source: str, target: str) -> str:
        if source.endswith((".segment", ".dead")):
            Path(target).symlink_to(Path(source).resolve())
            return target
        return str(shutil.copyfile(source, target))

    shutil.rmtree(mine, ignore_errors=True)
    with contextlib.suppress(OSError):
        shutil.copytree(theirs, mine, copy_function=taken)


def usable(store_root: Path | None) -> Path | None:
    """The folder for indexes in a local store, made if it is not there; None where it cannot be written."""
    if store_root is None:
        return None
    root = store_root / FOLDER
    with contextlib.suppress(OSError):
        root.mkdir(exist_ok=True)
        if os.access(root, os.W_OK | os.X_OK):
            return root
    return None
