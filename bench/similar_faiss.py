"""Search by signature against faiss's indexes of every kind in one run: flat, inverted lists, several hash tables.

Signatures are 5 million synthetic ones, and real ones: `spectral` of every window of a Sentinel-2 scene of Wales.
Seconds are CPU time of one thread. `--rows` measures another number of synthetic signatures.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from bench.across import wales
from bench.datasets import DATA
from bench.harness import Bench, median, run
from bench.similar import BITS, K, clock, over, signatures_made
from geostore.index.bits import Words, octets
from geostore.index.descriptors.spectral import Spectral
from geostore.index.hamming import nearest, within
from geostore.index.radius import key_lists, near
from geostore.index.rerank import quantise, two_stage
from geostore.index.signatures import rotation, signatures

ROWS, QUERIES = 5_000_000, 30
WINDOW, STEP = 16, 6  # pixels of 10 m
PROBES = (1, 4, 16, 64, 256)  # inverted lists that are read
RADII = {2: 0, 8: 1, 16: 2}  # bits that a key of 16 must be searched with, so that nothing within the radius is missed
CANDIDATES = (200, 2000)
WANTED = 0.95  # recall
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """Signatures by name, and where they are real the descriptors they were made of."""

    name: str
    words: Words
    descriptors: Floats | None = None


def measure(bench: Bench) -> None:
    """Every set of signatures, through every index."""
    import faiss

    faiss.omp_set_num_threads(1)
    for made in _sets(bench):
        rng = np.random.default_rng(bench.seed + 1)
        rows = rng.choice(made.words.shape[1], 3 if bench.quick else QUERIES, replace=False)
        queries = np.ascontiguousarray(made.words[:, rows].T)
        _inverted(bench, made, queries)
        _tables(bench, made, queries)
        if made.descriptors is not None:
            _stages(bench, made.name, made.words, made.descriptors, rows)
        bench.write()


def options(parser: argparse.ArgumentParser) -> None:
    """How much is measured."""
    parser.add_argument("--rows", type=int, default=ROWS, help="synthetic signatures")


def _sets(bench: Bench) -> Iterator[Made]:
    rows = 20_000 if bench.quick else int(bench.options["rows"])
    yield Made("synthetic", signatures_made(rows, np.random.default_rng(bench.seed))[0])
    if not bench.quick and (DATA / "s2_wales_landcover").is_dir():
        yield _real(bench.seed)


def _real(seed: int) -> Made:
    """Every window of the scene whose pixels may all be used."""
    place = wales()
    bands = next(iter(place.collection.groups.values()))
    with rasterio.open(place.source) as data:
        pixels = data.read()
    whole, found = np.ones((WINDOW, WINDOW), np.bool_), []
    for row in range(0, pixels.shape[1] - WINDOW + 1, STEP):
        for col in range(0, pixels.shape[2] - WINDOW + 1, STEP):
            window = np.ascontiguousarray(pixels[:, row : row + WINDOW, col : col + WINDOW])
            if window.all():
                found.append(Spectral().describe(window, whole, bands))
    descriptors = np.array(found, np.float32)
    return Made("real", signatures(rotation(descriptors, BITS, seed=seed), descriptors), descriptors)


def _inverted(bench: Bench, made: Made, queries: Words) -> None:
    """The k nearest: our scan, faiss flat, and its inverted lists with so many of them read."""
    import faiss

    flat, lists = faiss.IndexBinaryFlat(BITS), _trained(bench, made)
    flat.add(octets(made.words))
    seconds: dict[str, list[float]] = defaultdict(list)
    recall: dict[int, list[float]] = defaultdict(list)
    for query in queries:
        one = octets(np.ascontiguousarray(query[:, None]))
        tasks: dict[str, Callable[[], object]] = {
            "geostore": lambda q=query: nearest(made.words, q[None], K),
            "faiss flat": lambda o=one: flat.search(o, K),
        }
        clock(tasks, seconds)
        (true,) = nearest(made.words, query[None], K)
        assert (flat.search(one, K)[0][0] == true.distances).all()
        for probes in PROBES:
            lists.nprobe = probes
            clock({f"faiss IVF, {probes} lists": lambda o=one: lists.search(o, K)}, seconds)
            far = lists.search(one, K)[0][0]
            recall[probes].append(float((far <= true.distances[-1]).mean()))
    for task in seconds:
        probes = next((p for p in PROBES if task == f"faiss IVF, {p} lists"), None)
        share = 1.0 if probes is None else float(np.mean(recall[probes]))
        ratio = over(seconds, task, "geostore")
        bench.row(data=made.name, rows=made.words.shape[1], task=task, ms=1000 * median(seconds[task]),
                  over_geostore=ratio, recall=share)  # fmt: skip
    _figure(
        bench, f"{made.name}.flat", over(seconds, "faiss flat", "geostore"), "CPU seconds of our scan", len(queries)
    )
    enough = next((p for p in PROBES if np.mean(recall[p]) >= WANTED), None)
    if enough is not None:
        what = f"CPU seconds of our scan, which is exact; IVF with {enough} of {lists.nlist} lists, recall {WANTED}"
        _figure(bench, f"{made.name}.ivf", over(seconds, f"faiss IVF, {enough} lists", "geostore"), what, len(queries))


def _trained(bench: Bench, made: Made) -> Any:
    """Inverted lists of faiss, as many as the root of the rows."""
    import faiss

    rows, count = octets(made.words), int(np.sqrt(made.words.shape[1]))
    index = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(BITS), BITS, count)
    index.own_fields = False
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = 5, 64, 1
    begun = time.thread_time()
    index.train(rows)
    index.add(rows)
    bench.row(data=made.name, rows=len(rows), built=f"faiss IVF, {count} lists", seconds=time.thread_time() - begun)
    return index


def _tables(bench: Bench, made: Made, queries: Words) -> None:
    """All within a radius: our scan, our key lists, faiss's hash tables over the same keys."""
    import faiss

    begun = time.thread_time()
    lists = key_lists(made.words, BITS)
    ours = time.thread_time() - begun
    tables, begun = faiss.IndexBinaryMultiHash(BITS, BITS // 16, 16), time.thread_time()
    tables.add(octets(made.words))
    count = made.words.shape[1]
    bench.row(data=made.name, rows=count, built="key lists", seconds=ours)
    bench.row(data=made.name, rows=count, built="faiss MultiHash", seconds=time.thread_time() - begun)
    for radius, flips in RADII.items():
        tables.nflip = flips
        seconds: dict[str, list[float]] = defaultdict(list)
        for query in queries:
            one = octets(np.ascontiguousarray(query[:, None]))
            tasks: dict[str, Callable[[], object]] = {
                "scan": lambda q=query, r=radius: within(made.words, q, r),
                "geostore": lambda q=query, r=radius: near(made.words, lists, q, r),
                "faiss": lambda o=one, r=radius: tables.range_search(o, r + 1),
            }
            clock(tasks, seconds)
            wanted = set(within(made.words, query, radius).rows.tolist())
            assert set(tables.range_search(one, radius + 1)[2].tolist()) == wanted
            assert set(near(made.words, lists, query, radius).rows.tolist()) == wanted
        for task in seconds:
            bench.row(data=made.name, rows=count, radius=radius, by=task, ms=1000 * median(seconds[task]),
                      over_geostore=over(seconds, task, "geostore"))  # fmt: skip
        what = f"CPU seconds of our look-up within {radius} bits, hits equal"
        _figure(bench, f"{made.name}.multihash_{radius}", over(seconds, "faiss", "geostore"), what, len(queries))


def _stages(bench: Bench, name: str, words: Words, descriptors: Floats, rows: npt.NDArray[Any]) -> None:
    """Recall of signatures and int8 descriptors against all float descriptors, on real ones."""
    small, scales = quantise(descriptors)
    for candidates in CANDIDATES:
        recall = []
        for row in rows:
            query, signature = descriptors[row], np.ascontiguousarray(words[:, row])
            wanted = np.argpartition(-(descriptors @ query), K)[:K]
            found = two_stage(words, small, scales, signature, query, K, candidates=candidates)
            recall.append(len(set(found.rows.tolist()) & set(wanted.tolist())) / K)
        value, bar = float(np.mean(recall)), WANTED if candidates == CANDIDATES[-1] else None
        what = f"the 20 best of {words.shape[1]} float descriptors; {candidates} candidates"
        bench.figure(f"{name}.recall_{candidates}", value, bar=bar, better="higher", baseline=what, n=len(rows))


def _figure(bench: Bench, key: str, value: float, what: str, n: int) -> None:
    bench.figure(key, None if bench.quick else value, better="higher", baseline=what, n=n)


if __name__ == "__main__":
    run(measure, "similar_faiss", options=options)
