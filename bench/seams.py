"""Border error over interior error where decoded neighbouring cells are put together, for every mode of every codec."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bench.datasets import Dataset, load
from bench.harness import Bench, median, run, workplace
from geostore.classical import KltAv1Family
from geostore.codec import Codec, CodecFamily, Effort, RawCodec, Series, decode_many, quiet
from geostore.collection import Collection, Files, Policy
from geostore.connection import connect
from geostore.dct import KltDctFamily
from geostore.ingest import ingest
from geostore.partition.join import join, seam
from geostore.raster import Grid, Pixels, Raster
from geostore.scene.synthetic import BANDS, Synthetic, write_scenes
from geostore.vae.borrow import borrow_codec
from geostore.vae.fit import Domain, fit_codec
from geostore.vae.sizing import NO_NETWORK, sized

BAR = 1.2
STEPS = 300
CELLS = 4  # neighbours that are put together
_DATES = 4  # mosaics looked at of each data set
FREE = Policy(mse_max=None, index_mae_max=None)
MSE = replace(FREE, mse_max=5e-4)
BOUND = replace(FREE, max_error=0.02)
NDVI = replace(FREE, index_mae_max=0.05)
Make = Callable[[Series, Effort], Codec | None]


@dataclass(frozen=True)
class Cell:
    """One cell's rasters as a series on the box of them all, and where that lies."""

    series: Series
    grid: Grid

    def raster(self, date: int, pixels: np.ndarray | None = None) -> Raster:
        """One date, or `pixels` in its place."""
        shown = self.series.pixels[date] if pixels is None else pixels
        return Raster(pixels=shown, valid=self.series.valid[date], bands=self.series.bands, grid=self.grid)


def _of(family: CodecFamily, policy: Policy) -> Make:
    return lambda series, effort: family.fit(series, policy=policy, effort=effort, progress=quiet)


def _own(policy: Policy, domain: Domain = "linear") -> Make:
    return lambda series, effort: fit_codec(
        series, "grid", policy=policy, effort=effort, progress=quiet, plan=sized(len(series.bands), 3), domain=domain
    )


MODES: dict[str, Make] = {
    "lossless": lambda series, _: RawCodec(series.bands),
    "klt-av1": _of(KltAv1Family(), MSE),
    "klt-av1, largest error": _of(KltAv1Family(), BOUND),
    "klt-av1, NDVI alone, logarithms": _of(KltAv1Family(), NDVI),
    "klt-dct": _of(KltDctFamily(), MSE),
    "klt-dct, NDVI alone, logarithms": _of(KltDctFamily(), NDVI),
    "vae, own network": _own(MSE),
    "vae, own network, logarithms": _own(MSE, "log"),
    "vae, largest error": _own(BOUND),
    "vae, base": lambda series, effort: borrow_codec(series, policy=MSE, effort=replace(effort, steps=0)),
    "vae, base and delta": lambda series, effort: borrow_codec(series, policy=MSE, effort=effort, delta="whole"),
    "vae, no network": lambda s, e: fit_codec(s, "grid", policy=MSE, effort=e, progress=quiet, plan=NO_NETWORK),
    "vae-flat": lambda s, e: fit_codec(s, "flat", policy=FREE, effort=e, progress=quiet),
    "vae-flat-single": lambda s, e: fit_codec(s, "flat-single", policy=FREE, effort=e, progress=quiet),
}
QUICK = ("lossless", "klt-av1", "vae, no network")


def measure(bench: Bench) -> None:
    """Each mode on each data set, bytes aside: a place gets the mode whether it pays there or not."""
    with workplace() as folder:
        for dataset in _datasets(bench, folder):
            cells = _cells(dataset, folder)
            for mode in QUICK if bench.quick else MODES:
                _measured(bench, dataset, cells, mode)
                bench.write()
    for mode in MODES:
        found = [r["seam"] for r in bench.rows if r["mode"] == mode and r["seam"] is not None]
        if found:
            value, what = None if bench.quick else median(found), "error of pixels inside cells; median over mosaics"
            bench.figure(f"{mode}.seam", value, bar=BAR, better="lower", baseline=what, n=len(found))


