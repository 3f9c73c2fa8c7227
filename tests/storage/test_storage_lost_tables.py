"""Tables that are gone are missed: the view, which only repeats them, does not answer in their place."""

from __future__ import annotations

import shutil

import pytest
from storage_rows import codec, partition, raster

from geostore.errors import Corrupt
from geostore.storage import Store


@pytest.mark.parametrize("readonly", [False, True])
def test_lost_tables_are_told_and_a_rebuild_goes_on_with_what_is_left(tmp_path, readonly):
    """Fault: tables/ is deleted. It opens, `verify` names the log, every look at rows is corrupt; a rebuild mends."""
    path = tmp_path / "store"
    with Store.create(path, slots=4) as made:
        made.commit([codec(), raster(1)])
    shutil.rmtree(path / "tables")
    with Store.open(path, readonly=readonly) as store:
        with pytest.raises(Corrupt, match="ends at version -1, but version 0 was seen here before"):
            store.rasters(partition())
        (finding,) = store.verify()
        assert (finding.kind, finding.path) == ("log", "tables")
        assert "restore the store from a backup" in finding.message
    with Store.open(path) as store:
        store.rebuild()
        assert store.rasters(partition()) == []
        assert store.verify() == []


def test_an_older_log_under_a_newer_view_is_told(tmp_path):
    """Fault: an older copy is laid over a store whose view stays."""
    path = tmp_path / "store"
    with Store.create(path, slots=1) as made:
        made.commit([codec(), raster(1)])
        made.backup(tmp_path / "older")
        made.commit([raster(2)])
    shutil.rmtree(path / "tables")
    shutil.copytree(tmp_path / "older" / "tables", path / "tables")
    with Store.open(path) as store:
        with pytest.raises(Corrupt, match="ends at version 0, but version 1"):
            store.rasters(partition())
        store.rebuild()
        assert [r.key.time_us for r in store.rasters(partition())] == [raster(1).key.time_us]
