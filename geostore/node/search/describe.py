"""Rows of an index out of stored rasters: what decoding gives now, described as a whole and by chips of each level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from geostore.errors import Corrupt, NotFound
from geostore.index.descriptors import describe_chips
from geostore.index.rows import Rows
from geostore.keys import RasterKey
from geostore.node.decode import read_rows
from geostore.node.mosaic import JOIN
from geostore.node.search.labelling import Labelling
from geostore.node.search.levels import CHIP, FINE, LETTERS, RASTER
from geostore.node.search.models import SearchModel
from geostore.partition import geohash as gh
from geostore.partition.grid import cell_codes
from geostore.raster import Grid, Raster
from geostore.storage import RasterRow

if TYPE_CHECKING:
    from geostore.node.node import Node

Ints = npt.NDArray[np.int64]
PIXELS_FINE = 1024  # of a chip two letters finer, on average
ERRORS = ("mae", "p99", "max")
UNKNOWN, GENERIC = "unknown", "generic"  # a platform that no file told; a product that names no sensor
CLOUD = "eo:cloud_cover"  # of a scene's facts, percent


@dataclass(frozen=True)
class Described:
    """One raster, described.

    Attributes:
        row: as it is stored.
        cell: the whole grid of its partition.
        sensor: the platform; where none was told, the product of its collection, which begins with the sensor's name.
        raster: what it decodes to.
        facts: its columns of numbers.
        levels: of each level that it has, cells and their (N, D) float32 descriptors; none where too few pixels may be
            used.
    """

    row: RasterRow
    cell: Grid
    sensor: str
    raster: Raster
    facts: dict[str, float]
    levels: dict[str, tuple[Ints, npt.NDArray[np.float32]]]


def described(node: Node, model: SearchModel, keys: Sequence[RasterKey]) -> Iterator[Described]:
    """Each raster that still stands and decodes, in order."""
    rows = []
    for key in keys:
        try:
            rows.append(node.store.raster(key))
        except (NotFound, Corrupt):  # withdrawn meanwhile, or rotten: `verify` says so
            continue
    for row, cell, raster in decoded(node, rows):
        whole = model.descriptor.describe(raster.pixels, raster.valid, raster.bands)[None]
        found = {RASTER: (np.array([gh.code_of(row.key.geohash)]), whole)} if whole.any() else {}
        for kind in finer(row.key.geohash, cell) if found else ():
            found[kind] = describe_chips(model.descriptor, raster, len(row.key.geohash) + LETTERS[kind])
        yield Described(row, cell, _sensor(node, row.key), raster, _facts(node, row), found)


def finer(geohash: str, cell: Grid) -> list[str]:
    """The levels of chips that a cell has: one letter finer, and two where such chips have PIXELS_FINE pixels."""
    letters = min(gh.PRECISION_MAX - len(geohash), LETTERS[FINE])
    enough = cell.height * cell.width >= PIXELS_FINE * 32**2
    return [CHIP, FINE][: letters if enough else min(letters, 1)]


def decoded(node: Node, rows: Sequence[RasterRow]) -> Iterator[tuple[RasterRow, Grid, Raster]]:
    """Rows that decode; those of a batch with a rotten one are read one by one."""
    try:
        yield from [(r, c.cell, raster) for r, (c, raster) in zip(rows, read_rows(node, rows), strict=True)]
    except (Corrupt, NotFound):
        for row in rows if len(rows) > 1 else ():
            yield from decoded(node, [row])


@dataclass
class Gathered:
    """Columns of rows to be, filled raster by raster.

    Attributes:
        stamps: by key, see `Rows.stamps`.
    """

    model: SearchModel
    stamps: Mapping[bytes, tuple[int, int]]
    keys: list[bytes] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    numbers: list[dict[str, float]] = field(default_factory=list)
    names: list[dict[str, str]] = field(default_factory=list)

    def add(
        self, found: Described, codes: Sequence[int], vectors: npt.NDArray[np.float32], shares: list[float]
    ) -> None:
        """Rows of one raster: cells, descriptors, and the share of each cell that may be used."""
        if not len(codes):
            return
        key = found.row.key
        for code, vector, share in zip(codes, vectors, shares, strict=True):
            self.owners.append(len(self.keys))
            self.cells.append(int(code))
            self.times_us.append(key.time_us)
            self.vectors.append(vector)
            self.numbers.append({**found.facts, "valid_fraction": share})
            self.names.append({"sensor": found.sensor, "collection": key.collection, "group": key.group})
        self.keys.append(key.to_bytes())

    def rows(self, labelling: Labelling) -> Rows | None:
        """All of them; None if there are none."""
        if not self.keys:
            return None
        small, scales, words = self.model.pack(np.array(self.vectors, np.float32))
        owners, packed = np.array(self.owners, np.int64), labelling.pack(self.keys)
        columns: dict[str, Any] = {n: np.array([r.get(n, np.nan) for r in self.numbers]) for n in _union(self.numbers)}
        return Rows(
            signatures=words,
            cells=np.array(self.cells, np.int64),
            times_us=np.array(self.times_us, np.int64),
            owners=owners,
            keys=self.keys,
            descriptors=small,
            scales=scales,
            numbers=columns,
            categories={n: np.array([r[n] for r in self.names]) for n in self.names[0]},
            labels=None if packed is None else np.ascontiguousarray(packed[:, owners]),
            legend=labelling.legend,
            stamps=np.array([self.stamps[k] for k in self.keys], np.int64),
        )


def _union(found: Sequence[Mapping[str, float]]) -> list[str]:
    return sorted({name for row in found for name in row})


def gather(
    node: Node, model: SearchModel, keys: Sequence[RasterKey], stamps: Mapping[bytes, tuple[int, int]]
) -> dict[str, Gathered]:
    """Rows of the rasters of these keys, of one precision, and of their chips, by level."""
    gathered = {kind: Gathered(model, stamps) for kind in LETTERS}
    for found in described(node, model, keys):
        for kind, (codes, vectors) in found.levels.items():
            shares = _usable(found.raster, found.row.key.geohash, found.cell, LETTERS[kind], codes)
            gathered[kind].add(found, codes.tolist(), vectors, shares)
    return gathered


def _usable(raster: Raster, geohash: str, cell: Grid, letters: int, codes: Ints) -> list[float]:
    """Of each of these cells, `letters` finer than the raster's, the share of its pixels that may be used."""
    inside = _inside(geohash, cell, letters)
    if not letters:
        return [min(int(raster.valid.sum()) / max(sum(inside.values()), 1), 1.0)]
    counts = _valid_in(raster, len(geohash) + letters)
    return [min(counts[int(c)] / max(inside.get(int(c), 0), 1), 1.0) for c in codes]


