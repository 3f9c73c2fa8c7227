"""What goes into an index: signatures with the cell, time, key and attributes of each, and the space they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInput, NotComparable
from geostore.index.bits import Words, check_bits, word_count
from geostore.index.labels import Legend

Ints = npt.NDArray[np.int64]
_SEASONS = ("winter", "spring", "summer", "autumn")
SEASON, TIME = "season", "time"


@dataclass(frozen=True)
class Space:
    """What makes signatures comparable: equal spaces, and only those, may be searched together.

    Attributes:
        descriptor: name and version of the network or method, "spectral-1".
        descriptor_digest: of its weights or parameters, bands included.
        head: name of what turns descriptors into signatures, "rotation".
        head_digest: of its weights.
        bits: of a signature.
        width: components of a descriptor.
    """

    descriptor: str
    descriptor_digest: str
    head: str
    head_digest: str
    bits: int
    width: int

    def __post_init__(self) -> None:
        check_bits(self.bits)

    def check(self, other: Space) -> None:
        """Raise NotComparable, naming what differs, unless `other` is the same space."""
        mine, theirs = asdict(self), asdict(other)
        differs = [f"{n} {theirs[n]!r} is not {mine[n]!r}" for n in mine if mine[n] != theirs[n]]
        if differs:
            raise NotComparable(
                f"{'; '.join(differs)}: distances would mean nothing; describe both with the same descriptor and head, "
                "or run `geostore index upgrade`"
            )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows to be indexed, in any order.

    Attributes:
        signatures: (W, N) uint64, see `bits.pack_signatures`.
        cells: (N,) int64, codes of geohashes of one precision: of rasters their cell, of chips a finer one.
        times_us: (N,) int64, UTC microseconds.
        owners: (N,) int64, position in `keys`.
        keys: what hits are reported as, such as `RasterKey.to_bytes`; a raster owns all of its chips.
        descriptors: (N, D) int8, `descriptor = row * scale`, or None.
        scales: (N,) float32, of `descriptors`.
        numbers: columns of (N,) numbers, by name; NaN where unknown.
        categories: columns of (N,) names, by name; "" where unknown.
        labels: (legend.words, N) uint64, or None.
        legend: of `labels`.
        stamps: (len(keys), 2) int64, what the rows of each key were made from, for whoever keeps the index level; zeros
            if None.
    """

    signatures: Words
    cells: Ints
    times_us: Ints
    owners: Ints
    keys: Sequence[bytes]
    descriptors: npt.NDArray[np.int8] | None = None
    scales: npt.NDArray[np.float32] | None = None
    numbers: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    categories: Mapping[str, npt.NDArray[np.str_]] = field(default_factory=dict)
    labels: Words | None = None
    legend: Legend | None = None
    stamps: Ints | None = None

    def __post_init__(self) -> None:
        count = self.signatures.shape[1]
        columns: dict[str, Any] = {"cells": self.cells, "times_us": self.times_us, "owners": self.owners}
        columns |= {**self.numbers, **self.categories}
        wrong = [n for n, c in columns.items() if c.shape != (count,)]
        if wrong:
            raise InvalidInput(f"columns {wrong} do not have {count} rows, as the signatures; give one value a row")
        taken = {SEASON, TIME} & set(columns)
        if taken or set(self.numbers) & set(self.categories):
            raise InvalidInput(f"columns {sorted(columns)}; `season` and `time` are made here, other names occur once")
        if count and not (self.owners.min() >= 0 and self.owners.max() < len(self.keys)):
            raise InvalidInput(f"owners {self.owners.min()}..{self.owners.max()} for {len(self.keys)} keys")
        self._check_extras(count)

    def _check_extras(self, count: int) -> None:
        if (self.descriptors is None) != (self.scales is None) or (self.labels is None) != (self.legend is None):
            raise InvalidInput("descriptors come with scales, labels with a legend; give both or neither")
        if self.descriptors is not None and (len(self.descriptors) != count or self.descriptors.dtype != np.int8):
            raise InvalidInput(f"descriptors {self.descriptors.shape} {self.descriptors.dtype}; give {count} rows int8")
        if self.labels is not None and self.labels.shape[1] != count:
            raise InvalidInput(f"labels of {self.labels.shape[1]} rows for {count} signatures")
        if self.stamps is not None and self.stamps.shape != (len(self.keys), 2):
            raise InvalidInput(f"stamps {self.stamps.shape} for {len(self.keys)} keys; give two numbers a key")

    def __len__(self) -> int:
        return int(self.signatures.shape[1])

    def check(self, space: Space) -> None:
        """Raise NotComparable unless signatures and descriptors have the shape of `space`."""
        if len(self.signatures) != word_count(space.bits):
            raise NotComparable(f"signatures of {len(self.signatures)} words; {space.bits} bits need another number")
        if self.descriptors is not None and self.descriptors.shape[1] != space.width:
            raise NotComparable(f"descriptors of {self.descriptors.shape[1]} components; the space has {space.width}")


