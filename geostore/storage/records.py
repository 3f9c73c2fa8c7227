"""Rows as columns: what lies in a part file, and the checks over it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgpack
import pyarrow as pa
import xxhash

from geostore.certificate import NO_VALUE, Certificate, SpectralError, float32_up
from geostore.errors import Corrupt, InvalidInput
from geostore.keys import PartitionKey, RasterKey
from geostore.raster import Grid
from geostore.storage.rows import CodecRow, EventRow, JobRow, RasterRow, Row, SceneRow, Unread

Kind = Literal["raster", "embedding", "group", "codec", "scene", "event", "job"]
KINDS: tuple[Kind, ...] = ("raster", "embedding", "group", "codec", "scene", "event", "job")
Values = tuple[Any, ...]


COLUMNS: dict[str, Any] = {
    "seq": pa.int64(),
    "collection": pa.string(),
    "geohash": pa.string(),
    "band_group": pa.string(),
    "time_us": pa.int64(),
    "platform": pa.string(),
    "revision": pa.int32(),
    "generation": pa.int32(),
    "op": pa.string(),
    "scene": pa.int32(),
    "row": pa.int32(),
    "col": pa.int32(),
    "height": pa.int32(),
    "width": pa.int32(),
    "valid": pa.binary(),
    "payload": pa.binary(),
    "stream": pa.string(),
    "offset": pa.int64(),
    "length": pa.int64(),
    "payload_checksum": pa.int64(),
    "vector": pa.binary(),
    "layers": pa.string(),
    "lossless": pa.bool_(),
    "bytes_lzw": pa.int64(),
    "bytes_jxl": pa.int64(),
    "original": pa.string(),
    "pixels": pa.int64(),
    "mse": pa.float32(),
    "max_error": pa.float32(),
    "index_names": pa.string(),
    "index_errors": pa.list_(pa.float32()),
    "id": pa.string(),
    "mae": pa.float32(),
    "p99": pa.float32(),
    "coarser": pa.string(),
    "coarser_errors": pa.list_(pa.float32()),
    "family": pa.string(),
    "data": pa.binary(),
    "blob": pa.string(),
    "body": pa.string(),
    "checksum": pa.int64(),
}

_RASTER = tuple(COLUMNS)[: tuple(COLUMNS).index("id")]
_WINDOW = ("row", "col", "height", "width")
_PLACE = ("collection", "geohash", "band_group")
_PIECE = ("stream", "offset", "length", "payload_checksum")
KIND_COLUMNS: dict[str, tuple[str, ...]] = {
    "raster": _RASTER,
    "embedding": (*_RASTER, "id", "mae", "p99", "coarser", "coarser_errors"),
    "group": ("seq", *_PLACE, "generation", "payload", *_PIECE, "id"),
    "codec": ("seq", *_PLACE, "time_us", "generation", *_WINDOW, "family", "data", "blob", "body"),
    "scene": ("seq", "collection", "time_us", "platform", "op", "scene", "id", "body"),
    "event": ("seq", "time_us", "id", "body"),
    "job": ("seq", "time_us", "id", "body"),
}
AT: dict[str, dict[str, int]] = {kind: {n: i for i, n in enumerate(names)} for kind, names in KIND_COLUMNS.items()}


EARLIER_COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {  # of formats 1 and 3; what they lack is nil
    "embedding": (_RASTER, (*_RASTER, "id")),
}


TABLE_SCHEMA = pa.schema([("kind", pa.string()), *COLUMNS.items()])
ROWS_CHECK = "geostore:rows"  # in the metadata of a part file
_ROW_CHECK = "checksum"  # the last column of part files of formats 1 to 4


def _rows_check(kind: str, rows: Iterable[Values]) -> str:
    """16 hexadecimal digits over the logical content of rows, whatever bytes they are stored as.

    xxh3-64 of their MessagePack arrays, one after the other.
    """
    state = xxhash.xxh3_64()
    for values in rows:
        state.update(_packed(kind, values))
    return state.hexdigest()


def _packed(kind: str, values: Values) -> bytes:
    """[kind, value of each column of the kind, in order] as MessagePack: floats as float32, missing values nil."""
    return bytes(msgpack.packb((kind, *values), use_single_float=True))


def bytes_checksum(data: bytes) -> int:
    """64 bits over `data`, as a signed integer."""
    return xxhash.xxh3_64_intdigest(data) - (1 << 63)


@dataclass(frozen=True)
class Piece:
    """Where bytes lie that their row does not hold: `offset` .. `offset + length` of the stream blob `stream`."""

    stream: str
    offset: int
    length: int
    checksum: int


def kind_of(row: Row) -> Kind:
    """The partition of the table a row belongs to."""
    if isinstance(row, RasterRow):
        return "embedding" if row.generation else "raster"
    for cls, kind in ((CodecRow, "codec"), (SceneRow, "scene"), (JobRow, "job")):
        if isinstance(row, cls):
            return kind  # type: ignore[return-value]
    return "event"


def raster_values(row: RasterRow, *, seq: int, scene: int, piece: Piece | None, group: str | None = None) -> Values:
    """A raster row's columns; its payload inline unless `piece` says where it lies; `group` names what it shares."""
    key, c = row.key, row.certificate
    errors = None if c is None else [float32_up(v) for e in c.indices.values() for v in (e.mae, e.p99, e.max)]
    return (
        seq,
        *(key.collection, key.geohash, key.group, key.time_us, key.platform),
        *(row.revision, row.generation, row.op, scene, row.row, row.col, row.height, row.width),
        row.valid,
        None if piece else row.payload,
        *_piece_values(piece),
        *(row.vector, row.layers, row.lossless, row.bytes_lzw, row.bytes_jxl, row.original),
        *((None, None, None) if c is None else (c.pixels, float32_up(c.mse), float32_up(c.max_error))),
        None if c is None else ",".join(c.indices),
        errors,
        *((group, *_mean_errors(c), *_coarser_values(row)) if row.generation else ()),
    )


