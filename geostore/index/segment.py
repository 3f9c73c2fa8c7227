"""One part of an index: rows in the order of cell and time, each column a memory-mapped array, never changed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt
from geostore.index.arrays import ArrayFile, open_arrays, write_arrays
from geostore.index.bits import Rows as RowNumbers
from geostore.index.bits import Words
from geostore.index.columns import Category, Numbers, category, coded, numbers
from geostore.index.groups import Groups, grouped
from geostore.index.labels import Labels, labelled, legend_from_dict
from geostore.index.radius import KeyLists, key_lists
from geostore.index.rows import SEASON, TIME, Rows, Space, season_names, seasons
from geostore.index.spatial import Places, places_of

LISTS_MIN = 50_000  # rows; smaller segments are scanned faster than looked up in
_STAND_IN = {"mae": "max_error", "p99": "max_error"}  # of columns that older segments lack: a number they never exceed
_Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Segment:
    """An opened segment.

    Attributes:
        file: its arrays and facts.
    """

    file: ArrayFile

    @classmethod
    def open(cls, path: Path) -> Segment:
        """Map a segment; only its header is read. Raises NotFound or Corrupt."""
        found = open_arrays(path)
        if found.facts.get("kind") != "segment":
            raise Corrupt(f"{path} is no segment of an index; delete the index and build it again")
        return cls(found)

    def __len__(self) -> int:
        return int(self.signatures.shape[1])

    @property
    def space(self) -> Space:
        """What its signatures are comparable with."""
        return Space(**self.file.facts["space"])

    @property
    def precision(self) -> int:
        """Geohash length of its cells."""
        return int(self.file.facts["precision"])

    @cached_property
    def signatures(self) -> Words:
        """(W, N) uint64."""
        return self.file.arrays["signatures"]

    @cached_property
    def cells(self) -> npt.NDArray[np.int64]:
        """(N,) int64, ascending."""
        return self.file.arrays["cells"]

    @cached_property
    def places(self) -> Places:
        """The different cells."""
        if "place:starts" in self.file.arrays:
            return Places(self.file.arrays["place:cells"], self.file.arrays["place:starts"])
        return places_of(self.cells)

    @property
    def owners(self) -> npt.NDArray[np.uint32]:
        """(N,) uint32, position of each row's key."""
        return self.file.arrays["owners"]

    @property
    def descriptors(self) -> npt.NDArray[np.int8] | None:
        """(N, D) int8, or None."""
        return self.file.arrays.get("descriptors")

    @property
    def scales(self) -> npt.NDArray[np.float32] | None:
        """(N,) float32, or None."""
        return self.file.arrays.get("scales")

    @cached_property
    def numbers(self) -> dict[str, Numbers]:
        """Columns of numbers by name, `time` among them, UTC microseconds.

        Segments from before the errors `mae` and `p99` were columns have the largest error in their place.
        """
        found = {name: self._numbers(name) for name in self.file.facts["numbers"]}
        return {name: found[other] for name, other in _STAND_IN.items() if other in found} | found

    def _numbers(self, name: str) -> Numbers:
        found = self.file.arrays
        values, order, steps = (found[f"number:{name}:{part}"] for part in _NUMBERS)
        return Numbers(values, order, steps, found.get(f"number:{name}:signatures"))

    @cached_property
    def categories(self) -> dict[str, Category]:
        """Columns of names by name, `season` among them."""
        found = self.file.arrays
        return {
            n: Category(tuple(names), found[f"category:{n}:codes"], found[f"category:{n}:bitmaps"])
            for n, names in self.file.facts["categories"].items()
        }

    @cached_property
    def labels(self) -> Labels | None:
        """Labels, or None."""
        legend = self.file.facts["legend"]
        if legend is None:
            return None
        return Labels(legend_from_dict(legend), self.file.arrays["labels"], self.file.arrays["label:bitmaps"])

    @cached_property
    def lists(self) -> KeyLists | None:
        """Key lists for radius search; None in a small segment."""
        if "lists:starts" not in self.file.arrays:
            return None
        return KeyLists(self.file.arrays["lists:starts"], self.file.arrays["lists:rows"])

    @cached_property
    def groups(self) -> Groups | None:
        """Rows by the beginning of their cells, summed up; None without descriptors."""
        if "group:starts" not in self.file.arrays:
            return None
        return Groups(*(self.file.arrays[f"group:{part}"] for part in _GROUPS))

    @property
    def keys(self) -> _Keys:
        """The keys, ascending."""
        return _Keys(self.file.arrays["key:starts"], self.file.arrays["key:bytes"])

    @property
    def stamps(self) -> npt.NDArray[np.int64]:
        """(keys, 2) int64, what the rows of each key were made from."""
        return self.file.arrays["key:stamps"]

    def rows_of(self, keys: Iterable[bytes]) -> RowNumbers:
        """Rows of these keys, ascending; keys that are not here add none."""
        mine, starts, owned = self.keys, self.file.arrays["owned:starts"], self.file.arrays["owned:rows"]
        found = []
        for key in keys:
            at = bisect_left(mine, key)
            if at < len(mine) and mine[at] == key:
                found.append(owned[starts[at] : starts[at + 1]].astype(np.int64))
        return np.sort(np.concatenate([np.zeros(0, np.int64), *found]))

    def take(self, chosen: npt.NDArray[Any]) -> Rows:
        """Rows by number as they were given, for another segment."""
        used, owners = np.unique(self.owners[chosen], return_inverse=True)
        keys, labels, scales = self.keys, self.labels, self.scales
        return Rows(
            signatures=self.signatures[:, chosen],
            cells=self.cells[chosen],
            times_us=self.numbers[TIME].values[chosen],
            owners=owners.astype(np.int64),
            keys=[keys[int(u)] for u in used],
            descriptors=None if self.descriptors is None else self.descriptors[chosen],
            scales=None if scales is None else scales[chosen],
            numbers={n: c.values[chosen] for n, c in self.numbers.items() if n != TIME},
            categories={n: np.array(c.names)[c.codes[chosen]] for n, c in self.categories.items() if n != SEASON},
            labels=None if labels is None else labels.words[:, chosen],
            legend=None if labels is None else labels.legend,
            stamps=self.stamps[used],
        )


