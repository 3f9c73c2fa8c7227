"""The segments of one index: rows are appended, superseded and merged; a manifest says which files count.

    <folder>/manifest.json      what counts: space, precision, segments in order; replaced at once
    <folder>/<number>.segment   rows, never changed
    <folder>/<number>-<n>.dead  which rows of it do not count any more

The folder is disposable: it is made again from the tables. One process writes; any number read what the manifest named
when they opened it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from geostore.durable import flush, write_whole
from geostore.errors import Corrupt, NotComparable, NotFound, UnsupportedFormat
from geostore.index.arrays import open_arrays, write_arrays
from geostore.index.bits import Words, bitmap_of, bits_at, count_bits
from geostore.index.rows import Rows, Space, joined
from geostore.index.segment import Segment, write_segment

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SEGMENTS_MAX = 8  # more are merged at the next append
DEAD_MAX = 0.25  # of a segment's rows; more, and it is merged at the next append


@dataclass(frozen=True)
class Part:
    """A segment as the manifest names it.

    Attributes:
        number: of its file.
        segment: its rows.
        alive: bitmap of rows that count, or None for all.
        dead_file: where that is stored, or "".
    """

    number: int
    segment: Segment
    alive: Words | None = None
    dead_file: str = ""

    @property
    def count(self) -> int:
        """Rows that count."""
        return len(self.segment) if self.alive is None else int(count_bits(self.alive))


class Segments:
    """An index on disk; make one with `create` or `open`.

    Attributes:
        folder: where it lies.
        space: what its signatures are comparable with.
        precision: geohash length of its cells.
        letters: of a cell that rows are not summed up by, at its end.
        parts: segments, oldest first.
    """

    def __init__(
        self, folder: Path, space: Space, precision: int, letters: int, parts: Sequence[Part], next_number: int
    ) -> None:
        self.folder, self.space, self.precision, self.letters = folder, space, precision, letters
        self.parts = tuple(parts)
        self._next = next_number

    def __len__(self) -> int:
        return sum(p.count for p in self.parts)

    @classmethod
    def create(cls, folder: Path, space: Space, precision: int, *, letters: int = 0) -> Segments:
        """An empty index in `folder`, in place of any that is there."""
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder, space, precision, letters, (), 0)
        made._publish(())
        return made

    @classmethod
    def open(cls, folder: Path) -> Segments:
        """The index in `folder`.

        Raises:
            NotFound: there is none. Corrupt: a file is missing or fails its checksum: delete the folder, build again.
            UnsupportedFormat: a newer geostore wrote it.
        """
        try:
            found = _checked(folder, (folder / MANIFEST).read_bytes())
        except FileNotFoundError as error:
            raise NotFound(f"no index in {folder}; run `geostore index build`") from error
        parts = [_open_part(folder, entry) for entry in found["segments"]]
        space, precision, letters = Space(**found["space"]), found["precision"], found.get("letters", 0)
        return cls(folder, space, precision, letters, parts, found["next"])

    def append(self, rows: Rows) -> None:
        """Add rows; earlier rows of the same keys do not count any more. Merges where there are many segments.

        Durable when it returns; after a crash all of it is there or none.

        Raises:
            NotComparable: the rows do not have the shape of the index's space, or follow another legend.
            StorageFull: there is no room.
        """
        rows.check(self.space)
        self._check_legend(rows)
        kept = [self._without(part, rows.keys) for part in self.parts]
        if len(rows):
            kept.append(self._written(rows))
        self._publish(tuple(kept))
        if len(self.parts) > SEGMENTS_MAX or any(p.count < (1 - DEAD_MAX) * len(p.segment) for p in self.parts):
            self._merge(_worth_merging(self.parts))

    def _check_legend(self, rows: Rows) -> None:
        known = {p.segment.labels.legend.name for p in self.parts if p.segment.labels is not None}
        if rows.legend is not None and known - {rows.legend.name}:
            raise NotComparable(f"labels by {rows.legend.name}; the index has {sorted(known)}: translate them first")

    def drop(self, keys: Iterable[bytes]) -> None:
        """Rows of these keys do not count any more."""
        gone = list(keys)
        self._publish(tuple(self._without(part, gone) for part in self.parts))

    def compact(self) -> None:
        """Merge everything into one segment without dead rows."""
        self._merge(range(len(self.parts)))

    def verify(self) -> None:
        """Read every byte. Raises Corrupt."""
        for part in self.parts:
            part.segment.file.verify()

    def keys(self) -> set[bytes]:
        """The keys that rows which count belong to."""
        found: set[bytes] = set()
        for part in self.parts:
            owners = part.segment.owners
            chosen = owners if part.alive is None else owners[_rows(part.alive, len(owners))]
            found |= {part.segment.keys[int(o)] for o in np.unique(chosen)}
        return found

    def stamps(self, keys: Iterable[bytes] | None = None) -> dict[bytes, tuple[int, int]]:
        """What the rows of each key were made from; of all keys with rows that count, or of those given."""
        found: dict[bytes, tuple[int, int]] = {}
        wanted = None if keys is None else list(keys)
        for part in self.parts:
            segment = part.segment
            if wanted is None:
                rows = np.arange(len(segment)) if part.alive is None else _rows(part.alive, len(segment))
            else:
                rows = segment.rows_of(wanted)
                rows = rows if part.alive is None else rows[bits_at(part.alive, rows)]
            names, stamps = segment.keys, segment.stamps
            for owner in np.unique(segment.owners[rows]):
                first, second = stamps[owner]
                found[names[int(owner)]] = int(first), int(second)
        return found

    def take(self, keys: Iterable[bytes]) -> Rows | None:
        """The rows of these keys that count, as they were given; None if there are none."""
        wanted = list(keys)
        parts = []
        for part in self.parts:
            rows = part.segment.rows_of(wanted)
            rows = rows if part.alive is None else rows[bits_at(part.alive, rows)]
            if len(rows):
                parts.append(part.segment.take(rows))
        return joined(parts) if parts else None

    def everything(self) -> Rows | None:
        """All rows that count; None if there are none."""
        living = [_living(part) for part in self.parts if part.count]
        return joined(living) if living else None

    def replace(self, change: Callable[[Rows], Rows]) -> None:
        """All rows that count as `change` gives them back, in one segment; all of it or nothing.

        Raises:
            StorageFull: there is no room.
        """
        rows = self.everything()
        if rows is not None:
            self._publish((self._written(change(rows)),))

    def _merge(self, which: Iterable[int]) -> None:
        chosen = list(which)
        if not chosen or (len(chosen) == 1 and self.parts[chosen[0]].alive is None):
            return
        rows = joined([_living(self.parts[i]) for i in chosen])
        made = [self._written(rows)] if len(rows) else []
        first = chosen[0]
        before = [p for i, p in enumerate(self.parts) if i not in chosen and i < first]
        after = [p for i, p in enumerate(self.parts) if i not in chosen and i > first]
        self._publish((*before, *made, *after))

    def _written(self, rows: Rows) -> Part:
        number = self._next
        self._next += 1
        path = self.folder / f"{number:06d}.segment"
        write_segment(path, rows, space=self.space, precision=self.precision, letters=self.letters)
        return Part(number, Segment.open(path))

    def _without(self, part: Part, keys: Iterable[bytes]) -> Part:
        rows = part.segment.rows_of(set(keys))
        dead = bitmap_of(rows, len(part.segment))
        alive = _every(len(part.segment)) if part.alive is None else part.alive
        if not (alive & dead).any():
            return part
        name = f"{part.number:06d}-{self._next}.dead"
        self._next += 1
        write_arrays(self.folder / name, {"alive": alive & ~dead}, {"kind": "dead"})
        return Part(part.number, part.segment, alive & ~dead, name)

    def _publish(self, parts: tuple[Part, ...]) -> None:
        """Make `parts` what counts, then remove files that do not."""
        members = {
            "format": FORMAT_VERSION,
            "space": asdict(self.space),
            "precision": self.precision,
            "letters": self.letters,
            "next": self._next,
            "segments": [{"number": p.number, "rows": len(p.segment), "dead": p.dead_file} for p in parts],
        }
        text = json.dumps({**members, "check": _check(members)}, indent=1) + "\n"
        write_whole(self.folder / MANIFEST, lambda stream: stream.write(text.encode()))
        self.parts = parts
        named = {MANIFEST, *(p.segment.file.path.name for p in parts), *(p.dead_file for p in parts)}
        for path in self.folder.iterdir():
            if path.name not in named and (path.suffix in (".segment", ".dead") or path.name.startswith(".tmp-")):
                path.unlink(missing_ok=True)
        flush(self.folder)


def _open_part(folder: Path, entry: dict[str, Any]) -> Part:
    try:
        segment = Segment.open(folder / f"{entry['number']:06d}.segment")
        alive = _read_dead(folder / entry["dead"]) if entry["dead"] else None
    except NotFound as error:
        raise Corrupt(f"{folder} lacks a file that its manifest names ({error}); build the index again") from error
    if len(segment) != entry["rows"]:
        raise Corrupt(f"{segment.file.path} has {len(segment)} rows, its manifest says {entry['rows']}; build again")
    return Part(entry["number"], segment, alive, entry["dead"])


def _read_dead(path: Path) -> Words:
    """The bitmap of rows that count; small, so always held to its checksum: a flipped bit brings back what is gone."""
    found = open_arrays(path)
    found.verify()
    return found.arrays["alive"]


def _checked(folder: Path, raw: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(raw)
        version, check = found["format"], found.pop("check")
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder / MANIFEST} does not parse ({error}); build the index again") from error
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UnsupportedFormat(f"{folder} has index format {version}; this geostore reads {FORMAT_VERSION}")
    if check != _check(found):
        raise Corrupt(f"{folder / MANIFEST} fails its checksum; build the index again")
    return found


def _check(members: dict[str, Any]) -> str:
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return xxhash.xxh3_64_hexdigest(text.encode())


def _worth_merging(parts: Sequence[Part]) -> list[int]:
    """The newest segments, back to the first that is larger than all after it together; those with dead rows too."""
    chosen: list[int] = []
    total = 0
    for i in range(len(parts) - 1, -1, -1):
        if len(chosen) > 1 and parts[i].count > 2 * total:
            break
        chosen.append(i)
        total += parts[i].count
    dead = [i for i, p in enumerate(parts) if p.count < (1 - DEAD_MAX) * len(p.segment)]
    return sorted({*chosen, *dead} if len(parts) > SEGMENTS_MAX else set(dead))


def _living(part: Part) -> Rows:
    every = np.arange(len(part.segment)) if part.alive is None else _rows(part.alive, len(part.segment))
    return part.segment.take(every)


def _rows(alive: Words, size: int) -> Any:
    return np.flatnonzero(np.unpackbits(alive.view(np.uint8), count=size, bitorder="little"))


def _every(size: int) -> Words:
    out = np.full(-(-size // 64), ~np.uint64(0))
    if size % 64:
        out[-1] = np.uint64((1 << size % 64) - 1)
    return out


def open_or_create(folder: Path, space: Space, precision: int, *, letters: int = 0) -> Segments:
    """The index in `folder`; an empty one if there is none, which sums rows up by cells less `letters`.

    Raises:
        NotComparable: the one that is there is of another space or precision; Corrupt: it is damaged.
    """
    try:
        found = Segments.open(folder)
    except NotFound:
        return Segments.create(folder, space, precision, letters=letters)
    found.space.check(space)
    if found.precision != precision:
        raise NotComparable(f"the index in {folder} has cells of {found.precision} letters; {precision} were asked for")
    return found
