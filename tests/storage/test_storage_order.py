"""What a commit of many rows leaves when a part of it fails: a scene is there only when all of it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from storage_rows import codec, collection, partition, raster, scene

from geostore.dht.ring import slot_of, slot_of_text
from geostore.errors import GeostoreError
from geostore.storage import Store

SLOTS = 16
CELLS = ("9qdfr", "9qdfx")


@pytest.mark.parametrize("cell", CELLS)
def test_a_scene_is_not_there_before_its_rasters(tmp_path: Path, cell: str) -> None:
    """The slot of one cell cannot be written, whichever it is: the scene is absent, and put again it is whole."""
    days = [d for d in range(40) if slot_of_text(scene(d).id, SLOTS) not in {slot_of(c, SLOTS) for c in CELLS}][:3]
    rows = [row for d in days for row in (scene(d), raster(d, CELLS[0]), raster(d, CELLS[1]))]
    with Store.create(tmp_path / "s", slots=SLOTS) as store:
        store.put_collection(collection())
        barrier = tmp_path / "s" / store.tables[slot_of(cell, SLOTS)].root
        barrier.parent.mkdir(exist_ok=True)
        barrier.write_text("no folder")
        with pytest.raises((GeostoreError, OSError)):
            store.commit([codec(), codec(CELLS[1]), *rows])
        assert store.scenes() == []
        barrier.unlink()
        store.refresh()
        store.commit([codec(), codec(CELLS[1]), *rows])
        assert [s.id for s in store.scenes()] == [scene(d).id for d in days]
        assert all(len(store.rasters(partition(c))) == len(days) for c in CELLS)
        assert store.verify() == []


def test_rows_of_one_slot_are_one_commit(tmp_path: Path) -> None:
    """With a single slot nothing can be torn apart, and a scene costs one commit as before."""
    with Store.create(tmp_path / "s", slots=1) as store:
        store.put_collection(collection())
        for day in range(3):
            store.commit([raster(day), scene(day)])
        assert store.tables[0].latest() == 2
