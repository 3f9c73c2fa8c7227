"""Two owners of one slot, without the lock: the log decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from storage_rows import codec, raster

from geostore.errors import Fenced, UnknownOutcome
from geostore.storage import Store
from geostore.storage.files import open_files
from geostore.storage.follow import read_slot
from geostore.storage.pack import Batch
from geostore.storage.tables import Owner, SlotTable, Snapshot


@pytest.fixture
def tables(tmp_path: Path):
    files = open_files(tmp_path)
    return [SlotTable(files, 3, Owner(name)) for name in "ab"]


def _rows(seq: int):
    batch = Batch(seq, {})
    batch.pack([raster(seq)])
    return batch.rows


def _sequence(table: SlotTable) -> list[int]:
    return sorted({values[0] for kind, values in read_slot(table)[1] if kind == "raster"})


def test_an_owner_that_was_sealed_off_is_fenced(tables):
    """b commits on top of a's last version with a higher epoch; a's next commit raises and adds nothing."""
    a, b = tables
    state = a.append(_rows(0), Snapshot())
    sealed = b.append(_rows(10), b.snapshot())
    assert (state.seal.epoch, sealed.seal.epoch) == (1, 2)
    with pytest.raises(Fenced, match="epoch 2"):
        a.append(_rows(20), state)
    assert _sequence(b) == [1, 11]


def test_of_two_that_race_for_one_version_one_wins(tables):
    """Both read the same version; the second to commit is fenced, none is lost or doubled."""
    a, b = tables
    a.append(_rows(0), Snapshot())
    seen = a.snapshot()
    rival = SlotTable(a.files, 3, Owner("c"))
    b.append(_rows(10), seen)
    with pytest.raises(Fenced):
        rival.append(_rows(20), seen)
    assert _sequence(a) == [1, 11]


def test_a_stale_commit_is_skipped_and_compacted_away(tables):
    """An owner that reloads after it was sealed off gets its commit in; readers pass over it, the owner drops it."""
    a, b = tables
    first = a.append(_rows(0), Snapshot())
    sealed = b.append(_rows(10), b.snapshot())
    reloaded = Snapshot(sealed.version, first.seal, sealed.parts)
    a.append(_rows(20), reloaded)
    assert a.latest() == sealed.version + 1
    assert _sequence(b) == [1, 11]
    assert [c.stale for c in b.commits(sealed)] == [True]
    after = b.append(_rows(30), sealed)  # stands in the way once, is read, and stepped over
    assert _sequence(a) == [1, 11, 31]
    rows: dict[str, list] = {}
    for kind, values in read_slot(b)[1]:
        rows.setdefault(kind, []).append(values)
    b.rewrite("compact", rows, after)
    fresh = SlotTable(a.files, 3)
    assert _sequence(fresh) == [1, 11, 31]
    assert fresh.snapshot().parts == b.snapshot().parts


def test_a_commit_that_raised_but_is_in_the_log_is_done(tables, monkeypatch):
    """The answer is lost after the commit: the owner finds its own commit id and goes on; the row is there once."""
    a, _ = tables
    state = a.append(_rows(0), Snapshot())
    send = SlotTable._send

    def lossy(self, *args):
        send(self, *args)
        raise OSError("connection reset")

    monkeypatch.setattr(SlotTable, "_send", lossy)
    state = a.append(_rows(10), state)
    monkeypatch.undo()
    a.append(_rows(20), state)
    assert _sequence(a) == [1, 11, 21]


def test_an_unknown_outcome_is_neither_done_nor_failed(tmp_path, monkeypatch):
    """A commit that fails for no known reason raises UnknownOutcome; the next commit reads the log first."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec(), raster(1)])
        send = SlotTable._send

        def lost(self, *args):
            raise OSError("timed out")

        monkeypatch.setattr(SlotTable, "_send", lost)
        with pytest.raises(UnknownOutcome, match="timed out"):
            store.commit([raster(2)])

        def late(self, *args):
            send(self, *args)
            raise OSError("timed out")

        monkeypatch.setattr(SlotTable, "_send", late)
        monkeypatch.setattr(SlotTable, "commits", lambda self, state: (_ for _ in ()).throw(OSError("no answer")))
        with pytest.raises(UnknownOutcome, match="no answer"):
            store.commit([raster(3)])
        monkeypatch.undo()
        store.commit([raster(4)])
        assert [r.scene for r in store.rasters(store.partitions()[0])] == ["S2A_0001", "S2A_0003", "S2A_0004"]
        assert store.verify() == []


def test_every_commit_carries_epoch_node_run_and_digests(tables):
    """The metadata DESIGN asks for is in the log as plain text."""
    import json

    a, _ = tables
    state = a.append(_rows(0), Snapshot())
    a.append(_rows(5), state)
    for version in (0, 1):
        lines = a.files.read(f"{a.root}/_delta_log/{version:020d}.json").splitlines()
        info = next(json.loads(x)["commitInfo"] for x in lines if b"commitInfo" in x)
        assert (info["epoch"], info["node"], info["run"], info["verb"]) == ("1", "a", a.owner.run, "put")
        assert all(f"{d}.parquet" in b"".join(lines).decode() for d in info["digests"].split(","))
