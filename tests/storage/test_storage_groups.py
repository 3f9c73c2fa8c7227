"""What rasters of a group share is stored once, kept while one of them needs it, and checked."""

from __future__ import annotations

import shutil

import pytest
from storage_rows import codec, embedding, key, partition, raster

from geostore.errors import Corrupt, NotFound
from geostore.storage import RasterRow, Store, restore
from geostore.storage.pack import PAYLOAD_INLINE_MAX, Batch

SMALL, LARGE = b"in common " * 20, bytes(range(251)) * 200


def _members(shared: bytes, days: range, **fields: object) -> list[RasterRow]:
    return [embedding(day, size=3, shared=shared, **fields) for day in days]


def _groups(store: Store) -> list[dict[str, object]]:
    return store.table("group").to_pylist()


@pytest.mark.parametrize("shared", [SMALL, LARGE], ids=["inline", "stream"])
def test_rasters_come_back_with_what_they_share_stored_once(tmp_path, shared):
    """Rows committed with the same shared bytes read back whole; the bytes lie once, whatever the commits."""
    with Store.create(tmp_path / "s", slots=1) as store:
        first, second = _members(shared, range(1, 5)), _members(shared, range(5, 7))
        alone = embedding(9)
        store.commit([codec(), *first])
        store.commit([*second, alone])
        assert store.rasters(partition()) == [*first, *second, alone]
        assert store.raster(key(2)) == first[1]
        assert store.verify() == []
        assert len({row["id"] for row in _groups(store)}) == 1
        store.compact(retain_days=0)
        store.prune(retain_days=0)
        assert [row["current"] for row in _groups(store)] == [True]
        assert store.bytes_durable()["blobs/streams"] == (len(shared) if len(shared) > PAYLOAD_INLINE_MAX else 0)
        assert store.rasters(partition()) == [*first, *second, alone]
    with Store.open(tmp_path / "s") as store:
        store.rebuild()
        assert store.rasters(partition()) == [*first, *second, alone]
        store.backup(tmp_path / "b")
    restore(tmp_path / "b", tmp_path / "again")
    with Store.open(tmp_path / "again", readonly=True) as store:
        assert store.rasters(partition()) == [*first, *second, alone]
        assert store.verify() == []


@pytest.mark.parametrize("shared", [SMALL, LARGE], ids=["inline", "stream"])
def test_sizes_are_told_without_reading_what_they_are_of(tmp_path, shared):
    """With every stream gone, rasters and codecs still say how large they are, as when they were read whole."""
    rows = [*_members(shared, range(1, 4)), embedding(4, size=PAYLOAD_INLINE_MAX + 1), embedding(5), raster(6)]
    large = codec(generation=1, data=bytes(200_000))
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec(), large, *rows])
        shutil.rmtree(tmp_path / "s/blobs/streams")
        known = store.rasters(partition(), payload=False)
        assert [(r.payload_bytes, r.shared_bytes) for r in known] == [(len(r.payload), len(r.shared)) for r in rows]
        assert {(r.payload, r.shared) for r in known} == {(b"", b"")}
        assert [r.unread.group for r in known] == [_groups(store)[0]["id"]] * 3 + [""] * 3
        assert [c.data_bytes for c in store.generations(partition(), data=False)] == [len(codec().data), 200_000]
        with pytest.raises((Corrupt, NotFound)):
            store.rasters(partition())


def test_a_group_goes_with_the_last_raster_that_needs_it(tmp_path):
    """Prune keeps a group while one raster names it, in a stream of what is needed, and drops it after."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec(), *_members(LARGE, range(1, 4)), *_members(LARGE[::-1], range(4, 6))])
        store.commit([embedding(day, generation=2) for day in (1, 2)])
        store.prune(retain_days=0)
        assert len(_groups(store)) == 2
        assert store.raster(key(3)).shared == LARGE
        store.commit([embedding(3, generation=2)])
        store.prune(retain_days=0)
        assert len(_groups(store)) == 1
        assert store.bytes_durable()["blobs/streams"] == len(LARGE)
        assert store.raster(key(4)).shared == LARGE[::-1]
        store.commit([embedding(day, generation=2) for day in (4, 5)])
        store.prune(retain_days=0)
        assert _groups(store) == []
        assert store.bytes_durable()["blobs/streams"] == 0
        assert store.verify() == []


def test_partitions_do_not_share_groups(tmp_path):
    """The same bytes in two partitions of a slot are two groups: one may go while the other stays."""
    with Store.create(tmp_path / "s", slots=1) as store:
        here, there = _members(SMALL, range(1, 3)), [embedding(1, "9qdfx", size=3, shared=SMALL)]
        store.commit([codec(), codec("9qdfx"), *here, *there])
        store.commit([embedding(1, "9qdfx", generation=2)])
        store.prune(retain_days=0)
        assert [row["geohash"] for row in _groups(store)] == ["9qdfr"]
        assert store.rasters(partition()) == here


def test_lossless_rows_beside_a_group_keep_their_payload(tmp_path):
    """Generation 0 rows have no group, and large payloads and groups of one commit share one stream."""
    with Store.create(tmp_path / "s", slots=1) as store:
        rows = [raster(1, size=PAYLOAD_INLINE_MAX + 1), *_members(LARGE, range(2, 4))]
        store.commit([codec(), *rows])
        assert store.rasters(partition()) == rows
        assert len([*(tmp_path / "s/blobs/streams").iterdir()]) == 1


def test_a_rotten_or_missing_group_is_found(tmp_path):
    """Flipped bytes of a shared object raise Corrupt on reading and are named by verify."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec(), *_members(LARGE, range(1, 4))])
        (stream,) = (tmp_path / "s/blobs/streams").iterdir()
        data = bytearray(stream.read_bytes())
        data[100] ^= 1
        stream.write_bytes(bytes(data))
        with pytest.raises(Corrupt, match="checksum"):
            store.raster(key(1))
        assert "blob" in {finding.kind for finding in store.verify()}


def test_verify_names_rasters_whose_group_is_gone(tmp_path):
    """A slot whose raster names a group that no row holds is reported as missing it."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec()])
        state, seq = store.see(lambda view: view.state(0))
        batch = Batch(seq, {})
        batch.pack(_members(SMALL, range(1, 3)))
        del batch.rows["group"]
        store.tables[0].append(batch.rows, state)
        store.refresh()
        assert [f.kind for f in store.verify()] == ["missing"]
        with pytest.raises(Corrupt, match="has no group"):
            store.raster(key(1))
