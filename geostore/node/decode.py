"""decode: pixels back from what is stored, with what is known of their errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore.codec import Codec, RawCodec
from geostore.errors import Corrupt, InvalidInput, NotFound, Overloaded, PolicyMissed
from geostore.keys import PartitionKey, RasterKey
from geostore.node.facts import raster_fields
from geostore.node.reference import PREFIX, read_reference
from geostore.query import messages
from geostore.query.budget import ORIGINAL, Within, beyond
from geostore.query.messages import Array, Progress, Reply
from geostore.raster import Mask, Pixels, Raster
from geostore.storage import CodecRow, RasterRow, pack_mask, unpack_mask

if TYPE_CHECKING:
    from geostore.node.node import Node


def decode(node: Node, request: messages.Decode, arrays: tuple[Array, ...], progress: Progress) -> Reply:
    """Decode each key; the reply's rasters name their arrays: `pixels` stored dtype, `valid` uint8.

    Raises:
        NotFound: a raster, or the tier asked for, is not there. Corrupt: stored bytes fail their check.
        PolicyMissed: a raster is not kept within the errors asked for, and its original is not kept either.
        Overloaded: several keys that together decode to more than `decode_bytes_max`.
    """
    found: list[dict[str, Any]] = []
    out: list[Array] = []
    size = 0
    keys = [RasterKey(**vars(key)) for key in request.keys]
    for i, (fields, raster) in enumerate(_chosen_each(node, keys, request)):
        size += raster.pixels.nbytes + raster.valid.nbytes
        if found and size > node.settings.decode_bytes_max:
            raise _too_many(len(request.keys), len(found), node.settings.decode_bytes_max)
        found.append({**fields, "pixels": len(out), "valid": len(out) + 1})
        out += [np.ascontiguousarray(raster.pixels), raster.valid.view(np.uint8)]
        progress("decode", (i + 1) / len(request.keys))
    return Reply({"rasters": found}, tuple(out))


def _chosen_each(
    node: Node, keys: Sequence[RasterKey], request: messages.Decode
) -> Iterator[tuple[dict[str, Any], Raster]]:
    if request.within is None:
        return decode_each(node, keys, request.bands, request.tier)
    if request.tier != "best":
        raise InvalidInput(f"tier {request.tier!r} and within {request.within} both say what to decode; give one")
    return decode_within(node, keys, request.within, request.bands)


def _too_many(keys: int, fitting: int, bytes_max: int) -> Overloaded:
    return Overloaded(
        f"{keys} rasters decode to more than {bytes_max} bytes of pixels and masks (decode_bytes_max) in one answer; "
        f"ask for at most {fitting} of them at once, then for the next"
    )


def decode_each(
    node: Node, keys: Sequence[RasterKey], bands: list[str] | None = None, tier: str = "best"
) -> Iterator[tuple[dict[str, Any], Raster]]:
    """Facts and pixels of each raster at `tier`, in order; only `bands`, in that order, if given."""
    if tier == "original":
        for key in keys:
            yield _as_original(*_chosen(*read_original(node, key), bands))
        return
    rows = node.store.rows(keys)
    for row in rows:
        if tier == "embedding" and (row.generation == 0 or row.lossless):
            raise NotFound(
                f"{row.key} has no embedding: it is kept lossless; decode it at tier best, or run `geostore fit`"
            )
    for row, (codec_row, raster) in zip(rows, read_rows(node, rows), strict=True):
        yield _chosen(row, codec_row, raster, bands)


def decode_within(
    node: Node, keys: Sequence[RasterKey], within: Within, bands: list[str] | None = None
) -> Iterator[tuple[dict[str, Any], Raster]]:
    """Facts and pixels of each raster, in order: as it is kept where its certificate lies within, else as it came."""
    rows = node.store.rows(keys)
    near = [row.certificate is None or not beyond(row.certificate, within) for row in rows]
    kept = read_rows(node, [row for row, stays in zip(rows, near, strict=True) if stays])
    for row, stays in zip(rows, near, strict=True):
        if stays:
            yield _chosen(row, *next(kept), bands)
        else:
            yield _as_original(*_chosen(*_original_within(node, row, within), bands))


def _as_original(fields: dict[str, Any], raster: Raster) -> tuple[dict[str, Any], Raster]:
    return {**fields, "tier": ORIGINAL, "layers": ORIGINAL}, raster


def _original_within(node: Node, row: RasterRow, within: Within) -> tuple[RasterRow, CodecRow, Raster]:
    try:
        return read_original(node, row.key)
    except NotFound as error:
        assert row.certificate is not None, "only what has a certificate can miss"
        raise PolicyMissed(f"{row.key} is kept with {beyond(row.certificate, within)}, and {error}") from error


def _chosen(
    row: RasterRow, codec_row: CodecRow, raster: Raster, bands: list[str] | None
) -> tuple[dict[str, Any], Raster]:
    fields = raster_fields(row, codec_row.cell, raster.bands, codec_row.family)
    if bands is not None:
        chosen = raster.bands.select(bands)
        raster = replace(raster, bands=chosen, pixels=raster.pixels[[raster.bands.index(b) for b in bands]])
        fields["bands"] = [b for name in bands for b in fields["bands"] if name in (b["name"], b["source"])]
    return fields, raster


def read_rows(node: Node, rows: Sequence[RasterRow]) -> Iterator[tuple[CodecRow, Raster]]:
    """What each row holds, in order, see `read_row`; rows of one group are decoded together, an answer's worth."""
    start = 0
    while start < len(rows):
        end = start + _fitting(node, rows[start:])
        yield from _read_batch(node, rows[start:end])
        start = end


