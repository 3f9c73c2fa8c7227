"""Bytes and errors of a fitted store against LZW, ZSTD, JPEG 2000, JPEG XL and LERC over the same rasters."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.baselines import LOSSLESS, LOSSY, Errors, Pool, at_error, spend
from bench.datasets import Dataset, choose
from bench.filled import codec_rows, raster_row, rows_collection, scene_row
from bench.harness import Bench, run, workplace
from bench.large_store import bytes_needed
from geostore.client import Client
from geostore.connection import connect
from geostore.ingest import ingest
from geostore.keys import RasterKey
from geostore.raster import Raster
from geostore.storage import Store

STEPS = 900  # of a fit, as in the demo
SLOT_BYTES, RASTER_BYTES, SEGMENT_ROW_BYTES = 32_768, 120, 64  # the table budget
_SAMPLE_VALUES = 4_000_000  # the quality of a lossy codec is searched on about so many


def measure(bench: Bench) -> None:
    """The table budget with many rows, then every data set."""
    with workplace() as folder:
        _segment(bench, folder / "segment.store")
        for dataset in choose(bench.quick, folder, seed=bench.seed):
            _dataset(bench, dataset, folder / f"{dataset.name}.store")
            bench.write()


def _dataset(bench: Bench, dataset: Dataset, url: Path) -> None:
    with connect(url, create=True) as client:
        ingest(client, dataset.sources, dataset.collection, acquired=dataset.acquired)
        originals = dict(_decoded(client, "original"))
        client.fit(steps_max=2 if bench.quick else STEPS, seed=bench.seed)
        before = client.status()
        client.prune(now=True)
        client.compact(now=True)
        after = client.status()
        pool = Pool()
        for key, raster in _decoded(client, "best"):
            pool.add(laid(originals[key], raster), raster.pixels)
    errors, rasters = pool.errors(), list(originals.values())
    lzw = after["bytes"]["source_lzw"]
    _ours(bench, dataset, before, after, errors)
    _theirs(bench, dataset, rasters, lzw, errors)
    _budget(bench, dataset, url)


def _decoded(client: Client, tier: Any) -> list[tuple[RasterKey, Raster]]:
    return [(info.key, raster) for info, raster in client.decode_rasters(client.rasters(), tier=tier)]


def laid(original: Raster, decoded: Raster) -> Raster:
    """The original on the grid it decodes to, which may be larger; what was not there is not valid."""
    offset = decoded.grid.offset_of(original.grid)
    assert offset is not None
    height, width = original.grid.shape
    where = np.s_[offset[0] : offset[0] + height, offset[1] : offset[1] + width]
    pixels, valid = np.zeros_like(decoded.pixels), np.zeros_like(decoded.valid)
    pixels[:, *where], valid[where] = original.pixels, original.valid
    return Raster(pixels=pixels, valid=valid, bands=decoded.bands, grid=decoded.grid)


def _ours(bench: Bench, dataset: Dataset, before: dict[str, Any], after: dict[str, Any], errors: Errors) -> None:
    sizes = after["bytes"]
    lzw, jxl = sizes["source_lzw"], sizes["source_jxl"]
    embeddings = sizes.get("embeddings", 0) + sizes.get("lossless", 0)
    for what, nbytes in (
        ("geostore: embeddings, and rasters kept lossless", embeddings),
        ("geostore: the same, codecs and masks", embeddings + sizes["codecs"] + sizes["masks"]),
        ("geostore: everything durable, as it lies after the fit", before["bytes"]["durable"]),
        ("geostore: everything durable, pruned and compacted", sizes["durable"]),
    ):
        _row(bench, dataset, what, nbytes, lzw, errors)
    name, best = dataset.name, "lossless JPEG XL of the same rasters, effort 7"
    bench.figure(f"{name}.ratio_embeddings", lzw / embeddings, better="higher", baseline="LZW GeoTIFF")
    bench.figure(f"{name}.ratio_durable", lzw / sizes["durable"], better="higher", baseline="LZW GeoTIFF")
    bench.figure(f"{name}.ratio_durable_jxl", jxl / sizes["durable"], better="higher", baseline=best)
    bench.figure(f"{name}.mse_n1", errors.mse, better="lower", baseline="the rasters as put")
    if errors.ndvi_mae is not None:
        bench.figure(f"{name}.ndvi_mae", errors.ndvi_mae, better="lower", baseline="the rasters as put")
        bench.figure(f"{name}.ndvi_p99", errors.ndvi_p99, better="lower", baseline="the rasters as put")
    missed = float(after["quality"]["missed"])
    bench.figure(f"{name}.missed_policy", missed, bar=0, better="lower", baseline="the collection's policy")


def _theirs(bench: Bench, dataset: Dataset, rasters: list[Raster], lzw: int, errors: Errors) -> None:
    exact = Errors(0.0, 0.0, *((None,) * 3 if errors.ndvi_mae is None else (0.0,) * 3))
    for name, size in LOSSLESS.items():
        _row(bench, dataset, name, sum(map(size, rasters)), lzw, exact)
    if not errors.mse:
        return  # everything was kept lossless: there is no error to be equal to
    usable = [r for r in rasters if r.valid.any()]
    sample = usable[:: max(1, round(sum(r.pixels.size for r in usable) / _SAMPLE_VALUES))]
    for name, (codec, _, _) in LOSSY.items():
        quality = at_error(sample, name, errors.mse, lambda e: e.mse, steps=2 if bench.quick else 8).quality
        spent = spend(rasters, codec, quality)
        _row(bench, dataset, f"{name}, at about the MSE of geostore", spent.nbytes, lzw, spent.errors)


def _row(bench: Bench, dataset: Dataset, what: str, nbytes: int, lzw: int, errors: Errors) -> None:
    found = {"mse_n1": errors.mse, "psnr_db": errors.psnr_db, **asdict(errors)}
    found.pop("mse")
    bench.row(data=dataset.name, stored_as=what, bytes=nbytes, lzw_ratio=lzw / nbytes, **found)


def _budget(bench: Bench, dataset: Dataset, url: Path) -> None:
    """What the tables hold beside payloads, against the budget of so much a slot and so much a raster."""
    with Store.open(url, readonly=True) as store:
        beside, rasters = _beside_payloads(store)
    slots = len(list((url / "tables").glob("slot=*")))
    bench.figure(
        f"{dataset.name}.table_budget",
        beside / (SLOT_BYTES * slots + RASTER_BYTES * rasters),
        bar=1.0,
        better="lower",
        baseline=f"{SLOT_BYTES} B a slot ({slots}) + {RASTER_BYTES} B a raster ({rasters})",
    )


def _beside_payloads(store: Store) -> tuple[int, int]:
    """(bytes of tables and streams beyond payloads, what rasters share, masks, vectors, codecs; current rasters)."""
    durable = store.bytes_durable()
    whole = durable["tables"] + durable["blobs/streams"] + durable["blobs/codecs"]
    needed, count = bytes_needed(store)
    vectors = sum(len(row.vector) for p in store.partitions() for row in store.rasters(p, payload=False))
    return whole - needed - vectors, count


def _segment(bench: Bench, url: Path) -> None:
    """The row budget of a large segment, with synthetic rows: cells x dates embeddings in one slot, compacted."""
    cells, dates = (5, 10) if bench.quick else (100, 200)
    Store.create(url, slots=1).close()
    with Store.open(url) as store:
        store.put_collection(rows_collection())
        store.commit([row for c in range(cells) for row in codec_rows(c)])
        for t in range(dates):
            store.commit([scene_row(t), *(raster_row(c, t, bench.seed) for c in range(cells))])
        store.compact(retain_days=0)
        beside, rows = _beside_payloads(store)
    bar = None if bench.quick else SEGMENT_ROW_BYTES
    what = f"synthetic rows, one slot: {rows} rasters of {cells} cells, {dates} scenes"
    bench.figure("segment.bytes_a_raster", beside / rows, bar=bar, better="lower", baseline=what)


if __name__ == "__main__":
    run(measure, "storage")
