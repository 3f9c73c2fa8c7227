"""The durable rows of one slot: a Delta table whose log is also the fence between owners."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from geostore.durable import is_full
from geostore.errors import Corrupt, Fenced, StorageFull, Unavailable, UnknownOutcome
from geostore.storage import witness
from geostore.storage.files import Files
from geostore.storage.log import LOG, Commit, Seal, after, commit_metadata, live_check, log_name, read_commit, versions
from geostore.storage.parts import encode_part, part_kind, part_path, read_part
from geostore.storage.records import TABLE_SCHEMA, Values

EPOCH_APP = "geostore-epoch"
CHECKPOINT_EVERY = 64
JOIN_EVERY = 32  # versions between two looks at whether there are
CROWD = 32  # part files of like size, which are joined
_JOINED_BYTES_MAX = 2**20  # larger ones are left as they are, until `compact`
_PANIC = "PanicException"  # of pyo3: no Exception, and cannot be imported
_SCHEMA = Schema.from_arrow(TABLE_SCHEMA)
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_CONFIGURATION = {"delta.dataSkippingNumIndexedCols": "0", "delta.logRetentionDuration": "interval 7 days"}


@dataclass(frozen=True)
class Owner:
    """Who writes: names for the log, and the run id that tells two owners of one epoch apart."""

    node: str
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:16])


@dataclass(frozen=True)
class Snapshot:
    """One version of a table: the part files that count, and the seal at that version."""

    version: int = -1
    seal: Seal = field(default_factory=Seal)
    parts: tuple[str, ...] = ()


class SlotTable:
    """One slot's table. Reading needs no ownership; writing goes through one pinned handle, zero retries."""

    def __init__(self, files: Files, slot: int, owner: Owner | None = None) -> None:
        self.files = files
        self.slot = slot
        self.root = f"tables/slot={slot:04d}"
        self.owner = owner
        self.seal = Seal()
        self.version = -1
        self._handle: DeltaTable | None = None
        self._epoch = 0  # ours, once a commit of ours is in the log
        self._skipped: set[str] = set()
        self._wide = False  # the table is known to have every column of this format

    # --- reading

    def snapshot(self) -> Snapshot:
        """The newest version: live part files without those of stale commits.

        Raises:
            Corrupt: log or checkpoint do not read.
        """
        there = versions(self.files, self.root)
        if not there and all(n == log_name(0)[len(LOG) + 1 :] for n in self.files.names(f"{self.root}/{LOG}")):
            return Snapshot()  # no table, or its first log file is torn
        handle = self._open(there[-1] if there else None)  # a torn log file after the last whole one is passed over
        with _reading(self.root):  # what a checkpoint holds is read only now
            version, epoch = handle.version(), handle.transaction_version(EPOCH_APP) or 0
            paths = [path for path, _ in _sizes(handle)]
        seal, skipped, check = self._replay(version, epoch)
        live = tuple(p for p in paths if p not in skipped)
        if live_check(live) != check:
            raise Corrupt(f"{self.root}: version {version} lists other part files than were committed; restore it")
        return Snapshot(version, seal, live)

    def commits(self, state: Snapshot) -> list[Commit] | None:
        """Versions after `state`, ascending, stale ones marked; None if some of them are no longer in the log."""
        there = versions(self.files, self.root)
        wanted = range(state.version + 1, there[-1] + 1) if there else range(0)
        seal, found = state.seal, []
        for version in wanted:
            try:
                found.append(read_commit(self.files, self.root, version, seal))
            except FileNotFoundError:
                return None
            seal = after(seal, found[-1])
        return found

    def latest(self) -> int:
        """The newest version, -1 if the table does not exist."""
        there = versions(self.files, self.root)
        return there[-1] if there else -1

    def read(self, path: str) -> list[Values]:
        """The rows of one part file, digest and check verified.

        Raises:
            Corrupt: the file is missing or is not what was written.
        """
        where = f"{self.root}/{path}"
        try:
            data = self.files.read(where)
        except FileNotFoundError as error:
            raise Corrupt(f"{where} is missing; restore it from a backup") from error
        return read_part(path, data, where)

    def _open(self, version: int | None) -> DeltaTable:
        local = self.files.local
        url = str(local / self.root) if local is not None else f"{self.files.url}/{self.root}"
        with _reading(self.root):
            return DeltaTable(url, version=version, storage_options=self.files.options or None)

    def _replay(self, version: int, epoch: int) -> tuple[Seal, set[str], str]:
        """From the log files still there: the seal at `version`, what stale commits added, the check of the rest."""
        seal, skipped, check = Seal(), set[str](), ""
        for v in versions(self.files, self.root):
            if v > version:
                break
            commit = read_commit(self.files, self.root, v, seal)
            seal = after(seal, commit)
            if commit.stale:
                skipped.update(commit.adds)
            else:
                check = commit.live
        return (seal if seal.epoch >= epoch else Seal(epoch)), skipped, check

    # --- writing

    def append(self, rows: Mapping[str, Sequence[Values]], state: Snapshot) -> Snapshot:
        """Commit rows by kind on top of `state`, durably. The first commit of a run seals the slot.

        Raises:
            Fenced: another owner sealed the slot. StorageFull: no room; nothing was added.
            UnknownOutcome: the commit may or may not be in the log.
        """
        return self._commit("put", rows, state)

    def rewrite(self, verb: str, rows: Mapping[str, Sequence[Values]], state: Snapshot) -> Snapshot:
        """Replace every part file of `state` by these rows: compaction, pruning, removing what a stale owner added."""
        return self._commit(verb, rows, state, None)

    def join(self, rows: Mapping[str, Sequence[Values]], parts: Sequence[str], state: Snapshot) -> Snapshot:
        """Replace some part files of `state` by their rows."""
        return self._commit("compact", rows, state, parts)

    def crowds(self, state: Snapshot) -> list[list[str]]:
        """Part files to be joined: CROWD or more of one kind, none 16 times as large as another, none large.

        It looks every JOIN_EVERY versions only.
        """
        if state.version % JOIN_EVERY != JOIN_EVERY - 1:
            return []
        self._pin(state)
        counted, found = set(state.parts), dict[tuple[str, int], list[str]]()
        for path, size in _sizes(self._handle):
            if path in counted and size < _JOINED_BYTES_MAX:
                found.setdefault((part_kind(path), size.bit_length() // 4), []).append(path)
        return [paths for paths in found.values() if len(paths) >= CROWD]

    def _commit(
        self, verb: str, rows: Mapping[str, Sequence[Values]], state: Snapshot, parts: Sequence[str] | None = ()
    ) -> Snapshot:
        """Commit rows in the place of `parts`: of none, or of every live part file if None, stale ones too."""
        assert self.owner is not None, "a table opened for reading is not written"
        state = self._widened(state)
        live = [path for path, _ in _sizes(self._handle)] if parts is None else parts
        encoded = {
            part_path(kind, data): (kind, data, len(v))
            for kind, v in rows.items()
            if v
            for data in [encode_part(kind, v)]
        }
        adds = [self._write_part(path, *item) for path, item in encoded.items() if path not in live]
        removes = [path for path in live if path not in encoded]
        if not adds and not removes:
            return state
        gone = set(removes)
        kept = (path for path in (live if parts is None else state.parts) if path not in gone)
        there = (*kept, *(a.path for a in adds))
        version = self._publish(verb, adds, removes, there, state)
        if version is None:  # only a sealed-off owner's commit was in the way
            return self._commit(verb, rows, self._caught_up(state), parts)
        result = Snapshot(version, Seal(self._epoch, self.owner.run), there)
        if verb == "put" and version % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            self.checkpoint(result)
        return result

    def _widened(self, state: Snapshot) -> Snapshot:
        """`state`, or the one after it: a table of an earlier format is given its columns by a commit of its own."""
        assert self.owner is not None
        self._pin(state)
        if not self._wide and self._missing():
            version = self._publish("compact", [], [], state.parts, state)
            if version is None:
                return self._widened(self._caught_up(state))
            state = Snapshot(version, Seal(self._epoch, self.owner.run), state.parts)
        self._wide = True
        return state

    def _missing(self) -> list[Field]:
        """Columns of this format that the table does not have."""
        known = set() if self._handle is None else {f.name for f in self._handle.schema().fields}
        return [f for f in _SCHEMA.fields if known and f.name not in known]

    def _publish(
        self, verb: str, adds: list[AddAction], removes: list[str], parts: tuple[str, ...], state: Snapshot
    ) -> int | None:
        """One Delta commit, flushed: its version, or None if it may be tried again."""
        assert self.owner is not None
        epoch, commit, paths = self._epoch or state.seal.epoch + 1, uuid.uuid4().hex[:16], [a.path for a in adds]
        metadata = commit_metadata(
            epoch=epoch,
            node=self.owner.node,
            run=self.owner.run,
            commit=commit,
            verb=verb,
            adds=paths,
            removes=removes,
            live=parts,
        )
        try:
            found = self._send(adds, removes, epoch, metadata)
        except (DeltaError, OSError, ValueError) as error:
            self._handle = None
            try:
                outcome = self._outcome(commit, state, error)
            except StorageFull:
                self._discard(paths)
                raise
            if outcome is None:
                return None
            found = outcome
        self._epoch = epoch
        self.files.flush(f"{self.root}/{log_name(found)}")
        witness.note(self.files, self.root, [log_name(found).removeprefix(f"{LOG}/")])
        if self._handle is not None:  # a table just made is opened once there is more to commit
            self._handle.load_as_version(found)
        return found

    def _pin(self, state: Snapshot) -> None:
        if state.version >= 0 and (self._handle is None or self._handle.version() != state.version):
            self._handle = self._open(state.version)
        if state.version < 0:
            self._handle = None

    def _write_part(self, path: str, kind: str, data: bytes, count: int) -> AddAction:
        self.files.write(f"{self.root}/{path}", data)
        stats = f'{{"numRecords":{count}}}'
        return AddAction(path, len(data), {"kind": kind}, time.time_ns() // 1_000_000, True, stats)

    def _send(self, adds: list[AddAction], removes: list[str], epoch: int, metadata: dict[str, str]) -> int:
        properties = CommitProperties(
            custom_metadata=metadata, max_commit_retries=0, app_transactions=[Transaction(EPOCH_APP, epoch)]
        )
        if self._handle is None:
            local = self.files.local
            if local is not None:
                (local / self.root).mkdir(parents=True, exist_ok=True)
            create_table_with_add_actions(
                str(local / self.root) if local is not None else f"{self.files.url}/{self.root}",
                _SCHEMA,
                adds,
                mode="error",
                partition_by=["kind"],
                configuration=_CONFIGURATION,
                storage_options=self.files.options or None,
                commit_properties=properties,
                post_commithook_properties=_NO_HOOKS,
            )
            return 0
        version, now_ms = self._handle.version() + 1, time.time_ns() // 1_000_000
        if not adds and not removes:
            self._handle.alter.add_columns(
                self._missing(), commit_properties=properties, post_commithook_properties=_NO_HOOKS
            )
            return version
        gone = [RemoveAction(p, True, now_ms, None, {"kind": part_kind(p)}) for p in removes]
        self._handle.create_write_transaction(
            [*adds, *gone],
            mode="append",
            schema=_SCHEMA,
            partition_by=["kind"],
            commit_properties=properties,
            post_commithook_properties=_NO_HOOKS,
        )
        return version

    def _outcome(self, commit: str, state: Snapshot, error: Exception) -> int | None:
        """What became of a commit that raised: its version if it is in the log, None if it may be tried again."""
        assert self.owner is not None
        try:
            later = self.commits(state)
        except (OSError, Unavailable, Corrupt) as second:
            raise UnknownOutcome(
                f"{self.root}: commit {commit}: {error}; then the log did not read: {second}"
            ) from error
        for entry in later or ():
            if entry.id == commit:
                return entry.version
            if entry.run != self.owner.run and not entry.stale:
                raise Fenced(
                    f"{self.root}: epoch {entry.epoch} of run {entry.run} sealed the slot; reopen the store"
                ) from error
        if later:  # only stale commits stand in the way
            return None
        if is_full(error):
            raise StorageFull(f"{self.root}: no space left for commit {commit}; make room, nothing was lost") from error
        raise UnknownOutcome(
            f"{self.root}: commit {commit} failed and is not in the log: {error}; read, then retry"
        ) from error

    def _caught_up(self, state: Snapshot) -> Snapshot:
        """`state` moved past the stale commits above it; their files stay out."""
        later = self.commits(state) or []
        return Snapshot(later[-1].version, state.seal, state.parts)

    def _discard(self, paths: Sequence[str]) -> None:
        for path in paths:
            self.files.delete(f"{self.root}/{path}")

    # --- upkeep

    def checkpoint(self, state: Snapshot) -> None:
        """Write a Delta checkpoint of `state`, flushed."""
        self._pin(state)
        assert self._handle is not None
        names = (f"{self._handle.version():020d}.checkpoint.parquet", "_last_checkpoint")
        witness.forget(self.files, self.root, names)
        self._handle.create_checkpoint()
        for name in names:
            self.files.flush(f"{self.root}/{LOG}/{name}")
        witness.note(self.files, self.root, names)
        self._handle = None  # it would go on from the log files before; opened anew it begins with the checkpoint

    def sweep(self, state: Snapshot, *, before_s: float) -> int:
        """Delete part and log files last changed before `before_s` (seconds since 1970) that `state` does not need.

        Log files go only below the newest checkpoint. Returns how many files went.
        """
        live = {f"{self.root}/{p}" for p in state.parts}
        logs = f"{self.root}/{LOG}/"
        newest = self._checkpointed(state.version)
        gone = [
            path
            for path, _, changed in self.files.walk(self.root)
            if changed < before_s and (_is_old_log(path, newest) if path.startswith(logs) else path not in live)
        ]
        witness.forget(self.files, self.root, (p.removeprefix(logs) for p in gone if p.startswith(logs)))
        for path in gone:
            self.files.delete(path)
        return len(gone)

    def _checkpointed(self, version: int) -> int:
        """The newest version up to `version` with a checkpoint, -1 if none."""
        names = self.files.names(f"{self.root}/{LOG}")
        found = [int(n[:20]) for n in names if n.endswith(".checkpoint.parquet")]
        return max((v for v in found if v <= version), default=-1)


@contextlib.contextmanager
def _reading(root: str) -> Iterator[None]:
    """Errors and panics of the Delta library inside the block as Corrupt; a rotten checkpoint may lead to either."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, (DeltaError, OSError, ValueError)) and type(error).__name__ != _PANIC:
            raise
        raise Corrupt(f"{root}: the log does not read ({_first(error)}); restore it from a backup") from error


def _first(error: BaseException) -> str:
    """The first line: the Delta library may add a backtrace."""
    return str(error).partition("\n")[0]


def _is_old_log(path: str, newest: int) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name[:20].isdigit() and int(name[:20]) < newest


def _sizes(handle: DeltaTable | None) -> list[tuple[str, int]]:
    """Path and bytes of every live part file, those of stale commits too, by path."""
    if handle is None:
        return []
    found = handle.get_add_actions(flatten=True)
    return sorted(zip(found.column("path").to_pylist(), found.column("size_bytes").to_pylist(), strict=True))
