"""`geostore fit` on a store of many small synthetic cells: core seconds of both families against each to its end.

It says what fitting deltas together could save of a fit: how many cells have anything fitted, and in a series long
enough for a delta, which share of its fit that is.
"""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.harness import Bench
from geostore import connect
from geostore.codec import Effort, Series, quiet
from geostore.collection import Collection, Files, Policy
from geostore.ingest import ingest
from geostore.node.encode import fit_series
from geostore.raster import Bands, Grid
from geostore.scene.synthetic import BANDS, Synthetic, write_scenes
from geostore.vae.borrow import borrow_codec

_GSD_M = 20.0
_ROWS, _COLUMNS = 236, 306  # pixels of 20 m that 8 x 8 cells of six letters cover, about
_DATES = 8
_WORKERS = 2
_POLICIES = {
    "both": Policy(),
    "vae": Policy(rivals=()),
    "klt-av1": Policy(codec="klt-av1", rivals=()),
}


def measure(bench: Bench, folder: Path) -> None:
    """The same scenes in a store for each policy, fitted by two workers."""
    side = (_ROWS, _COLUMNS) if not bench.quick else (24, 24)
    grid = Grid("EPSG:32633", 500_070.0, 5_500_000.0, _GSD_M, _GSD_M, *side)
    bands = Bands(tuple(replace(band, gsd_m=_GSD_M) for band in BANDS))
    dates = 2 if bench.quick else _DATES
    made = Synthetic(seed=bench.seed, grid=grid, bands=bands, dates=dates, cloud_share=0.1)
    sources = write_scenes(made, folder / "scenes")
    rows = {}
    for name in ["both"] if bench.quick else _POLICIES:
        collection = Collection(
            name="cells",
            groups={"20m": bands},
            precision=6,
            policy=_POLICIES[name],
            files=Files(positional=bands.names, nodata="file"),
        )
        rows[name] = _fitted(folder / f"{name}.store", sources, collection, bench)
        bench.row(store=name, **rows[name])
    if len(rows) < len(_POLICIES):
        return
    both = rows["both"]
    bench.figure(
        "node.both_over_each_alone",
        both["core_s"] / (rows["vae"]["core_s"] + rows["klt-av1"]["core_s"]),
        better="lower",
        baseline=f"core seconds of `geostore fit` on {both['cells']} cells with each family alone, added up",
    )
    bench.figure(
        "node.bytes_over_smaller",
        both["stored"] / min(rows["vae"]["stored"], rows["klt-av1"]["stored"]),
        bar=1.0,
        better="lower",
        baseline="bytes stored with the family that takes fewer",
    )
    bench.figure(
        "node.cells_optimised",
        both["optimised"] / both["cells"],
        better="lower",
        baseline="cells: in so many a delta or a network was fitted, which fitting together could do",
    )


def _fitted(root: Path, sources: list[Path], collection: Collection, bench: Bench) -> dict[str, Any]:
    """Core and wall seconds of one fit, and what it stored."""
    with connect(root, create=True) as client:
        ingest(client, sources, collection)
        begun, cores = time.perf_counter(), _core_s()
        client.fit(workers=1 if bench.quick else _WORKERS, seed=bench.seed)
        wall_s, core_s = time.perf_counter() - begun, _core_s() - cores
        status = client.status(partitions=True)
    return {
        "cells": status["partitions"],
        "wall_s": wall_s,
        "core_s": core_s,
        "stored": status["bytes"]["stored"],
        "within_policy": status["quality"]["within_policy"],
        "optimised": sum(bool(place["fits"]) for place in status["per_partition"]),
    }


def _core_s() -> float:
    """Processor seconds of this process and of all that ended which it started."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def delta_share(bench: Bench, series: Series, policy: Policy) -> None:
    """Which share of a fit without rivals the fitting of a delta is."""
    effort = Effort(seed=bench.seed)
    begun = time.process_time()
    borrow_codec(series, policy=policy, effort=effort)
    middle = time.process_time()
    borrow_codec(series, policy=policy, effort=effort, delta="whole")
    end = time.process_time()
    found = fit_series("vae", None, series, policy, effort, quiet)
    whole = time.process_time() - end
    delta = (end - middle) - (middle - begun)
    bench.row(dates=len(series), delta_core_s=delta, fit_core_s=whole, reason=str(found.facts["reason"]))
    bench.figure(
        "delta_over_fit.long",
        delta / whole,
        better="lower",
        baseline="core seconds of a fit without rivals; fitting together takes 0.6 of the delta's part",
    )
