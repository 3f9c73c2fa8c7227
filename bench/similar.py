"""Similarity search in multiples of the time to read the signatures once: scan, radius, filters, against faiss.

`--rows 50000000` measures another size; 1 and 5 million otherwise. Everything is synthetic and on one thread; seconds
are CPU time of that thread, so that a busy machine disturbs little.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from bench.harness import Bench, median, run, workplace
from bench.similar_votes import votes
from geostore.index.bits import Words, bitmap_of, octets, pack_signatures
from geostore.index.coreset import core_set
from geostore.index.filters import Filter, plan
from geostore.index.hamming import nearest, within
from geostore.index.labels import AtLeast, Legend
from geostore.index.radius import key_lists, near
from geostore.index.rerank import quantise, two_stage
from geostore.index.rows import Rows, Space
from geostore.index.segment import Segment, write_segment
from geostore.index.selection import everything, select
from geostore.index.signatures import rotation, signatures
from geostore.index.spatial import where
from geostore.keys import time_us
from geostore.partition.geohash import encode_many

SIZES = (1_000_000, 5_000_000)
FILTERED_MAX = 10_000_000  # rows; with more, scan and radius alone, for the sake of memory
BITS, K, PRECISION = 128, 20, 5
WIDTH = 256  # components of a descriptor
ROWS_A_CELL = 100  # dates of a cell
SPACE = Space("synthetic", "-", "synthetic", "-", BITS, 0)
RADII = (0, 2, 8, 16, 20, 24, 32)
SHARES = (0.5, 0.05, 0.001)
LEGEND = Legend("synthetic", tuple(f"class {i}" for i in range(20)), {}, {})
_CHUNK = 250_000
Seconds = dict[str, list[float]]


@numba.njit(nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
def stream(words: Words) -> Any:
    """Read every word once: the plain sum that everything is held against."""
    total = np.uint64(0)
    for i in range(words.size):
        total += words[i]
    return total


def signatures_made(count: int, rng: np.random.Generator) -> tuple[Words, npt.NDArray[np.int32]]:
    """Synthetic signatures of 4,000 clusters of unequal size (power law) in 24 dimensions, and the cluster of each."""
    share = 1 / np.arange(1, 4001) ** 0.6
    cluster = rng.choice(4000, count, p=share / share.sum()).astype(np.int32)
    centres, planes = rng.normal(size=(4000, 24)).astype(np.float32), rng.normal(size=(24, BITS)).astype(np.float32)
    signatures = np.empty((BITS // 64, count), np.uint64)
    for at in range(0, count, _CHUNK):
        mine = cluster[at : at + _CHUNK]
        points = centres[mine] + 0.25 * rng.normal(size=(len(mine), 24)).astype(np.float32)
        signatures[:, at : at + _CHUNK] = pack_signatures(points @ planes > 0)
    return signatures, cluster


def rows_made(count: int, seed: int) -> Rows:
    """Synthetic rows; each cluster is at home in 24 cells, and a cell has about a hundred rows."""
    rng = np.random.default_rng(seed)
    signatures, cluster = signatures_made(count, rng)
    cells = _cells(count // ROWS_A_CELL, rng)
    at = (cluster.astype(np.int64) * 8 + rng.integers(0, 8, count)) * 2_654_435_761 % len(cells)
    years = [time_us(datetime(y, 1, 1, tzinfo=UTC)) for y in (2016, 2026)]
    return Rows(
        signatures=signatures,
        cells=cells[(at + rng.integers(0, 3, count)) % len(cells)],
        times_us=rng.integers(*years, count),
        owners=np.arange(count) // 32,
        keys=[b"%08d" % i for i in range(-(-count // 32))],
        numbers={"score": rng.random(count)},
        categories={"sensor": rng.choice(["sentinel-2a", "sentinel-2b", "landsat-8"], count)},
        labels=(rng.integers(0, 1 << 20, (1, count)) & rng.integers(0, 1 << 20, (1, count))).astype(np.uint64),
        legend=LEGEND,
    )


def _cells(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """About `count` cells in 40 compact regions, as archives cover countries."""
    middles = rng.uniform((-170, -55), (170, 65), (40, 2))
    spread = np.sqrt(count / 40) * 0.044 / 2
    at = middles[rng.integers(0, 40, 2 * count)] + rng.uniform(-spread, spread, (2 * count, 2))
    found: npt.NDArray[np.int64] = np.unique(
        encode_many(np.clip(at[:, 0], -180, 180), np.clip(at[:, 1], -89, 89), PRECISION)
    )
    return found


def clock(tasks: dict[str, Callable[[], object]], seconds: Seconds) -> None:
    """Run every task once, in turn; CPU seconds of this thread."""
    for name, task in tasks.items():
        begun = time.thread_time()
        task()
        seconds[name].append(time.thread_time() - begun)


def over(seconds: Seconds, above: str, below: str) -> float:
    """Median over rounds of one task's time over another's in the same round."""
    return median([a / b for a, b in zip(seconds[above], seconds[below], strict=True)])


def measure(bench: Bench, sizes: tuple[int, ...] = SIZES) -> None:
    """Each size in turn."""
    for size in (20_000,) if bench.quick else sizes:
        if size > FILTERED_MAX:
            words, _ = signatures_made(size, np.random.default_rng(bench.seed))
            _searched(bench, words)
        else:
            rows = rows_made(size, bench.seed)
            queries = _searched(bench, np.array(rows.signatures))
            with workplace() as folder:
                _filters(bench, _name(size), _written(bench, rows, folder / "rows.segment"), queries)
        bench.write()
    if max(sizes) <= FILTERED_MAX:
        votes(bench, *((50, 4) if bench.quick else (10_000, 15)))
    _two_stage(bench, 5000 if bench.quick else 500_000)
    _core_set(bench, *((2000, 20) if bench.quick else (200_000, 1000)))


def _core_set(bench: Bench, rows: int, picks: int) -> None:
    """Seconds a pick takes, against reading all signatures once; how well picks cover, against as many random rows."""
    words, cluster = signatures_made(rows, np.random.default_rng(bench.seed))
    flat, seconds = words.reshape(-1), defaultdict[str, list[float]](list)
    made = core_set(words, picks)  # compiled now
    for _ in range(1 if bench.quick else 5):
        tasks = {"stream": lambda: stream(flat), "picks": lambda: core_set(words, picks)}
        clock(tasks, seconds)
    drawn = np.random.default_rng(bench.seed).choice(rows, picks, replace=False)
    value, spread = over(seconds, "picks", "stream") / picks, core_set(words, picks, strata=cluster % 20)
    for what, picked in (("exact greedy", made.rows), ("stratified", spread.rows), ("random", drawn)):
        bench.row(rows=rows, core_set=what, picks=picks, covering_radius_bits=_reach(words, picked))
    _figure(bench, "core_set.pick", value, "CPU seconds of a plain sum over the same signatures, a pick", bar=1.0, n=5)


def _reach(words: Words, picked: npt.NDArray[Any]) -> int:
    """Bits from the row that is farthest from all picked ones to the nearest of these."""
    least = np.full(words.shape[1], 2 * BITS, np.int64)
    for row in picked:
        np.minimum(least, np.bitwise_count(words ^ words[:, row, None]).sum(axis=0, dtype=np.int64), out=least)
    return int(least.max())


def _two_stage(bench: Bench, count: int) -> None:
    """Signatures, then int8 descriptors, against all float descriptors; with and without a filter."""
    points = _points(count, np.random.default_rng(bench.seed))
    head = rotation(points[:50_000], BITS, seed=bench.seed)
    words, (small, scales) = signatures(head, points), quantise(points)
    few = np.flatnonzero(np.random.default_rng(7).random(count) < 0.05)
    chosen = {"": None, "_filtered": select(count, None, bitmap_of(few, count))}
    flat, seconds = points.reshape(-1).view(np.uint64), defaultdict[str, list[float]](list)
    recall: dict[str, list[float]] = defaultdict(list)
    for query in points[:: count // (3 if bench.quick else 50)]:
        signature = np.ascontiguousarray(signatures(head, query[None])[:, 0])
        tasks: dict[str, Callable[[], object]] = {"float stream": lambda: stream(flat)}
        for name, selection in chosen.items():
            tasks[f"two stages{name}"] = lambda s=signature, q=query, c=selection: two_stage(
                words, small, scales, s, q, K, selection=c
            )
            rows = np.arange(count) if selection is None else few
            wanted = rows[np.argpartition(-(points[rows] @ query), K)[:K]]
            found = two_stage(words, small, scales, signature, query, K, selection=selection)
            recall[name].append(len(set(found.rows.tolist()) & set(wanted.tolist())) / K)
        clock(tasks, seconds)
    n = len(seconds["float stream"])
    for name in chosen:
        value = over(seconds, f"two stages{name}", "float stream")
        bench.row(
            rows=count, width=WIDTH, stage=f"two stages{name}", over_float_stream=value, recall=np.mean(recall[name])
        )
        _figure(bench, f"two_stage{name}.time", value, "CPU seconds to read all float32 descriptors", bar=0.06, n=n)
        what = "the 20 best of all float32 descriptors"
        _figure(bench, f"two_stage{name}.recall", float(np.mean(recall[name])), what, bar=0.95, n=n, higher=True)


def _points(count: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """(count, WIDTH) float32 of length 1: clusters in 24 dimensions seen in WIDTH, with noise; synthetic."""
    share = 1 / np.arange(1, 4001) ** 0.6
    centres, seen = rng.normal(size=(4000, 24)).astype(np.float32), rng.normal(size=(24, WIDTH)).astype(np.float32)
    out = np.empty((count, WIDTH), np.float32)
    for at in range(0, count, _CHUNK):
        size = min(_CHUNK, count - at)
        latent = centres[rng.choice(4000, size, p=share / share.sum())] + 0.25 * rng.normal(size=(size, 24)).astype(
            np.float32
        )
        made = latent @ seen + 0.1 * rng.normal(size=(size, WIDTH)).astype(np.float32)
        out[at : at + size] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return out


def _searched(bench: Bench, words: Words) -> Words:
    """Measure scan and radius; the queries they were measured with."""
    size, rng = words.shape[1], np.random.default_rng(bench.seed + 1)
    count = 3 if bench.quick else 25 if size > FILTERED_MAX else 60
    queries = np.ascontiguousarray(words[:, rng.integers(0, size, 64)].T)
    _scan(bench, _name(size), words, queries[:count], queries)
    _radius(bench, _name(size), words, queries[:count])
    return queries[:count]


def _written(bench: Bench, rows: Rows, path: Path) -> Segment:
    begun = time.thread_time()
    write_segment(path, rows, space=SPACE, precision=PRECISION)
    taken = time.thread_time() - begun
    size = path.stat().st_size / len(rows)
    bench.row(rows=len(rows), what="segment written", seconds=taken, bytes_a_row=size)
    segment = Segment.open(path)
    segment.file.verify()  # reads every page once
    return segment


def _name(size: int) -> str:
    return f"{size // 1_000_000}m" if size >= 1_000_000 else "small"


def _scan(bench: Bench, name: str, words: Words, queries: Words, many: Words) -> None:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexBinaryFlat(BITS)
    index.add(octets(words))
    flat, seconds = words.reshape(-1), defaultdict[str, list[float]](list)
    _check_equal(index, words, many)
    for query in queries:
        one = query[None]
        tasks: dict[str, Callable[[], object]] = {
            "stream": lambda: stream(flat),
            "geostore, 1 query": lambda one=one: nearest(words, one, K),
            "geostore, 1 query, top 2000": lambda one=one: nearest(words, one, 2000),
            "faiss IndexBinaryFlat, 1 query": lambda one=one: index.search(octets(one.T), K),
        }
        clock(tasks, seconds)
    batch: Seconds = defaultdict(list)
    for _ in range(1 if bench.quick else 3):
        tasks = {
            "stream": lambda: stream(flat),
            "geostore, 64 queries": lambda: nearest(words, many, K),
            "faiss IndexBinaryFlat, 64 queries": lambda: index.search(octets(many.T), K),
        }
        clock(tasks, batch)
    _note(bench, name, seconds)
    _note(bench, name, batch)
    own, theirs = "geostore, 1 query", "faiss IndexBinaryFlat, 1 query"
    what = "CPU seconds of a plain sum over the same signatures"
    _figure(bench, f"{name}.scan", over(seconds, own, "stream"), what, bar=0.8, n=len(queries))
    what = "CPU seconds of the same queries, distances identical"
    _figure(bench, f"{name}.faiss_over_scan", over(seconds, theirs, own), what, bar=1.8, n=len(queries), higher=True)
    ratio = over(batch, "faiss IndexBinaryFlat, 64 queries", "geostore, 64 queries")
    _figure(bench, f"{name}.faiss_over_scan_64", ratio, what, bar=3.0, n=3, higher=True)


def _check_equal(index: Any, words: Words, queries: Words) -> None:
    far, _ = index.search(octets(queries.T), K)
    assert all((hits.distances == f).all() for hits, f in zip(nearest(words, queries, K), far, strict=True))


def _radius(bench: Bench, name: str, words: Words, queries: Words) -> None:
    begun = time.thread_time()
    lists = key_lists(words, BITS)
    taken = time.thread_time() - begun
    bench.row(rows=words.shape[1], what="key lists built", seconds=taken, bytes_a_row=lists.size_bytes / words.shape[1])
    flat, seconds = words.reshape(-1), defaultdict[str, list[float]](list)
    hits: dict[int, list[int]] = defaultdict(list)
    for query in queries:
        tasks: dict[str, Callable[[], object]] = {"stream": lambda: stream(flat)}
        for radius in RADII:
            tasks[f"scan within {radius}"] = lambda q=query, r=radius: within(words, q, r)
            tasks[f"chosen within {radius}"] = lambda q=query, r=radius: near(words, lists, q, r)
            found, wanted = near(words, lists, query, radius), within(words, query, radius)
            assert (found.rows == wanted.rows).all()
            hits[radius].append(len(wanted))
        clock(tasks, seconds)
    _note(bench, name, seconds)
    for radius in RADII:
        bench.row(rows=words.shape[1], radius=radius, hits=median(hits[radius]), hits_p90=_p90(hits[radius]))
    what = "CPU seconds of a plain sum over the same signatures"
    for radius, bar in ((2, 0.03), (8, 0.1)):
        _figure(bench, f"{name}.radius_{radius}", over(seconds, f"chosen within {radius}", "stream"), what, bar=bar,
                n=len(queries))  # fmt: skip
    worst = max(over(seconds, f"chosen within {r}", f"scan within {r}") for r in RADII)
    _figure(bench, f"{name}.radius_worst", worst, "CPU seconds of the scan at the same radius", bar=1.1, n=len(queries))


def _filters(bench: Bench, name: str, segment: Segment, queries: Words) -> None:
    words, whole = segment.signatures, everything(len(segment))
    cases = _cases(segment)
    flat, seconds = words.reshape(-1), defaultdict[str, list[float]](list)
    for query in queries:
        tasks: dict[str, Callable[[], object]] = {
            "stream": lambda: stream(flat),
            "no filter": lambda q=query: nearest(words, q[None], K, selection=whole),
        }
        for case, wanted in cases.items():
            tasks[case] = lambda q=query, w=wanted: nearest(words, q[None], K, selection=plan(segment, w).selection)
        clock(tasks, seconds)
    _note(bench, name, seconds)
    for case, wanted in cases.items():
        made = plan(segment, wanted)
        share = made.selection.count / max(len(segment), 1)
        bench.row(rows=len(segment), filter=case, share=share, runs=len(made.selection.runs), path=made.path)
        if case.startswith("box"):
            allowed = [1.3 * share * a + 1e-4 for a in seconds["no filter"]]
            value = median([a / b for a, b in zip(seconds[case], allowed, strict=True)])
            what = "1.3 x share of rows x CPU seconds of the unfiltered search + 0.1 ms"
            _figure(bench, f"{name}.{_slug(case)}", value, what, bar=1.0, n=len(queries))
        else:
            what = "CPU seconds of the unfiltered search"
            _figure(bench, f"{name}.{_slug(case)}", over(seconds, case, "no filter"), what, bar=1.5, n=len(queries))
    rare = over(seconds, "score 0.1 %", "stream")
    what = "CPU seconds of a plain sum over the signatures"
    _figure(bench, f"{name}.score_rare", rare, what, bar=0.05, n=len(queries))


def _cases(segment: Segment) -> dict[str, Filter]:
    cases = {f"box {100 * s:g} %": Filter(within=where(_box(segment, s))) for s in SHARES}
    cases |= {f"score {100 * s:g} %": Filter(numbers={"score": (0.3, 0.3 + s)}) for s in SHARES}
    cases["summer, one sensor"] = Filter(seasons=("summer",), categories={"sensor": ("sentinel-2a",)})
    cases["two labels"] = Filter(labels=AtLeast("class 3", "class 7"))
    year = [datetime(2019 + i, 6, 1, tzinfo=UTC) for i in range(2)]
    cases["polygon, year, label"] = Filter(
        within=where([(-20.0, 30.0), (60.0, 25.0), (70.0, 60.0), (10.0, 68.0)]), start=year[0], end=year[1],
        labels=AtLeast("class 5"),
    )  # fmt: skip
    return cases


def _box(segment: Segment, share: float) -> tuple[float, float, float, float]:
    """A box around 0 E, 5 N that holds about `share` of the rows, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        box = (-180 * middle, 5 - 85 * middle, 180 * middle, 5 + 85 * middle)
        runs = where(box).runs(segment.cells, segment.precision)
        low, high = (low, middle) if (runs[:, 1] - runs[:, 0]).sum() > share * len(segment) else (middle, high)
    return box


def _note(bench: Bench, name: str, seconds: Seconds) -> None:
    for task, taken in seconds.items():
        if task != "stream":
            ratio = over(seconds, task, "stream")
            bench.row(size=name, task=task, ms=1000 * median(taken), ms_p90=1000 * _p90(taken), over_stream=ratio)
    bench.row(size=name, task="stream", ms=1000 * median(seconds["stream"]), ms_p90=1000 * _p90(seconds["stream"]),
              over_stream=1.0)  # fmt: skip


def _p90(values: list[Any]) -> float:
    return float(np.quantile(np.asarray(values, np.float64), 0.9))


def _figure(
    bench: Bench, key: str, value: float, what: str, *, bar: float | None, n: int, higher: bool = False
) -> None:
    quick = None if bench.quick else value
    bar = None if key.startswith("1m.") else bar  # calls cost more than a million rows; bars are for 5 M and more
    bench.figure(key, quick, bar=bar, better="higher" if higher else "lower", baseline=what, n=n)


def _slug(case: str) -> str:
    return case.replace(" %", "").replace(", ", "_").replace(" ", "_").replace(".", "_")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    given, rest = parser.parse_known_args()
    run(lambda bench: measure(bench, tuple(given.rows)), "similar", rest)