def seasons(times_us: Ints, cells: Ints, precision: int) -> npt.NDArray[np.int64]:
    """(N,) positions in winter, spring, summer, autumn, by month and hemisphere.

    Seasons are the meteorological ones: winter is December to February in the north, June to August in the south; cells
    along the equator count where they lie.
    """
    months = (times_us // 86_400_000_000).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12
    north = (cells >> (5 * precision - 2)) & 1  # the first bit of the latitude
    return ((months + 1) % 12 // 3 + np.where(north == 1, 0, 2)) % 4


def season_names() -> tuple[str, ...]:
    """The seasons in the order `seasons` numbers them."""
    return _SEASONS


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows of several parts; a column that a part lacks is unknown there.

    Raises:
        NotComparable: labels follow different legends, or only some parts have descriptors.
    """
    legends = {p.legend.name for p in parts if p.legend is not None}
    if len(legends) > 1 or len({p.descriptors is None for p in parts}) > 1:
        raise NotComparable(f"parts with legends {sorted(legends)}, some with descriptors, some without, do not join")
    legend = next((p.legend for p in parts if p.legend is not None), None)
    before = np.cumsum([0, *(len(p.keys) for p in parts)])
    described = parts[0].descriptors is not None
    return Rows(
        signatures=np.concatenate([p.signatures for p in parts], axis=1),
        cells=np.concatenate([p.cells for p in parts]),
        times_us=np.concatenate([p.times_us for p in parts]),
        owners=np.concatenate([p.owners + b for p, b in zip(parts, before, strict=False)]),
        keys=[k for p in parts for k in p.keys],
        descriptors=np.concatenate([_has(p.descriptors) for p in parts]) if described else None,
        scales=np.concatenate([_has(p.scales) for p in parts]) if described else None,
        numbers={n: np.concatenate([_number(p, n) for p in parts]) for n in _names(parts, "numbers")},
        categories={n: np.concatenate([_category(p, n) for p in parts]) for n in _names(parts, "categories")},
        labels=None if legend is None else np.concatenate([_labels(p, legend) for p in parts], axis=1),
        legend=legend,
        stamps=np.concatenate([_stamps(p) for p in parts]),
    )


def _stamps(part: Rows) -> Ints:
    return np.zeros((len(part.keys), 2), np.int64) if part.stamps is None else part.stamps


def _has(array: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    assert array is not None
    return array


def _names(parts: Sequence[Rows], columns: str) -> list[str]:
    return sorted({n for p in parts for n in getattr(p, columns)})


def _number(part: Rows, name: str) -> npt.NDArray[Any]:
    return part.numbers.get(name, np.full(len(part), np.nan))


def _category(part: Rows, name: str) -> npt.NDArray[np.str_]:
    return part.categories.get(name, np.full(len(part), ""))


def _labels(part: Rows, legend: Legend) -> Words:
    return np.zeros((legend.words, len(part)), np.uint64) if part.labels is None else part.labels
