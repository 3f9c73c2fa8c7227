"""The hot view: newest rows by key in LMDB, each with a checksum; disposable, made from the tables."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgpack
import xxhash

from geostore.errors import Corrupt, GeostoreError
from geostore.keys import PartitionKey, RasterKey
from geostore.storage.files import digest_of
from geostore.storage.log import Seal
from geostore.storage.records import AT, Values, key_of
from geostore.storage.tables import Snapshot

VIEW_FORMAT = 3
_RASTER, _GROUP, _CODEC, _SCENE, _NUMBER, _JOB, _EVENT = b"r", b"g", b"c", b"s", b"n", b"j", b"e"
_SLOT, _META = b"v", b"m"
_SUM = 8
_READERS_MAX = 126
_GROWTH = 2
T = TypeVar("T")


class Rotten(Exception):
    """A record, or LMDB's own pages, do not hold what was written."""


class View:
    """One LMDB environment. Any thread of the process that opened it may use it; no other process's fork may."""

    def __init__(self, path: Path, *, size_bytes: int, readonly: bool = False) -> None:
        self.path = path
        self._pid = os.getpid()
        self._gate = threading.RLock()
        if not readonly:
            path.mkdir(parents=True, exist_ok=True)
        self._env = lmdb.open(
            str(path),
            map_size=size_bytes,
            readonly=readonly,
            create=not readonly,
            sync=False,
            metasync=False,
            max_readers=_READERS_MAX,
        )
        self._env.reader_check()

    # --- transactions

    def _read(self, work: Callable[[Any], T]) -> T:
        self._check_pid()
        with self._gate:
            try:
                try:
                    with self._env.begin() as txn:
                        return work(txn)
                except lmdb.MapResizedError:
                    self._env.set_mapsize(0)
                    with self._env.begin() as txn:
                        return work(txn)
            except lmdb.Error as error:
                raise Rotten(f"{self.path}: {error}") from error

    def _write(self, work: Callable[[Any], T]) -> T:
        self._check_pid()
        with self._gate:
            while True:
                try:
                    with self._env.begin(write=True) as txn:
                        return work(txn)
                except lmdb.MapFullError:
                    self._env.set_mapsize(self._env.info()["map_size"] * _GROWTH)
                except lmdb.MapResizedError:
                    self._env.set_mapsize(0)
                except lmdb.Error as error:
                    raise Rotten(f"{self.path}: {error}") from error

    def _check_pid(self) -> None:
        if os.getpid() != self._pid:
            raise GeostoreError(f"this store was opened by process {self._pid}; after a fork, open it again")

    def reader_check(self) -> int:
        """Clear reader slots of processes that died; returns how many."""
        return int(self._env.reader_check())

    def close(self) -> None:
        """Let go of the environment."""
        with self._gate:
            if os.getpid() == self._pid:
                self._env.close()

    def sync(self) -> None:
        """Bring it to the disk, so that it survives a power loss as it is."""
        self._env.sync(True)

    # --- state

    def store_id(self) -> str:
        """The store this view was made from, "" if it is new."""
        found = self._read(lambda txn: _get(txn, _META))
        return found[1] if found and found[0] == VIEW_FORMAT else ""

    def begin_for(self, store_id: str) -> None:
        """Mark a new view as belonging to a store."""
        self._write(lambda txn: _put(txn, _META, [VIEW_FORMAT, store_id]))

    def state(self, slot: int) -> tuple[Snapshot, int]:
        """The table version this view holds of a slot, and the next sequence number."""
        found = self._read(lambda txn: _get(txn, _SLOT + slot.to_bytes(2, "big")))
        if found is None:
            return Snapshot(), 0
        version, epoch, run, parts, seq = found
        return Snapshot(version, Seal(epoch, run), tuple(parts)), seq

    def apply(self, changes: list[tuple[int, Snapshot, list[tuple[str, Values]]]]) -> None:
        """Take in rows, in order of their sequence numbers, and the versions they bring the slots to; all or none."""

        def work(txn: Any) -> None:
            for slot, snapshot, rows in changes:
                seq = (_get(txn, _slot_key(slot)) or [0, 0, "", [], 0])[4]
                for kind, values in rows:
                    _TAKE[kind](txn, slot, values)
                    seq = max(seq, values[0] + 1)
                state = [snapshot.version, *astuple(snapshot.seal), list(snapshot.parts), seq]
                _put(txn, _slot_key(slot), state)

        self._write(work)

    # --- reading

    def rasters(self, partition: PartitionKey, start_us: int | None, end_us: int | None) -> list[tuple[str, Values]]:
        """(scene id, columns) of every visible row, start <= time < end, by time, platform and generation."""
        prefix = partition.to_bytes()
        low = RasterKey(*_fields(partition), start_us).to_bytes()[: len(prefix) + 8] if start_us is not None else prefix
        high = RasterKey(*_fields(partition), end_us).to_bytes()[: len(prefix) + 8] if end_us is not None else None
        return self._read(lambda txn: list(_scan_rasters(txn, _RASTER + prefix, _RASTER + low, high)))

    def raster(self, key: RasterKey) -> list[tuple[str, Values]]:
        """(scene id, columns) of every visible row of one key, ascending generation."""
        prefix = _RASTER + key.to_bytes() + b"\0"
        return self._read(lambda txn: [tuple(v) for k, v in _scan(txn, prefix) if len(k) == len(prefix) + 4])

    def group(self, partition: PartitionKey, name: str) -> Values | None:
        """Columns of the newest row of one group of rasters."""
        return self._read(lambda txn: _tuple(_get(txn, _GROUP + partition.to_bytes() + name.encode())))

    def codecs(self, partition: PartitionKey) -> list[Values]:
        """Columns of every codec row of a partition, ascending generation."""
        return self._read(lambda txn: [tuple(v) for _, v in _scan(txn, _CODEC + partition.to_bytes())])

    def partitions(self, collection: str | None = None, beginnings: Sequence[str] = ("",)) -> list[PartitionKey]:
        """Every partition that has a codec or a visible raster, sorted.

        Args:
            collection: of this one; of all, if None.
            beginnings: of their geohashes; a cell itself where one ends with a zero character. Nothing else is read.
        """

        def work(txn: Any) -> set[bytes]:
            found: set[bytes] = set()
            for kind in (_CODEC, _RASTER):
                names = _collections(txn, kind) if collection is None else [collection.encode()]
                for name in names:
                    found.update(p for b in beginnings for p in _hop(txn, kind, name + b"\0" + b.encode()))
            return found

        found = (p.split(b"\0") for p in self._read(work))
        return sorted(PartitionKey(c.decode(), g.decode(), b.decode()) for c, g, b in found)

    def scenes(self, collection: str | None = None) -> list[Values]:
        """Columns of the newest row of every scene."""
        prefix = _SCENE + (collection.encode() + b"\0" if collection is not None else b"")
        return self._read(lambda txn: [tuple(v) for _, v in _scan(txn, prefix)])

    def scene(self, collection: str, name: str) -> Values | None:
        """Columns of the newest row of one scene."""
        return self._read(lambda txn: _tuple(_get(txn, _scene_key(collection, name))))

    def jobs(self) -> list[Values]:
        """Columns of the newest row of every job."""
        return self._read(lambda txn: [tuple(v) for _, v in _scan(txn, _JOB)])

    def events(self) -> list[Values]:
        """Columns of every event, by time."""
        return self._read(lambda txn: [tuple(v) for _, v in _scan(txn, _EVENT)])

    def numbers(self, slot: int) -> dict[int, tuple[str, str]]:
        """(collection, scene id) of every scene number of a slot."""
        prefix = _NUMBER + slot.to_bytes(2, "big")
        return self._read(lambda txn: {int.from_bytes(k[3:], "big"): (v[0], v[1]) for k, v in _scan(txn, prefix)})

    def digest(self) -> str:
        """A digest over every record but the slots' states; each is checked on the way.

        Raises:
            Rotten: one fails its checksum.
        """

        def work(txn: Any) -> str:
            state = xxhash.xxh3_128()
            for key, value in _scan(txn, b""):
                if not key.startswith(_SLOT):
                    state.update(key + msgpack.packb(value))
            return state.hexdigest()

        return self._read(work)


