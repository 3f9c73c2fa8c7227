"""Rows go in and come out: what is current, what readers see, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from storage_rows import DAY_US, codec, collection, embedding, key, partition, raster, scene

from geostore.errors import Conflict, Forbidden, GeostoreError, InvalidInput, NotFound, StoreLocked, UnsupportedFormat
from geostore.raster import Bands
from geostore.storage import EventRow, JobRow, Store, pack_mask, unpack_mask
from geostore.storage.pack import CODEC_INLINE_MAX, PAYLOAD_INLINE_MAX


@pytest.fixture
def store(tmp_path: Path):
    with Store.create(tmp_path / "store", slots=4) as made:
        yield made


def test_rows_of_every_kind_come_back_equal(store):
    """Round trip of each row type, before and after the store is closed, opened and its view rebuilt."""
    rows = [
        codec(),
        codec(generation=1, data=os.urandom(CODEC_INLINE_MAX + 1), family="vae", parent=0),
        raster(1),
        raster(2, size=PAYLOAD_INLINE_MAX + 1, original="ref:/scenes/a.tif"),
        embedding(1),
        scene(1),
        JobRow(id="j1", verb="fit", fields={"a": [1, None]}, state="done", made_us=1, changed_us=2, result={"n": 0.5}),
        EventRow(time_us=3, who="ana", what="relabel", fields={"from": "x"}),
    ]
    store.commit(rows)
    for reopen in (False, True):
        if reopen:
            store.close()
            store = Store.open(store.url)
            store.rebuild()
        assert store.generations(partition()) == rows[:2]
        assert store.codec(partition()) == rows[1]
        assert store.rasters(partition()) == [rows[4], rows[3]]
        assert store.raster(key(1), generation=0) == rows[2]
        assert store.scenes() == [rows[5]]
        assert store.scene("s2", "S2A_0001") == rows[5]
        assert (store.jobs(), store.job("j1"), store.events()) == ([rows[6]], rows[6], [rows[7]])
    assert store.verify() == []
    store.close()


def test_the_newest_revision_then_generation_then_commit_is_current(store):
    """A second processing beats the fit of the first; a fit of it beats it in turn; the same again replaces."""
    store.commit([codec(), raster(1), embedding(1)])
    assert store.raster(key(1)).generation == 1
    store.commit([raster(1, revision=1, seed=1)])
    assert store.raster(key(1)) == raster(1, revision=1, seed=1)
    store.commit([embedding(1, generation=2, revision=1)])
    assert store.raster(key(1)).generation == 2
    store.commit([embedding(1, generation=2, revision=1, seed=9)])
    assert store.raster(key(1)) == embedding(1, generation=2, revision=1, seed=9)
    assert store.raster(key(1), generation=0).revision == 1


def test_withdraw_hides_what_came_before_and_a_later_put_counts_again(store):
    """After a withdrawal no generation is found; the same revision put later is."""
    store.commit([codec(), raster(1), embedding(1), raster(2)])
    gone = replace(embedding(1), op="withdraw", payload=b"", valid=b"", vector=b"", certificate=None)
    store.commit([gone])
    assert [r.key for r in store.rasters(partition())] == [key(2)]
    with pytest.raises(NotFound):
        store.raster(key(1), generation=0)
    store.commit([raster(1, seed=4)])
    assert store.raster(key(1)) == raster(1, seed=4)
    assert store.verify() == []


def test_rasters_are_narrowed_by_time_and_sorted(store):
    """start <= time < end, ascending, whatever the order of the commits."""
    for day in (5, 1, 4, 2, 3):
        store.commit([raster(day)])
    days = [r.key.time_us // DAY_US for r in store.rasters(partition(), 2 * DAY_US, 4 * DAY_US)]
    assert days == [2, 3]
    assert len(store.rasters(partition())) == 5
    assert store.rasters(partition("9qdfx")) == []


def test_partitions_are_narrowed_by_collection_prefix_and_group(store):
    """A partition exists once it has a codec or a raster."""
    store.commit([codec("9qdfr"), raster(1, "9qdfx"), codec("u0000")])
    assert store.partitions() == [partition("9qdfr"), partition("9qdfx"), partition("u0000")]
    assert store.partitions("s2", "9q", "10m") == [partition("9qdfr"), partition("9qdfx")]
    assert store.partitions("other") == []


def test_partitions_at_a_place_are_those_that_hold_it_or_lie_in_it(store):
    """A cell, a prefix of cells, a chip, places where nothing is: as a look at all of them finds."""
    store.commit([codec("9qdfr"), codec("9qdfx"), codec("u0000"), codec("9qd")])
    every = store.partitions()
    for place in ("9qdfr", "9q", "9qdfr7", "9qdfz", "9qdfx00", "u", "u0001", "z"):
        meets = [p for p in every if p.geohash.startswith(place) or place.startswith(p.geohash)]
        assert store.partitions_at(place) == store.partitions_at(place, "s2", "10m") == meets
    assert store.partitions_at("9qdfr", "other") == store.partitions_at("9qdfr", None, "20m") == []


def test_stored_errors_are_never_smaller_than_measured(store):
    """Certificates go through float32; each error comes back equal or the next float32 above."""
    from geostore.certificate import Certificate, SpectralError

    given = Certificate(10, 1e-4, 0.1, {"NDVI": SpectralError(0.01, 1 / 3, 0.7)}, mae=0.011, p99=1 / 7)
    store.commit([embedding(1, certificate=given)])
    found = store.raster(key(1)).certificate
    pairs = [(getattr(given, name), getattr(found, name)) for name in ("mse", "max_error", "mae", "p99")]
    pairs += list(zip(vars(given.indices["NDVI"]).values(), vars(found.indices["NDVI"]).values(), strict=True))
    assert all(a <= b <= a * (1 + 2e-7) for a, b in pairs)


def test_collections_are_versions(store):
    """The same declaration again changes nothing, another one is a new version, and each stays readable."""
    first = store.put_collection(collection())
    assert store.put_collection(replace(collection(), version=9)) == first
    second = store.put_collection(replace(collection(), precision=4))
    assert (first.version, second.version) == (1, 2)
    assert store.collections() == [second]
    assert store.collection("s2", 1) == first
    with pytest.raises(NotFound, match="no collection 'none'"):
        store.collection("none")


def test_a_new_version_changes_the_meaning_of_nothing_stored(store):
    """With rasters stored, another scale, dtype or precision is refused with both; masks and policy may change."""
    first = store.put_collection(collection())
    store.commit([codec(), raster(1)])
    bands = first.groups["10m"]
    scaled = {"10m": Bands(tuple(replace(b, scale=b.scale * 100) for b in bands))}
    with pytest.raises(Conflict, match=r"holds rasters of 10m as .* give the new declaration a name of its own"):
        store.put_collection(replace(first, groups=scaled))
    with pytest.raises(Conflict, match=r"not as nothing"):
        store.put_collection(replace(first, groups={"20m": bands}))
    with pytest.raises(Conflict, match=r"cells of precision 5, not 4"):
        store.put_collection(replace(first, precision=4))
    assert store.put_collection(replace(first, indices=())).version == 2
    assert store.put_collection(
        replace(first, groups={**first.groups, "20m": Bands((replace(bands.items[0], name="x"),))})
    )


def test_one_commit_for_each_touched_slot(store):
    """A scene over many cells is one Delta version a slot."""
    cells = [f"9qd{a}{b}" for a in "bcdfg" for b in "hjkmn"]
    store.commit([raster(1, c) for c in cells])
    touched = {store.slot_of(c) for c in cells}
    assert {t.slot: t.latest() for t in store.tables.values() if t.latest() >= 0} == dict.fromkeys(touched, 0)


def test_a_second_writer_is_refused_and_readers_go_on(store):
    """In this process and in another; the message names the process; read-only opens work beside it."""
    store.commit([raster(1)])
    with pytest.raises(StoreLocked, match=f"process {os.getpid()} on "):
        Store.open(store.url)
    script = (
        "import sys; from geostore.storage import Store; from geostore.errors import StoreLocked\n"
        "try: Store.open(sys.argv[1])\n"
        "except StoreLocked: print('locked')\n"
        "with Store.open(sys.argv[1], readonly=True) as s:\n"
        "  print(len(s.rasters(s.partitions()[0])), s.view_path.name == '.view')"
    )
    out = subprocess.run([sys.executable, "-c", script, store.url], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["locked", "1", "True"], out.stderr
    store.commit([raster(2)])


def test_readers_see_commits_after_refresh(store):
    """A reader follows puts, withdrawals, compaction and pruning by refresh alone."""
    store.commit([codec(), raster(1)])
    with Store.open(store.url, readonly=True) as reader:
        assert len(reader.rasters(partition())) == 1
        store.commit([raster(2), embedding(1)])
        reader.refresh()
        assert [r.generation for r in reader.rasters(partition())] == [1, 0]
        store.compact(retain_days=0)
        reader.refresh()
        store.prune(retain_days=0)
        store.commit([replace(raster(2), op="withdraw", payload=b"", valid=b"")])
        reader.refresh()
        assert [r.key for r in reader.rasters(partition())] == [key(1)]
        with pytest.raises(NotFound):
            reader.raster(key(1), generation=0)
        with pytest.raises(Forbidden):
            reader.commit([raster(3)])


def test_prune_keeps_what_counts_and_frees_the_rest(store):
    """After fits, superseded rows, codecs, streams and originals are gone; current answers are unchanged."""
    digest = store.put_original(key(1), b"old" * 100)
    store.commit([codec(), *(raster(d, size=40_000) for d in range(4)), raster(4, original=digest)])
    store.commit([codec(generation=1, data=os.urandom(70_000)), *(embedding(d) for d in range(3))])
    store.commit([codec(generation=2, data=b"two"), *(embedding(d, generation=2) for d in (0, 1, 2, 4))])
    want = store.rasters(partition())
    before = store.bytes_durable()
    in_blobs = 3 * 40_000 + 70_000 + before["blobs/rasters"]
    assert in_blobs < store.bytes_counted()[1] < in_blobs + 4_000  # the rest lies in rows
    store.prune(retain_days=0)
    after = store.bytes_durable()
    assert store.bytes_counted()[1] == 0
    assert store.rasters(partition()) == want
    assert [c.generation for c in store.generations(partition())] == [0, 2]
    assert after["blobs/codecs"] == after["blobs/rasters"] == 0
    assert after["blobs/streams"] == 40_000 < before["blobs/streams"]
    assert store.verify() == []


def test_table_gives_every_row_and_says_which_counts(store):
    """Arrow over all slots, scenes by id, superseded rows marked."""
    store.commit([codec(), raster(1), raster(1, seed=2), raster(2, "9qdfx")])
    found = store.table("raster").to_pylist()
    assert sorted((r["geohash"], r["scene"], r["current"]) for r in found) == [
        ("9qdfr", "S2A_0001", False),
        ("9qdfr", "S2A_0001", True),
        ("9qdfx", "S2A_0002", True),
    ]
    assert store.table("embedding").num_rows == 0


def test_opening_says_what_is_wrong(tmp_path):
    """No store, a newer format, a store already there, a closed one, slots out of range."""
    with pytest.raises(NotFound, match="no store at"):
        Store.open(tmp_path / "none")
    Store.create(tmp_path / "a").close()
    with pytest.raises(Conflict, match="holds a store already"):
        Store.create(tmp_path / "a")
    head = json.loads((tmp_path / "a/geostore.json").read_text())
    (tmp_path / "a/geostore.json").write_text(json.dumps({**head, "version": 99}))
    with pytest.raises(UnsupportedFormat, match="format 99"):
        Store.open(tmp_path / "a")
    with pytest.raises(InvalidInput):
        Store.create(tmp_path / "b", slots=0)
    closed = Store.create(tmp_path / "c")
    closed.close()
    with pytest.raises(Conflict, match="was closed"):
        closed.partitions()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused(store):
    """LMDB must not cross a fork: the child gets an error, not another process's pages."""
    store.commit([raster(1)])
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.rasters(partition())
            os.write(write_end, b"read")
        except GeostoreError:
            os.write(write_end, b"refused")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read_end, 16) == b"refused"


