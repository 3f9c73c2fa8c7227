"""Search through a daemon: an index of five million synthetic rasters, questions with a polygon, a season and labels.

Milliseconds are wall clock at the client, one question after the other, on the cores there are. `--rows 50000000`
measures another size; `--folder DIR` keeps the store with the index, which takes minutes to make.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from bench.harness import Bench, run, workplace
from geostore import AtLeast
from geostore.client import Client, Hits
from geostore.codec import RawCodec
from geostore.collection import Collection
from geostore.connection import connect
from geostore.index.labels import Legend
from geostore.index.rows import Rows
from geostore.keys import PartitionKey, RasterKey, time_us
from geostore.node import Node
from geostore.node.search.labelling import labelling_of
from geostore.node.search.levels import RASTER, Levels
from geostore.node.search.models import SearchModel
from geostore.partition.geohash import encode_many, names_of
from geostore.partition.grid import cell_grid
from geostore.partition.split import Split
from geostore.query.messages import SceneFields
from geostore.raster import Band, Bands, Raster
from geostore.settings import Settings
from geostore.storage import CodecRow
from geostore.storage.standing import state_of

ROWS = 5_000_000
ROWS_A_CELL, CLUSTERS = 100, 4000
QUESTIONS, WARM = 60, 5
BAR_MS = 50.0
LABELS = tuple(f"class {i}" for i in range(20))
BANDS = Bands(tuple(Band(n, n, 1000.0, valid_max=10_000, scale=1e-4) for n in ("blue", "green", "red", "nir")))
_CHUNK = 250_000
Ask = Callable[[Client, int], Hits]


def store_made(root: Path, count: int, seed: int) -> None:
    """A store with one real raster, and an index of `count` synthetic ones that says it is level with it."""
    collection = Collection(name="synthetic", groups={"1km": BANDS}, precision=5)
    with connect(root, create=True) as client:
        client.put_collection(collection)
        cell = cell_grid("u2pc0", "EPSG:32634", 1000.0, 1000.0, (0.0, 0.0))
        pixels = np.random.default_rng(seed).integers(100, 4000, (4, *cell.shape)).astype(np.uint16)
        raster = Raster(pixels=pixels, valid=np.ones(cell.shape, np.bool_), bands=BANDS, grid=cell)
        client.put(
            "synthetic",
            SceneFields(id="s", time_us=0),
            [Split(geohash="u2pc0", group="1km", cell=cell, row=0, col=0, raster=raster)],
        )
        for name in LABELS:  # so that the store's legend has them all
            client.label([("u2pc0", "1970-01-01")], [name])
    with Node.open(str(root), settings=Settings()) as node:
        model = node.following.model(BANDS)
        levels = Levels(node.following.root / model.name, model.space, node.store.id)
        legend = labelling_of(node.store.events()).legend
        assert legend is not None
        rows = rows_made(model, legend, count, seed)
        node.store.commit(_partitions(np.unique(rows.cells)))  # a question costs what many partitions cost
        levels.append(RASTER, 5, rows)
        levels.note(state_of(node.store))


def _partitions(cells: npt.NDArray[np.int64]) -> list[CodecRow]:
    """The lossless codec of every cell, as the first raster put there would leave it."""
    grid, data = cell_grid("u2pc0", "EPSG:32634", 1000.0, 1000.0, (0.0, 0.0)), RawCodec(BANDS).to_bytes()
    names = [PartitionKey("synthetic", str(name), "1km") for name in names_of(cells, 5)]
    height, width = grid.shape
    return [
        CodecRow(
            partition=p, generation=0, family="raw", cell=grid, row=0, col=0, height=height, width=width, data=data
        )
        for p in names
    ]


def rows_made(model: SearchModel, legend: Legend, count: int, seed: int) -> Rows:
    """Synthetic rasters: descriptors of clusters of unequal size, ten years, forty regions, three sensors, labels."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, CLUSTERS + 1) ** 0.6
    cluster = rng.choice(CLUSTERS, count, p=share / share.sum())
    cells = _cells(count // ROWS_A_CELL, rng)
    mine = cells[(cluster * 8 + rng.integers(0, 24, count)) * 2_654_435_761 % len(cells)]
    first, last = (time_us(datetime(y, 1, 1, tzinfo=UTC)) for y in (2016, 2026))
    times = rng.integers(first, last, count)
    small, scales, words = _described(model, cluster, rng)
    keys = [RasterKey("synthetic", str(g), "1km", int(t), "s").to_bytes() + b"%08d" % i
            for i, (g, t) in enumerate(zip(names_of(mine, 5), times, strict=True))]  # fmt: skip
    return Rows(
        signatures=words,
        cells=mine,
        times_us=times,
        owners=np.arange(count),
        keys=keys,
        descriptors=small,
        scales=scales,
        numbers={"valid_fraction": rng.random(count), "mse": rng.random(count) * 1e-3},
        categories={
            "sensor": rng.choice(["sentinel-2a", "sentinel-2b", "landsat-8"], count),
            "collection": np.full(count, "synthetic"),
            "group": np.full(count, "1km"),
        },
        labels=(rng.integers(0, 1 << 20, (1, count)) & rng.integers(0, 1 << 20, (1, count))).astype(np.uint64),
        legend=legend,
    )


def _cells(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """About `count` cells in 40 compact regions, as archives cover countries."""
    middles = rng.uniform((-170, -55), (170, 65), (40, 2))
    spread = np.sqrt(count / 40) * 0.044 / 2
    at = middles[rng.integers(0, 40, 2 * count)] + rng.uniform(-spread, spread, (2 * count, 2))
    return np.unique(encode_many(np.clip(at[:, 0], -180, 180), np.clip(at[:, 1], -89, 89), 5))


def _described(model: SearchModel, cluster: npt.NDArray[Any], rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """int8 descriptors, scales and signatures: the cluster's centre and noise of a third of its length."""
    width = model.space.width
    centres = rng.normal(size=(CLUSTERS, width)).astype(np.float32)
    parts = []
    for at in range(0, len(cluster), _CHUNK):
        mine = centres[cluster[at : at + _CHUNK]]
        mine = mine + 0.33 * rng.normal(size=mine.shape).astype(np.float32)
        parts.append(model.pack((mine / np.linalg.norm(mine, axis=1, keepdims=True)).astype(np.float32)))
    small, scales, words = zip(*parts, strict=True)
    return np.concatenate(small), np.concatenate(scales), np.concatenate(words, axis=1)


@contextmanager
def daemon(root: Path) -> Iterator[str]:
    """The address of a real daemon of the store, in a process of its own."""
    ports = root.parent / f"ports-{os.getpid()}.json"
    command = [sys.executable, "-m", "geostore.daemon", "--store", str(root), "--port-file", str(ports)]
    process = subprocess.Popen([*command, "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"])
    try:
        while not ports.exists():
            assert process.poll() is None, "the daemon ended"
            time.sleep(0.05)
        yield str(json.loads(ports.read_text())["address"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        ports.unlink(missing_ok=True)


def questions(root: Path, seed: int) -> dict[str, Ask]:
    """Each kind of question, by number; every number asks about another place, point and labels."""
    with Node.open(str(root), settings=Settings(), readonly=True) as node:
        levels = node.following.level(node.following.model(BANDS))
        segment = levels.at(RASTER)[0].parts[0].segment
        rng = np.random.default_rng(seed + 1)
        chosen = np.sort(rng.choice(len(segment), QUESTIONS + WARM, replace=False))
        assert segment.descriptors is not None
        vectors = segment.descriptors[chosen].astype(np.float32)
        places = names_of(segment.cells[chosen], 5)
    from geostore.partition.geohash import centre

    middles = [centre(str(name)) for name in places]
    seasons = ("winter", "spring", "summer", "autumn")

    def polygon(i: int) -> shapely.Polygon:
        """Eleven corners around the place, some 600 km across: an outline, not a box."""
        lon, lat = np.clip(middles[i][0], -170, 170), np.clip(middles[i][1], -80, 80)
        turn = np.linspace(0, 2 * np.pi, 12)[:-1]
        far = 3 + np.sin(3 * turn + i)
        return shapely.Polygon(np.column_stack([lon + far * np.cos(turn), lat + far * np.sin(turn)]))

    def labels(i: int) -> AtLeast:
        return AtLeast(LABELS[i % 20], LABELS[(i + 7) % 20])

    def filters(i: int) -> dict[str, Any]:
        return {"within": polygon(i), "season": seasons[i % 4], "labels": labels(i)}

    return {
        "polygon_season_labels": lambda client, i: client.similar(vectors[i], **filters(i)),
        "polygon_season_labels_radius": lambda client, i: client.similar(vectors[i], radius=24, **filters(i)),
        "season_labels": lambda client, i: client.similar(vectors[i], season=seasons[i % 4], labels=labels(i)),
        "polygon": lambda client, i: client.similar(vectors[i], within=polygon(i)),
        "no_filter": lambda client, i: client.similar(vectors[i]),
    }


def measure(bench: Bench) -> None:
    """Make the store if it is not there, then ask through a daemon; the first answers must be this process's own."""
    folder: Path | None = bench.options.get("folder")
    if folder is None:
        with workplace() as place:
            _measure(bench, place)
    else:
        _measure(bench, folder)


def _measure(bench: Bench, folder: Path) -> None:
    size = 20_000 if bench.quick else bench.options.get("rows", ROWS)
    root = folder / f"store-{size}"
    if not root.exists():
        store_made(root, size, bench.seed)
    asked = questions(root, bench.seed)
    with daemon(root) as address, connect(address) as client, connect(root, readonly=True) as here:
        bench.row(question="first of all, which opens the index", ms_median=_timed(asked["no_filter"], client, 0)[0])
        for name, ask in asked.items():
            taken: list[float] = []
            counts: list[int] = []
            for i in range(QUESTIONS + WARM):
                ms, hits = _timed(ask, client, i)
                counts.append(hits.count)
                if i >= WARM:
                    taken.append(ms)
                elif hits.to_dict() != ask(here, i).to_dict():
                    raise AssertionError(f"{name}: the daemon's answer is not this process's")
            _note(bench, name, taken, counts)


def _timed(ask: Ask, client: Client, i: int) -> tuple[float, Hits]:
    begun = time.perf_counter()
    hits = ask(client, i)
    return 1000 * (time.perf_counter() - begun), hits


def _note(bench: Bench, name: str, taken: list[float], counts: list[int]) -> None:
    median, worst = float(np.median(taken)), float(np.quantile(taken, 0.95))
    bench.row(question=name, ms_median=median, ms_p95=worst, rows_met_median=int(np.median(counts)))
    bar = BAR_MS if name == "polygon_season_labels" else None
    what = "milliseconds at the client of a daemon, 5 M rasters; Curator states < 1000 unfiltered"
    value = None if bench.quick else median
    bench.figure(f"{name}.ms_median", value, bar=bar, better="lower", baseline=what, n=len(taken))
    bench.figure(f"{name}.ms_p95", None if bench.quick else worst, bar=bar, better="lower", baseline=what, n=len(taken))


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=ROWS, help="rasters in the index")
    parser.add_argument("--folder", type=Path, default=None, help="where the store is kept, and found again")


if __name__ == "__main__":
    run(measure, "similar_daemon", options=_options)
