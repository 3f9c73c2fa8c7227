"""Store: rows in, durably; rows out, checked."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import lmdb

from geostore.codec import Progress, quiet
from geostore.collection import Collection
from geostore.dht.ring import check_slots, slot_of, slot_of_text
from geostore.errors import Conflict, Corrupt, Forbidden, NotFound, StorageFull
from geostore.keys import PartitionKey, RasterKey
from geostore.settings import Settings
from geostore.storage import audit, backup, follow, header, upkeep
from geostore.storage.blobs import blob_path, original_path, put_blob, read_blob, read_piece
from geostore.storage.files import Files, LocalFiles, digest_of, open_files
from geostore.storage.lock import WriterLock, is_held
from geostore.storage.pack import Batch, slot_of_row
from geostore.storage.records import (
    AT,
    CodecRow,
    EventRow,
    JobRow,
    Kind,
    RasterRow,
    Row,
    SceneRow,
    Values,
    codec_row,
    event_row,
    job_row,
    piece_of,
    raster_row,
    scene_row,
)
from geostore.storage.settle import settle
from geostore.storage.tables import Owner, SlotTable, Snapshot
from geostore.storage.view import Rotten, View

T = TypeVar("T")
_WRITERS = 8  # slots committed at once: each waits for the disk
_WAIT_S, _STEP_S = 0.5, 0.005  # a reader's patience with a writer between its commit and its view


class Store:
    """One store, opened for writing (one process at a time) or read-only (any number). Threads may share it.

    Attributes:
        id: 32 hexadecimal digits, the same in every backup.
        url: where it lies.
        slots: how many tables the ring is cut into.
        readonly: True if this one cannot write.
        files: its bytes by relative path.
        tables: the table of every slot.
    """

    def __init__(
        self, files: Files, head: header.Header, settings: Settings, lock: WriterLock | None, *, readonly: bool
    ):
        self.files = files
        self.id, self.slots, self.url, self.readonly = head.id, head.slots, files.url, readonly
        self.settings = settings
        owner = None if readonly else Owner(f"{platform.node()}:{os.getpid()}")
        self.tables = {slot: SlotTable(files, slot, owner) for slot in range(head.slots)}
        self._lock = lock
        self._changing = threading.RLock()
        self._doubtful: set[int] = set()
        self._numbers: dict[int, dict[tuple[str, str], int]] = {}
        self._private: Path | None = None
        self._shared = False
        self._closed = False
        self._broken: Corrupt | None = None
        self._opened: View | None = None
        try:
            self._opened = self._open_view()
        except Corrupt as error:  # so that `verify` can say all that is wrong
            self._broken = error

    # --- opening and closing

    @classmethod
    def create(cls, url: str | os.PathLike[str], *, slots: int = 16, options: Mapping[str, str] | None = None) -> Self:
        """Make an empty store and open it for writing.

        Args:
            url: a folder, or an s3://, gs:// or az:// URL.
            slots: tables the ring is cut into, 1 to 1024, fixed from now on.
            options: credentials and endpoint for an object store, as delta-rs and obstore name them.

        Raises:
            Conflict: a store is there already.
        """
        files = open_files(url, options)
        made = header.Header(header.FORMAT_VERSION, uuid.uuid4().hex, check_slots(slots), time.time_ns() // 1000)
        header.write_header(files, made)
        return cls.open(url, options=options)

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str],
        *,
        readonly: bool = False,
        options: Mapping[str, str] | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """Open the store at `url`.

        Raises:
            NotFound: no store there. StoreLocked: another writer holds it. UnsupportedFormat: a newer format.
            Corrupt: geostore.json does not parse. A store whose tables do not read opens, so that `verify` can tell
                all that is wrong; reading and writing rows raises Corrupt.
        """
        files = open_files(url, options)
        head = header.read_header(files)
        lock = WriterLock(files.local) if files.local is not None and not readonly else None
        try:
            return cls(files, head, settings or Settings(), lock, readonly=readonly)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        """Let go of the store; what was committed is durable already."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
            self._close_view(clean=True)
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the view

    @property
    def view_path(self) -> Path:
        """Where the view lies: in the store for a local writer, else in a temporary folder."""
        if self._private is not None:
            return self._private
        assert self.files.local is not None
        return self.files.local / follow.VIEW

    @property
    def _view(self) -> View:
        """The open view; raises what kept it from being made."""
        if self._opened is None:
            raise self._broken or Corrupt(f"{self.url} has no view; run `geostore rebuild`")
        return self._opened

    def _open_view(self) -> View:
        if self.readonly or self.files.local is None:
            return self._shared_view() or self._private_view()
        if isinstance(self.files, LocalFiles) and not follow.was_closed(self.view_path):
            settle(self.files, [table.root for table in self.tables.values()])
        try:
            view, empty = follow.open_own(self.view_path, self.settings.view_bytes, self.id)
        except (OSError, lmdb.Error):
            return self._private_view()
        try:
            if not empty and follow.follow(view, self.tables):
                return view
        except Rotten:
            pass
        except BaseException:
            view.close()
            raise
        view.close()
        return self._new_view()

    def _new_view(self) -> View:
        """An own view made from the tables; a private one where the store's disk does not take it."""
        try:
            view = follow.anew(self.view_path, self.settings.view_bytes)
        except (OSError, lmdb.Error):
            return self._private_view()
        try:
            follow.fill(view, self.tables, self.id)
        except Rotten:
            view.close()
            return self._private_view()
        except BaseException:
            view.close()
            raise
        return view

    def _shared_view(self) -> View | None:
        """The writer's own view, if this machine has it and it is level with the tables."""
        if self.files.local is None:
            return None
        view = follow.open_shared(self.files.local / follow.VIEW, self.settings.view_bytes, self.id)
        if view is None:
            return None
        try:
            if self._is_level(view):
                self._shared = True
                return view
        except Rotten:
            pass
        view.close()
        return None

    def _is_level(self, view: View) -> bool:
        """Wait a moment for a writer that has committed and is about to say so in its view."""
        until = time.monotonic() + _WAIT_S
        while not follow.is_level(view, self.tables):
            if self.files.local is None or not is_held(self.files.local) or time.monotonic() > until:
                return False
            time.sleep(_STEP_S)
        return True

    def _private_view(self) -> View:
        self._private = Path(tempfile.mkdtemp(prefix="geostore-view-"))
        self._shared = False
        view = View(self._private, size_bytes=self.settings.view_bytes)
        try:
            follow.fill(view, self.tables, self.id)
        except BaseException:
            view.close()
            shutil.rmtree(self._private, ignore_errors=True)
            raise
        return view

    def _close_view(self, *, clean: bool) -> None:
        view, self._opened = self._opened, None
        if view is None:
            return
        if clean and self._private is None and not self.readonly:
            with contextlib.suppress(OSError, lmdb.Error):  # then the next one is made anew
                view.sync()
                follow.mark(self.view_path, clean=True)
        view.close()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None

    def _renew_view(self) -> None:
        """Throw the view away and build it from the tables."""
        self._numbers.clear()
        self._close_view(clean=False)
        own = not self.readonly and self.files.local is not None
        self._opened = self._new_view() if own else self._private_view()
        self._broken = None

    def see(self, look: Callable[[View], T]) -> T:
        """`look` at the view; if that is found to be rotten, build it again and look once more.

        Raises:
            Corrupt: the new one is rotten too, or the tables are.
        """
        self._check_open()
        view = self._view
        try:
            return look(view)
        except Rotten as error:
            with self._changing:
                if self._view is view:
                    self._renew_view()
                try:
                    return look(self._view)
                except Rotten:
                    raise Corrupt(f"{self.url}: the view rots as it is built: {error}; check the disk") from error

    def refresh(self) -> None:
        """See what was committed since: by a writer elsewhere, if this store is read-only."""
        self._check_open()
        with self._changing:
            if self._shared:
                with contextlib.suppress(Rotten):
                    if self._is_level(self._view):
                        return
                self._renew_view()
                return
            try:
                level = follow.follow(self._view, self.tables)
            except Rotten:
                level = False
            self._numbers.clear()
            if not level:
                self._renew_view()

    def rebuild(self, progress: Progress = quiet) -> None:
        """Build the view anew from the tables."""
        self._check_open()
        progress("rebuild", 0.0)
        with self._changing:
            self._renew_view()
        progress("rebuild", 1.0)

    # --- writing

    def commit(self, rows: Sequence[Row]) -> None:
        """Store rows: one Delta commit for each slot they touch, durable when this returns.

        Slots are independent: after an error some of them may hold their rows; the same rows may be committed again.

        Raises:
            StorageFull: no room; nothing that was acknowledged is lost. Fenced: another owner sealed a slot.
            UnknownOutcome: a commit may or may not be stored; refresh and read.
        """
        self.check_writable()
        if not rows:
            return
        with self._changing:
            self._check_room()
            by_slot: dict[int, list[Row]] = {}
            for row in rows:
                by_slot.setdefault(slot_of_row(row, self.slots, self.id), []).append(row)
            if self._doubtful & by_slot.keys():
                self.refresh()
                self._doubtful.clear()
            batches = {slot: self._batch(slot, items) for slot, items in by_slot.items()}
            self._publish(batches)

    def _batch(self, slot: int, rows: Iterable[Row]) -> tuple[Snapshot, Batch]:
        state, seq = self._view.state(slot)
        if slot not in self._numbers:
            self._numbers[slot] = {named: n for n, named in self._view.numbers(slot).items()}
        batch = Batch(seq, dict(self._numbers[slot]))
        batch.pack(rows)
        return state, batch

    def _publish(self, batches: dict[int, tuple[Snapshot, Batch]]) -> None:
        """Blobs, then one commit a slot, then the view; what went through counts even if another slot failed."""

        def one(slot: int) -> Snapshot:
            state, batch = batches[slot]
            for path, data in batch.blobs.items():
                put_blob(self.files, path, data)
            return self.tables[slot].append(batch.rows, state)

        changes: list[follow.Change] = []
        first: BaseException | None = None
        with ThreadPoolExecutor(min(_WRITERS, len(batches))) as pool:
            futures = {slot: pool.submit(one, slot) for slot in sorted(batches)}
        for slot, future in futures.items():
            error = future.exception()
            if error is not None:
                first = first or error
                self._doubtful.add(slot)
                continue
            batch = batches[slot][1]
            self._numbers[slot] = batch.numbers
            changes.append((slot, future.result(), batch.ordered()))
        try:
            self._view.apply(changes)
        except Rotten:
            self._renew_view()
        if first is not None:
            raise first

    def _check_room(self) -> None:
        if self.files.local is None:
            return
        usage = shutil.disk_usage(self.files.local)
        if usage.free < usage.total * self.settings.disk_reserve:
            raise StorageFull(
                f"{self.url}: {usage.free} bytes free, less than the reserve of {self.settings.disk_reserve:.0%} of "
                f"{usage.total}; make room, or lower disk_reserve"
            )

    def check_writable(self) -> None:
        """Raise Forbidden if the store is open read-only, Conflict if it is closed."""
        self._check_open()
        if self.readonly:
            raise Forbidden(f"{self.url} is open read-only; open it for writing")

    def _check_open(self) -> None:
        if self._closed:
            raise Conflict(f"{self.url} was closed; open it again")

    # --- collections

    def collections(self) -> list[Collection]:
        """The newest version of every collection, by name."""
        return [self.collection(name) for name in self.files.names("collections")]

    def collection(self, name: str, version: int | None = None) -> Collection:
        """One version of a collection, the newest if None.

        Raises:
            NotFound: no such collection or version.
        """
        self._check_open()
        if version is None:
            known = header.collection_versions(self.files, name)
            version = known[-1] if known else 1
        return header.read_collection(self.files, name, version)

    def put_collection(self, collection: Collection) -> Collection:
        """Declare a collection: a new version, or the newest one if it says the same."""
        self.check_writable()
        return header.add_collection(self.files, collection)

    # --- reading

    def partitions(
        self, collection: str | None = None, prefix: str = "", group: str | None = None
    ) -> list[PartitionKey]:
        """Partitions that hold a codec or a current raster, sorted; all of them unless narrowed."""
        return [
            p
            for p in self.see(View.partitions)
            if collection in (None, p.collection) and p.geohash.startswith(prefix) and group in (None, p.group)
        ]

    def rasters(
        self, partition: PartitionKey, start_us: int | None = None, end_us: int | None = None, *, payload: bool = True
    ) -> list[RasterRow]:
        """Current rasters of a partition with start <= time < end, ascending; empty if there are none.

        Args:
            partition: which one.
            start_us: UTC microseconds, inclusive; None for all.
            end_us: UTC microseconds, exclusive; None for all.
            payload: False leaves payloads that lie in streams unread: they come back empty.
        """
        found = self.see(lambda view: view.rasters(partition, start_us, end_us))
        return [self._raster(*item, payload=payload) for item in _newest(found)]

    def raster(self, key: RasterKey, generation: int | None = None) -> RasterRow:
        """The current row of one raster, or its newest row of one generation.

        Raises:
            NotFound: no such raster, it was withdrawn, or that generation was pruned.
        """
        found = self.see(lambda view: view.raster(key))
        wanted = [f for f in found if generation in (None, f[1][AT["raster"]["generation"]])]
        if not wanted:
            which = "" if generation is None else f" of generation {generation}"
            raise NotFound(f"no raster {key}{which}; `geostore status` lists partitions")
        return self._raster(*max(wanted, key=lambda f: _rank(f[1])), payload=True)

    def _raster(self, scene: str, values: Values, *, payload: bool) -> RasterRow:
        piece = piece_of(values)
        if piece is None:
            return raster_row(values, scene=scene, payload=values[AT["raster"]["payload"]])
        return raster_row(values, scene=scene, payload=read_piece(self.files, piece) if payload else b"")

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

    def generations(self, partition: PartitionKey) -> list[CodecRow]:
        """Every codec of a partition, ascending generation; empty if there is no such partition."""
        return [self._codec(values) for values in self.see(lambda view: view.codecs(partition))]

    def _codec(self, values: Values) -> CodecRow:
        at = AT["codec"]
        blob = values[at["blob"]]
        data = values[at["data"]] if blob is None else read_blob(self.files, blob_path("codecs", blob))
        return codec_row(values, data=data)

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

    def table(self, kind: Kind) -> Any:
        """Rows of one kind over all slots as a pyarrow.Table: scenes by id, `current` marks what counts.

        Payloads that lie in streams stay there: `stream`, `offset` and `length` name them.
        """
        return upkeep.table(self, kind)

    def current_values(self, partition: PartitionKey) -> list[Values]:
        """The columns of the current rasters of a partition."""
        return [values for _, values in _newest(self.see(lambda view: view.rasters(partition, None, None)))]

    def slot_of(self, geohash: str) -> int:
        """The slot of a cell."""
        return slot_of(geohash, self.slots)

    def slot_of_scene(self, id: str) -> int:  # noqa: A002 - the scene's own word
        """The slot of a scene's facts; with the store's id, that of jobs and events."""
        return slot_of_text(id, self.slots)

    def scene_names(self, slot: int) -> dict[int, tuple[str, str]]:
        """(collection, scene id) by number within a slot."""
        return self.see(lambda view: view.numbers(slot))

    def check_view(self) -> None:
        """Read every record of the view, and compare it with one made anew from the tables.

        Raises:
            Rotten: a record fails its checksum, is missing or too many.
        """
        self._check_open()
        with self._changing:  # a commit in between would look like a view that lags
            if follow.is_level(self._view, self.tables):
                follow.compare(self._view, self.tables, self.id, self.settings.view_bytes)

    # --- blobs

    def put_blob(self, area: str, data: bytes) -> str:
        """Store bytes durably in an area ("codecs", "streams", "models"); returns their digest."""
        self.check_writable()
        digest = digest_of(data)
        put_blob(self.files, blob_path(area, digest), data)
        return digest

    def blob(self, area: str, digest: str) -> bytes:
        """The bytes of a digest.

        Raises:
            NotFound: nothing is there. Corrupt: other bytes are there.
        """
        self._check_open()
        return read_blob(self.files, blob_path(area, digest))

    def put_original(self, key: RasterKey, data: bytes) -> str:
        """Keep the lossless COG of a raster durably; returns its digest."""
        self.check_writable()
        digest = digest_of(data)
        put_blob(self.files, original_path(key, digest), data)
        return digest

    def original(self, key: RasterKey, digest: str) -> bytes:
        """A kept COG.

        Raises:
            NotFound: nothing is there. Corrupt: other bytes are there.
        """
        self._check_open()
        return read_blob(self.files, original_path(key, digest))

    # --- keeping it well

    def bytes_durable(self) -> dict[str, int]:
        """Sum of file sizes under the root by part; the disposable view is left out (see `bytes_view`)."""
        return upkeep.bytes_durable(self.files)

    def bytes_view(self) -> int:
        """Bytes of the disposable view on this machine's disk."""
        return sum(p.stat().st_blocks * 512 for p in self.view_path.glob("*") if p.is_file())

    def verify(self, progress: Progress = quiet) -> list[audit.Finding]:
        """Read everything, check every digest and checksum; an empty list means that nothing is wrong."""
        self._check_open()
        return audit.verify(self, progress)

    def compact(self, progress: Progress = quiet, *, retain_days: float | None = None) -> None:
        """Merge small table files, write checkpoints, delete files superseded `retain_days` ago (settings: 7)."""
        with self._changing:
            upkeep.compact(self, progress, retain_days=retain_days)

    def prune(self, progress: Progress = quiet, *, retain_days: float | None = None) -> None:
        """Drop superseded rows at once, and the files and blobs only they needed after `retain_days` (settings: 7)."""
        with self._changing:
            upkeep.prune(self, progress, retain_days=retain_days)

    def backup(
        self, url: str | os.PathLike[str], options: Mapping[str, str] | None = None, progress: Progress = quiet
    ) -> dict[str, int]:
        """Copy the store to `url`, only what is missing there; returns files and bytes, copied and in all."""
        self._check_open()
        with self._changing:
            return backup.backup(self.files, open_files(url, options), progress)

    def adopt(self, slot: int, snapshot: Snapshot) -> None:
        """Note in the view that a rewrite brought a slot to `snapshot` without a change of what rows say."""
        self._view.apply([(slot, snapshot, [])])


def _newest(found: Iterable[tuple[str, Values]]) -> list[tuple[str, Values]]:
    """The current row of each key, in the order of the keys."""
    newest: dict[Values, tuple[str, Values]] = {}
    for item in found:
        key = item[1][1:6]
        if key not in newest or _rank(item[1]) > _rank(newest[key][1]):
            newest[key] = item
    return list(newest.values())


def _rank(values: Values) -> tuple[int, int, int]:
    at = AT["raster"]
    return values[at["revision"]], values[at["generation"]], values[0]