def test_the_view_grows_when_full(tmp_path):
    """Rows far beyond the first map size go in."""
    from geostore.settings import Settings

    Store.create(tmp_path / "s", slots=1).close()
    with Store.open(tmp_path / "s", settings=Settings(view_bytes=2**20)) as store:
        store.commit([raster(d, size=16_000) for d in range(200)])
        assert len(store.rasters(partition())) == 200


def test_masks_round_trip():
    """pack_mask and unpack_mask are inverse for empty, full, random and blocky masks of odd widths."""
    rng = np.random.default_rng(3)
    blocky = np.kron(rng.random((7, 5)) > 0.5, np.ones((9, 9), bool))
    for mask in (np.zeros((3, 5), bool), np.ones((4, 9), bool), rng.random((33, 17)) > 0.5, blocky, ~blocky[:, :13]):
        assert np.array_equal(unpack_mask(pack_mask(mask), mask.shape), mask)
    assert len(pack_mask(np.ones((500, 500), bool))) == 1


def test_threads_read_while_the_store_is_written_pruned_and_rebuilt(store):
    """Readers in four threads get the one right answer all through commits, compaction, pruning and rebuilds."""
    import threading
    from concurrent.futures import ThreadPoolExecutor

    store.commit([codec(), raster(1, size=PAYLOAD_INLINE_MAX + 1)])
    done = threading.Event()

    def read() -> int:
        count = 0
        while not done.is_set():
            assert store.raster(key(1)) == raster(1, size=PAYLOAD_INLINE_MAX + 1)
            assert store.codec(partition(), 0) == codec()
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for day in range(2, 6):
                store.commit([raster(day), raster(day, seed=1)])
                store.compact()
                store.prune()
                store.rebuild()
        finally:
            done.set()
        assert all(r.result() > 0 for r in readers)


