"""ingest: scenes, cut into cells, put into a store; the left end of the pipe."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from geostore.client import Client
from geostore.collection import Collection
from geostore.errors import BadScene, GeostoreError
from geostore.partition.split import Split, split
from geostore.query.messages import SceneFields
from geostore.scene import Scene, SceneSource, find_scenes, open_scene

AHEAD = 12  # pieces cut before they are asked for
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
        acquired: time of the scene, for files that tell none.
        keep_going: note a scene that is refused in `errors` and go on, instead of raising.
        progress: told (scene, share of the scenes); may raise Cancelled between scenes.

    Raises:
        BadScene, BandMismatch, OutOfRange: a scene cannot be taken in; scenes before it are stored, of it at most
            some cells, marked incomplete: ingest it again when it is mended.
    """
    begun = time.monotonic()
    found = list(find_scenes(sources, collection))
    if not found:
        raise BadScene(f"no scene found in {[str(s) for s in sources]}; name files, folders, globs or STAC items")
    collection = client.put_collection(collection)
    complete = {s["id"] for s in client.scenes(collection.name) if s["complete"]}
    summary = IngestSummary()
    for i, source in enumerate(found):
        try:
            _take(client, source, collection, acquired, complete, summary)
        except GeostoreError as error:
            if not keep_going:
                raise
            summary.errors.append(f"{source}: {error}")
        if progress is not None:
            progress(source.name, (i + 1) / len(found))
    summary.seconds = time.monotonic() - begun
    return summary


def _take(
    client: Client,
    source: SceneSource,
    collection: Collection,
    acquired: datetime | None,
    complete: set[str],
    summary: IngestSummary,
) -> None:
    """Cut one scene into cells and put them, a few in memory at a time."""
    with contextlib.closing(open_scene(source, collection, time=acquired)) as scene:
        if scene.id in complete:
            summary.unchanged += 1
            return
        known = client.cells(collection.name)
        pieces = split(
            scene,
            precision=collection.precision,
            lattices={group: grid for (_, group), grid in known.items()},  # new cells align with those there
            cell_of=lambda geohash, group: known.get((geohash, group)),
        )
        counts = client.put(collection.name, scene_fields(scene), _weighed(_ahead(pieces), summary))
        complete.add(scene.id)
    summary.scenes += 1
    summary.rasters += counts["stored"]
    summary.partitions += counts["cells"]


def _ahead(pieces: Iterator[Split]) -> Iterator[Split]:
    """The same pieces, the next few cut in a thread while a put waits for the disk."""
    with ThreadPoolExecutor(1, thread_name_prefix="geostore-cut") as pool:
        cut = deque(pool.submit(next, pieces, None) for _ in range(AHEAD))
        while (piece := cut.popleft().result()) is not None:
            cut.append(pool.submit(next, pieces, None))
            yield piece


def _weighed(pieces: Iterator[Split], summary: IngestSummary) -> Iterator[Split]:
    for piece in pieces:
        summary.bytes_source += piece.raster.pixels.nbytes
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
