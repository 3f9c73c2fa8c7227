"""What is measured, by name: real series where they are to be had, and a synthetic one that always is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from geostore.collection import Collection, Files, Policy
from geostore.demo import POLICY, VIRGINIA_ACQUIRED, romania, virginia
from geostore.errors import NotInstalled
from geostore.raster import Band, Bands, Grid
from geostore.scene import load_collection
from geostore.scene.synthetic import BANDS, Synthetic, write_scenes

DATA = Path(os.environ.get("GEOSTORE_DATA", Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Dataset:
    """A collection and the scenes that go into it.

    Attributes:
        name: its name in results.
        title: what it is, in words; says "synthetic" where it is.
        sources: files of all scenes.
        acquired: the time of scenes that tell none.
    """

    name: str
    title: str
    collection: Collection
    sources: list[Path]
    acquired: datetime | None = None


def load(name: str, folder: Path) -> Dataset | None:
    """The data set `name`, written to `folder` where it must be; None where its data are not on this machine."""
    try:
        return _MAKERS[name](folder / name)
    except NotInstalled:
        return None


def choose(quick: bool, folder: Path, *, seed: int = 0) -> list[Dataset]:
    """Every real data set that is here; a small synthetic one when `quick`, or when there is none."""
    if quick:
        return [_synthetic_small(folder / "synthetic", seed)]
    found = [d for name in ("peru", "virginia", "romania") if (d := load(name, folder)) is not None]
    return found or [_synthetic(folder / "synthetic", seed)]


def _romania(folder: Path) -> Dataset:
    place = romania(folder)
    return Dataset("romania", "Sentinel-2 L2A, 140 dates, 4 bands at 10 m", place.collection, place.sources)


def _virginia(_: Path) -> Dataset:
    title = "Sentinel-2 L1C, 1 date, 13 bands at 10, 20 and 60 m"
    files = sorted((DATA / "s2_l1c_virginia_scene").glob("*.tif"))
    if files:
        collection = replace(
            load_collection("sentinel-2-l1c"), name="virginia", policy=POLICY, files=Files(baseline="02.04")
        )
        return Dataset("virginia", title, collection, files, VIRGINIA_ACQUIRED)
    place = virginia()
    return Dataset("virginia", title, place.collection, place.sources, place.acquired)


def _peru(_: Path) -> Dataset:
    files = sorted((DATA / "landsat_peru_timeseries").glob("*.tif"))
    if not files:
        raise NotInstalled(f"no scenes in {DATA / 'landsat_peru_timeseries'}; set GEOSTORE_DATA")
    names = ("swir16", "nir", "red", "green")
    bands = Bands(
        tuple(Band(n, n, 90.0, dtype="uint8", scale=1 / 255, valid_max=255, nodata=None, kind="counts") for n in names)
    )
    collection = Collection(
        name="peru",
        groups={"90m": bands},
        indices=(),
        policy=replace(POLICY, index_mae_max=None),
        time_pattern="([0-9]{4})|%Y",
        files=Files(positional=names, nodata="collection"),
    )
    return Dataset("peru", "Landsat 8-bit stretches, 8 dates, 4 bands at 90 m", collection, files)


def _synthetic(folder: Path, seed: int) -> Dataset:
    return _made(folder, Synthetic(seed=seed, dates=40))


def _synthetic_small(folder: Path, seed: int) -> Dataset:
    grid = Grid("EPSG:32633", 500_000.0, 5_500_000.0, 10.0, 10.0, 48, 48)
    return _made(folder, Synthetic(seed=seed, dates=3, grid=grid))


def _made(folder: Path, synthetic: Synthetic) -> Dataset:
    collection = Collection(
        name="synthetic", groups={"10m": BANDS}, policy=Policy(), files=Files(positional=BANDS.names, nodata="file")
    )
    title = f"synthetic, {synthetic.dates} dates, 4 bands at 10 m"
    return Dataset("synthetic", title, collection, write_scenes(synthetic, folder))


_MAKERS: dict[str, Callable[[Path], Dataset]] = {
    "romania": _romania,
    "peru": _peru,
    "virginia": _virginia,
}
