"""A base of a store's own places: what is held out stays held out, and what no fit would use is not trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geostore.certificate import Certificate
from geostore.client import Client
from geostore.collection import Collection, Policy
from geostore.connection import connect
from geostore.errors import BandMismatch, InvalidInput
from geostore.ingest import ingest
from geostore.keys import RasterKey
from geostore.query.facts import RasterInfo
from geostore.raster import Band, Bands, Grid, Raster
from geostore.scene.writer import write_cog
from geostore.settings import Settings
from geostore.train_base import _spots, train_base

BANDS = Bands((Band("index", "index", 10.0, dtype="float32", valid_min=-1, valid_max=1, kind="index"),))
DATES, SIDE = 5, 40


def infos(cells: list[str], dates: int = 3) -> list[RasterInfo]:
    """Facts of rasters as a store lists them: by place, then time."""
    return [
        RasterInfo(
            key=RasterKey("farm", cell, "10m", t, "s"), scene="", generation=0, codec="raw", tier="waiting", layers="",
            bytes=1, bytes_shared=0, bytes_valid=1, bytes_lzw=1, bytes_jxl=1, grid=Grid("EPSG:32634", 0, 0, 1, 1, 8, 8),
            bands=BANDS, exact=True, certificate=Certificate.without_error(),
        )
        for cell in sorted(cells)
        for t in range(dates)
    ]  # fmt: skip


def sides(cells: list[str], places: int = 500) -> tuple[set[str], set[str]]:
    """Names of the places that are learned from, and of those that are held out."""
    spots = _spots(infos(cells), places, seed=7)
    named = [{s.infos[0].key.geohash for s in spots if s.held_out is side} for side in (False, True)]
    return named[0], named[1]


def test_no_place_changes_sides():
    """Proves that whatever is ingested or asked for in between, what was learned from is never held out later."""
    cells = [f"u{i:03d}" for i in range(200)]
    learned: set[str] = set()
    for count, places in ((3, 500), (10, 4), (10, 500), (60, 20), (200, 2), (200, 500), (200, 30)):
        taught, apart = sides(cells[:count], places)
        assert taught
        assert apart
        assert not apart & learned
        learned |= taught
    taught, apart = sides(cells)
    assert 0.06 < len(apart) / len(cells) < 0.2
    assert not sides([])[0]
    assert _spots(infos(["u1", "u2"], dates=2), 9, 0) == []  # too few dates


def write(path: Path, t: int, grid: Grid) -> Path:
    """One date of a smooth field, half of it without values."""
    y, x = np.mgrid[0 : grid.height, 0 : grid.width] / 9
    plane = (0.4 * np.sin(x + t) * np.cos(y) + 0.1 * t).astype(np.float32)[None]
    valid = np.broadcast_to(y < 3, plane.shape[1:]).copy()
    write_cog(
        path, Raster(pixels=np.where(valid, plane, -1).astype(np.float32), valid=valid, bands=BANDS, grid=grid), {}
    )
    return path


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Two cells of one float32 band, rasters on different windows of them."""
    root = tmp_path_factory.mktemp("train")
    collection = Collection(
        name="farm", groups={"10m": BANDS}, policy=Policy(mse_max=1e-4, index_mae_max=None), indices=(),
        time_pattern="([0-9]{8})|%Y%m%d",
    )  # fmt: skip
    files = [
        write(
            root / f"s_2020050{t + 1}.tif", t, Grid("EPSG:32634", 589_880.0 - 40 * t, 5_005_880.0, 10.0, 10.0, SIDE, 64)
        )
        for t in range(DATES)
    ]
    with connect(str(root / "store"), create=True, settings=Settings(workers=1)) as opened:
        ingest(opened, files, collection)
        yield opened


def test_one_band_of_floats_on_windows_of_their_own(client: Client, tmp_path: Path) -> None:
    """Proves that rasters on different windows are learned from together, one band and float32 too."""
    (collection,) = client.collections()
    assert len(client.cells("farm")) == 2
    made = train_base(client, collection, tmp_path / "new" / "b.safetensors", seconds=0.3)
    assert made.base.layout.bands == 1
    assert (made.places, made.held_out, made.rasters) == (1, 1, DATES)
    assert set(made.bytes_a_raster) == {"this base", "no network"}  # no base that ships takes such a band
    assert made.base.card["trained_on"]["collection"] == "farm"


def test_what_no_fit_would_use_is_not_trained(client: Client, tmp_path: Path) -> None:
    """Proves that policies without the learned codec or in logarithms, and unclear groups, are refused at once."""
    (collection,) = client.collections()
    out = tmp_path / "b.safetensors"
    for policy, said in ((Policy(codec="raw", rivals=()), "codecs raw, none of which"), (Policy(domain="log"), "log")):
        with pytest.raises(InvalidInput, match=said):
            train_base(client, replace(collection, policy=policy), out)
    other = Bands((replace(BANDS.items[0], name="other", source="other"),))
    two = replace(collection, groups={"10m": BANDS, "20m": other})
    with pytest.raises(InvalidInput, match="band groups 10m, 20m; name one"):
        train_base(client, two, out)
    with pytest.raises(BandMismatch, match="no band group '60m'"):
        train_base(client, two, out, group="60m")
    with pytest.raises(InvalidInput, match="1 places for"):
        train_base(client, collection, out, places=1)
    assert not list(tmp_path.iterdir())
