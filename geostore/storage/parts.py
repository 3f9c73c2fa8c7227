"""Part files: rows of one kind as Parquet, named by their digest."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow.parquet as pq

from geostore.errors import Corrupt
from geostore.storage.files import digest_of
from geostore.storage.records import Values, from_arrow, to_arrow

_RAW = ("valid", "payload", "data", "vector")  # bytes that are packed already
_NUMBERS = ("seq", "time_us", "offset", "bytes_lzw", "bytes_jxl")  # near the row before's, or within a narrow range
_ERRORS = ("mse", "max_error", "mae", "p99")  # whose bytes weigh least plane by plane,
_LISTS = ("index_errors", "coarser_errors")  # as do those of all values of a list
_CHECK = "payload_checksum"


def part_kind(path: str) -> str:
    """The kind of the rows in a part file, from its folder."""
    return path.split("/", 1)[0].removeprefix("kind=")


def part_path(kind: str, data: bytes) -> str:
    """Where rows of a kind lie below their table."""
    return f"kind={kind}/{digest_of(data)}.parquet"


def encode_part(kind: str, rows: Sequence[Values]) -> bytes:
    """Rows of one kind as a Parquet file: ZSTD, no statistics, no Arrow schema; the columns of the kind only.

    Its metadata holds the check over its rows: the digest in its name covers what was written, not what is read of it.
    """
    table = to_arrow(kind, rows)
    names = table.column_names
    plain = {n: "DELTA_BINARY_PACKED" for n in names if n in _NUMBERS}
    plain |= {n: "BYTE_STREAM_SPLIT" for n in names if n in _ERRORS}
    plain |= {f"{n}.list.element": "BYTE_STREAM_SPLIT" for n in names if n in _LISTS}
    dictionary = [n for n in names if n not in (*_RAW, *plain, *_LISTS, _CHECK)]
    out = io.BytesIO()
    writer = pq.ParquetWriter(
        out,
        table.schema,
        compression="zstd",
        compression_level=9,
        write_statistics=False,
        store_schema=False,
        use_dictionary=dictionary,
        column_encoding=plain,
    )
    with writer:
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata)  # which it leaves out with the Arrow schema
    return out.getvalue()


def read_part(path: str, data: bytes, where: str) -> list[Values]:
    """The rows of the part file `data` at `path`, digest and check verified.

    Raises:
        Corrupt: it is not what was written; the message names `where`.
    """
    if digest_of(data) != path.rsplit("/", 1)[-1].removesuffix(".parquet"):
        raise Corrupt(f"{where}: {len(data)} bytes that fail their digest; restore it from a backup")
    return from_arrow(part_kind(path), pq.ParquetFile(io.BytesIO(data)).read(), where)
