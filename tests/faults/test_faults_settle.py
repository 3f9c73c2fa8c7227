"""What a power loss or a kill leaves half done is put right by the next writer; damage is not mistaken for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fault_check import digests
from fault_scenes import collection
from fault_victim import SETTINGS, declare, put_request

from geostore.errors import Corrupt
from geostore.node import Node
from geostore.storage import witness
from geostore.storage.follow import VIEW, mark


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three puts in one slot; the view is gone and the store was not closed, as after a power loss."""
    root = tmp_path / "store"
    with Node.open(str(root), settings=SETTINGS, create=True, slots=1) as node:
        declare(node, collection())
        for number in range(3):
            node.answer(*put_request(81, number))
    return root


def logs(store: Path) -> list[Path]:
    """The log files of the only slot, oldest first."""
    return sorted((store / "tables" / "slot=0000" / "_delta_log").glob("*.json"))


def leave(store: Path) -> None:
    """As a writer that did not close leaves the store."""
    for path in (store / VIEW).iterdir():
        path.unlink()
    mark(store / VIEW, clean=False)


def seen(store: Path, *, readonly: bool) -> dict[str, str]:
    """The digest of every raster."""
    with Node.open(str(store), settings=SETTINGS, readonly=readonly) as node:
        return digests(node)


def holds_nothing_and_can_be_written(store: Path) -> None:
    """No raster for readers; a writer puts the first."""
    assert seen(store, readonly=True) == {}
    with Node.open(str(store), settings=SETTINGS) as node:
        request = put_request(81, 0)
        node.answer(*request)
        assert len(digests(node)) == sum(len(scene.pieces) for scene in request[0].scenes)
        assert node.store.verify() == []


TEARS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "zeros at its end": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "cut at a page": lambda data: (data * 9)[:4096] if (data * 9)[4095:4096] != b"}" else (data * 9)[1:4097],
}


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_last_commit_never_was(store: Path, tear: str) -> None:
    """A newest log file the disk never got whole counts for nobody; the next writer removes it and writes on."""
    before = seen(store, readonly=False)
    with Node.open(str(store), settings=SETTINGS) as node:
        node.answer(*put_request(81, 3))
    last = logs(store)[-1]
    last.write_bytes(TEARS[tear](last.read_bytes()))
    leave(store)
    assert seen(store, readonly=True) == before
    with Node.open(str(store), settings=SETTINGS) as node:
        assert digests(node) == before
        assert not last.exists()
        node.answer(*put_request(81, 3))
        assert len(digests(node)) > len(before)
        assert node.store.verify() == []


def test_a_torn_first_commit_leaves_an_empty_table(store: Path) -> None:
    """Where the disk got nothing but the name of the first log file, there is no table yet, for readers and writers."""
    for path in logs(store)[1:]:
        path.unlink()
    logs(store)[0].write_bytes(b"")
    leave(store)
    holds_nothing_and_can_be_written(store)


def test_an_empty_log_file_below_the_last_is_damage(store: Path) -> None:
    """The same in the middle of the log is not a torn commit: later ones stand on it, so it is Corrupt."""
    logs(store)[1].write_bytes(b"")
    leave(store)
    with pytest.raises(Corrupt, match="restore"):
        seen(store, readonly=False)
    assert logs(store)[1].exists()


def test_a_rotten_last_commit_is_damage(store: Path) -> None:
    """A flipped bit in the newest log file is not a torn commit: nothing is removed."""
    last = logs(store)[-1]
    data = bytearray(last.read_bytes())
    data[data.index(b'"path"') + 12] ^= 1
    last.write_bytes(data)
    leave(store)
    with pytest.raises(Corrupt, match="restore"):
        seen(store, readonly=False)
    assert last.read_bytes() == data


def test_what_a_killed_writer_had_not_named_yet_goes(store: Path) -> None:
    """Temporary files of ours and of the Delta library are swept by the next writer, and only by one."""
    before = seen(store, readonly=False)
    folder = logs(store)[0].parent
    left = [store / "blobs" / ".tmp-1-1", folder / f"{logs(store)[-1].name}#1", folder.parent / ".tmp-1-2"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    leave(store)
    assert seen(store, readonly=True) == before
    assert all(path.exists() for path in left)
    with Node.open(str(store), settings=SETTINGS) as node:
        assert digests(node) == before
        assert node.store.verify() == []  # none of them was noted as a log file
    assert not any(path.exists() for path in left)


def test_a_kill_in_the_first_commit_leaves_an_empty_table(store: Path) -> None:
    """A log file that the Delta library had not named yet, and no other: there is no table yet, for anyone."""
    for path in logs(store)[1:]:
        path.unlink()
    logs(store)[0].rename(logs(store)[0].with_name(f"{logs(store)[0].name}#1"))
    (store / "tables" / "slot=0000" / witness.NAME).unlink()  # nothing was noted yet
    leave(store)
    holds_nothing_and_can_be_written(store)


def test_a_torn_checkpoint_is_made_from_the_log_again(store: Path) -> None:
    """An empty checkpoint and the pointer to it go; the log files it was made from say the same."""
    before = seen(store, readonly=False)
    folder = logs(store)[0].parent
    version = int(logs(store)[-1].stem)
    (folder / f"{version:020d}.checkpoint.parquet").write_bytes(b"")
    (folder / "_last_checkpoint").write_text(f'{{"version":{version},"size":5}}')
    leave(store)
    assert seen(store, readonly=False) == before
    assert not (folder / "_last_checkpoint").exists()


def test_a_view_that_rotted_while_closed_is_made_anew(store: Path) -> None:
    """A flipped bit anywhere in the closed view is noticed by its digest, before LMDB walks its pages."""
    before = seen(store, readonly=False)
    path = store / VIEW / "data.mdb"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with Node.open(str(store), settings=SETTINGS, readonly=True) as node:
        assert node.store.view_path != store / VIEW
        assert digests(node) == before
    assert seen(store, readonly=False) == before
