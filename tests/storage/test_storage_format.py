"""docs/FORMAT.md and the code say the same, and stores of every format version open.

Run this file as a script to make the golden store again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from storage_rows import codec, collection, embedding, key, partition, raster, scene

from geostore.storage import (
    FORMAT_VERSION,
    EventRow,
    JobRow,
    RasterRow,
    Store,
    header,
    log,
    pack_rows,
    records,
    unpack_mask,
)
from geostore.storage.backup import MANIFEST
from geostore.storage.blobs import AREAS
from geostore.storage.follow import VIEW
from geostore.storage.lock import LOCK
from geostore.storage.pack import CODEC_INLINE_MAX, PAYLOAD_INLINE_MAX
from geostore.storage.tables import EPOCH_APP

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden"
LARGE = PAYLOAD_INLINE_MAX + 1


def _rows():
    return [
        [codec(), scene(1), raster(1), raster(2, size=LARGE), raster(1, "9qdfx"), codec("9qdfx")],
        [codec(generation=1, data=b"second", family="vae", parent=0), embedding(1)],
        [
            JobRow(id="fit-1", verb="fit", state="done", made_us=1, changed_us=2, result={"rasters": 1}),
            EventRow(time_us=3, who="ana", what="relabel", fields={"to": "water"}),
        ],
    ]


def _groups():
    """Rasters that share bytes, few and many, as format 2 keeps them."""
    small = [embedding(day, "9qdfx", size=2, shared=b"few bytes in common") for day in (2, 3)]
    large = [embedding(day, "9qdfx", size=2, shared=bytes(range(256)) * 65) for day in (4, 5)]
    return [codec("9qdfx", generation=1, data=b"groups", family="klt-av1", parent=0), *small, *large]


def _as_written(row, version):
    """The row with its mask and its certificate as a format had them."""
    if not isinstance(row, RasterRow):
        return row
    if version < 4 and row.certificate is not None:
        row = replace(row, certificate=replace(row.certificate, mae=None, p99=None), coarser={})
    return row if version > 2 else replace(row, valid=pack_rows(unpack_mask(row.valid, (row.height, row.width))))


def make(root: Path) -> None:
    with Store.create(root, slots=2) as store:
        store.put_collection(collection())
        store.put_original(key(1), b"cog" * 50)
        for rows in [*_rows(), _groups()]:
            store.commit(rows)
        store.compact()
    shutil.rmtree(root / VIEW)
    (root / LOCK).unlink()


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_the_golden_store_of_every_format_opens_reads_and_verifies(tmp_path, version):
    """A store written by an earlier build gives the very rows it was given, and can be written on."""
    golden = GOLDEN / f"store-v{version}"
    shutil.copytree(golden, tmp_path / "s")
    first, second, third = ([_as_written(row, version) for row in rows] for rows in _rows())
    groups = [_as_written(row, version) for row in _groups()] if version > 1 else [None]
    with Store.open(tmp_path / "s", readonly=True) as store:
        assert store.verify() == []
        assert store.collections() == [collection()]
        assert store.rasters(partition()) == [second[1], first[3]]
        assert store.rasters(partition("9qdfx")) == [first[4], *groups[1:]]
        assert store.generations(partition()) == [first[0], second[0]]
        assert (store.scenes(), store.jobs(), store.events()) == ([first[1]], [third[0]], [third[1]])
    with Store.open(tmp_path / "s") as store:
        store.commit([raster(9), embedding(8, "9qdfx", shared=b"more")])
        store.prune(retain_days=0)
        assert store.verify() == []
        assert store.raster(key(8, "9qdfx")).shared == b"more"
    assert json.loads((tmp_path / "s" / header.HEADER).read_text())["version"] == FORMAT_VERSION
    assert sum(p.stat().st_size for p in golden.rglob("*") if p.is_file()) < 130_000


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_a_table_of_an_earlier_format_is_given_its_columns_by_the_first_commit(tmp_path, version):
    """Proves that delta-rs sees new columns in old tables, null where they were not measured, and commits follow."""
    from deltalake import DeltaTable

    shutil.copytree(GOLDEN / f"store-v{version}", tmp_path / "s")
    with Store.open(tmp_path / "s", readonly=True) as reader, Store.open(tmp_path / "s") as store:
        for day in (8, 9):
            store.commit([embedding(day, "9qdfx")])
        reader.refresh()
        assert reader.rasters(partition("9qdfx")) == store.rasters(partition("9qdfx"))
        slot = next(table for table in store.tables.values() if table.latest() > 3)
        assert store.verify() == []
    rows = (
        DeltaTable(tmp_path / "s" / slot.root)
        .to_pyarrow_table(columns=["kind", "time_us", "mae", "p99", "coarser"])
        .to_pylist()
    )
    found = {row["time_us"]: (row["mae"], row["p99"], row["coarser"]) for row in rows if row["kind"] == "embedding"}
    measured = (2.0**-9, 2.0**-6, "preview")
    assert found[key(9).time_us] == measured
    assert found[key(1).time_us] == (measured if version > 3 else (None, None, None))


def _names() -> list[str]:
    fields = list(header.Header.__dataclass_fields__)
    body = [n for rows in _bodies() for n in rows]
    limits = [f"{PAYLOAD_INLINE_MAX:,}", f"{CODEC_INLINE_MAX:,}"]
    files = [header.HEADER, header.CHECK, LOCK, VIEW, MANIFEST, log.LOG, EPOCH_APP, *(f"blobs/{a}" for a in AREAS)]
    info = [*log.CHECKED, *log.VERBS, "digests", "check"]
    return ["kind", records.ROWS_CHECK, *records.KINDS, *records.COLUMNS, *fields, *body, *limits, *files, *info]


def _bodies() -> list[list[str]]:
    found = []
    for row, values in (
        (codec(), records.codec_values(codec(), seq=0, blob=None)),
        (scene(1), records.scene_values(scene(1), seq=0)),
        (JobRow(id="j", verb="v"), records.job_values(JobRow(id="j", verb="v"), seq=0)),
        (EventRow(time_us=0, who="w", what="x"), records.event_values(EventRow(time_us=0, who="w", what="x"), seq=0)),
    ):
        body = json.loads(values[records.AT[records.kind_of(row)]["body"]])
        found.append([*body, *body.get("cell", {})])
    return found


def test_every_name_on_disk_is_in_the_format_document():
    """Columns, kinds, metadata, members and files of the code all occur in docs/FORMAT.md, and its version is ours."""
    text = (ROOT / "docs/FORMAT.md").read_text()
    assert f"Version {FORMAT_VERSION}." in text
    assert [name for name in dict.fromkeys(_names()) if name not in text] == []


@pytest.mark.parametrize("column", records.COLUMNS)
def test_the_document_gives_each_column_its_type(column):
    """The table of columns lists each with the type it is stored in."""
    text = (ROOT / "docs/FORMAT.md").read_text().split("## Tables")[1]
    line = next(x for x in text.splitlines() if x.startswith("| ") and f"`{column}`" in x.split("|")[1])
    want = {"list<item: float>": "list of float32", "list<element: float>": "list of float32", "float": "float32"}
    assert line.split("|")[2].strip() == want.get(str(records.COLUMNS[column]), str(records.COLUMNS[column]))


def test_part_files_hold_the_columns_of_their_kind(tmp_path):
    """What lies on disk is what the document says: order, compression, no statistics."""
    make(tmp_path / "s")
    for path in (tmp_path / "s").rglob("*.parquet"):
        if path.parent.name == "_delta_log":
            continue
        kind = path.parent.name.removeprefix("kind=")
        file = pq.ParquetFile(path)
        assert file.schema_arrow.names == [*records.KIND_COLUMNS[kind]]
        assert {*file.metadata.metadata} == {records.ROWS_CHECK.encode()}
        chunk = file.metadata.row_group(0).column(0)
        assert (chunk.compression, chunk.is_stats_set) == ("ZSTD", False)


def test_other_readers_read_the_tables(tmp_path):
    """delta-rs itself gives the rows by kind, with null where a kind has no such column."""
    from deltalake import DeltaTable

    with Store.create(tmp_path / "s", slots=1) as store:
        store.commit([codec(), raster(1), scene(1)])
    table = DeltaTable(tmp_path / "s/tables/slot=0000").to_pyarrow_table()
    assert sorted(table["kind"].to_pylist()) == ["codec", "raster", "scene", "scene"]
    row = next(r for r in table.to_pylist() if r["kind"] == "raster")
    assert (row["payload"], row["family"]) == (raster(1).payload, None)
    assert isinstance(raster(1), RasterRow)


if __name__ == "__main__":
    golden = GOLDEN / f"store-v{FORMAT_VERSION}"
    shutil.rmtree(golden, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:  # the log remembers where a table was made
        make(Path(folder) / "store")
        shutil.copytree(Path(folder) / "store", golden)
    print(golden.name)
