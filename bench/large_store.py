"""Every file under the root of a large store, over the bytes that decoding needs; rows are synthetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.filled import codec_rows, raster_row, rows_collection, scene_row
from bench.harness import Bench, run, workplace
from geostore.storage import RasterRow, Store, pack_mask

CELLS, DATES, SLOTS = 250, 400, 16
PAYLOAD_BYTES = (200, 500)  # a raster of 100 px is kept in so many at the default policy
DATES_A_COMMIT = 20
_MASKS = 64  # drawn, and used again and again


def measure(bench: Bench) -> None:
    """Fill a store, compact it, and sum up its files."""
    with workplace() as folder:
        _fill(folder / "store", bench)
        with Store.open(folder / "store", readonly=True) as store:
            needed, rasters = _needed(store)
            durable = store.bytes_durable()
    for part, size in durable.items():
        bench.row(part=part, bytes=size, bytes_a_raster=size / rasters)
    bench.row(part="payloads, masks and codecs", bytes=needed, bytes_a_raster=needed / rasters)
    whole = sum(durable.values())
    what = f"payloads, masks and codecs of {rasters} synthetic rasters in {SLOTS} slots, after compact"
    bench.figure("over_codec_bytes", whole / needed, bar=None if bench.quick else 1.25, better="lower", baseline=what)


def _fill(url: Path, bench: Bench) -> None:
    cells, dates = (4, 40) if bench.quick else (CELLS, DATES)
    masks = _masks(np.random.default_rng(bench.seed))
    Store.create(url, slots=SLOTS).close()
    with Store.open(url) as store:
        store.put_collection(rows_collection())
        store.commit([row for c in range(cells) for row in codec_rows(c)])
        for t in range(0, dates, DATES_A_COMMIT):
            some = range(t, min(t + DATES_A_COMMIT, dates))
            scenes = [scene_row(d) for d in some]
            store.commit([*scenes, *(_small(c, d, bench.seed, masks) for c in range(cells) for d in some)])
        store.compact(retain_days=0)


def _small(cell: int, date: int, seed: int, masks: list[bytes]) -> RasterRow:
    """A row as a fit writes it, in few bytes: what lies beside the payload then weighs most."""
    rng = np.random.default_rng((seed, cell, date, 1))
    size = int(rng.integers(*PAYLOAD_BYTES))
    valid = masks[int(rng.integers(len(masks)))]
    return replace(raster_row(cell, date, seed), payload=rng.bytes(size), valid=valid, vector=rng.bytes(16))


def _masks(rng: np.random.Generator) -> list[bytes]:
    """Packed masks of 64 px: a cloud of any size, in every third none."""
    rows, columns = np.mgrid[:64, :64]
    found = []
    for i in range(_MASKS):
        row, column, radius = rng.integers(0, 64), rng.integers(0, 64), rng.integers(0, 30) if i % 3 else 0
        found.append(pack_mask((rows - row) ** 2 + (columns - column) ** 2 >= radius**2))
    return found


def _needed(store: Store) -> tuple[int, int]:
    """(bytes of payloads, masks and codecs; rasters)."""
    needed = count = 0
    for partition in store.partitions():
        needed += sum(len(row.data) for row in store.generations(partition))
        rows = store.rasters(partition, payload=False)
        needed += sum(row.payload_bytes + len(row.valid) for row in rows)
        count += len(rows)
    return needed, count


if __name__ == "__main__":
    run(measure, "large_store")