def _fields(partition: PartitionKey) -> tuple[str, str, str]:
    return partition.collection, partition.geohash, partition.group


def _tuple(found: list[Any] | None) -> Values | None:
    return None if found is None else tuple(found)


def _slot_key(slot: int) -> bytes:
    return _SLOT + slot.to_bytes(2, "big")


def _scene_key(collection: str, name: str) -> bytes:
    return _SCENE + collection.encode() + b"\0" + digest_of(name.encode()).encode()


def _put(txn: Any, key: bytes, value: list[Any] | Values) -> None:
    body = msgpack.packb(value)
    txn.put(key, xxhash.xxh3_64_digest(key + body) + body)


def _open(key: bytes, record: bytes) -> list[Any]:
    body = record[_SUM:]
    if xxhash.xxh3_64_digest(key + body) != record[:_SUM]:
        raise Rotten(f"view record {key!r} fails its checksum")
    found: list[Any] = msgpack.unpackb(body)
    return found


def _get(txn: Any, key: bytes) -> list[Any] | None:
    record = txn.get(key)
    return None if record is None else _open(key, record)


def _scan(txn: Any, prefix: bytes) -> Iterator[tuple[bytes, list[Any]]]:
    cursor = txn.cursor()
    going = cursor.set_range(prefix) if prefix else cursor.first()
    while going:
        key = cursor.key()
        if not key.startswith(prefix):
            return
        yield key, _open(key, cursor.value())
        going = cursor.next()


