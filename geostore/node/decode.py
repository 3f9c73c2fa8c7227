"""decode: pixels back from what is stored, with what is known of their errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from geostore.codec import COARSER, Codec, Layered, Member, RawCodec
from geostore.errors import Corrupt, NotFound, Overloaded, PolicyMissed
from geostore.keys import RasterKey
from geostore.node.facts import raster_fields
from geostore.node.reference import PREFIX, read_reference
from geostore.query import messages
from geostore.query.budget import ORIGINAL, Within, beyond, check_measured, check_within
from geostore.query.messages import Array, Progress, Reply, Tier
from geostore.query.tiers import first_layers, tier_named, tier_within
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
    check_within(request.within, request.tier)
    return decode_each(node, keys, request.bands, request.tier, request.within)


def _too_many(keys: int, fitting: int, bytes_max: int) -> Overloaded:
    return Overloaded(
        f"{keys} rasters decode to more than {bytes_max} bytes of pixels and masks (decode_bytes_max) in one answer; "
        f"ask for at most {fitting} of them at once, then for the next"
    )


def decode_each(
    node: Node,
    keys: Sequence[RasterKey],
    bands: list[str] | None = None,
    tier: Tier = "best",
    within: Within | None = None,
) -> Iterator[tuple[dict[str, Any], Raster]]:
    """Facts and pixels of each raster, in order: at `tier`, or at the coarsest whose certificate lies `within`.

    Only `bands`, in that order, if given.
    """
    rows = node.store.rows(keys)
    if within is not None:
        _check_waiting(node, rows, within)
    tiers = [_tier(row, tier, within) for row in rows]
    kept = [(row, at) for row, at in zip(rows, tiers, strict=True) if at != ORIGINAL]
    decoded = read_rows(node, [row for row, _ in kept], [at for _, at in kept])
    for row, at in zip(rows, tiers, strict=True):
        if at == ORIGINAL:
            yield _as_original(*_chosen(*_original(node, row, within), bands))
        else:
            fields, raster = _chosen(_at_tier(row, at), *next(decoded), bands)
            yield {**fields, **({"tier": at} if at in row.coarser else {})}, raster


def _check_waiting(node: Node, rows: Sequence[RasterRow], within: Within) -> None:
    """Refuse a budget on what will not be measured of rows that wait for a fit, as it is once they are fitted."""
    for name, group in {(r.key.collection, r.key.group) for r in rows if r.certificate is None}:
        check_measured(within, node.store.collection(name).indices_of(group))


def _tier(row: RasterRow, tier: Tier, within: Within | None) -> Tier:
    if within is not None:
        return tier_within(row.certificate, row.coarser, within)
    return tier_named(row.key, row.layers, row.coarser, tier)


def _at_tier(row: RasterRow, tier: Tier) -> RasterRow:
    """The row as if its first layers were all of it."""
    if tier not in row.coarser:
        return row
    return replace(row, certificate=row.coarser[tier], layers=first_layers(row.layers, tier))


def _as_original(fields: dict[str, Any], raster: Raster) -> tuple[dict[str, Any], Raster]:
    return {**fields, "tier": ORIGINAL, "layers": ORIGINAL}, raster


def _original(node: Node, row: RasterRow, within: Within | None) -> tuple[RasterRow, CodecRow, Raster]:
    try:
        return read_original(node, row.key)
    except NotFound as error:
        if within is None or row.certificate is None:
            raise
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


def read_rows(
    node: Node, rows: Sequence[RasterRow], tiers: Sequence[Tier] | None = None
) -> Iterator[tuple[CodecRow, Raster]]:
    """What each row holds, in order, see `read_row`; an answer's worth at a time, by `decode_threads` threads.

    Rows of one group are decoded together. `tiers` says at which tier each row is wanted, if not at its best.
    """
    wanted = tiers or ["best"] * len(rows)
    start = 0
    while start < len(rows):
        end = start + _fitting(node, rows[start:])
        yield from _read_batch(node, rows[start:end], wanted[start:end])
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


def _read_batch(node: Node, rows: Sequence[RasterRow], tiers: Sequence[Tier]) -> Iterator[tuple[CodecRow, Raster]]:
    tasks = _together(rows, tiers)
    begun = node.decoding.map([partial(_decode_task, node, rows, tiers, task) for task in tasks])
    done: dict[int, tuple[Pixels, Mask]] = {}
    for i, row in enumerate(rows):
        while i not in done:
            done |= next(begun)
        codec_row, codec = node.codec(row.key.partition, row.generation)
        grid = codec_row.cell.window(row.row, row.col, row.height, row.width)
        pixels, valid = done.pop(i)
        yield codec_row, Raster(pixels=pixels, valid=valid, bands=codec.bands, grid=grid)


def _together(rows: Sequence[RasterRow], tiers: Sequence[Tier]) -> list[list[int]]:
    """Which rows are decoded in one call, ordered by the first of each: those of a group at one tier."""
    found: dict[object, list[int]] = {}
    for i, (row, tier) in enumerate(zip(rows, tiers, strict=True)):
        group = (row.key.partition, row.generation, row.shared, tier) if row.shared else i
        found.setdefault(group, []).append(i)
    return list(found.values())


def _decode_task(
    node: Node, rows: Sequence[RasterRow], tiers: Sequence[Tier], task: Sequence[int]
) -> dict[int, tuple[Pixels, Mask]]:
    """Stored values and masks of rows that are decoded in one call, by their place."""
    first = rows[task[0]]
    codec = node.codec(first.key.partition, first.generation)[1]
    members = [(rows[i].payload, _valid(rows[i])) for i in task]
    if not first.shared:
        return {task[0]: (_decoded(codec, first, members[0], tiers[task[0]]), members[0][1])}
    seen = _decode_group(codec, first.shared, members, tiers[task[0]])
    pairs = zip(task, seen, members, strict=True)
    return {i: (_masked(codec, pixels, valid), valid) for i, pixels, (_, valid) in pairs}


def _valid(row: RasterRow) -> Mask:
    return unpack_mask(row.valid, (row.height, row.width))


def _decoded(codec: Codec, row: RasterRow, member: Member, tier: Tier) -> Pixels:
    """Stored values of a row that shares nothing."""
    valid = member[1]
    if not row.payload:
        return np.zeros((len(codec.bands), row.height, row.width), codec.bands.dtype)
    if row.lossless:
        return RawCodec(codec.bands).decode(row.payload, valid)
    (seen,) = _decode_group(codec, b"", [member], tier)
    return _masked(codec, seen, valid)


def _decode_group(codec: Codec, shared: bytes, members: Sequence[Member], tier: Tier) -> Sequence[Pixels]:
    if tier not in COARSER:
        return codec.decode_group(shared, members)
    found = codec.decode_coarser(tier, shared, members) if isinstance(codec, Layered) else []
    there = [pixels for pixels in found if pixels is not None]
    if len(there) < len(members):
        raise Corrupt(f"rows of {len(members)} rasters say they have a {tier}, {len(there)} payloads do; fit again")
    return there


def _masked(codec: Codec, seen: Pixels, valid: Mask) -> Pixels:
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
