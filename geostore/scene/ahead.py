"""Scenes opened, and small ones cut into cells, in threads before it is their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from geostore.collection import Collection
from geostore.partition.split import Split, split
from geostore.raster import Grid
from geostore.scene.find import SceneSource
from geostore.scene.geotiff import environment
from geostore.scene.scene import Scene, open_scene

SCENES_AHEAD = 8  # scenes opened before their turn
CUTTERS = 2  # threads


class Cells:
    """The grids of a collection's cells: those a store has fixed, then those that the scenes taken in brought.

    New cells align with those there, so the first cell of a band group decides for all that follow.
    """

    def __init__(self) -> None:
        self._grids: dict[tuple[str, str], Grid] = {}
        self._lattices: dict[str, Grid] = {}

    def learn(self, grids: Mapping[tuple[str, str], Grid]) -> None:
        """Take in grids by (geohash, group)."""
        for (geohash, group), grid in grids.items():
            self._grids[geohash, group] = grid
            self._lattices.setdefault(group, grid)

    def settled(self, groups: Iterable[str]) -> bool:
        """True once every group has a cell: from then on scenes may be cut in any order."""
        return self._lattices.keys() >= set(groups)

    def split(self, scene: Scene) -> Iterator[Split]:
        """What the scene holds of each cell, on these grids."""
        return split(
            scene,
            precision=scene.collection.precision,
            lattices=dict(self._lattices),
            cell_of=lambda geohash, group: self._grids.get((geohash, group)),
        )


@dataclass(frozen=True)
class Cut:
    """A scene whose turn has come.

    Attributes:
        scene: its facts; of a large one the files are open.
        pieces: all of them, if it is small; None if it is large, or not wanted.
    """

    scene: Scene
    pieces: list[Split] | None


Coming = Generator[tuple[SceneSource, Future[Cut]], None, None]


def cut_ahead(
    sources: Sequence[SceneSource],
    collection: Collection,
    cells: Cells,
    *,
    acquired: datetime | None,
    bytes_max: int,
    wanted: Callable[[str], bool],
) -> Coming:
    """Each source in order with its scene to come, some in work ahead; while `cells` has not settled, one by one.

    Args:
        sources: where the scenes are.
        collection: what to expect of them.
        cells: whoever takes the pieces tells it their grids, before the next source is asked for.
        acquired: time of the scenes, for files that tell none.
        bytes_max: the largest scene, in stored values, that is cut as a whole.
        wanted: told the id of a scene; False leaves it uncut.
    """

    def cut(source: SceneSource) -> Cut:
        with environment():
            return _cut(open_scene(source, collection, time=acquired), cells, bytes_max, wanted)

    left, coming = deque(sources), deque[tuple[SceneSource, Future[Cut]]]()
    with ThreadPoolExecutor(CUTTERS, thread_name_prefix="geostore-cut") as pool:
        try:
            while left or coming:
                ahead = SCENES_AHEAD if cells.settled(collection.groups) else 1
                while left and len(coming) < ahead:
                    source = left.popleft()
                    coming.append((source, pool.submit(cut, source)))
                yield coming.popleft()
        finally:
            for _, future in coming:
                future.cancel()
                future.add_done_callback(_let_go)


def _cut(scene: Scene, cells: Cells, bytes_max: int, wanted: Callable[[str], bool]) -> Cut:
    large = wanted(scene.id) and scene_bytes(scene) > bytes_max
    try:
        return Cut(scene, list(cells.split(scene)) if wanted(scene.id) and not large else None)
    except BaseException:
        large = False
        raise
    finally:
        if not large:
            scene.close()


def _let_go(future: Future[Cut]) -> None:
    """Close the files of a scene that nobody takes any more."""
    if not future.cancelled() and future.exception() is None:
        future.result().scene.close()


def scene_bytes(scene: Scene) -> int:
    """Stored values of all bands of the whole scene, bytes."""
    groups = scene.collection.groups
    return sum(
        grid.height * grid.width * len(groups[name]) * groups[name].dtype.itemsize for name, grid in scene.grids.items()
    )