def _datasets(bench: Bench, folder: Path) -> Iterator[Dataset]:
    if not bench.quick:
        peru = load("peru", folder)
        yield from [peru] if peru is not None else []
    side, dates = (60, 2) if bench.quick else (180, 16)
    grid = Grid("EPSG:32633", 500_000.0, 5_500_000.0, 10.0, 10.0, side, side)
    made = Synthetic(seed=bench.seed, grid=grid, dates=dates, cloud_share=0.0, swath_share=0.0, haze=0.0)
    files = Files(positional=BANDS.names, nodata="file")
    collection = Collection(name="synthetic", groups={"10m": BANDS}, precision=6, indices=("NDVI",), files=files)
    title = f"synthetic, {dates} dates, cells of about 100 pixels"
    yield Dataset("synthetic", title, collection, write_scenes(made, folder / "synthetic"))


def _cells(dataset: Dataset, folder: Path) -> list[Cell]:
    """The first CELLS cells, all neighbours, of the cell one level up that holds the most rasters."""
    with connect(folder / f"store-{dataset.name}", create=True) as client:
        ingest(client, dataset.sources, dataset.collection, acquired=dataset.acquired)
        prefix = Counter(info.key.geohash[:-1] for info in client.rasters()).most_common(1)[0][0]
        found: dict[str, list[tuple[int, Raster]]] = defaultdict(list)
        for info, raster in client.decode_rasters(client.rasters(prefix)):
            found[info.key.geohash].append((info.key.time_us, raster))
    dates = Counter(time for rasters in found.values() for time, _ in rasters)
    whole = [c for c in sorted(found) if len(found[c]) == len(dates)]
    return [_cell(sorted(found[c], key=lambda r: r[0]), dataset.collection.indices) for c in whole[:CELLS]]


def _cell(rasters: list[tuple[int, Raster]], indices: tuple[str, ...]) -> Cell:
    box = join([raster for _, raster in rasters])
    pixels, valid = [], []
    for _, raster in rasters:
        row, col = box.grid.offset_of(raster.grid) or (0, 0)
        inside = slice(row, row + raster.grid.height), slice(col, col + raster.grid.width)
        pixels.append(np.zeros_like(box.pixels))
        valid.append(np.zeros_like(box.valid))
        pixels[-1][(slice(None), *inside)], valid[-1][inside] = raster.pixels, raster.valid
    times = np.array([time for time, _ in rasters], np.int64)
    reflectance = all(band.kind == "reflectance" for band in box.bands)
    made = Series(
        pixels=np.stack(pixels),
        valid=np.stack(valid),
        times_us=times,
        bands=box.bands,
        indices=indices if reflectance else (),
    )
    return Cell(made, box.grid)


def _measured(bench: Bench, dataset: Dataset, cells: list[Cell], mode: str) -> None:
    """One row a mosaic, beside it the same figure where nothing was cut; none where the mode is not for such bands."""
    effort = Effort(steps=2 if bench.quick else STEPS, seed=bench.seed, device="cpu")
    whole = _together(cells)
    decoded = [_decoded(mode, cell.series, effort) for cell in (*cells, whole)]
    for date in np.unique(np.linspace(0, len(whole.series) - 1, _DATES).round().astype(int)).tolist():
        parts = [c.raster(date, found[date]) for c, found in zip(cells, decoded[:-1], strict=True) if found]
        if len(parts) < max(len(cells), 2) or decoded[-1] is None:
            return
        truth, uncut = whole.raster(date), whole.raster(date, decoded[-1][date])
        figures = [seam(truth, shown, dataset.collection.precision) for shown in (join(parts), uncut)]
        bench.row(data=dataset.name, mode=mode, cells=len(cells), date=date, seam=figures[0], uncut=figures[1])
    print(bench.rows[-1], flush=True)


def _decoded(mode: str, series: Series, effort: Effort) -> list[Pixels] | None:
    """Every date as it decodes; None where the mode is not for such bands."""
    if "logarithms" in mode and any(band.kind != "reflectance" for band in series.bands):
        return None
    codec = MODES[mode](series, effort)
    if codec is None:
        return None
    frames = zip(codec.encode_series(series), series.valid, strict=True)
    return decode_many(codec, [(e.shared, (e.payload, valid)) for e, valid in frames])


def _together(cells: list[Cell]) -> Cell:
    """All cells as one: what a seam is held against, since a border may lie where pixels are harder than elsewhere."""
    first = cells[0].series
    whole = [join([cell.raster(date) for cell in cells]) for date in range(len(first))]
    pixels, valid = np.stack([r.pixels for r in whole]), np.stack([r.valid for r in whole])
    return Cell(replace(first, pixels=pixels, valid=valid), whole[0].grid)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(measure, "seams")
