"""Rows on their way to the tables: which slot, which number, inline or in a blob."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from geostore.dht.ring import slot_of, slot_of_text
from geostore.keys import PartitionKey
from geostore.storage.blobs import blob_path
from geostore.storage.files import digest_of
from geostore.storage.records import (
    Piece,
    Values,
    bytes_checksum,
    codec_values,
    event_values,
    group_values,
    job_values,
    kind_of,
    number_values,
    raster_values,
    scene_values,
)
from geostore.storage.rows import CodecRow, JobRow, RasterRow, Row, SceneRow

PAYLOAD_INLINE_MAX = 16_384
CODEC_INLINE_MAX = 65_536


def slot_of_row(row: Row, slots: int, store_id: str) -> int:
    """The slot a row lives in: its cell's, its scene id's, or for jobs and events the store id's."""
    if isinstance(row, RasterRow):
        return slot_of(row.key.geohash, slots)
    if isinstance(row, CodecRow):
        return slot_of(row.partition.geohash, slots)
    return slot_of_text(row.id if isinstance(row, SceneRow) else store_id, slots)


@dataclass
class Batch:
    """What one commit brings to one slot.

    Attributes:
        seq: sequence number of the next row.
        numbers: scene numbers the slot has given so far; `pack` adds to it.
        rows: columns by kind.
        blobs: bytes by path, to be written before the rows.
    """

    seq: int
    numbers: dict[tuple[str, str], int]
    rows: dict[str, list[Values]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def pack(self, rows: Iterable[Row]) -> None:
        """Take in rows in their order."""
        rows = list(rows)
        pieces = self._stream([b for r in rows if isinstance(r, RasterRow) for b in (r.shared, r.payload)])
        named: dict[tuple[PartitionKey, bytes], str] = {}
        for row in rows:
            if isinstance(row, RasterRow):
                number, group = self.number(row.key.collection, row.scene), self._group(row, pieces, named)
                piece = pieces.get(row.payload)
                self._add(row, raster_values(row, seq=self.seq, scene=number, piece=piece, group=group))
            elif isinstance(row, CodecRow):
                self._add(row, codec_values(row, seq=self.seq, blob=self._codec_blob(row.data)))
            elif isinstance(row, SceneRow):
                self._add(row, scene_values(row, seq=self.seq))
            elif isinstance(row, JobRow):
                self._add(row, job_values(row, seq=self.seq))
            else:
                self._add(row, event_values(row, seq=self.seq))

    def ordered(self) -> list[tuple[str, Values]]:
        """(kind, columns) in sequence order, as a view takes them."""
        found = ((kind, values) for kind, rows in self.rows.items() for values in rows)
        return sorted(found, key=lambda item: item[1][0])

    def number(self, collection: str, scene: str) -> int:
        """The number of a scene in this slot, given now if it has none yet."""
        known = self.numbers.get((collection, scene))
        if known is not None:
            return known
        number = max(self.numbers.values(), default=-1) + 1
        self.numbers[collection, scene] = number
        self.rows.setdefault("scene", []).append(number_values(collection, scene, seq=self.seq, number=number))
        self.seq += 1
        return number

    def _group(
        self, row: RasterRow, pieces: dict[bytes, Piece], named: dict[tuple[PartitionKey, bytes], str]
    ) -> str | None:
        """The name of what a raster shares with others, which gets its own row the first time it is met."""
        if not row.shared:
            return None
        at = row.key.partition, row.shared
        if at not in named:
            named[at] = digest_of(row.shared)
            values = group_values(row, seq=self.seq, piece=pieces.get(row.shared), group=named[at])
            self.rows.setdefault("group", []).append(values)
            self.seq += 1
        return named[at]

    def _add(self, row: Row, values: Values) -> None:
        self.rows.setdefault(kind_of(row), []).append(values)
        self.seq += 1

    def _codec_blob(self, data: bytes) -> str | None:
        if len(data) <= CODEC_INLINE_MAX:
            return None
        digest = digest_of(data)
        self.blobs[blob_path("codecs", digest)] = data
        return digest

    def _stream(self, payloads: list[bytes]) -> dict[bytes, Piece]:
        """Payloads too large for their row, joined into one stream; by payload, where each lies."""
        large = list(dict.fromkeys(p for p in payloads if len(p) > PAYLOAD_INLINE_MAX))
        if not large:
            return {}
        digest, stream = join_stream(large)
        self.blobs[blob_path("streams", digest)] = stream
        return pieces_of(digest, large)


def join_stream(payloads: list[bytes]) -> tuple[str, bytes]:
    """(digest, bytes) of the stream blob that holds `payloads` one after another."""
    stream = b"".join(payloads)
    return digest_of(stream), stream


def pieces_of(digest: str, payloads: list[bytes]) -> dict[bytes, Piece]:
    """Where each payload lies in the stream that joins them."""
    found, offset = {}, 0
    for payload in payloads:
        found[payload] = Piece(digest, offset, len(payload), bytes_checksum(payload))
        offset += len(payload)
    return found
