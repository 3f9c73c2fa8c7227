"""Views of stored rasters: decoded again, turned and mirrored, and described, for a head to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geostore.errors import Corrupt, NotFound
from geostore.index.descriptors import chips
from geostore.index.kernel import ANCHORS_MAX
from geostore.index.views import Views, drawn, turned, views_of
from geostore.keys import RasterKey
from geostore.node.search.describe import decoded
from geostore.node.search.models import SearchModel
from geostore.node.search.parts import kept
from geostore.node.search.sampling import Described, Floats, Ints
from geostore.query.messages import Progress
from geostore.raster import Mask, Pixels, Raster
from geostore.storage import RasterRow

if TYPE_CHECKING:
    from geostore.node.node import Node

_BATCH = 64  # rasters decoded together
Asked = tuple[int, int]  # row, way


@dataclass(frozen=True)
class Viewing:
    """What views are made of.

    Attributes:
        node: that holds the rasters.
        root: the folder of all indexes, where views of an interrupted upgrade are found again.
        model: whose descriptor describes them.
        rows: what is described.
        progress: told what is done; may raise to stop.
    """

    node: Node
    root: Path
    model: SearchModel
    rows: Described
    progress: Progress

    def views(self, chosen: Ints, *, seed: int) -> Views:
        """Views of chosen rows (their numbers), as many as a kernel head has room for beside these."""
        pairs = drawn(len(chosen), ANCHORS_MAX - len(chosen), seed=seed)
        asked = np.stack([chosen[pairs[:, 0]], pairs[:, 1]], axis=1)
        what = {"views": self.model.descriptor.digest(self.model.bands)}
        width = self.model.descriptor.width(self.model.bands)
        arrays = (asked, self.rows.points(chosen))
        data = kept(self.root, what, arrays, lambda: _bytes(views_of(self._shown(asked), width)))
        count = len(data) // (8 + 4 * width)
        vectors = np.frombuffer(data[8 * count :], np.float32).reshape(count, width)
        return Views(vectors, np.frombuffer(data[: 8 * count], np.int64))

    def _shown(self, asked: Ints) -> Iterator[tuple[int, int, Callable[[int], Floats]]]:
        """Row, way, and what describes the row's pixels turned; rasters that are gone or rotten are passed over."""
        cells = self.rows.cells[asked[:, 0]].tolist()
        wanted: dict[bytes, list[tuple[Asked, int, int]]] = {}
        for (row, way), key, (code, precision) in zip(asked.tolist(), self.rows.keys(asked[:, 0]), cells, strict=True):
            wanted.setdefault(key, []).append(((row, way), code, precision))
        keys = sorted(wanted)
        for start in range(0, len(keys), _BATCH):
            self.progress("describing views", start / len(keys))
            for row, _, raster in decoded(self.node, _standing(self.node, keys[start : start + _BATCH])):
                yield from self._of_raster(row, raster, wanted[row.key.to_bytes()])

    def _of_raster(
        self, row: RasterRow, raster: Raster, wanted: Sequence[tuple[Asked, int, int]]
    ) -> Iterator[tuple[int, int, Callable[[int], Floats]]]:
        finer = {precision for _, _, precision in wanted} - {len(row.key.geohash)}
        parts = {(p, chip.code): (chip.row, chip.col, chip.valid) for p in finer for chip in chips(raster, p)}
        for (number, way), code, precision in wanted:
            if precision == len(row.key.geohash):
                yield number, way, partial(self._look, raster.pixels, raster.valid)
            elif (part := parts.get((precision, code))) is not None:
                top, left, valid = part
                pixels = raster.pixels[:, top : top + valid.shape[0], left : left + valid.shape[1]]
                yield number, way, partial(self._look, pixels, valid)

    def _look(self, pixels: Pixels, valid: Mask, way: int) -> Floats:
        return self.model.descriptor.describe(turned(pixels, way), turned(valid, way), self.model.bands)


def _standing(node: Node, keys: Sequence[bytes]) -> list[RasterRow]:
    """The rasters of these keys that have not been withdrawn meanwhile."""
    found = []
    for key in keys:
        try:
            found.append(node.store.raster(RasterKey.from_bytes(key)))
        except (NotFound, Corrupt):
            continue
    return found


def _bytes(views: Views) -> bytes:
    return views.of.astype(np.int64).tobytes() + views.vectors.astype(np.float32).tobytes()
