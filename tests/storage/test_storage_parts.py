"""Part files: rows come back as they were, and what a reader makes of one is held to what was meant."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from storage_rows import embedding, scene

from geostore.errors import Corrupt
from geostore.storage.files import digest_of
from geostore.storage.parts import encode_part, part_path, read_part
from geostore.storage.records import ROWS_CHECK, raster_values, scene_values

ROWS = {
    "embedding": [raster_values(embedding(d), seq=d, scene=0, piece=None) for d in range(5)],
    "scene": [scene_values(scene(d), seq=d) for d in range(3)],
    "event": [],
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_come_back(kind: str) -> None:
    """Proves the round trip of rows, none among them."""
    data = encode_part(kind, ROWS[kind])
    assert read_part(part_path(kind, data), data, "here") == ROWS[kind]


def _again(data: bytes, change: dict[str, pa.Array], check: bytes | None) -> bytes:
    """The part with other columns, or another check, as a faulty library might write or read it."""
    file = pq.ParquetFile(io.BytesIO(data))
    table = file.read()
    for name, values in change.items():
        table = table.set_column(table.column_names.index(name), table.schema.field(name), values)
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        if check is not None:
            writer.add_key_value_metadata({ROWS_CHECK: check})
    return out.getvalue()


CHANGES = {
    "one value": {"bytes_lzw": pa.array([1, 2, 3, 4, 6], pa.int64())},
    "a float": {"mse": pa.array([0.5] * 5, pa.float32())},
    "a null": {"layers": pa.array(["x", "x", "x", "x", None], pa.string())},
    "bytes": {"valid": pa.array([b"other"] * 5, pa.binary())},
}


@pytest.mark.parametrize("name", CHANGES)
def test_rows_other_than_were_meant_are_corrupt(name: str) -> None:
    """Proves that values that changed between the check and the file are seen, though the file has its digest."""
    data = encode_part("embedding", ROWS["embedding"])
    check = pq.ParquetFile(io.BytesIO(data)).metadata.metadata[ROWS_CHECK.encode()]
    same = _again(data, {}, check)
    assert read_part(part_path("embedding", same), same, "here") == ROWS["embedding"]
    bad = _again(data, CHANGES[name], check)
    with pytest.raises(Corrupt, match="here: its rows do not match"):
        read_part(part_path("embedding", bad), bad, "here")


def test_rows_without_a_check_are_corrupt() -> None:
    """Proves that a part file without its check is not taken on trust, nor one that lost a row, or two that swapped."""
    data = encode_part("embedding", ROWS["embedding"])
    check = pq.ParquetFile(io.BytesIO(data)).metadata.metadata[ROWS_CHECK.encode()]
    swapped = [ROWS["embedding"][i] for i in (1, 0, 2, 3, 4)]
    for bad in (
        _again(data, {}, None),
        _again(encode_part("embedding", ROWS["embedding"][:4]), {}, check),
        _again(encode_part("embedding", swapped), {}, check),
    ):
        with pytest.raises(Corrupt, match="restore"):
            read_part(f"kind=embedding/{digest_of(bad)}.parquet", bad, "here")
