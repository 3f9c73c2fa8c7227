"""Originals that stay where they came from: read again only while they hold what was put."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geostore.client import Client
from geostore.collection import Collection, Files, Policy
from geostore.connection import connect
from geostore.errors import InvalidInput, NotFound
from geostore.ingest import ingest
from geostore.keys import RasterKey, from_time_us
from geostore.node.mosaic import Placed
from geostore.node.reference import refer
from geostore.query.messages import SceneFields
from geostore.raster import Grid, Raster
from geostore.scene.synthetic import Synthetic
from geostore.scene.writer import write_cog
from geostore.settings import Settings

SETTINGS = Settings(workers=1, fit_steps=2)
GRID = Grid("EPSG:32634", 604_000.0, 5_003_000.0, 40.0, 40.0, 60, 80)
PLACE = Synthetic(seed=5, grid=GRID, dates=5, cloud_share=0.0, swath_share=0.0, haze=0.0)
POLICY = Policy(mse_max=2e-2, original="reference", rivals=())


def collection(**changes: object) -> Collection:
    made = Collection(
        name="place",
        groups={"40m": PLACE.bands},
        policy=POLICY,
        precision=4,
        product="sentinel-2-l2a",
        files=Files(baseline="05.10"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def write(folder: Path, t: int, tile: str, columns: slice) -> np.ndarray:
    """Some columns of one date as a Sentinel-2 product of one file, under its own name; its stored values."""
    each = PLACE.date(t)
    name = f"S2A_MSIL2A_{from_time_us(each.time_us):%Y%m%dT%H%M%S}_N0510_R007_T{tile}_20250101T000000"
    part = GRID.window(0, columns.start, GRID.height, columns.stop - columns.start)
    pixels = np.ascontiguousarray(each.raster.pixels[:, :, columns])
    folder.mkdir(parents=True, exist_ok=True)
    raster = Raster(pixels=pixels, valid=np.ones(part.shape, bool), bands=PLACE.bands, grid=part)
    write_cog(folder / f"{name}.tif", raster, hidden="keep")
    return pixels


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Five dates; the last one in two halves, one scene each."""
    for t in range(PLACE.dates - 1):
        write(tmp_path / "scenes", t, "34TAA", slice(0, GRID.width))
    write(tmp_path / "scenes", PLACE.dates - 1, "34TAA", slice(0, 45))
    write(tmp_path / "scenes", PLACE.dates - 1, "34TAB", slice(45, GRID.width))
    return tmp_path / "scenes"


def fitted(client: Client, scenes: Path) -> None:
    """Everything under `scenes` taken in, fitted, and nothing lossless left of it."""
    ingest(client, [scenes], collection())
    client.fit()
    client.prune(now=True)
    assert {i.tier for i in client.rasters()} == {"embedding"}


def originals(client: Client) -> list[Raster]:
    return [raster for _, raster in client.decode_rasters(client.rasters(), tier="original")]


def test_a_referenced_original_is_read_from_its_scene(tmp_path: Path, scenes: Path) -> None:
    """After a fit and a prune, every date comes back as the scenes hold it, mosaicked ones too."""
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        fitted(client, scenes)
        infos = client.rasters()
        assert len(infos) == PLACE.dates
        assert "+" in infos[-1].scene
        for t, (info, raster) in enumerate(client.decode_rasters(infos, tier="original")):
            row, col = raster.grid.offset_of(GRID) or (0, 0)
            window = raster.pixels[:, row : row + GRID.height, col : col + GRID.width]
            assert np.array_equal(window, PLACE.date(t).raster.pixels)
            assert info.exact


def test_a_scene_that_changed_or_went_is_refused(tmp_path: Path, scenes: Path) -> None:
    """One value changed, another date under the name, a damaged file, no file: each is not-found, and says which."""
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        fitted(client, scenes)
        first, second = sorted(scenes.iterdir())[:2]
        sound = first.read_bytes()
        each = PLACE.date(0).raster
        touched = each.pixels.copy()
        touched[1, 20, 30] += 1
        write_cog(first, replace(each, pixels=touched), hidden="keep")
        with pytest.raises(NotFound, match=rf"{first.name}.*put the file back.*tier best"):
            originals(client)
        shutil.copyfile(second, first)
        with pytest.raises(NotFound, match="does not hold the pixels"):
            originals(client)
        first.write_bytes(sound[: len(sound) // 2])
        with pytest.raises(NotFound, match=first.name):
            originals(client)
        first.unlink()
        with pytest.raises(NotFound, match="does not exist"):
            originals(client)
        first.write_bytes(sound)
        assert len(originals(client)) == PLACE.dates


def test_a_reference_needs_a_source(tmp_path: Path) -> None:
    """A put under that policy without a source is refused before anything is stored."""
    with connect(tmp_path / "store", create=True, settings=SETTINGS) as client:
        client.put_collection(collection())
        facts = SceneFields(id="s", time_us=0, source="")
        from geostore.partition.split import split

        class Source:
            grids = {"40m": GRID}  # noqa: RUF012

            def read(self, group: str, grid: Grid) -> Raster:
                valid = np.ones(grid.shape, bool)
                return Raster(
                    pixels=np.full((4, *grid.shape), 500, np.uint16), valid=valid, bands=PLACE.bands, grid=grid
                )

        with pytest.raises(InvalidInput, match="has no source"):
            client.put("place", facts, split(Source(), precision=4))
        assert client.rasters() == []


def test_the_digest_of_a_reference_is_what_it_always_was() -> None:
    """A raster put by an older program still counts: how masks are kept in rows has changed since, this has not."""
    valid = np.add.outer(np.arange(60) / 3, np.arange(80)) < 70
    pixels = (np.arange(4 * 60 * 80).reshape(4, 60, 80) % 9999).astype(np.uint16)
    raster = Raster(pixels=pixels, valid=valid, bands=PLACE.bands, grid=GRID)
    placed = Placed(RasterKey("place", "u2h0", "40m", 0, "x"), 3, 5, raster, "s")
    assert refer(placed, SceneFields(id="s", time_us=0, source="s.tif")) == "ref:40be452c6e268087db0273908c498bd9"
