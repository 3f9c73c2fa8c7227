"""Rasters decoded a second: in this process, by the daemon, and read from LZW GeoTIFF and JPEG 2000 files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from bench.baselines import read_jpeg2000, read_tif, write_jpeg2000, write_tif
from bench.datasets import Dataset, choose
from bench.harness import ROUNDS, Bench, interleaved, median, ratio, run, workplace
from bench.wire import serve_store, served
from geostore.client import Client
from geostore.connection import connect
from geostore.ingest import ingest
from geostore.query.facts import RasterInfo
from geostore.settings import Settings

BAR = 1.3
STEPS = 150  # of the fit: how well it fits changes nothing in how long decoding takes
_VALUES_MAX = 40_000_000  # decoded in one timed task
_RASTERS_MIN = 32  # decoded in one timed task, so that it is not over in a blink; the same again where there are fewer


def measure(bench: Bench) -> None:
    """The largest partition of every data set, lossless as it was put and, where a codec is kept, as embeddings."""
    with workplace() as folder:
        for dataset in choose(bench.quick, folder, seed=bench.seed):
            _dataset(bench, dataset, folder)
            bench.write()


def _dataset(bench: Bench, dataset: Dataset, folder: Path) -> None:
    store = folder / f"{dataset.name}.store"
    with connect(store, create=True) as client:
        ingest(client, dataset.sources, dataset.collection, acquired=dataset.acquired)
        infos = _largest(client)
        files = _files(client, infos, folder / f"{dataset.name}.files")
    _measured(bench, dataset, store, infos, files, "lossless")
    with connect(store) as client:
        client.fit(geohash=infos[0].key.geohash, steps_max=2 if bench.quick else STEPS, seed=bench.seed)
        keys = {info.key for info in infos}
        fitted = [i for i in client.rasters(infos[0].key.geohash) if i.key in keys]
    kept = {i.codec for i in fitted if i.tier in ("embedding", "residual")}
    if kept:
        _measured(bench, dataset, store, fitted, files, "+".join(sorted(kept)))


def _largest(client: Client) -> list[RasterInfo]:
    """The rasters of the partition with the most decoded bytes, as many as a task may decode."""
    partitions: dict[object, list[RasterInfo]] = defaultdict(list)
    for info in client.rasters():
        partitions[info.key.partition].append(info)
    chosen = max(partitions.values(), key=lambda infos: sum(i.bytes_decoded for i in infos))
    size = max(i.bytes_decoded for i in chosen) // chosen[0].bands.dtype.itemsize
    return chosen[: max(1, _VALUES_MAX // size)]


def _files(client: Client, infos: list[RasterInfo], folder: Path) -> list[tuple[Path, int]]:
    """Each raster as an LZW GeoTIFF and as JPEG 2000 files: (path, bands)."""
    folder.mkdir()
    found = []
    for number, (info, raster) in enumerate(client.decode_rasters(infos)):
        path = folder / f"{number:04d}.tif"
        write_tif(path, raster)
        write_jpeg2000(path, raster)
        found.append((path, len(info.bands)))
    return found


def _measured(
    bench: Bench, dataset: Dataset, store: Path, infos: list[RasterInfo], files: list[tuple[Path, int]], kept: str
) -> None:
    with (
        connect(store, readonly=True) as local,
        connect(store, readonly=True, settings=Settings(decode_threads=1)) as alone,
        served(serve_store, str(store)) as address,
        connect(address) as remote,
    ):
        again = range(1 if bench.quick else -(-_RASTERS_MIN // len(infos)))
        tasks: dict[str, Callable[[], object]] = {
            "in process": lambda: [local.decode_rasters(infos) for _ in again],
            "in process, one thread": lambda: [alone.decode_rasters(infos) for _ in again],
            "through the daemon": lambda: [remote.decode_rasters(infos) for _ in again],
            "LZW GeoTIFF, rasterio": lambda: [read_tif(path) for _ in again for path, _ in files],
            "JPEG 2000 lossless": lambda: [read_jpeg2000(path, bands) for _ in again for path, bands in files],
        }
        if len(infos) > 1:
            tasks["in process, one by one"] = lambda: [local.decode_rasters([i]) for _ in again for i in infos]
            tasks["through the daemon, one by one"] = lambda: [remote.decode_rasters([i]) for _ in again for i in infos]
        seconds = interleaved(tasks, rounds=0 if bench.quick else 2 * ROUNDS - 1)
    shape = f"{len(infos[0].bands)} x {infos[0].grid.height} x {infos[0].grid.width}"
    mb, count = len(again) * sum(i.bytes_decoded for i in infos) / 1e6, len(again) * len(infos)
    for name, taken in seconds.items():
        rate = None if bench.quick else count / median(taken)
        mb_s = None if bench.quick else mb / median(taken)
        bench.row(data=dataset.name, kept=kept, raster=shape, way=name, rasters=len(infos), per_second=rate, mb_s=mb_s)
    _figures(bench, f"{dataset.name}.{kept.replace('+', '_')}", seconds)


def _figures(bench: Bench, prefix: str, seconds: dict[str, list[float]]) -> None:
    def over(above: str, below: str) -> float | None:
        return None if bench.quick else ratio(seconds[above], seconds[below])

    n, local, remote = len(seconds["in process"]), "in process", "through the daemon"
    what = "seconds in process, the whole partition in one request"
    bench.figure(f"{prefix}.daemon", over(remote, local), bar=BAR, better="lower", baseline=what, n=n)
    what = "seconds in process by one thread; ours by one for each core"
    bench.figure(f"{prefix}.threads", over(local, "in process, one thread"), better="lower", baseline=what, n=n)
    for key, name in (("over_lzw", "LZW GeoTIFF, rasterio"), ("over_jpeg2000", "JPEG 2000 lossless")):
        what = f"seconds to read the same rasters, {name}"
        bench.figure(f"{prefix}.{key}", over(local, name), better="lower", baseline=what, n=n)


if __name__ == "__main__":
    run(measure, "decode")
