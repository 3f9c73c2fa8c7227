"""Border error over interior error where neighbouring cells are decoded and put together, for every codec."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.datasets import Dataset, load
from bench.harness import Bench, median, run, workplace
from geostore.client import Client
from geostore.collection import Collection, Files, Policy
from geostore.connection import connect
from geostore.ingest import ingest
from geostore.partition.join import join, seam
from geostore.query.facts import RasterInfo
from geostore.raster import Grid, Raster
from geostore.scene.synthetic import BANDS, Synthetic, write_scenes

CODECS = ("klt-av1", "vae", "vae-flat", "vae-flat-single")
BAR = 1.2
STEPS = 300
POLICY = Policy(mse_max=5e-4, index_mae_max=None, rivals=())
LOOSE = replace(POLICY, mse_max=5e-3)  # for the flat modes, which come no nearer in few steps
_DATES = 4  # scenes joined of each series
Mosaics = dict[tuple[str, int], Sequence[tuple[RasterInfo, Raster]]]  # by band group and time


def measure(bench: Bench) -> None:
    """Each data set through each codec alone; rasters that are kept lossless have no error and count nowhere."""
    with workplace() as folder:
        for dataset in _datasets(bench, folder):
            for codec in CODECS[:2] if bench.quick else CODECS:
                _measured(bench, dataset, codec, folder)
                bench.write()
    for codec in CODECS:
        found = [r["seam"] for r in bench.rows if r["codec"] == codec and r["seam"] is not None]
        if found:
            value, what = None if bench.quick else median(found), "error of pixels inside cells; median over mosaics"
            bench.figure(f"{codec}.seam", value, bar=BAR, better="lower", baseline=what, n=len(found))


def _datasets(bench: Bench, folder: Path) -> Iterator[Dataset]:
    if not bench.quick:
        peru = load("peru", folder)
        yield from [peru] if peru is not None else []
    side, dates = (60, 2) if bench.quick else (240, 24)
    grid = Grid("EPSG:32633", 500_000.0, 5_500_000.0, 10.0, 10.0, side, side)
    made = Synthetic(seed=bench.seed, grid=grid, dates=dates, cloud_share=0.0, swath_share=0.0, haze=0.0)
    files = Files(positional=BANDS.names, nodata="file")
    collection = Collection(name="synthetic", groups={"10m": BANDS}, precision=6, indices=("NDVI",), files=files)
    title = f"synthetic, {dates} dates, cells of about 100 pixels"
    yield Dataset("synthetic", title, collection, write_scenes(made, folder / "synthetic"))


def _measured(bench: Bench, dataset: Dataset, codec: str, folder: Path) -> None:
    policy = LOOSE if codec.startswith("vae-flat") else POLICY
    collection = replace(dataset.collection, policy=replace(policy, codec=codec))
    with connect(folder / f"{dataset.name}-{codec}", create=True) as client:
        ingest(client, dataset.sources, collection, acquired=dataset.acquired)
        prefix = _crowded(client)
        truth = _mosaics(client, prefix)
        client.fit(geohash=prefix, steps_max=2 if bench.quick else STEPS, seed=bench.seed)
        for key, cells in _mosaics(client, prefix).items():
            coded = [raster for info, raster in map(_only_coded, cells) if raster.valid.any()]
            whole = join([raster for _, raster in truth[key]])
            figure = seam(whole, join(coded), collection.precision) if len(coded) > 1 else None
            bench.row(data=dataset.name, codec=codec, group=key[0], cells=len(cells), coded=len(coded), seam=figure)


def _crowded(client: Client) -> str:
    """The cell one level up that holds the most rasters: its cells are neighbours."""
    return Counter(info.key.geohash[:-1] for info in client.rasters()).most_common(1)[0][0]


def _mosaics(client: Client, prefix: str) -> Mosaics:
    """Decoded rasters of a few times, by what belongs together."""
    found: dict[tuple[str, int], list[RasterInfo]] = defaultdict(list)
    for info in client.rasters(prefix):
        found[info.key.group, info.key.time_us].append(info)
    chosen = [sorted(found)[i] for i in np.unique(np.linspace(0, len(found) - 1, _DATES).round().astype(int))]
    return {key: client.decode_rasters(found[key]) for key in chosen}


def _only_coded(cell: tuple[RasterInfo, Raster]) -> tuple[RasterInfo, Raster]:
    """The same, with nothing valid in a raster that is kept lossless."""
    info, raster = cell
    exact = info.layers == "lossless"
    return info, replace(raster, valid=np.zeros_like(raster.valid)) if exact else raster


if __name__ == "__main__":
    run(measure, "seams")
