"""Kill, fill, flip: nothing acknowledged is lost, nothing wrong is read."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from storage_rows import codec, collection, embedding, key, partition, raster, scene

from geostore.durable import TEMPORARY
from geostore.errors import Corrupt, GeostoreError, StorageFull, UnsupportedFormat
from geostore.settings import Settings
from geostore.storage import Store, tables, witness
from geostore.storage import files as storage_files
from geostore.storage.follow import VIEW
from geostore.storage.pack import PAYLOAD_INLINE_MAX

LARGE = PAYLOAD_INLINE_MAX + 1000
WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from storage_rows import raster, scene
from geostore.storage import Store
store = Store.open(sys.argv[1])
day = int(sys.argv[2])
while True:
    size = 20_000 if day % 3 == 0 else 300
    store.commit([scene(day)] + [raster(day, cell, size=size) for cell in ("9qdfr", "9qdfx")])
    print(day, flush=True)
    if day % 7 == 0:
        store.compact(retain_days=0)
    day += 1
"""


def test_a_killed_writer_loses_no_acknowledged_commit(tmp_path):
    """kill -9 at seeded moments of commits and compactions; every acknowledged row is there and all verifies."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    Store.create(tmp_path / "s", slots=4).close()
    day = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "s"), str(day), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(rng.randrange(2, 12)):
                day = int(writer.stdout.readline()) + 1
            spin = rng.randrange(200_000)
            while spin:
                spin -= 1
            os.kill(writer.pid, signal.SIGKILL)
            day = max([day, *(int(line) + 1 for line in writer.stdout.read().splitlines())])
        with Store.open(tmp_path / "s") as store:
            for cell in ("9qdfr", "9qdfx"):
                found = {r.key.time_us: r for r in store.rasters(partition(cell))}
                for d in range(day):
                    assert found[key(d).time_us] == raster(d, cell, size=20_000 if d % 3 == 0 else 300)
                assert {s.time_us for s in store.scenes()} <= set(found)  # what was not acknowledged is whole too
            assert store.verify() == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole") / "s"
    with Store.create(root, slots=2) as store:
        store.put_collection(collection())
        digest = store.put_original(key(1), b"cog" * 500)
        store.commit([codec(), scene(1), raster(1, original=digest), raster(2, size=LARGE)])
        store.commit([codec(generation=1, data=os.urandom(70_000)), embedding(1)])
        store.compact()
        store.commit([raster(3, "9qdfx"), scene(3)])
    return root


def _answers(root: Path) -> list[object]:
    with Store.open(root, readonly=True) as store:
        rows = [store.rasters(p) for p in store.partitions()]
        codecs = [store.generations(p) for p in store.partitions()]
        kept = [store.original(r.key, r.original) for group in rows for r in group if r.original]
        return [store.id, store.slots, store.collections(), rows, codecs, kept, store.scenes()]


def _findings(root: Path) -> str:
    try:
        with Store.open(root, readonly=True) as store:
            return "\n".join(f"{f.path} {f.message}" for f in store.verify())
    except Corrupt as error:
        return str(error)
    except UnsupportedFormat:
        return "geostore.json"


def test_flipped_bits_on_disk_are_never_read_as_truth(whole, tmp_path):
    """Flip bits in every durable file in turn: answers are the same or an error, and verify sees blobs and parts."""
    truth = _answers(whole)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    shutil.rmtree(copy / VIEW)
    for path in sorted(p for p in copy.rglob("*") if p.is_file() and not p.name.startswith(".")):
        data = path.read_bytes()
        for _ in range(3):
            bad = bytearray(data)
            bad[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(bad)
            with contextlib.suppress(GeostoreError):
                assert _answers(copy) == truth, path
            if "_delta_log" not in path.parts:
                assert path.name in _findings(copy), path
        path.write_bytes(data)
    assert _answers(copy) == truth


def test_flipped_bits_in_the_view_are_mended_from_the_tables(whole, tmp_path):
    """Flip bytes of LMDB's data file while it is closed: answers stay right, or an error tells; rebuild cures."""
    truth = _answers(whole)
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    data = (copy / VIEW / "data.mdb").read_bytes()
    marks = [i for i in range(len(data)) if data.startswith(b"sentinel-2a", i)]
    for at in marks[:12]:
        bad = bytearray(data)
        bad[at] ^= 1
        (copy / VIEW / "data.mdb").write_bytes(bad)
        assert _answers(copy) == truth
        with Store.open(copy) as store:
            store.rebuild()
            assert store.verify() == []
        (copy / VIEW / "data.mdb").write_bytes(data)