def test_a_reader_in_another_process_follows_a_prune_that_moves_streams(store):
    """The reader shares the writer's view; after a prune with no retention it reads on, then again shares."""
    store.commit([codec(), *(raster(d, size=PAYLOAD_INLINE_MAX + 1) for d in (1, 2))])
    script = (
        "import sys; from geostore.storage import Store\n"
        "with Store.open(sys.argv[1], readonly=True) as s:\n"
        "  for line in sys.stdin:\n"
        "    if line.strip() == 'refresh': s.refresh()\n"
        "    rows = s.rasters(s.partitions()[0])\n"
        "    print(len(rows), sum(len(r.payload) for r in rows), s.view_path.name, flush=True)"
    )
    command = [sys.executable, "-c", script, store.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:

        def ask(line: str) -> list[str]:
            reader.stdin.write(line + "\n")
            reader.stdin.flush()
            return reader.stdout.readline().split()

        size = PAYLOAD_INLINE_MAX + 1
        assert ask("read") == ["2", str(2 * size), ".view"]
        store.commit([embedding(1)])
        store.prune(retain_days=0)
        assert ask("read") == ["2", str(size + 300), ".view"]
        store.commit([raster(3)])
        assert ask("refresh") == ["3", str(size + 600), ".view"]
        reader.stdin.close()
