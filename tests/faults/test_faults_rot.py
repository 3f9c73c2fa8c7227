"""Bit rot: a flipped bit is reported or harmless, and never decoded as truth."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_check import digests
from fault_rot import Tally, flipped, look
from fault_scenes import write_scenes
from fault_victim import SETTINGS, VERBS, arguments, put_request

from geostore.node import Node
from geostore.query import messages
from geostore.storage.follow import VIEW
from geostore.storage.lock import LOCK

FEW = ("--batch-bytes", str(2**20))
READER = Path(__file__).with_name("fault_view_reader.py")
FLIPS = 4
VIEW_FLIPS = 24
KINDS = {
    "table part": "tables/*/kind=*/*.parquet",
    "table log": "tables/*/_delta_log/*.json",
    "checkpoint": "tables/*/_delta_log/*.checkpoint.parquet",
    "checkpoint pointer": "tables/*/_delta_log/_last_checkpoint",
    "log digests": "tables/*/.digests",
    "kept original": "blobs/rasters/**/*.tif",
    "stream": "blobs/streams/*",
    "codec": "blobs/codecs/*",
    "model": "blobs/models/*",
    "collection": "collections/**/*.json",
    "header": "geostore.json",
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A fitted store with kept originals, a codec and a stream blob, and the digest of every raster in it."""
    folder = tmp_path_factory.mktemp("rot")
    write_scenes(folder / "scenes", 61, 5, size=96)
    store = folder / "store"
    args = arguments(["ingest", "--store", str(store), "--scenes", str(folder / "scenes"), "--original", "keep", *FEW])
    with Node.open(str(store), settings=SETTINGS, create=True, slots=4) as node:
        VERBS["ingest"](node, args)
        node.answer(*put_request(62, 1))
        node.answer(messages.Fit(geohash=node.store.partitions()[0].geohash, steps=2, workers=1))
        node.store.put_blob("codecs", random.Random(61).randbytes(4000))
        node.store.put_blob("models", random.Random(62).randbytes(4000))
        for table in node.store.tables.values():
            if table.latest() >= 0:
                table.checkpoint(table.snapshot())
        assert node.answer(messages.Verify()).fields["findings"] == []
        return store, digests(node)


@pytest.mark.parametrize("view", ["with its view", "without a view"])
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bits_in_durable_files_are_detected(sound: tuple[Path, dict[str, str]], kind: str, view: str) -> None:
    """Each seeded flip is reported by reading or verify, or changes no answer; no raster decodes to other pixels."""
    tally = flip_many(*sound, kind, view, FLIPS)
    assert tally.lies == []
    assert tally.strange == []
    assert tally.seen == tally.flips


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("view", ["with its view", "without a view"])
@pytest.mark.parametrize("kind", KINDS)
def test_many_flipped_bits_are_detected(sound: tuple[Path, dict[str, str]], kind: str, view: str) -> None:
    """The same with many more flips."""
    tally = flip_many(*sound, kind, view, 25 * FLIPS)
    assert (tally.lies, tally.strange) == ([], [])
    assert tally.seen == tally.flips


def test_every_file_of_a_store_is_of_a_kind_whose_flips_are_tried(sound: tuple[Path, dict[str, str]]) -> None:
    """The kinds above name every file under the root but the lock, which holds nothing, and the view, tried below."""
    store = sound[0]
    tried = {p for pattern in KINDS.values() for p in store.glob(pattern)}
    there = {p for p in store.rglob("*") if p.is_file() and VIEW not in p.relative_to(store).parts}
    assert {p.name for p in there - tried} == {LOCK}
    assert all(any(store.glob(pattern)) for pattern in KINDS.values())


def flip_many(store: Path, truth: dict[str, str], kind: str, view: str, flips: int) -> Tally:
    """What became of `flips` seeded flips in the files of one kind."""
    files = sorted(p for p in store.glob(KINDS[kind]) if p.is_file())
    if not files:
        pytest.skip(f"this store keeps no {kind} file")
    if view == "without a view":
        shutil.rmtree(store / ".view", ignore_errors=True)
    elif not (store / ".view").exists():
        Node.open(str(store), settings=SETTINGS).close()
    tally, rng = Tally(), random.Random(f"{kind} {view} {flips}")
    for _ in range(flips):
        with flipped(rng.choice(files), rng) as where:
            look(store, truth, tally, where)
    print(f"{kind}, {view}: {tally.seen} of {tally.flips} flips reported")
    return tally


def _view_flips(store: Path, truth: Path, first: int) -> tuple[list[str], int]:
    """The lines of one reader process, and its exit code."""
    command = [sys.executable, str(READER), str(store), str(truth), str(first), str(VIEW_FLIPS - first)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode <= 0, done.stderr
    return done.stdout.splitlines(), done.returncode


def test_flipped_bits_in_lmdb_pages_are_never_decoded(sound: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Each seeded flip in data.mdb leaves every raster as it was, or an error; the view is mended from the tables."""
    store = shutil.copytree(sound[0], tmp_path / "store")
    Node.open(str(store), settings=SETTINGS).close()  # a view, level and synced
    sizes = (store / ".view" / "data.mdb").read_bytes()
    (tmp_path / "truth.json").write_text(json.dumps(sound[1]))
    first, results, ended = 0, [], []
    while first < VIEW_FLIPS:
        lines, code = _view_flips(store, tmp_path / "truth.json", first)
        results += [json.loads(line) for line in lines if line.startswith("{")]
        if code < 0:  # LMDB ended the process inside rotten pages
            ended.append(f"{lines[-1]}: signal {-code}")
            (store / ".view" / "data.mdb").write_bytes(sizes)
        first += sum(line.startswith("flip") for line in lines)
    print(f"{sum(r['seen'] for r in results)} of {VIEW_FLIPS} flips reported, {len(ended)} ended the reader: {ended}")
    assert [lie for r in results for lie in r["lies"]] == []
    assert [strange for r in results for strange in r["strange"]] == []
    assert ended == []
    assert sum(r["seen"] for r in results) == VIEW_FLIPS