def test_verify_sees_a_view_that_differs_from_the_tables(whole, tmp_path):
    """A record taken out of the view is a finding of kind "view"; rebuild cures it."""
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    with Store.open(copy) as store:
        store._sight.view._write(lambda txn: txn.delete(b"r" + key(1).to_bytes() + b"\0" + (1).to_bytes(4, "big")))
        assert [f.kind for f in store.verify()] == ["view"]
        store.rebuild()
        assert store.verify() == []


def test_missing_files_are_found(whole, tmp_path):
    """Each blob and part file taken away in turn is named by verify, and what needs it raises Corrupt."""
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    with Store.open(copy) as store:
        for path in sorted([*(copy / "blobs").rglob("*.*"), *(copy / "blobs/streams").iterdir()]):
            away = path.rename(tmp_path / "away")
            assert any(path.name in f.path for f in store.verify())
            away.rename(path)
        stream = next((copy / "blobs/streams").iterdir())
        stream.unlink()
        with pytest.raises(Corrupt, match="is missing"):
            store.raster(key(2))


def test_durability_goes_through_flush(tmp_path, monkeypatch):
    """Before a commit returns, its part files, log file, blobs and their folders are flushed; notes need not be."""
    flushed: list[Path] = []
    real = storage_files.flush
    monkeypatch.setattr(storage_files, "flush", lambda path: (flushed.append(path), real(path))[1])
    with Store.create(tmp_path / "s", slots=1) as store:
        for day in (1, 2):
            flushed.clear()
            known = set(tmp_path.rglob("*"))
            store.commit([raster(day, size=LARGE), scene(day)])
            new = {p for p in set(tmp_path.rglob("*")) - known if VIEW not in p.parts and p.name != witness.NAME}
            inodes = {p.name for p in flushed}
            logs = {p for p in new if p.parent.name == "_delta_log"}
            assert {p.name for p in logs} <= inodes
            assert {p.parent for p in new if p.is_file()} <= set(flushed)
            made = sum(1 for p in new if p.is_file() and p not in logs)
            assert sum(1 for p in flushed if p.name.startswith(TEMPORARY)) == made


@pytest.mark.root
def test_a_full_disk_is_an_error_and_nothing_is_lost(tmp_path):
    """Fill a small tmpfs: StorageFull, every acknowledged row readable and verified, and writing goes on with room."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs: {made.stderr.strip()}")
    try:
        for reserve in (0.2, 0.0):
            _fill(disk / f"s{reserve}", disk, Settings(disk_reserve=reserve))
            shutil.rmtree(disk / f"s{reserve}")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(root: Path, disk: Path, settings: Settings) -> None:
    Store.create(root, slots=2).close()
    stored: list[int] = []
    with Store.open(root, settings=settings) as store:
        with pytest.raises(StorageFull):
            _store_until_full(store, stored)
        _whole(store, stored)
    with Store.open(root, settings=settings) as store:
        _whole(store, stored)
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        store.commit([raster(2000)])
        _whole(store, stored)
        assert store.verify() == []
    subprocess.run(["mount", "-o", "remount,size=6m", str(disk)], check=False, capture_output=True)


def _store_until_full(store: Store, stored: list[int]) -> None:
    for day in range(1000):
        store.commit([raster(day, size=60_000), raster(day, "9qdfx", size=9_000)])
        stored.append(day)


def _whole(store: Store, stored: list[int]) -> None:
    assert stored
    found = {r.key.time_us: r for r in store.rasters(partition())}
    assert all(found[key(d).time_us] == raster(d, size=60_000) for d in stored)


def test_a_withdrawn_scene_stays_withdrawn_through_every_upkeep(tmp_path):
    """Compact, prune, rebuild, reopen: none brings a withdrawn raster back."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec(), raster(1), embedding(1)])
        store.commit([replace(embedding(1), op="withdraw", payload=b"", valid=b"", certificate=None)])
        for work in (store.compact, store.rebuild, lambda: store.prune(retain_days=0), store.rebuild):
            work()
            assert store.rasters(partition()) == []
    with Store.open(tmp_path / "s") as store:
        assert store.rasters(partition()) == []


def test_a_panic_of_the_delta_library_is_damage():
    """Proves that a panic, which some flipped bits of a checkpoint lead to and is no Exception, becomes Corrupt."""

    class PanicException(BaseException):
        """As pyo3 names it."""

    said = r"tables/slot=0001: the log does not read \(attempt to divide by zero\)"
    with pytest.raises(Corrupt, match=said), tables._reading("tables/slot=0001"):
        raise PanicException("attempt to divide by zero")
    with pytest.raises(KeyboardInterrupt), tables._reading("tables/slot=0001"):
        raise KeyboardInterrupt