_NUMBERS = ("values", "order", "steps")
_GROUPS = ("starts", "centres", "reach")


class _Keys:
    """Byte strings laid end to end, ascending."""

    def __init__(self, starts: npt.NDArray[np.int64], octets: npt.NDArray[np.uint8]) -> None:
        self._starts, self._octets = starts, octets

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: int) -> bytes:
        return self._octets[self._starts[at] : self._starts[at + 1]].tobytes()


def write_segment(path: Path, rows: Rows, *, space: Space, precision: int, letters: int = 0) -> None:
    """Sort rows by cell, time and key, and write them as a segment, durably and at once.

    Rows are summed up by their cells without the last `letters` letters.

    Raises:
        NotComparable: signatures or descriptors do not have the shape of `space`. StorageFull: no room.
    """
    rows.check(space)
    keys, owners = _sorted_keys(rows)
    order = np.lexsort((owners, rows.times_us, rows.cells))
    arrays: _Arrays = {"signatures": rows.signatures[:, order], "cells": rows.cells[order]}
    places = places_of(arrays["cells"])
    arrays |= {"place:cells": places.cells, "place:starts": places.starts}
    arrays |= _key_arrays(keys, owners[order])
    arrays["key:stamps"] = _sorted_stamps(rows, keys)
    if rows.descriptors is not None and rows.scales is not None:
        arrays |= {"descriptors": rows.descriptors[order], "scales": rows.scales[order].astype(np.float32)}
        made = grouped(arrays["descriptors"], arrays["scales"], arrays["cells"], letters)
        arrays |= {f"group:{part}": getattr(made, part) for part in _GROUPS}
    columns = list({**rows.numbers, TIME: rows.times_us})
    for name in columns:
        arrays |= _number_arrays(name, rows.times_us[order] if name == TIME else rows.numbers[name][order], arrays)
    names = {n: category(v[order]) for n, v in rows.categories.items()}
    names[SEASON] = coded(season_names(), seasons(rows.times_us, rows.cells, precision)[order])
    for name, kind in names.items():
        arrays |= {f"category:{name}:codes": kind.codes, f"category:{name}:bitmaps": kind.bitmaps}
    if rows.labels is not None and rows.legend is not None:
        marked = labelled(rows.legend, np.ascontiguousarray(rows.labels[:, order]))
        arrays |= {"labels": marked.words, "label:bitmaps": marked.bitmaps}
    if len(rows) >= LISTS_MIN:
        lists = key_lists(np.ascontiguousarray(arrays["signatures"]), space.bits)
        arrays |= {"lists:starts": lists.starts, "lists:rows": lists.rows}
    write_arrays(path, arrays, _facts(rows, space, precision, columns, {n: c.names for n, c in names.items()}))


def _number_arrays(name: str, values: npt.NDArray[Any], arrays: _Arrays) -> _Arrays:
    """A column, in a large segment with the signatures in its order."""
    made = numbers(values, arrays["signatures"] if len(values) >= LISTS_MIN else None)
    found = {f"number:{name}:{part}": getattr(made, part) for part in _NUMBERS}
    return found if made.signatures is None else {**found, f"number:{name}:signatures": made.signatures}


def _facts(rows: Rows, space: Space, precision: int, columns: list[str], names: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "segment",
        "rows": len(rows),
        "space": asdict(space),
        "precision": precision,
        "numbers": columns,
        "categories": names,
        "legend": None if rows.legend is None else rows.legend.to_dict(),
    }


def _sorted_keys(rows: Rows) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """The different keys that own a row, ascending, and each row's position among them."""
    used = np.unique(rows.owners)
    keys = sorted({rows.keys[int(u)] for u in used})
    at = {key: i for i, key in enumerate(keys)}
    places = np.zeros(int(used[-1]) + 1 if len(used) else 0, np.int64)
    places[used] = [at[rows.keys[int(u)]] for u in used]
    return keys, places[rows.owners]


def _sorted_stamps(rows: Rows, keys: list[bytes]) -> npt.NDArray[np.int64]:
    """The stamps of these keys."""
    if rows.stamps is None or not keys:
        return np.zeros((len(keys), 2), np.int64)
    at = {key: i for i, key in enumerate(rows.keys)}
    return rows.stamps[[at[key] for key in keys]]


def _key_arrays(keys: list[bytes], owners: npt.NDArray[np.int64]) -> _Arrays:
    return {
        "owners": owners.astype(np.uint32),
        "key:starts": np.cumsum([0, *(len(k) for k in keys)]).astype(np.int64),
        "key:bytes": np.frombuffer(b"".join(keys), np.uint8),
        "owned:rows": np.argsort(owners, kind="stable").astype(np.uint32),
        "owned:starts": np.searchsorted(np.sort(owners), np.arange(len(keys) + 1)).astype(np.int64),
    }
