"""Rows out of a store, checked: what is current, by place and time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from geostore.dht.ring import slot_of, slot_of_text
from geostore.errors import Corrupt, NotFound
from geostore.keys import PartitionKey, RasterKey
from geostore.storage.blobs import blob_path, read_blob, read_piece
from geostore.storage.files import Files
from geostore.storage.records import (
    AT,
    Values,
    codec_row,
    event_row,
    group_of,
    job_row,
    piece_of,
    raster_row,
    scene_row,
)
from geostore.storage.rows import CodecRow, EventRow, JobRow, RasterRow, SceneRow, Unread
from geostore.storage.view import View

T = TypeVar("T")


class Reading(ABC):
    """The reading half of a Store."""

    files: Files
    slots: int

    @abstractmethod
    def see(self, look: Callable[[View], T]) -> T:
        """`look` at the view."""

    @abstractmethod
    def refresh(self) -> None:
        """Bring the view level with the tables."""

    def partitions(
        self, collection: str | None = None, prefix: str = "", group: str | None = None
    ) -> list[PartitionKey]:
        """Partitions that hold a codec or a current raster, sorted; all of them unless narrowed."""
        return [p for p in self.see(lambda view: view.partitions(collection, [prefix])) if group in (None, p.group)]

    def partitions_at(
        self, geohash: str, collection: str | None = None, group: str | None = None
    ) -> list[PartitionKey]:
        """Partitions whose cell lies in `geohash`, or holds it, sorted."""
        beginnings = [geohash, *(geohash[:n] + "\0" for n in range(1, len(geohash)))]
        return [p for p in self.see(lambda view: view.partitions(collection, beginnings)) if group in (None, p.group)]

    def rasters(
        self, partition: PartitionKey, start_us: int | None = None, end_us: int | None = None, *, payload: bool = True
    ) -> list[RasterRow]:
        """Current rasters of a partition with start <= time < end, ascending; empty if there are none.

        Args:
            partition: which one.
            start_us: UTC microseconds, inclusive; None for all.
            end_us: UTC microseconds, exclusive; None for all.
            payload: False leaves payloads, and what groups of rasters share, unread: a row then says in `unread` how
                large they are.
        """

        def read() -> list[RasterRow]:
            found = _newest(self.see(lambda view: view.rasters(partition, start_us, end_us)))
            named = {name for _, values in found if (name := group_of(values)) is not None}
            if not payload:
                sizes = {name: _size("group", self._group(partition, name)) for name in named}
                return [_unread(*item, sizes) for item in found]
            groups = {name: self._shared(partition, name) for name in named}
            return [self._raster(*item, groups) for item in found]

        return self._again(read)

    def raster(self, key: RasterKey, generation: int | None = None) -> RasterRow:
        """The current row of one raster, or its newest row of one generation.

        Raises:
            NotFound: no such raster, it was withdrawn, or that generation was pruned.
        """

        def read() -> RasterRow:
            found = self.see(lambda view: view.raster(key))
            wanted = [f for f in found if generation in (None, f[1][AT["raster"]["generation"]])]
            if not wanted:
                which = "" if generation is None else f" of generation {generation}"
                raise NotFound(f"no raster {key}{which}; `geostore status` lists partitions")
            scene, values = max(wanted, key=lambda f: _rank(f[1]))
            name = group_of(values)
            return self._raster(scene, values, {} if name is None else {name: self._shared(key.partition, name)})

        return self._again(read)

    def rows(self, keys: Sequence[RasterKey]) -> list[RasterRow]:
        """The current row of each key, in their order; what several of them share is read once.

        Raises:
            NotFound: one of them is not there, or was withdrawn.
        """
        groups: dict[tuple[PartitionKey, str], bytes] = {}

        def read(key: RasterKey) -> RasterRow:
            found = self.see(lambda view: view.raster(key))
            if not found:
                raise NotFound(f"no raster {key}; `geostore status` lists partitions")
            scene, values = max(found, key=lambda f: _rank(f[1]))
            name = group_of(values)
            if name is None:
                return self._raster(scene, values, {})
            if (key.partition, name) not in groups:
                groups[key.partition, name] = self._shared(key.partition, name)
            return self._raster(scene, values, {name: groups[key.partition, name]})

        return [self._again(partial(read, key)) for key in keys]

    def _again(self, read: Callable[[], T]) -> T:
        """`read`, and once more if a blob was missing or wrong: a prune may have moved it since the view was seen."""
        try:
            return read()
        except Corrupt:
            self.refresh()
            return read()

    def _raster(self, scene: str, values: Values, groups: Mapping[str, bytes]) -> RasterRow:
        name = group_of(values)
        shared = b"" if name is None else groups[name]
        return raster_row(values, scene=scene, payload=self._payload("raster", values), shared=shared)

    def _shared(self, partition: PartitionKey, name: str) -> bytes:
        """What the rasters of the group `name` have in common."""
        return self._payload("group", self._group(partition, name))

    def _group(self, partition: PartitionKey, name: str) -> Values:
        """The columns of a group of rasters."""
        values = self.see(lambda view: view.group(partition, name))
        if values is None:
            raise Corrupt(f"{partition} has no group {name}, a raster needs it; run `geostore verify`")
        return values

    def _payload(self, kind: str, values: Values) -> bytes:
        """The payload of a row, from the row itself or from a stream."""
        piece = piece_of(kind, values)
        data: bytes = values[AT[kind]["payload"]] if piece is None else read_piece(self.files, piece)
        return data

    def codec(self, partition: PartitionKey, generation: int | None = None) -> CodecRow:
        """The newest codec of a partition, or one generation of it.

        Raises:
            NotFound: no such partition or generation.
        """
        for values in reversed(self.see(lambda view: view.codecs(partition))):
            if generation in (None, values[AT["codec"]["generation"]]):
                return self._codec(values)
        which = "" if generation is None else f" generation {generation}"
        raise NotFound(
            f"no codec for {partition}{which}; `geostore status` lists partitions, `geostore fit` makes codecs"
        )

    def generations(self, partition: PartitionKey, *, data: bool = True) -> list[CodecRow]:
        """Every codec of a partition, ascending generation; empty if there is no such partition.

        Args:
            partition: whose.
            data: False leaves their bytes unread: `unread` then says how many they are.
        """
        read = self._codec if data else self._codec_unread
        return [read(values) for values in self.see(lambda view: view.codecs(partition))]

    def _codec(self, values: Values) -> CodecRow:
        at = AT["codec"]
        blob = values[at["blob"]]
        data = values[at["data"]] if blob is None else read_blob(self.files, blob_path("codecs", blob))
        return codec_row(values, data=data)

    def _codec_unread(self, values: Values) -> CodecRow:
        at = AT["codec"]
        blob = values[at["blob"]]
        size = len(values[at["data"]]) if blob is None else self.files.size(blob_path("codecs", blob))
        return codec_row(values, data=b"", unread=size or 0)

    def scenes(self, collection: str | None = None) -> list[SceneRow]:
        """Every scene, withdrawn ones included, by collection and time."""
        found = [scene_row(values) for values in self.see(lambda view: view.scenes(collection))]
        return sorted(found, key=lambda s: (s.collection, s.time_us, s.id))

    def scene(self, collection: str, id: str) -> SceneRow | None:  # noqa: A002 - the scene's own word
        """One scene, or None."""
        values = self.see(lambda view: view.scene(collection, id))
        return None if values is None else scene_row(values)

    def jobs(self) -> list[JobRow]:
        """The newest state of every job, oldest job first."""
        return sorted((job_row(v) for v in self.see(View.jobs)), key=lambda job: (job.made_us, job.id))

    def job(self, id: str) -> JobRow:  # noqa: A002 - the job's own word
        """One job.

        Raises:
            NotFound: no such job.
        """
        for job in self.jobs():
            if job.id == id:
                return job
        raise NotFound(f"no job {id!r}; `geostore jobs` lists them")

    def events(self) -> list[EventRow]:
        """Every event, by time."""
        return [event_row(values) for values in self.see(View.events)]

    def current_values(self, partition: PartitionKey) -> list[Values]:
        """The columns of the current rasters of a partition."""
        return [values for _, values in _newest(self.see(lambda view: view.rasters(partition, None, None)))]

    def current_number(self, key: RasterKey) -> int | None:
        """The sequence number of the current row of a raster, or None if it does not stand."""
        found = self.see(lambda view: view.raster(key))
        return int(max((values for _, values in found), key=_rank)[0]) if found else None

    def slot_of(self, geohash: str) -> int:
        """The slot of a cell."""
        return slot_of(geohash, self.slots)

    def slot_of_scene(self, id: str) -> int:  # noqa: A002 - the scene's own word
        """The slot of a scene's facts; with the store's id, that of jobs and events."""
        return slot_of_text(id, self.slots)

    def scene_names(self, slot: int) -> dict[int, tuple[str, str]]:
        """(collection, scene id) by number within a slot."""
        return self.see(lambda view: view.numbers(slot))


def _newest(found: Iterable[tuple[str, Values]]) -> list[tuple[str, Values]]:
    """The current row of each key, in the order of the keys."""
    newest: dict[Values, tuple[str, Values]] = {}
    for item in found:
        key = item[1][1:6]
        if key not in newest or _rank(item[1]) > _rank(newest[key][1]):
            newest[key] = item
    return list(newest.values())


def _unread(scene: str, values: Values, shared: Mapping[str, int]) -> RasterRow:
    """The row of `values` without its payload; `shared` gives the size of what each group has in common."""
    name = group_of(values) or ""
    unread = Unread(payload=_size("raster", values), shared=shared.get(name, 0), group=name)
    return raster_row(values, scene=scene, payload=b"", unread=unread)


def _size(kind: str, values: Values) -> int:
    """Bytes of a row's payload."""
    piece = piece_of(kind, values)
    return len(values[AT[kind]["payload"]]) if piece is None else piece.length


def _rank(values: Values) -> tuple[int, int, int]:
    at = AT["raster"]
    return values[at["revision"]], values[at["generation"]], values[0]
