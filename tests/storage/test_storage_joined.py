"""Small part files are joined as commits go on, and nothing else changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from storage_rows import codec, key, partition, raster, scene

from geostore.storage import Store, follow, tables


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks every eighth version, and joins eight."""
    monkeypatch.setattr(tables, "JOIN_EVERY", 8)
    monkeypatch.setattr(tables, "CROWD", 8)


def _parts(store: Store) -> list[Path]:
    state = store.tables[0].snapshot()
    return [Path(store.url) / store.tables[0].root / part for part in state.parts]


def _fill(store: Store, days: range) -> None:
    for day in days:
        store.commit([scene(day), raster(day, size=200)])


@pytest.mark.usefixtures("eager")
def test_a_slot_has_few_part_files_however_many_commits_it_saw(tmp_path: Path) -> None:
    """After 80 commits of two kinds a tenth of the files are left; rows are those put, before and after a rebuild."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec()])
        _fill(store, range(1, 81))
        assert len(_parts(store)) < 30
        rows = [raster(day, size=200) for day in range(1, 81)]
        assert store.rasters(partition()) == rows
        assert store.verify() == []
        store.rebuild()
        assert store.rasters(partition()) == rows
        assert [s.id for s in store.scenes()] == [scene(day).id for day in range(1, 81)]
        whole = store.bytes_durable()["tables"]
        store.compact(retain_days=0)
        assert store.bytes_durable()["tables"] < whole / 3
        assert store.rasters(partition()) == rows
    with Store.open(tmp_path / "s") as store:
        _fill(store, range(81, 83))
        assert store.verify() == []


@pytest.mark.usefixtures("eager")
def test_a_follower_goes_on_from_where_it_was(tmp_path: Path) -> None:
    """A view of an early version takes in later commits, whose files were joined, without being built anew."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec()])
        _fill(store, range(1, 5))
        view = follow.anew(tmp_path / "view", 2**24)
        mine = {0: tables.SlotTable(store.files, 0)}
        follow.fill(view, mine, store.id)
        _fill(store, range(5, 40))
        assert follow.follow(view, mine)
        assert len(view.rasters(partition(), None, None)) == 39
        _fill(store, range(40, 60))
        store.compact(retain_days=0)
        assert not follow.follow(view, mine)  # what it would have read is deleted: build it anew
        view.close()


@pytest.mark.usefixtures("eager")
def test_files_that_cannot_be_joined_stay_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a part file spoilt, later commits are stored all the same, and `verify` tells of the file."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec()])
        _fill(store, range(1, 5))
        spoilt = next(p for p in _parts(store) if "kind=raster" in str(p))
        spoilt.write_bytes(spoilt.read_bytes()[::-1])
        with caplog.at_level(logging.WARNING):
            _fill(store, range(5, 40))
        assert spoilt.name in caplog.text
        assert store.raster(key(39)) == raster(39, size=200)
        assert any(spoilt.name in str(finding) for finding in store.verify())