def _fitting(node: Node, rows: Sequence[RasterRow]) -> int:
    """How many of `rows`, from the first, fit one answer; at least one."""
    size = 0
    for count, row in enumerate(rows):
        bands = node.codec(row.key.partition, row.generation)[1].bands
        size += row.height * row.width * len(bands) * bands.dtype.itemsize
        if count and size > node.settings.decode_bytes_max:
            return count
    return len(rows)


def _read_batch(node: Node, rows: Sequence[RasterRow]) -> Iterator[tuple[CodecRow, Raster]]:
    ahead: dict[int, Pixels] = {}
    for i, row in enumerate(rows):
        codec_row, codec = node.codec(row.key.partition, row.generation)
        if row.shared and i not in ahead:
            same = [j for j in range(i, len(rows)) if _group(rows[j]) == _group(row)]
            members = [(rows[j].payload, _valid(rows[j])) for j in same]
            ahead |= zip(same, codec.decode_group(row.shared, members), strict=True)
        valid = _valid(row)
        pixels = _decoded(codec, row, valid, ahead.pop(i, None))
        grid = codec_row.cell.window(row.row, row.col, row.height, row.width)
        yield codec_row, Raster(pixels=pixels, valid=valid, bands=codec.bands, grid=grid)


def _group(row: RasterRow) -> tuple[PartitionKey, int, bytes]:
    return row.key.partition, row.generation, row.shared


def _valid(row: RasterRow) -> Mask:
    return unpack_mask(row.valid, (row.height, row.width))


def _decoded(codec: Codec, row: RasterRow, valid: Mask, ahead: Pixels | None) -> Pixels:
    """Stored values of a row; `ahead` is what its group gave for it."""
    if not row.payload:
        return np.zeros((len(codec.bands), row.height, row.width), codec.bands.dtype)
    if row.lossless:
        return RawCodec(codec.bands).decode(row.payload, valid)
    seen = codec.decode(row.payload, valid) if ahead is None else ahead
    return np.where(valid, seen, np.zeros((), codec.bands.dtype))


def read_row(node: Node, row: RasterRow) -> tuple[CodecRow, Raster]:
    """What `row` holds, decoded onto its own window; pixels that may not be used are 0 unless it was never fitted."""
    return next(read_rows(node, [row]))


def exact_row(node: Node, current: RasterRow) -> RasterRow | None:
    """The row that still holds `current`'s raster exactly, or None: itself, the one `put` wrote, or a kept COG's."""
    if current.lossless:
        return current
    try:
        return node.store.raster(current.key, generation=0)
    except NotFound:
        return current if _kept(current) else None


def read_original(node: Node, key: RasterKey) -> tuple[RasterRow, CodecRow, Raster]:
    """The exact raster: its lossless row while that stands, else its kept COG, else what its scene still holds.

    Raises:
        NotFound: none of them is there any more, or the scene no longer holds what was put.
    """
    current = node.store.raster(key)
    row = exact_row(node, current)
    if row is None and current.original.startswith(PREFIX):
        return _read_referenced(node, current)
    if row is None:
        raise NotFound(f'the original of {key} is not kept (policy original = "drop"); decode it at tier best')
    if row.lossless:
        return (row, *read_row(node, row))
    return _read_kept(node, row)


def _read_referenced(node: Node, row: RasterRow) -> tuple[RasterRow, CodecRow, Raster]:
    """The raster cut once more from its scene, and the row as if it held that."""
    codec_row, _ = node.codec(row.key.partition, row.generation)
    raster = read_reference(node, row, codec_row.cell)
    top, left = codec_row.cell.offset_of(raster.grid) or (row.row, row.col)
    height, width = raster.grid.shape
    exact = replace(
        row,
        row=top,
        col=left,
        height=height,
        width=width,
        valid=pack_mask(raster.valid),
        certificate=None,
        lossless=True,
        layers="original",
    )
    return exact, codec_row, raster


def _kept(row: RasterRow) -> bool:
    return bool(row.original) and not row.original.startswith(PREFIX)


def _read_kept(node: Node, row: RasterRow) -> tuple[RasterRow, CodecRow, Raster]:
    """The kept COG laid into the row's window, with the row's mask."""
    from geostore.scene.writer import read_cog

    codec_row, codec = node.codec(row.key.partition, row.generation)
    grid = codec_row.cell.window(row.row, row.col, row.height, row.width)
    valid = unpack_mask(row.valid, grid.shape)
    kept, kept_grid = read_cog(node.store.original(row.key, row.original))
    offset = grid.offset_of(kept_grid)
    if offset is None:
        raise Corrupt(f"the kept original of {row.key} lies on {kept_grid}, its row on {grid}; restore or rebuild")
    pixels = np.zeros((len(codec.bands), *grid.shape), codec.bands.dtype)
    top, left = offset
    pixels[:, top : top + kept_grid.height, left : left + kept_grid.width] = kept
    exact = replace(row, certificate=None, lossless=True, layers="original")
    return exact, codec_row, Raster(pixels=pixels, valid=valid, bands=codec.bands, grid=grid)
