"""Cells by the votes of their parts among millions of synthetic chips: milliseconds, and how many cells were read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.harness import Bench, median, workplace
from geostore.index.filters import ALL, Filter
from geostore.index.ranked import Query
from geostore.index.rerank import quantise
from geostore.index.rows import Rows, Space
from geostore.index.segments import Segments
from geostore.index.signatures import Head, rotation, signatures
from geostore.index.votes import Layer, elected
from geostore.keys import time_us

BITS, WIDTH, HITS = 128, 64, 20
LOOKS, CHIPS, PRECISION = 40, 32, 4  # kinds of ground; chips of a cell; letters of a cell
START, DAY_US = datetime(2018, 1, 1, tzinfo=UTC), 86_400_000_000
HALF_YEAR = Filter(start=datetime(2018, 3, 1, tzinfo=UTC), end=datetime(2018, 8, 1, tzinfo=UTC))
Floats = npt.NDArray[np.float32]


def votes(bench: Bench, cells: int, dates: int) -> None:
    """Note what an election costs among `cells` cells of CHIPS chips at `dates` dates, with and without a filter."""
    with workplace() as folder:
        layers = _layers(folder, cells, dates, np.random.default_rng(bench.seed))
        segment, rows = layers[1].index.parts[0].segment, sum(len(layer.index) for layer in layers)
        assert segment.descriptors is not None
        chosen = np.random.default_rng(bench.seed + 1).integers(0, len(segment), 3 if bench.quick else 21)
        for name, wanted in (("all dates", ALL), ("half a year", HALF_YEAR)):
            taken, read = [], []
            for row in chosen:
                near = _unit(segment.descriptors[row].astype(np.float32))
                query = Query(np.ascontiguousarray(segment.signatures[:, row, None].T), near, segment.space)
                begun = time.thread_time()
                found = elected(layers, query, near[None], HITS, wanted=wanted)
                taken.append(time.thread_time() - begun)
                read.append(found.read / max(found.count, 1))
            ms = 1000 * median(taken[1:])  # the first opens the index
            bench.row(rows=rows, cells=cells, votes=name, ms=ms, cells_read=median(read))


def _layers(folder: Path, cells: int, dates: int, rng: np.random.Generator) -> list[Layer]:
    """Whole cells and chips: a cell has few of LOOKS kinds of ground, a chip one, seen with noise at every date."""
    looks = _unit(rng.normal(size=(LOOKS, WIDTH)))
    codes = np.sort(rng.choice(32**PRECISION, cells, replace=False)).astype(np.int64)
    mix = rng.dirichlet(np.full(LOOKS, 0.05), cells).cumsum(axis=1)
    kinds = (rng.random((cells, CHIPS, 1)) > mix[:, None, :]).sum(axis=2).clip(0, LOOKS - 1)
    chips = _unit(looks[kinds] + 0.09 * rng.normal(size=(cells, CHIPS, WIDTH)))
    head = rotation(np.zeros((2, WIDTH), np.float32), BITS)
    space = Space("synthetic", "-", head.name, "-", BITS, WIDTH)
    layers = []
    for letters, vectors in enumerate((chips.mean(axis=1, keepdims=True), chips)):
        index = Segments.create(folder / f"{letters}", space, PRECISION + letters, letters=letters)
        finer = codes[:, None] * CHIPS**letters + np.arange(vectors.shape[1])
        index.append(_rows(vectors, finer, dates, head, rng))
        layers.append(Layer(index, letters))
    return layers


def _rows(vectors: Floats, codes: npt.NDArray[Any], dates: int, head: Head, rng: np.random.Generator) -> Rows:
    """(cells, parts, WIDTH) vectors at every date; a raster owns the rows of a cell at one."""
    cells, parts, _ = vectors.shape
    small, scales, words = [], [], []
    for _ in range(dates):
        seen = _unit(vectors + 0.09 * rng.normal(size=vectors.shape).astype(np.float32)).reshape(-1, WIDTH)
        packed, steps = quantise(seen)
        small.append(packed)
        scales.append(steps)
        words.append(signatures(head, seen))
    owners = np.repeat(np.arange(cells * dates), parts)
    return Rows(
        signatures=np.concatenate(words, axis=1),
        cells=np.tile(codes.ravel(), dates),
        times_us=np.repeat(time_us(START) + 16 * DAY_US * np.arange(dates), cells * parts),
        owners=owners,
        keys=[b"%08d" % i for i in range(cells * dates)],
        descriptors=np.concatenate(small),
        scales=np.concatenate(scales),
    )


def _unit(vectors: npt.NDArray[Any]) -> Floats:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