def _scan_rasters(txn: Any, prefix: bytes, low: bytes, high: bytes | None) -> Iterator[tuple[str, Values]]:
    cursor = txn.cursor()
    going = cursor.set_range(low)
    while going:
        key = cursor.key()
        if not key.startswith(prefix) or (high is not None and key[1:] >= high):
            return
        scene, values = _open(key, cursor.value())
        yield scene, tuple(values)
        going = cursor.next()


def _hop(txn: Any, kind: bytes, beginning: bytes) -> Iterator[bytes]:
    """The partitions of the keys of one kind that begin so, one seek each."""
    cursor = txn.cursor()
    going = cursor.set_range(kind + beginning)
    while going and cursor.key().startswith(kind + beginning):
        partition = b"\0".join(cursor.key()[1:].split(b"\0", 3)[:3])
        yield partition
        going = cursor.set_range(kind + partition + b"\1")


def _collections(txn: Any, kind: bytes) -> Iterator[bytes]:
    """The collections of the keys of one kind, one seek each."""
    cursor = txn.cursor()
    going = cursor.set_range(kind)
    while going and cursor.key().startswith(kind):
        name = cursor.key()[1:].split(b"\0", 1)[0]
        yield name
        going = cursor.set_range(kind + name + b"\1")


def _take_raster(txn: Any, slot: int, values: Values) -> None:
    at = AT["raster"]
    prefix = _RASTER + key_of(values).to_bytes() + b"\0"
    revision, generation = values[at["revision"]], values[at["generation"]]
    if values[at["op"]] == "withdraw":
        hidden = [k for k, (_, v) in _scan(txn, prefix) if len(k) == len(prefix) + 4 and v[at["revision"]] <= revision]
        for key in hidden:
            txn.delete(key)
        return
    key = prefix + generation.to_bytes(4, "big")
    known = _get(txn, key)
    if known is not None and known[1][at["revision"]] > revision:
        return
    number = values[at["scene"]]
    named = _get(txn, _NUMBER + slot.to_bytes(2, "big") + number.to_bytes(4, "big"))
    if named is None:
        raise Corrupt(
            f"slot {slot}: row {values[0]} names scene number {number}, which no row gives; run `geostore verify`"
        )
    _put(txn, key, [named[1], list(values)])


def _take_group(txn: Any, _slot: int, values: Values) -> None:
    partition = PartitionKey(*values[1:4])
    _put(txn, _GROUP + partition.to_bytes() + values[AT["group"]["id"]].encode(), values)


def _take_codec(txn: Any, _slot: int, values: Values) -> None:
    partition = PartitionKey(*values[1:4])
    _put(txn, _CODEC + partition.to_bytes() + values[AT["codec"]["generation"]].to_bytes(4, "big"), values)


def _take_scene(txn: Any, slot: int, values: Values) -> None:
    at = AT["scene"]
    collection, name, number = values[at["collection"]], values[at["id"]], values[at["scene"]]
    if number is None:
        _put(txn, _scene_key(collection, name), values)
    else:
        _put(txn, _NUMBER + slot.to_bytes(2, "big") + number.to_bytes(4, "big"), [collection, name])


def _take_job(txn: Any, _slot: int, values: Values) -> None:
    _put(txn, _JOB + digest_of(values[AT["job"]["id"]].encode()).encode(), values)


def _take_event(txn: Any, slot: int, values: Values) -> None:
    moment = (values[AT["event"]["time_us"]] + (1 << 63)).to_bytes(8, "big")
    _put(txn, _EVENT + moment + slot.to_bytes(2, "big") + values[0].to_bytes(8, "big"), values)


_TAKE: dict[str, Callable[[Any, int, Values], None]] = {
    "raster": _take_raster,
    "embedding": _take_raster,
    "group": _take_group,
    "codec": _take_codec,
    "scene": _take_scene,
    "job": _take_job,
    "event": _take_event,
}
