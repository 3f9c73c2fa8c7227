"""Store: rows in, durably; rows out, checked."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from geostore.codec import Progress, quiet
from geostore.collection import Collection
from geostore.dht.ring import check_slots
from geostore.errors import Conflict, Forbidden, GeostoreError, StorageFull
from geostore.keys import RasterKey
from geostore.settings import Settings
from geostore.storage import audit, backup, follow, header, upkeep, witness
from geostore.storage.blobs import blob_path, original_path, put_blob, read_blob
from geostore.storage.files import Files, digest_of, open_files
from geostore.storage.lock import WriterLock
from geostore.storage.pack import Batch, slot_of_row
from geostore.storage.reading import Reading
from geostore.storage.records import Kind
from geostore.storage.rows import Row, SceneRow
from geostore.storage.sight import Sight
from geostore.storage.tables import Owner, SlotTable, Snapshot
from geostore.storage.view import View

T = TypeVar("T")
_log = logging.getLogger(__name__)
_WRITERS = 8  # slots committed at once: each waits for the disk
_WAIT_S, _STEP_S = 0.5, 0.005  # a reader's patience with a writer between its commit and its view


class Store(Reading):
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
        self._closed = False
        self._sight = Sight(
            files, self.tables, self.id, size_bytes=settings.view_bytes, changing=self._changing, readonly=readonly
        )

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
        """Open the store at `url`; opened for writing, one of an earlier format is raised to the present one.

        Raises:
            NotFound: no store there. StoreLocked: another writer holds it. UnsupportedFormat: a newer format.
            Corrupt: geostore.json does not parse. A store whose tables do not read opens, so that `verify` can tell
                all that is wrong; reading and writing rows raises Corrupt.
        """
        files = open_files(url, options)
        head = header.read_header(files)
        lock = WriterLock(files.local) if files.local is not None and not readonly else None
        try:
            head = head if readonly else header.raise_header(files, head)
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
            self._sight.close(clean=True)
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
        return self._sight.path

    def see(self, look: Callable[[View], T]) -> T:
        """`look` at the view; if that is found to be rotten, build it again and look once more.

        Raises:
            Corrupt: the new one is rotten too, or the tables are.
        """
        self._check_open()
        return self._sight.see(look)

    def refresh(self) -> None:
        """See what was committed since: by a writer elsewhere, if this store is read-only."""
        self._check_open()
        self._sight.refresh()

    def rebuild(self, progress: Progress = quiet) -> None:
        """Build the view anew from the tables."""
        self._check_open()
        progress("rebuild", 0.0)
        with self._changing:
            if not self.readonly:
                for table in self.tables.values():
                    witness.mend(self.files, table.root)
            self._sight.renew()
        progress("rebuild", 1.0)

    def check_view(self) -> None:
        """Read every record of the view, and compare it with one made anew from the tables.

        Raises:
            Rotten: a record fails its checksum, is missing or too many.
        """
        self._check_open()
        with self._changing:  # a commit in between would look like a view that lags
            self._sight.check()

    # --- writing

    def commit(self, rows: Sequence[Row]) -> None:
        """Store rows: one Delta commit for each slot they touch, durable when this returns.

        The facts of scenes follow when all else is durable, so that a scene that is there is whole. Slots are
        independent: after an error some of them may hold their rows; the same rows may be committed again.

        Raises:
            StorageFull: no room; nothing that was acknowledged is lost. Fenced: another owner sealed a slot.
            UnknownOutcome: a commit may or may not be stored; refresh and read.
        """
        self.check_writable()
        if not rows:
            return
        with self._changing:
            self._check_room()
            by_slot = self._by_slot(rows)
            if len(by_slot) == 1:
                self._commit(by_slot)
                return
            facts = [row for row in rows if isinstance(row, SceneRow)]
            for part in ([row for row in rows if not isinstance(row, SceneRow)], facts):
                self._commit(self._by_slot(part))

    def _by_slot(self, rows: Iterable[Row]) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for row in rows:
            found.setdefault(slot_of_row(row, self.slots, self.id), []).append(row)
        return found

    def _commit(self, rows: Mapping[int, Sequence[Row]]) -> None:
        if not rows:
            return
        if self._doubtful & rows.keys():
            self.refresh()
            self._doubtful.clear()
        self._publish({slot: self._batch(slot, items) for slot, items in rows.items()})

    def _batch(self, slot: int, rows: Iterable[Row]) -> tuple[Snapshot, Batch]:
        state, seq = self._sight.view.state(slot)
        batch = Batch(seq, self._sight.numbers(slot))
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
        numbers: dict[int, dict[tuple[str, str], int]] = {}
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
            numbers[slot] = batch.numbers
            changes.append((slot, future.result(), batch.ordered()))
        self._sight.learn(changes, numbers)
        for slot, snapshot, _ in changes:
            self._join_crowds(slot, snapshot)
        if first is not None:
            raise first

    def _join_crowds(self, slot: int, snapshot: Snapshot) -> None:
        """Join small part files; what was committed stands, so trouble is only told: the next commit meets it too."""
        try:
            upkeep.join_crowds(self, slot, snapshot)
        except (GeostoreError, OSError) as error:
            self._doubtful.add(slot)
            _log.warning("part files of slot %d stay apart: %s", slot, error)

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
        """Declare a collection: a new version, or the newest one if it says the same.

        Raises:
            Conflict: rasters are stored whose numbers or cells would mean something else then.
        """
        self.check_writable()
        stored = {partition.group for partition in self.partitions(collection.name)}
        if stored and header.collection_versions(self.files, collection.name):
            header.check_meaning(self.collection(collection.name), collection, stored)
        return header.add_collection(self.files, collection)

    # --- whole tables and blobs

    def table(self, kind: Kind) -> Any:
        """Rows of one kind over all slots as a pyarrow.Table: scenes by id, `current` marks what counts.

        Payloads that lie in streams stay there: `stream`, `offset` and `length` name them.
        """
        return upkeep.table(self, kind)

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

    def bytes_counted(self) -> tuple[dict[str, int], int]:
        """`bytes_durable`, and of them those that no current row needs: `prune` frees them."""
        return upkeep.bytes_counted(self)

    def bytes_view(self) -> int:
        """Bytes of the disposable view on this machine's disk."""
        return self._sight.size()

    def verify(self, progress: Progress = quiet) -> list[audit.Finding]:
        """Read everything, check every digest and checksum; an empty list means that nothing is wrong."""
        self._check_open()
        return audit.verify(self, progress)

    def compact(self, progress: Progress = quiet, *, retain_days: float | None = None) -> None:
        """Merge small table files, write checkpoints, delete files superseded `retain_days` ago (settings: 7)."""
        with self._changing, self._doubting():
            upkeep.compact(self, progress, retain_days=retain_days)

    def prune(self, progress: Progress = quiet, *, retain_days: float | None = None) -> None:
        """Drop superseded rows at once, and the files and blobs only they needed after `retain_days` (settings: 7)."""
        with self._changing, self._doubting():
            upkeep.prune(self, progress, retain_days=retain_days)

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """After an error a rewrite may be in a log all the same: look before the next commit."""
        try:
            yield
        except BaseException:
            self._doubtful.update(self.tables)
            raise

    def backup(
        self, url: str | os.PathLike[str], options: Mapping[str, str] | None = None, progress: Progress = quiet
    ) -> dict[str, int]:
        """Copy the store to `url`, only what is missing there; returns files and bytes, copied and in all."""
        self._check_open()
        with self._changing:
            return backup.backup(self.files, open_files(url, options), progress)

    def adopt(self, slot: int, snapshot: Snapshot) -> None:
        """Note in the view that a rewrite brought a slot to `snapshot` without a change of what rows say."""
        self._sight.learn([(slot, snapshot, [])], {})
