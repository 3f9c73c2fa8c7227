"""Every file under the root of large stores, over the bytes that decoding needs; rows are synthetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from bench.filled import codec_rows, raster_row, rows_collection, scene_row
from bench.harness import Bench, run, workplace
from geostore.storage import RasterRow, Store, pack_mask

CELLS, DATES, SLOTS = 250, 400, 16
PIXELS = 64  # of a mask's side
SEEN = (0.1, 1.0)  # of a mask is usable
STREAM_BYTES = {  # a raster takes of its group's stream, at the default policy
    "cells_in_part": (40, 200),  # Romania's two cells in the demo, 28 and 88 columns of 10 m: 120 on the whole
    "whole_cells": (800, 2400),  # of 490 x 345 pixels: `romania`, 96 x 96, takes 86
}
GROUP = 100  # dates that share a stream


def measure(bench: Bench) -> None:
    """Fill stores, compact them, and sum up their files."""
    for kind, stream_bytes in STREAM_BYTES.items():
        with workplace() as folder:
            _fill(folder / "store", bench, stream_bytes)
            with Store.open(folder / "store", readonly=True) as store:
                needed, rasters = bytes_needed(store)
                durable = store.bytes_durable()
        for part, size in durable.items():
            bench.row(rasters=kind, part=part, bytes=size, bytes_a_raster=size / rasters)
        bench.row(rasters=kind, part="payloads, masks and codecs", bytes=needed, bytes_a_raster=needed / rasters)
        whole = sum(durable.values())
        what = f"payloads, masks and codecs of {rasters} synthetic rasters in {SLOTS} slots, after compact"
        bar, budget = (None, None) if bench.quick else (1.25, 64)
        bench.figure(f"over_codec_bytes.{kind}", whole / needed, bar=bar, better="lower", baseline=what)
        beside = (whole - needed) / rasters
        bench.figure(f"beside_a_raster.{kind}", beside, bar=budget, better="lower", baseline="bytes, of the same")


def _fill(url: Path, bench: Bench, stream_bytes: tuple[int, int]) -> None:
    cells, dates = (4, 40) if bench.quick else (CELLS, DATES)
    Store.create(url, slots=SLOTS).close()
    with Store.open(url) as store:
        store.put_collection(rows_collection())
        store.commit([scene_row(d) for d in range(dates)])
        for cell in range(cells):
            store.commit([*codec_rows(cell), *_fitted(cell, dates, stream_bytes, bench.seed)])
        store.compact(retain_days=0)


def _fitted(cell: int, dates: int, stream_bytes: tuple[int, int], seed: int) -> list[RasterRow]:
    """Rows as a fit of `klt-dct` writes them, in few bytes: what lies beside these then weighs most."""
    rng, rows = np.random.default_rng((seed, cell, 1)), []
    for begin in range(0, dates, GROUP):
        some = range(begin, min(begin + GROUP, dates))
        shared = rng.bytes(int(rng.integers(*stream_bytes, len(some)).sum()))
        for place, date in enumerate(some):
            row = replace(raster_row(cell, date, seed), shared=shared, payload=rng.bytes(2) + bytes([place]))
            rows.append(replace(row, valid=_mask(rng), layers="klt+dct", vector=b""))
    return rows


def _mask(rng: np.random.Generator) -> bytes:
    """A packed mask of ragged clouds, in every third none."""
    height = ndimage.gaussian_filter(rng.normal(size=(PIXELS, PIXELS)), 6) if rng.random() < 2 / 3 else np.zeros(1)
    return pack_mask(np.broadcast_to(height <= np.quantile(height, rng.uniform(*SEEN)), (PIXELS, PIXELS)))


def bytes_needed(store: Store) -> tuple[int, int]:
    """(bytes of payloads, masks and codecs, what rasters share counted once; rasters)."""
    needed = count = 0
    for partition in store.partitions():
        needed += sum(len(row.data) for row in store.generations(partition))
        rows = store.rasters(partition, payload=False)
        needed += sum(row.payload_bytes + len(row.valid) for row in rows)
        needed += sum({row.unread.group: row.shared_bytes for row in rows if row.unread is not None}.values())
        count += len(rows)
    return needed, count


if __name__ == "__main__":
    run(measure, "large_store")
