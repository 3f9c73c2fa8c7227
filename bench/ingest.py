"""Durable ingest, without a fit, against reading the same windows with rasterio and writing them as LZW GeoTIFF."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from bench.baselines import profile
from bench.datasets import Dataset, choose
from bench.harness import ROUNDS, Bench, interleaved, median, ratio, run, workplace
from geostore.connection import connect
from geostore.ingest import ingest
from geostore.partition.split import split
from geostore.raster import Grid
from geostore.scene import find_scenes, open_scene
from geostore.storage import Store

SLOTS = (16, 64, 256)
BAR = 0.5


@dataclass(frozen=True)
class Cut:
    """One window of one scene: files and their band numbers, the window in them, and its grid."""

    files: dict[str, list[int]]
    window: tuple[int, int, int, int]  # row, col, height, width
    grid: Grid


def measure(bench: Bench) -> None:
    """Every data set at Q = 16 against the bare way; then files, bytes and seconds at larger Q."""
    with workplace() as folder:
        for dataset in choose(bench.quick, folder, seed=bench.seed):
            _dataset(bench, dataset, folder)
            bench.write()


def _dataset(bench: Bench, dataset: Dataset, folder: Path) -> None:
    cuts, nbytes = _cuts(dataset)
    fresh = (folder / f"{dataset.name}-{i}" for i in itertools.count())
    tasks: dict[str, Callable[[], object]] = {"bare": lambda: _bare(cuts, next(fresh))}
    made: dict[int, Path] = {}
    for slots in SLOTS:
        tasks[f"Q={slots}"] = partial(_durable, dataset, fresh, slots, made)
    seconds = interleaved(tasks, rounds=0 if bench.quick else _rounds(dataset))
    n = len(seconds["bare"])
    for name, taken in seconds.items():
        slots = int(name[2:]) if name != "bare" else 0
        files = [p for p in made[slots].rglob("*") if p.is_file()] if slots else []
        bench.row(
            data=dataset.name,
            way=f"geostore, durable, {name}" if slots else "bare rasterio read + LZW write, not flushed",
            scenes=len(list(find_scenes(dataset.sources, dataset.collection))),
            rasters=len(cuts),
            mb=nbytes / 1e6,
            seconds=None if bench.quick else median(taken),
            mb_s=None if bench.quick else nbytes / 1e6 / median(taken),
            files=len(files) or None,
            bytes_durable=sum(p.stat().st_size for p in files) or None,
        )
    for slots in SLOTS:
        bench.figure(
            f"{dataset.name}.ingest_q{slots}",
            None if bench.quick else ratio(seconds["bare"], seconds[f"Q={slots}"]),
            bar=BAR if slots == SLOTS[0] else None,
            better="higher",
            baseline="MB/s of the bare read + LZW write of the same windows",
            n=n,
        )


def _rounds(dataset: Dataset) -> int:
    """Fewer where one round has many scenes and takes long."""
    return 3 if len(dataset.sources) > 100 else ROUNDS


def _durable(dataset: Dataset, fresh: Iterator[Path], slots: int, made: dict[int, Path]) -> None:
    url = next(fresh)
    Store.create(url, slots=slots).close()
    with connect(url) as client:
        ingest(client, dataset.sources, dataset.collection, acquired=dataset.acquired)
    if slots in made:
        shutil.rmtree(made[slots])
    made[slots] = url


def _cuts(dataset: Dataset) -> tuple[list[Cut], int]:
    """The windows that ingest cuts, and the bytes of their pixels."""
    cuts, nbytes = [], 0
    for source in find_scenes(dataset.sources, dataset.collection):
        scene = open_scene(source, dataset.collection, time=dataset.acquired)
        for piece in split(scene, precision=dataset.collection.precision):
            native, grid = scene.grids[piece.group], piece.raster.grid
            at = native.offset_of(grid)
            assert at is not None, "the bench's scenes lie on the grids of their cells"
            files: dict[str, list[int]] = {}
            for band in dataset.collection.groups[piece.group]:
                plane = scene.planes.bands[band.name]
                files.setdefault(plane.file.href, []).append(plane.index + 1)
            cuts.append(Cut(files, (*at, *grid.shape), grid))
            nbytes += piece.raster.pixels.nbytes
        scene.close()
    return sorted(cuts, key=lambda c: tuple(c.files)), nbytes


def _bare(cuts: list[Cut], folder: Path) -> None:
    """What a script would do: open the scene's files once, read each window, write it as an LZW GeoTIFF."""
    folder.mkdir()
    for files, group in itertools.groupby(cuts, key=lambda c: tuple(c.files)):
        opened = {name: rasterio.open(name) for name in files}
        for cut in group:
            row, col, height, width = cut.window
            window = Window(col, row, width, height)
            pixels = np.concatenate([opened[name].read(bands, window=window) for name, bands in cut.files.items()])
            path = folder / f"{abs(hash((files, cut.grid)))}.tif"
            with rasterio.open(path, "w", **profile(pixels, cut.grid, compress="lzw")) as target:
                target.write(pixels)
        for file in opened.values():
            file.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(measure, "ingest")
