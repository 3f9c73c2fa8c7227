"""The main job on real series: ingest, fit, prune, decode, verify; every raster certified and within its policy."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import rasterio

from geostore.certificate import measure
from geostore.client import Client
from geostore.collection import Collection, Files, Policy
from geostore.connection import connect
from geostore.estimate import estimate
from geostore.ingest import ingest
from geostore.keys import RasterKey
from geostore.raster import Band, Bands, Raster
from geostore.report.figures import place_bytes
from geostore.scene import load_collection
from geostore.settings import Settings

DATA = Path(os.environ.get("GEOSTORE_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETTINGS = Settings(fit_steps=60, fit_seconds=20)
pytestmark = [pytest.mark.data, pytest.mark.slow]


def peru(folder: Path) -> tuple[list[Path], Collection]:
    """The western half of each scene's northern half."""
    names = ("swir16", "nir", "red", "green")
    bands = Bands(tuple(Band(n, n, 90.0, "uint8", 1 / 255, valid_max=255) for n in names))
    files = Files(positional=names, nodata="collection")
    policy = Policy(rivals=("klt-av1",))  # one of them: so many cells are many for a test
    collection = Collection(
        name="peru", groups={"90m": bands}, files=files, time_pattern="_([0-9]{4})[.]tif|%Y", policy=policy
    )
    return [quarter(path, folder) for path in sorted((DATA / "landsat_peru_timeseries").glob("*.tif"))], collection


def quarter(path: Path, folder: Path) -> Path:
    """The pixels of a raster's upper left quarter as a file of the same name."""
    with rasterio.open(path) as whole:
        height, width = whole.height // 2, whole.width // 2
        with rasterio.open(folder / path.name, "w", **{**whole.profile, "height": height, "width": width}) as part:
            part.write(whole.read(window=((0, height), (0, width))))
    return folder / path.name


def laos(folder: Path) -> tuple[list[Path], Collection]:
    preset = load_collection("sentinel-2-l2a")
    collection = replace(preset, name="laos", masks=(), files=Files(baseline="05.00"))
    return sorted((DATA / "s2_l2a_laos_scene").glob("*_B*.tif")), collection


@pytest.mark.timeout(1200)  # cells are fitted, 2 to 3 seconds of a core each
@pytest.mark.parametrize(("place", "cells", "pieces"), [(peru, 32, 256), (laos, 12, 36)])
def test_a_real_series_is_kept_within_its_policy(place, cells: int, pieces: int, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Every stored raster decodes within the bounds, as certified, after the lossless rows are gone; as estimated."""
    if not DATA.is_dir():
        pytest.skip(f"no development data at {DATA}; set GEOSTORE_DATA")
    sources, collection = place(tmp_path)
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        ingest(client, sources, collection)
        infos = client.rasters(collection=collection.name)
        assert len({i.key.geohash for i in infos}) == cells
        assert len(infos) == pieces
        originals = {i.key: r for i, r in client.decode_rasters(infos[:: max(1, len(infos) // 40)])}
        client.fit()
        never_larger(client)
        client.prune(now=True)
        client.compact(now=True)
        status = client.status()
        print(collection.name, {k: status[k] for k in ("tiers", "ratio_embeddings", "ratio_stored", "ratio_durable")})
        assert status["quality"]["missed"] == 0
        assert status["tiers"].get("waiting", 0) == 0
        assert client.verify()["ok"]
        expected = estimate(sources, collection, steps=SETTINGS.fit_steps)
        assert expected.scenes == status["scenes"]
        assert expected.partitions == pytest.approx(status["partitions"], rel=0.1)
        for name in ("lzw", "jxl", "stored"):
            low, high = getattr(expected, f"bytes_{name}_interval")
            seen = status["bytes"][name if name == "stored" else f"source_{name}"]
            print(f"{collection.name}, {name}: {low} to {high} expected, {seen} seen")
            assert low <= seen <= high, name
        fitted = [i for i in client.rasters(collection=collection.name) if i.key in originals]
        for info, raster in client.decode_rasters(fitted):
            check(info.key, originals[info.key], raster, collection.policy)


def never_larger(client: Client) -> None:
    """No partition takes more bytes than the classical codec, or the lossless one, did in the same fit."""
    for p in client.status(partitions=True)["per_partition"]:
        tried = {
            name: int(size.replace(",", "")) for name, size in re.findall(r"([a-z0-9-]+) ([0-9,]+) B", p["reason"])
        }
        assert {"klt-av1", "klt-dct"} & set(tried), p["reason"]
        assert "lossless" in tried, p["reason"]
        assert place_bytes(p) <= min(tried.values()), p


def check(key: RasterKey, original: Raster, decoded: Raster, policy: Policy) -> None:
    """The decoded raster, cropped to the original's window, keeps the policy."""
    at = decoded.grid.offset_of(original.grid)
    assert at is not None, key
    (top, left), (height, width) = at, original.grid.shape
    pixels = decoded.pixels[:, top : top + height, left : left + width]
    indices = ("NDVI",) if {"red", "nir"} <= set(original.bands.names) else ()
    assert measure(original.pixels, pixels, original.valid, original.bands, indices).keeps(policy), key
