"""ingest: scenes, cut into cells, put into a store; the left end of the pipe."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from pathlib import Path

from geostore.client import Client, steps
from geostore.collection import Collection
from geostore.errors import BadScene, GeostoreError
from geostore.node.acquisition import check_one_time
from geostore.partition.split import Split
from geostore.query.messages import SCENES_MAX, SceneFields
from geostore.scene import Scene, SceneSource, find_scenes, open_scene
from geostore.scene.ahead import Cells, Coming, Cut, cut_ahead

AHEAD = 12  # pieces of a large scene cut before they are asked for
SMALL_SHARE = 8  # a scene is small if so many fit into one request; small ones share requests, and so commits
GROUP_S = 2.0  # how long a scene that is cut waits for others to share its commit
Progress = Callable[[str, float], None]


@dataclass
class IngestSummary:
    """What an ingest did.

    Attributes:
        scenes: scenes taken in now.
        unchanged: scenes that were there already, complete.
        rasters: rasters stored now.
        partitions: partitions met for the first time.
        bytes_source: bytes of the pixels cut, stored dtype, not compressed.
        seconds: wall clock.
        errors: one line per scene that was refused, "source: reason"; the others are stored all the same.
    """

    scenes: int = 0
    unchanged: int = 0
    rasters: int = 0
    partitions: int = 0
    bytes_source: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


def ingest(
    client: Client,
    sources: Sequence[str | Path],
    collection: Collection,
    *,
    acquired: datetime | None = None,
    keep_going: bool = False,
    progress: Progress | None = None,
) -> IngestSummary:
    """Take every scene found in `sources` into the store; the same again changes nothing.

    Args:
        client: where to put them.
        sources: files, folders, globs, STAC items or catalogues.
        collection: declared in the store first, if it is not yet.
        acquired: time of the scene, for files that tell none; of a single scene it wins over what its files tell.
        keep_going: note a scene that is refused in `errors` and go on, instead of raising.
        progress: told (scene, share of the scenes); may raise Cancelled between scenes.

    Raises:
        BadScene, BandMismatch, OutOfRange: a scene cannot be taken in; scenes before it are stored, of it at most
            some cells, marked incomplete: ingest it again when it is mended.
        InvalidInput: one time is given for several scenes, and one of them tells another: at one time they would be
            mosaicked, as of one overpass.
    """
    begun = time.monotonic()
    found = list(find_scenes(sources, collection))
    if not found:
        raise BadScene(f"no scene found in {[str(s) for s in sources]}; name files, folders, globs or STAC items")
    if not keep_going:
        _check_fit(client, collection, found, acquired)
    intake = Intake(client, client.put_collection(collection), acquired, keep_going=keep_going)
    intake.check = lambda scene: check_one_time(scene, acquired, len(found))
    told = count(1)
    if progress is not None:
        intake.told = lambda source: progress(source.name, next(told) / len(found))
    with contextlib.closing(intake.cut_ahead(found)) as cuts:
        for source, coming in cuts:
            intake.take(source, coming)
        intake.flush()
    intake.summary.seconds = time.monotonic() - begun
    return intake.summary


def _check_fit(client: Client, collection: Collection, found: Sequence[SceneSource], acquired: datetime | None) -> None:
    """Raise what is wrong with the first scene before a store is told of a collection that it does not hold yet."""
    known = [c for c in client.collections() if c.name == collection.name]
    if not any(replace(collection, version=c.version) == c for c in known):
        check_first(found, collection, acquired)


def check_first(found: Sequence[SceneSource], collection: Collection, acquired: datetime | None) -> None:
    """Raise what is wrong with the first of the scenes found, without a store."""
    with contextlib.closing(open_scene(found[0], collection, time=acquired)) as scene:
        check_one_time(scene, acquired, len(found))


@dataclass(frozen=True)
class Ready:
    """A scene that waits for its group: its source, its facts, its pieces (None if it is stored)."""

    source: SceneSource
    scene: Scene
    pieces: list[Split] | None


class Intake:
    """Takes scenes into a store in their order: small ones share requests, each one durable commit; large ones do not.

    A group is put when it fills a request or holds the most scenes one may have, and when its first scene has waited
    for GROUP_S. A scene counts, and `told` is called with its source, once the commit it is in was acknowledged.
    """

    def __init__(
        self, client: Client, collection: Collection, acquired: datetime | None, *, keep_going: bool = False
    ) -> None:
        self.client, self.collection, self.acquired, self.keep_going = client, collection, acquired, keep_going
        self.summary = IngestSummary()
        self.told: Callable[[SceneSource], None] = lambda source: None  # noqa: ARG005 - nobody listens
        self.check: Callable[[Scene], None] = lambda scene: None  # noqa: ARG005 - raises what is wrong with a scene
        self.cells = Cells()
        self.cells.learn(client.cells(collection.name))
        self.complete = {s["id"] for s in client.scenes(collection.name) if s["complete"]}
        self._waiting: list[Ready] = []
        self._named: set[str] = set()
        self._bytes = self._pieces = 0
        self._since = 0.0

    def cut_ahead(self, sources: Sequence[SceneSource]) -> Coming:
        """The sources with their scenes to come; those stored already stay uncut."""
        return cut_ahead(
            sources,
            self.collection,
            self.cells,
            acquired=self.acquired,
            bytes_max=steps.BATCH_BYTES // SMALL_SHARE,
            wanted=lambda name: name not in self.complete,
        )

    def take(self, source: SceneSource, coming: Future[Cut]) -> None:
        """Take one scene in, now or with those that follow.

        Raises:
            GeostoreError: it was refused, and the intake does not keep going; those before it are stored.
        """
        if self._waiting and not wait([coming], max(0.0, self._since + GROUP_S - time.monotonic())).done:
            self.flush()
        try:
            cut = self._checked(coming.result())
        except GeostoreError as error:
            self.flush()
            self._refuse(source, error)
            self.told(source)
            return
        with contextlib.closing(cut.scene):
            self._take(Ready(source, cut.scene, cut.pieces))

    def _checked(self, cut: Cut) -> Cut:
        try:
            self.check(cut.scene)
        except GeostoreError:
            cut.scene.close()
            raise
        return cut

    def _take(self, ready: Ready) -> None:
        known = ready.scene.id in self.complete or ready.scene.id in self._named
        if known or ready.pieces is not None:
            self._join(Ready(ready.source, ready.scene, None if known else ready.pieces))
            return
        self.flush()
        try:
            self._put_alone(ready.scene)
        except GeostoreError as error:
            self._refuse(ready.source, error)
        self.told(ready.source)

    def _join(self, ready: Ready) -> None:
        """Let a small scene wait for its group."""
        pieces = ready.pieces or []
        nbytes = sum(p.raster.pixels.nbytes + p.raster.valid.nbytes for p in pieces)
        full = self._bytes + nbytes > steps.BATCH_BYTES or self._pieces + len(pieces) > steps.BATCH_ITEMS
        if self._waiting and (full or len(self._waiting) == SCENES_MAX):
            self.flush()
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(ready)
        self._named.add(ready.scene.id)
        self._bytes, self._pieces = self._bytes + nbytes, self._pieces + len(pieces)
        self.cells.learn({(p.geohash, p.group): p.cell for p in pieces})

    def flush(self) -> None:
        """Put what waits. Raises as `take`."""
        waiting, self._waiting, self._named, self._bytes, self._pieces = self._waiting, [], set(), 0, 0
        try:
            self._put_together([w for w in waiting if w.pieces is not None])
        except GeostoreError:  # one of them; which, shows one by one, and the others come in
            self._put_one_by_one(waiting)
            return
        self.summary.unchanged += sum(w.pieces is None for w in waiting)
        for ready in waiting:
            self.told(ready.source)

    def _put_together(self, group: Sequence[Ready]) -> None:
        if not group:
            return
        pieces = [piece for ready in group for piece in ready.pieces or ()]
        counts = self.client.put_scenes(
            self.collection.name, [(scene_fields(ready.scene), ready.pieces or []) for ready in group]
        )
        self.summary.bytes_source += sum(p.raster.pixels.nbytes for p in pieces)
        self._count([ready.scene for ready in group], counts)

    def _put_one_by_one(self, group: Sequence[Ready]) -> None:
        for ready in group:
            try:
                if ready.pieces is None:
                    self.summary.unchanged += 1
                else:
                    with contextlib.closing(open_scene(ready.source, self.collection, time=self.acquired)) as scene:
                        self._put_alone(scene)
            except GeostoreError as error:
                self._refuse(ready.source, error)
            self.told(ready.source)

    def _put_alone(self, scene: Scene) -> None:
        """Put one scene in requests of its own, on the grids the store has fixed by now."""
        self.cells.learn(self.client.cells(self.collection.name))
        pieces = self._weighed(_ahead(self.cells.split(scene)))
        self._count([scene], self.client.put(self.collection.name, scene_fields(scene), pieces))

    def _weighed(self, pieces: Iterator[Split]) -> Iterator[Split]:
        for piece in pieces:
            self.summary.bytes_source += piece.raster.pixels.nbytes
            self.cells.learn({(piece.geohash, piece.group): piece.cell})
            yield piece

    def _count(self, scenes: Sequence[Scene], counts: dict[str, int]) -> None:
        self.complete.update(scene.id for scene in scenes)
        self.summary.scenes += len(scenes)
        self.summary.rasters += counts["stored"]
        self.summary.partitions += counts["cells"]

    def _refuse(self, source: SceneSource, error: GeostoreError) -> None:
        if not self.keep_going:
            raise error
        self.summary.errors.append(f"{source}: {error}")


def _ahead(pieces: Iterator[Split]) -> Iterator[Split]:
    """The same pieces, the next few cut in a thread while a put waits for the disk."""
    with ThreadPoolExecutor(1, thread_name_prefix="geostore-cut") as pool:
        cut = deque(pool.submit(next, pieces, None) for _ in range(AHEAD))
        while (piece := cut.popleft().result()) is not None:
            cut.append(pool.submit(next, pieces, None))
            yield piece


def scene_fields(scene: Scene) -> SceneFields:
    """The facts of a scene as a put carries them."""
    return SceneFields(
        id=scene.id,
        time_us=scene.time_us,
        revision=scene.revision,
        platform=scene.platform,
        product=scene.product,
        baseline=scene.baseline,
        source=scene.source,
        footprint=[list(point) for point in scene.footprint],
        facts=dict(scene.facts),
    )
