"""What a killed process leaves in the temporary folder goes; what a living one has there stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from storage_rows import codec, collection, partition, raster

from geostore.storage import Store, scratch
from geostore.storage.follow import VIEW

OWNER = """
import sys
from geostore.storage.scratch import Scratch
made = Scratch("view")
(made.path / "data.mdb").write_bytes(b"x" * 100)
print(made.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary folders of this test and its children lie in one of its own."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_killed_owners_folder_is_swept_and_a_living_ones_is_not(own_temporary_folder: Path) -> None:
    """kill -9 of one of two owners: the next to look removes its folder alone; users' folders are not looked into."""
    (own_temporary_folder / "geostore-view-of-paris").mkdir()
    owners = [
        subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    paths = [Path(o.stdout.readline().strip()) for o in owners]  # type: ignore[union-attr]
    owners[0].send_signal(signal.SIGKILL)
    owners[0].communicate()
    with scratch.Scratch("view") as mine:
        assert not paths[0].exists()
        assert paths[1].exists()
        assert scratch.sweep() == 0
        assert mine.path.exists()
    owners[1].communicate()
    assert scratch.sweep() == 1
    assert [p.name for p in own_temporary_folder.iterdir()] == ["geostore-view-of-paris"]


WRITER = """
import sys
from geostore.storage import Store
with Store.open(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_view_its_writer_did_not_close_is_not_looked_at(tmp_path: Path) -> None:
    """A view without a digest counts while its writer lives; after a kill a reader and the next writer make it anew."""
    view = tmp_path / "store" / VIEW
    with Store.create(tmp_path / "store", slots=2) as store:
        store.put_collection(collection())
        store.commit([codec(), raster(1), raster(2)])
    command = [sys.executable, "-c", WRITER, store.url]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    with Store.open(store.url, readonly=True) as reader:
        assert reader.view_path == view
    writer.kill()
    writer.communicate()
    with Store.open(store.url, readonly=True) as reader:
        assert reader.view_path != view
    before = (view / "data.mdb").stat()
    with Store.open(store.url) as store:
        assert (view / "data.mdb").stat().st_ctime_ns != before.st_ctime_ns
        assert len(store.rasters(partition())) == 2
    with Store.open(store.url, readonly=True) as reader:
        assert reader.view_path == view