def _mean_errors(certificate: Certificate | None) -> Values:
    errors = (None, None) if certificate is None else (certificate.mae, certificate.p99)
    return tuple(None if error is None else float32_up(error) for error in errors)


def _coarser_values(row: RasterRow) -> Values:
    """The tiers by name, and of each mse, max_error, mae, p99 and every index's three, one after another."""
    if not row.coarser or row.certificate is None:
        return None, None
    errors: list[float] = []
    for c in row.coarser.values():
        errors += [c.mse, c.max_error, c.at_most(c.mae), c.at_most(c.p99)]
        errors += [v for e in map(c.indices.__getitem__, row.certificate.indices) for v in (e.mae, e.p99, e.max)]
    return ",".join(row.coarser), [_eight_bits_up(v) for v in errors]


def _eight_bits_up(value: float) -> float:
    """The smallest number of 8 significant bits that is not below `value`, at most what a float32 holds."""
    mantissa, exponent = math.frexp(value)
    return min(math.ldexp(math.ceil(mantissa * 256), exponent - 8), NO_VALUE)


def group_values(row: RasterRow, *, seq: int, piece: Piece | None, group: str) -> Values:
    """The columns of what `row` shares with others, by its digest; inline unless `piece` says where it lies."""
    place = (row.key.collection, row.key.geohash, row.key.group)
    return (seq, *place, row.generation, None if piece else row.shared, *_piece_values(piece), group)


def _piece_values(piece: Piece | None) -> Values:
    return (piece.stream, piece.offset, piece.length, piece.checksum) if piece else (None, None, None, None)


def has_payload(kind: str) -> bool:
    """True if rows of this kind hold a payload, in themselves or in a stream."""
    return "payload" in AT[kind]


def piece_of(kind: str, values: Values) -> Piece | None:
    """Where a row's payload lies, or None if it is inline."""
    at = AT[kind]["stream"]
    return None if values[at] is None else Piece(*values[at : at + 4])


def moved(kind: str, values: Values, piece: Piece) -> Values:
    """The same row with its payload at `piece`."""
    at = AT[kind]["stream"]
    return (*values[:at], *_piece_values(piece), *values[at + 4 :])


def group_of(values: Values) -> str | None:
    """The digest of what a raster row shares with others, or None."""
    return values[AT["embedding"]["id"]] if len(values) > AT["embedding"]["id"] else None


def key_of(values: Values) -> RasterKey:
    """The key of a raster row's columns."""
    return RasterKey(*values[1:6])


def raster_row(
    values: Values, *, scene: str, payload: bytes, shared: bytes = b"", unread: Unread | None = None
) -> RasterRow:
    """The inverse of `raster_values`."""
    at = AT["raster"]
    names = ("revision", "generation", "op", *_WINDOW, "valid", "vector", "layers", "lossless")
    plain = {n: values[at[n]] for n in (*names, "bytes_lzw", "bytes_jxl", "original")}
    plain |= {"payload": payload, "shared": shared, "certificate": _certificate(values), "unread": unread}
    return RasterRow(key=key_of(values), scene=scene, coarser=_coarser(values, plain["certificate"]), **plain)


def _certificate(values: Values) -> Certificate | None:
    at = AT["raster"]
    pixels, mse, largest, names, errors = values[at["pixels"] : at["index_errors"] + 1]
    if pixels is None:
        return None
    triples = zip(*(iter(errors or ()),) * 3, strict=True)
    found = {name: SpectralError(*t) for name, t in zip(names.split(",") if names else (), triples, strict=True)}
    mae, p99 = values[AT["embedding"]["mae"] :][:2] or (None, None)
    return Certificate(pixels, mse, largest, found, mae=mae, p99=p99)