def _valid_in(raster: Raster, precision: int) -> dict[int, int]:
    codes, counts = np.unique(cell_codes(raster.grid, precision)[raster.valid], return_counts=True)
    return dict(zip(codes.tolist(), counts.tolist(), strict=True))


@lru_cache(maxsize=256)
def _inside(geohash: str, cell: Grid, letters: int) -> dict[int, int]:
    """Pixels of a cell's grid that lie in it, by the code of the cell that is `letters` finer."""
    codes = cell_codes(cell, len(geohash) + letters)
    found, counts = np.unique(codes[codes >> (5 * letters) == gh.code_of(geohash)], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _facts(node: Node, row: RasterRow) -> dict[str, float]:
    """The certificate's errors as columns, 0 of every index where it is exact; and the scene's cloud cover, if told."""
    certificate = row.certificate
    found = dict.fromkeys(("mse", "max_error", "mae", "p99"), 0.0)
    if certificate is None or not certificate.max_error:
        names = node.store.collection(row.key.collection).indices_of(row.key.group)
        found |= {f"{name.lower()}_{e}": 0.0 for name in names for e in ERRORS}
    if certificate is not None:
        found |= {"mse": certificate.mse, "max_error": certificate.max_error}
        found |= {e: certificate.at_most(getattr(certificate, e)) for e in ("mae", "p99")}
        for name, error in certificate.indices.items():
            found |= {f"{name.lower()}_{e}": float(getattr(error, e)) for e in ERRORS}
    cloud = _cloud(node, row)
    return found if cloud is None else {**found, "cloud": cloud}


def _sensor(node: Node, key: RasterKey) -> str:
    product = node.store.collection(key.collection).product
    return product if key.platform == UNKNOWN and product != GENERIC else key.platform


def _cloud(node: Node, row: RasterRow) -> float | None:
    """The share of cloud that the scene's facts state, 0..1."""
    scene = node.store.scene(row.key.collection, row.scene.split(JOIN)[0])
    try:
        return None if scene is None else float(scene.facts[CLOUD]) / 100
    except (KeyError, ValueError):
        return None