def _coarser(values: Values, certificate: Certificate | None) -> dict[str, Certificate]:
    names, errors = values[AT["embedding"]["coarser"] :][:2] or (None, None)
    if not names or certificate is None:
        return {}
    found, each = {}, len(errors) // len(names.split(","))
    for at, name in enumerate(names.split(",")):
        mse, largest, mae, p99, *rest = errors[at * each : (at + 1) * each]
        triples = zip(*(iter(rest),) * 3, strict=True)
        indices = {index: SpectralError(*t) for index, t in zip(certificate.indices, triples, strict=True)}
        found[name] = Certificate(certificate.pixels, mse, largest, indices, mae=mae, p99=p99)
    return found


def codec_values(row: CodecRow, *, seq: int, blob: str | None) -> Values:
    """A codec row's columns; its data inline unless `blob` names it."""
    body = {"cell": asdict(row.cell), "parent": row.parent, "facts": row.facts}
    place = (row.partition.collection, row.partition.geohash, row.partition.group)
    window = (row.row, row.col, row.height, row.width)
    data = None if blob else row.data
    return (seq, *place, row.made_us, row.generation, *window, row.family, data, blob, _json(body))


def codec_row(values: Values, *, data: bytes, unread: int | None = None) -> CodecRow:
    """The inverse of `codec_values`."""
    at, body = AT["codec"], json.loads(values[AT["codec"]["body"]])
    return CodecRow(
        partition=PartitionKey(*values[1:4]),
        family=values[at["family"]],
        cell=Grid(**body["cell"]),
        data=data,
        parent=body["parent"],
        made_us=values[at["time_us"]],
        facts=body["facts"],
        unread=unread,
        **{n: values[at[n]] for n in ("generation", *_WINDOW)},
    )


def scene_values(row: SceneRow, *, seq: int) -> Values:
    """The columns of a scene's facts."""
    names = ("product", "baseline", "source", "footprint", "facts", "complete", "put_us")
    body = {n: getattr(row, n) for n in names}
    return (seq, row.collection, row.time_us, row.platform, row.op, None, row.id, _json(body))


def number_values(collection: str, scene: str, *, seq: int, number: int) -> Values:
    """The columns of the row that gives a scene its number within a slot."""
    return (seq, collection, None, None, None, number, scene, None)


def scene_row(values: Values) -> SceneRow:
    """The inverse of `scene_values`."""
    _, collection, time_us, platform, op, _, name, body = values
    return SceneRow(collection=collection, id=name, time_us=time_us, platform=platform, op=op, **json.loads(body))


def job_values(row: JobRow, *, seq: int) -> Values:
    """A job row's columns."""
    body = {n: getattr(row, n) for n in ("verb", "fields", "state", "made_us", "result")}
    return (seq, row.changed_us, row.id, _json(body))


def job_row(values: Values) -> JobRow:
    """The inverse of `job_values`."""
    return JobRow(id=values[2], changed_us=values[1], **json.loads(values[3]))


def event_values(row: EventRow, *, seq: int) -> Values:
    """An event row's columns."""
    return (seq, row.time_us, row.who, _json({"what": row.what, "fields": row.fields}))


def event_row(values: Values) -> EventRow:
    """The inverse of `event_values`."""
    return EventRow(time_us=values[1], who=values[2], **json.loads(values[3]))


def _json(body: dict[str, Any]) -> str:
    try:
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"{body!r} is not plain JSON ({error}); store None, bool, numbers, text, lists, dicts"
        ) from error


def to_arrow(kind: str, rows: Sequence[Values]) -> Any:
    """Rows of one kind as an Arrow table, with the check over them in its metadata."""
    fields = [(name, COLUMNS[name]) for name in KIND_COLUMNS[kind]]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(fields)
    arrays = [pa.array(c, t) for c, (_, t) in zip(columns, fields, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, {ROWS_CHECK: _rows_check(kind, rows)}))


def from_arrow(kind: str, table: Any, where: str) -> list[Values]:
    """The rows of `table`, held to the check over them; those of an earlier format each to its own.

    Raises:
        Corrupt: columns are missing or the rows fail a check; the message names `where`.
    """
    names = KIND_COLUMNS[kind]
    known = [names, *((*columns, _ROW_CHECK) for columns in (names, *EARLIER_COLUMNS.get(kind, ())))]
    if tuple(table.column_names) not in known:
        raise Corrupt(f"{where}: columns {table.column_names}, wanted {list(names)}; restore it from a backup")
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if table.column_names[-1] == _ROW_CHECK:
        return _checked_alone(kind, rows, where)
    if _rows_check(kind, rows) != (table.schema.metadata or {}).get(ROWS_CHECK.encode(), b"").decode():
        raise Corrupt(f"{where}: its rows do not match their check; restore it from a backup")
    return rows


def _checked_alone(kind: str, rows: Sequence[Values], where: str) -> list[Values]:
    """Rows without the check each ends with: xxh3-64 of the row, minus 2^63."""
    for number, (*values, check) in enumerate(rows):
        if bytes_checksum(_packed(kind, tuple(values))) != check:
            raise Corrupt(f"{where}: row {number} does not match its checksum; restore it from a backup")
    return [(*row[:-1], *(None,) * (len(KIND_COLUMNS[kind]) + 1 - len(row))) for row in rows]
